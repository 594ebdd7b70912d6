"""A source's model in open_clip's own classes, where that library is installed.

Imported only where PyTorch is needed.
"""

import dataclasses
from collections.abc import Iterator

import torch

from convert.readers import open_clip
from convert.readers.source import Source
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig

# What the constructors take of a model's settings.
_TAKEN = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "nonscalar_logit_scale")


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
        name, settings = next(_fitting(library, config), (None, None))
    if settings is None:
        return None
    settings = {key: settings[key] for key in _TAKEN if key in settings}
    settings["vision_cfg"] = settings["vision_cfg"] | {"image_size": image_size}
    settings["nonscalar_logit_scale"] = False
    apart = any(name.startswith("text.") for name in origin.tensors)
    try:
        model = (library.CustomTextCLIP if apart else library.CLIP)(**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{origin.path}: open_clip cannot make its model ({reason})") from error
    return Twin(model.eval(), f"open_clip {library.__version__}'s {name}")


def _library():
    """open_clip; None if it, or torchvision, which it imports, is not there or does not fit."""
    try:
        import open_clip as library
    except (ImportError, RuntimeError, OSError):
        return None
    return library


def _fitting(library, config: CLIPConfig) -> Iterator[tuple[str, dict]]:
    """The library's architectures of these sizes and this activation, by name."""
    wanted = dataclasses.asdict(config)
    for name in library.list_models():
        settings = library.get_model_config(name)
        vision, text = settings["vision_cfg"], settings["text_cfg"]
        is_plain = not {"timm_model_name", "hf_model_name"} & (vision.keys() | text.keys())
        sizes = {
            "image_size": vision.get("image_size", 224),
            "patch_size": vision.get("patch_size", 16),
            "vision_width": vision.get("width", 768),
            "vision_layers": vision.get("layers", 12),
            "text_width": text.get("width", 512),
            "text_layers": text.get("layers", 12),
            "embed_dim": settings["embed_dim"],
            "context_length": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49_408),
            "activation": "quick_gelu" if settings.get("quick_gelu") else "gelu",
        }
        if is_plain and "multimodal_cfg" not in settings and sizes.items() <= wanted.items():
            yield name, settings
