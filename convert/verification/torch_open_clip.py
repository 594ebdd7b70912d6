"""A source's model in open_clip's own classes, where that library is installed.

Imported only where PyTorch is needed.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from convert.readers import open_clip, open_clip_sizes
from convert.readers.source import Source
from convert.verification import torch_stand_in
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig

# What the constructors take of a model's settings.
_TAKEN = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "nonscalar_logit_scale")
_TAKEN += ("init_logit_bias",)


@dataclasses.dataclass(frozen=True)
class Twin:
    """A model of open_clip's.

    Attributes:
      model: of its settings, without its tensors.
      title: the library's version and the architecture, for messages.
    """

    model: torch.nn.Module
    title: str


def find(origin: Source, config: CLIPConfig, image_size: int) -> Twin | None:
    """The source's model; None if the library is not there, or has no architecture of its sizes.

    Args:
      origin: a directory of open_clip's, or a file with its names.
      config: of the source, with its activation.
      image_size: in pixels, of the model to be made.

    Raises:
      UserError: the library cannot make the model of a directory's settings.
    """
    library = _library()
    if library is None:
        return None
    if origin.path.is_dir():
        name, settings = origin.path.name, open_clip.model_settings(origin.path)
    else:
        name, settings = next(_fitting(library, config, origin.tensors), (None, None))
    is_timm = settings is not None and "timm_model_name" in settings["vision_cfg"]
    if settings is None or (is_timm and image_size != config.image_size):
        # timm interpolates positions in another way than here.
        return None
    settings = {key: settings[key] for key in _TAKEN if key in settings}
    settings["vision_cfg"] = settings["vision_cfg"] | {"image_size": image_size}
    settings["nonscalar_logit_scale"] = False
    try:
        model = _class_of(library, origin.tensors)(**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{origin.path}: open_clip cannot make its model ({reason})") from error
    return Twin(model.eval(), f"open_clip {library.__version__}'s {name}")


def _class_of(library, names):
    """Of a model whose tensors have these names."""
    apart = any(name.startswith("text.") for name in names)
    return library.CustomTextCLIP if apart else library.CLIP


def _library():
    """open_clip, with or without torchvision, which it imports; None if it is not there."""
    return torch_stand_in.import_library("open_clip")


def _fitting(library, config: CLIPConfig, tensors=None) -> Iterator[tuple[str, dict]]:
    """The library's architectures of these settings, by name; with `tensors` of their shapes."""
    wanted = dataclasses.asdict(config)
    for name in library.list_models():
        settings = library.get_model_config(name)
        try:
            said = open_clip.tower_settings(settings, name)
        except UserError:
            continue
        sizes = open_clip_sizes.read(settings)
        if said.items() <= wanted.items() and sizes.items() <= wanted.items():
            is_timm = "timm_model_name" in settings["vision_cfg"]
            if not is_timm or tensors is None or _has_shapes(library, settings, tensors):
                yield name, settings


def _has_shapes(library, settings: dict, tensors) -> bool:
    taken = {key: settings[key] for key in _TAKEN if key in settings}
    with torch.device("meta"):
        model = _class_of(library, tensors)(**taken)
    return all(
        name in tensors and tuple(np.shape(tensors[name])) == tuple(parameter.shape)
        for name, parameter in model.named_parameters()
    )
