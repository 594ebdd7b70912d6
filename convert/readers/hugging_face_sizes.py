"""The sizes that a `config.json` of transformers says: tensors show them, too, and are held to it.

What a file leaves out has transformers' default, as its own model has.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping

from glscl_jax.errors import UserError

# Of a `CLIPConfig` -> where it is said. Widths come first: others are told by them.
_KEYS = {
    "vision_width": "vision_config.hidden_size",
    "text_width": "text_config.hidden_size",
    "vision_layers": "vision_config.num_hidden_layers",
    "text_layers": "text_config.num_hidden_layers",
    "vision_mlp_width": "vision_config.intermediate_size",
    "text_mlp_width": "text_config.intermediate_size",
    "patch_size": "vision_config.patch_size",
    "image_size": "vision_config.image_size",
    "context_length": "text_config.max_position_embeddings",
    "vocab_size": "text_config.vocab_size",
}
_OF_CLIP = {"embed_dim": "projection_dim"}
_OF_KIND = {
    "clip": _OF_CLIP,
    "metaclip_2": _OF_CLIP,
    "siglip": {"embed_dim": "text_config.projection_size"},
    "videoprism": {
        "vision_layers": "vision_config.num_spatial_layers",
        "time_layers": "vision_config.num_temporal_layers",
        "auxiliary_layers": "vision_config.num_auxiliary_layers",
        "time_positions": "vision_config.num_frames",
        "patch_size": "vision_config.tubelet_size",
    },
}
# That a model can be without.
_MAY_BE_0 = ("auxiliary_layers",)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a config says of them.

    Attributes:
      settings: by their names in `CLIPConfig`.
      keys: of the same, where each is said.
      image_size: in pixels, as the config has it: 384, of which patches of 14 cover 378.
    """

    settings: Mapping[str, int | None]
    keys: Mapping[str, str]
    image_size: int


def read(kind: str, config, path: pathlib.Path) -> Sizes:
    """The sizes of a config of transformers.

    Args:
      kind: its `model_type`.
      config: as transformers has read it.
      path: of the file, for messages.

    Raises:
      UserError: naming a size that is none.
    """
    keys = _KEYS | _OF_KIND[kind]
    found = {}
    for name, key in keys.items():
        value = config
        for word in key.split("."):
            value = getattr(value, word, None)
        if name in ("patch_size", "image_size"):
            value = _side(f"{path}: {key}", value)
        found[name] = _whole(f"{path}: {key}", value, 0 if name in _MAY_BE_0 else 1)
    image_size = found["image_size"]
    found["image_size"] -= image_size % found["patch_size"]
    for tower in ("vision", "text"):
        usual = 4 * found[f"{tower}_width"]
        if found[f"{tower}_mlp_width"] == usual:
            found[f"{tower}_mlp_width"] = None
    return Sizes(found, keys, image_size)


def check_tower(where: str, tower) -> None:
    """Raises a `UserError` for numbers of a tower that no tensors show and that are none."""
    _whole(f"{where}.num_attention_heads", tower.num_attention_heads)
    for name in ("layer_norm_eps", "attn_logit_softcapping"):
        value = getattr(tower, name, 1.0)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value <= 0:
            raise UserError(f"{where}.{name} is {value!r}, not a number above 0: mend the file")


def _side(where: str, value):
    """That of a square, which may be said as its two; of a tubelet the last two."""
    if not isinstance(value, list | tuple) or not value:
        return value
    if any(one != value[-1] for one in value[-2:]):
        raise UserError(f"{where} {list(value)} is not square")
    return value[-1]


def _whole(where: str, value, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise UserError(f"{where} is {value!r}, not a whole number from {least} on: mend the file")
    return value
