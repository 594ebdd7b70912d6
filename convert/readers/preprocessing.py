"""How a source's images are made, as far as it says so: read, or refused where it cannot be done.

A picture becomes a square by one of Pillow's filters, `crop` or `squash`, and its pixels are
normalised (`glscl_jax/models/encoders/images.py`). A model whose images were made in a way that is
not among these would see other pictures than it knows.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.files import read_json
from glscl_jax.models.encoders.images import CLIP_MEAN, CLIP_STD, INTERPOLATIONS

# Of a Hugging Face directory: transformers up to 4, and from 5 on within another file.
FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"


@dataclasses.dataclass(frozen=True)
class _Processor:
    """What a class of image processors of transformers does if its file does not say."""

    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_HALF = (0.5, 0.5, 0.5)
_CLIP, _SIGLIP = _Processor("crop", CLIP_MEAN, CLIP_STD), _Processor("squash", _HALF, _HALF)
# Pixels between 0 and 1, as they are.
_USUAL = {
    "siglip": _SIGLIP,
    "videoprism": _Processor("squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
_PROCESSORS = {
    f"{name}ImageProcessor{kind}": processor
    for name, processor in (("CLIP", _CLIP), ("Siglip", _SIGLIP))
    for kind in ("", "Fast", "Pil")
} | {"CLIPFeatureExtractor": _CLIP}
# Pillow's numbers.
RESAMPLE = {"bicubic": 3, "bilinear": 2}
_NAMES = {number: name for name, number in RESAMPLE.items()}
_RESIZE_MODES = {"shortest": "crop", "squash": "squash"}


def of_hugging_face(directory: pathlib.Path, image_size: int, kind: str = "clip") -> dict:
    """How a directory's images are made: fields of `CLIPConfig`.

    Args:
      directory: of a model; without a file on its images they are made as its kind's usually are.
      image_size: the model's, in pixels.
      kind: its `model_type`.

    Raises:
      UserError: naming what cannot be done here.
    """
    path, said = directory / FILE, {}
    if path.is_file():
        said = read_json(path)
    elif (directory / PROCESSOR_FILE).is_file():
        path = directory / PROCESSOR_FILE
        inner = read_json(path).get("image_processor")
        said = inner if isinstance(inner, dict) else {}
    return _of_processor(path, said, image_size, _USUAL.get(kind, _CLIP))


def of_open_clip(path: pathlib.Path, images: Mapping, image_size: int) -> dict:
    """What the section `preprocess_cfg` of an open_clip_config.json says: fields of `CLIPConfig`.

    Raises:
      UserError: naming what cannot be done here.
    """
    images = {name: value for name, value in images.items() if value is not None}
    expected = {
        "mode": ["RGB"],
        "interpolation": list(INTERPOLATIONS),
        "resize_mode": list(_RESIZE_MODES),
        "size": [image_size, [image_size, image_size]],
        "fill_color": [images.get("fill_color")],  # of borders, which there are none of
        "mean": [images.get("mean")],
        "std": [images.get("std")],
    }
    odd = [
        f"preprocess_cfg.{name} {value!r}"
        for name, value in images.items()
        if value not in expected.get(name, [])
    ]
    _refuse(path, odd, image_size)
    return {
        "resize": _RESIZE_MODES[images.get("resize_mode", "shortest")],
        "interpolation": images.get("interpolation", "bicubic"),
        "image_mean": _three(path, "mean", images.get("mean", CLIP_MEAN)),
        "image_std": _three(path, "std", images.get("std", CLIP_STD)),
    }


def _of_processor(path: pathlib.Path, said: Mapping, image_size: int, usual: _Processor) -> dict:
    names = ("image_processor_type", "feature_extractor_type")
    kinds = [said[name] for name in names if name in said]
    odd = [f"{name} {said[name]!r}" for name in names if name in said]
    _refuse(path, [] if set(kinds) <= _PROCESSORS.keys() else odd, image_size)
    usual = _PROCESSORS[kinds[0]] if kinds else usual
    odd = [f"{name} false" for name in ("do_resize", "do_rescale") if said.get(name) is False]
    odd += [f"{name} true" for name in ("do_pad",) if said.get(name)]
    if (filter_ := said.get("resample", 3)) not in _NAMES:
        odd.append(f"resample {filter_!r}")
    if not np.isclose(_number(said.get("rescale_factor", 1 / 255)), 1 / 255, rtol=1e-3):
        odd.append(f"rescale_factor {said['rescale_factor']!r}")
    resize = usual.resize
    if (size := said.get("size")) is not None and not (resize := _resize_of(size, image_size)):
        odd.append(f"size {size!r}")
    crops = said.get("do_center_crop", usual.resize == "crop")
    if crops and (crop := said.get("crop_size")) and not _is_square(crop, image_size):
        odd.append(f"crop_size {crop!r}")
    if resize == "crop" and not crops:
        odd.append("do_center_crop false")
    _refuse(path, odd, image_size)
    mean, std = said.get("image_mean", usual.mean), said.get("image_std", usual.std)
    if said.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return {
        "resize": resize,
        "interpolation": _NAMES[filter_],
        "image_mean": _three(path, "image_mean", mean),
        "image_std": _three(path, "image_std", std),
    }


def _resize_of(size, image_size: int) -> str | None:
    """What leads to a square of the model's size; None if the size is another."""
    if not isinstance(size, Mapping):
        return "crop" if size == image_size else None
    there = {name: value for name, value in size.items() if value is not None}
    if there == {"shortest_edge": image_size}:
        return "crop"
    return "squash" if there == {"height": image_size, "width": image_size} else None


def _is_square(size, image_size: int) -> bool:
    if isinstance(size, Mapping):
        return {value for value in size.values() if value is not None} == {image_size}
    return size in (image_size, [image_size, image_size])


def _three(path: pathlib.Path, name: str, values) -> tuple[float, float, float]:
    """Numbers of red, green and blue; CLIP's own to the last digit where they are CLIP's."""
    if np.shape(values) != (3,) or not all(np.isfinite(_number(value)) for value in values):
        raise UserError(f"{path}: {name} is {values!r}, not three numbers")
    for known in (CLIP_MEAN, CLIP_STD):
        if np.allclose(values, known, rtol=0, atol=1e-4):
            return known
    return tuple(float(value) for value in values)


def _number(value) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _refuse(path: pathlib.Path, odd: list[str], image_size) -> None:
    if odd:
        raise UserError(
            f"{path}: its images are made in another way than can be done here, by "
            f"{', '.join(odd)}; here the shorter side is resized to {image_size} (the model's "
            "image size) and the centre cropped, or both sides are resized, by the bicubic or the "
            "bilinear filter: such a model cannot be converted"
        )
