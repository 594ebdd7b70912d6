"""VideoPrism's npz files: what they say beside sizes, and their heads, folded and unfolded.

google-deepmind/videoprism keeps an axis for the heads: a query's matrix is [D,H,D/H], or
[layers,D,H,D/H] in a stack. Folded it is [D,D], as `convert.naming.videoprism_names` has it; so
these files show how wide heads are, which PyTorch's do not.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from convert.naming.sizes import HIDDEN
from convert.naming.videoprism_names import NPZ
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS

_PATCHES = "params/vision_encoder/patch_projection/linear/kernel"
# With an axis for the heads and one for a head's dimensions at the end: all but post's bias.
_HEADS = re.compile(r".*/(?:self|pooling)_attention/(?:(?:query|key|value)/[wb]|post/w)")
_QUERY = re.compile(r".*/(self|pooling)_attention/query/w")
_TEXT = "params/text_encoder/"
_OWN = re.compile(r"params/(vision_encoder/|patch_projection/|contrastive_vision_pooler/).*")
_KINDS = {
    r".*/x_layers_\d+/.*": "not stacked (x_layers_0, ...): take the file that ends in "
    "_repeated.npz",
    r".*/(pre|post)_layer_norm/.*": "a giant one, with LayerNorms before and after each layer, "
    "which is not read",
}


@dataclasses.dataclass(frozen=True)
class Folded:
    """An array in another shape, read when NumPy asks for it.

    Attributes:
      stored: the array.
      shape: of as many numbers.
    """

    stored: np.ndarray
    shape: tuple[int, ...]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        values = np.asarray(self.stored).reshape(self.shape)
        return values.astype(dtype or values.dtype, copy=False)


def check(names: Iterable[str], path: pathlib.Path) -> None:
    """Raises a `UserError` in one line if an npz file is not of a video-text VideoPrism."""
    names = list(names)
    if not any(_OWN.fullmatch(name) for name in names):
        raise UserError(
            f"{path} is an npz file of another model (it has {', '.join(names[:3])}): of those "
            "VideoPrism's alone are read"
        )
    if not any(name.startswith(_TEXT) for name in names):
        raise UserError(
            f"{path} is a VideoPrism without a text tower: take a video-text one (flax_lvt_...)"
        )
    for pattern, kind in _KINDS.items():
        if any(re.fullmatch(pattern, name) for name in names):
            raise UserError(f"{path} is a VideoPrism and {kind}")


def fold(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by name without the heads' axes, and patches as squares.

    One that has not as many axes as it should stays as it is, to be listed as misshaped.
    """
    return {name: Folded(array, _folded(name, np.shape(array))) for name, array in tensors.items()}


def _folded(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if name == _PATCHES and len(shape) == 2:
        side = math.isqrt(shape[0] // 3)
        return (side, side, 3, shape[1]) if 3 * side**2 == shape[0] else shape
    if not _HEADS.fullmatch(name) or len(shape) < 2:
        return shape
    return (*shape[:-2], shape[-2] * shape[-1])


def unfold(tensors: Mapping[str, np.ndarray], config: CLIPConfig) -> dict[str, np.ndarray]:
    """The inverse of `fold`, for a model of this config."""

    def unfolded(name, array):
        if name == _PATCHES:
            return array.reshape(-1, array.shape[-1])
        if not _HEADS.fullmatch(name):
            return array
        blocks = config.text_blocks if name.startswith(_TEXT) else config.vision_blocks
        return array.reshape(*array.shape[:-1], blocks.heads, -1)

    return {name: unfolded(name, array) for name, array in tensors.items()}


def settings(tensors: Mapping[str, np.ndarray], path: pathlib.Path) -> dict[str, object]:
    """Of a `CLIPConfig`, all that folded arrays do not show: the published models', and the heads.

    Args:
      tensors: not folded.
      path: of the file, for messages.

    Raises:
      UserError: the vision tower's stacks have heads of different numbers.
    """
    known = VARIANTS["VideoPrism-B/18@288"]
    found = {name: getattr(known, name) for name in HIDDEN}
    shapes = {name: np.shape(x) for name, x in tensors.items() if _QUERY.fullmatch(name)}
    counts = {name: shape[-2] for name, shape in shapes.items() if len(shape) > 2}
    of_vision = {name: count for name, count in counts.items() if not name.startswith(_TEXT)}
    if len(set(of_vision.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in of_vision.items())
        raise UserError(f"{path}: heads of different numbers ({listed}); here they have as many")
    for name in counts:
        if "/self_attention/" in name:
            tower = "text" if name.startswith(_TEXT) else "vision"
            found[f"{tower}_head_width"] = shapes[name][-1]
    return found


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray], config: CLIPConfig) -> None:
    """Writes an npz file that the authors' code reads.

    Args:
      path: to write at.
      tensors: by the names of `NPZ`, folded.
      config: of the model.
    """
    with path.open("wb") as file:
        np.savez(file, **unfold(tensors, config))


def check_writable(config: CLIPConfig, path: str) -> None:
    """Raises a `UserError` if a model is none that the authors' code has."""
    if not config.is_video:
        raise UserError(
            f"{path} is no VideoPrism, and {NPZ.title} has names for no other: give --to=pytorch "
            "or --to=huggingface"
        )
    known = VARIANTS["VideoPrism-B/18@288"]
    own = ("vision_head_width", "text_head_width", "resize", "interpolation", "image_mean")
    for name in HIDDEN:
        if name not in (*own, "image_std") and getattr(config, name) != getattr(known, name):
            raise UserError(
                f"{path}: {name} is {getattr(config, name)}, and the authors' code has "
                f"{getattr(known, name)}: an npz file does not say so"
            )
