"""How a source's images are made, as far as it says so: read, or refused where it cannot be done.

A picture becomes a square by one of Pillow's filters, `crop` or `squash`, and its pixels are
normalised (`glscl_jax/models/encoders/images.py`). A model whose images were made in a way that is
not among these would see other pictures than it knows.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.files import read_json
from glscl_jax.models.encoders.images import CLIP_MEAN, CLIP_STD, INTERPOLATIONS

# Of a Hugging Face directory: transformers up to 4, and from 5 on within another file.
FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"
# Where a kind's settings are, a file and the section of it: the first that is there, as
# transformers has it.
_IMAGES = ((PROCESSOR_FILE, "image_processor"), (FILE, None))
_PLACES = {"videoprism": ((PROCESSOR_FILE, "video_processor"), (VIDEO_FILE, None), *_IMAGES[::-1])}
# What JSON can hold, and what to call it.
_FLAG, _NUMBER, _SIZE = (bool,), (int, float), (int, list, dict)
_CALLED = {
    _FLAG: "true or false",
    _NUMBER: "a number",
    _SIZE: "a size",
    (int,): "a whole number",
    (str,): "a name",
}
_TYPES_OF_CLASS = ("image_processor_type", "feature_extractor_type", "video_processor_type")
_TYPES = {
    **dict.fromkeys(_TYPES_OF_CLASS, (str,)),
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_pad"), _FLAG),
    "resample": (int,),
    "rescale_factor": _NUMBER,
    "size": _SIZE,
    "crop_size": _SIZE,
}


@dataclasses.dataclass(frozen=True)
class _Processor:
    """What a class of image processors of transformers does if its file does not say."""

    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    normalises: bool = True


_HALF = (0.5, 0.5, 0.5)
_CLIP, _SIGLIP = _Processor("crop", CLIP_MEAN, CLIP_STD), _Processor("squash", _HALF, _HALF)
# Pixels between 0 and 1, as they are.
_VIDEOPRISM = _Processor("squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), normalises=False)
_USUAL = {"siglip": _SIGLIP, "videoprism": _VIDEOPRISM}
_PROCESSORS = {
    f"{name}ImageProcessor{kind}": processor
    for name, processor in (("CLIP", _CLIP), ("Siglip", _SIGLIP))
    for kind in ("", "Fast", "Pil")
} | {"CLIPFeatureExtractor": _CLIP}
_OF_VIDEOS = dict.fromkeys(
    ("LlavaOnevisionVideoProcessor", "VideoPrismVideoProcessor"), _VIDEOPRISM
)
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
    usual = _USUAL.get(kind, _CLIP)
    for name, section in _PLACES.get(kind, _IMAGES):
        path = directory / name
        said = read_json(path) if path.is_file() else None
        if section and said is not None:
            said = said.get(section)
        if said is not None:
            return _of_processor(path, _checked(path, said, section), image_size, usual)
    return _of_processor(directory, {}, image_size, usual)


def _checked(path: pathlib.Path, said, section: str | None) -> dict:
    """The settings that are given; raises a `UserError` if one is of a type that it cannot be."""
    if not isinstance(said, dict):
        raise UserError(f"{path}: {section} is {said!r}, not a section of settings: {_MEND}")
    # transformers writes null for what is left to the class.
    said = {name: value for name, value in said.items() if value is not None}
    for name in said.keys() & _TYPES.keys():
        value, types = said[name], _TYPES[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UserError(f"{path}: {name} is {value!r}, not {_CALLED[types]}: {_MEND}")
    return said


_MEND = "mend it, or download the file again"


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
    kinds = {name: said[name] for name in _TYPES_OF_CLASS if name in said}
    known = _PROCESSORS | (_OF_VIDEOS if usual is _VIDEOPRISM else {})
    _refuse(
        path, [f"{name} {kind!r}" for name, kind in kinds.items() if kind not in known], image_size
    )
    usual = known[next(iter(kinds.values()))] if kinds else usual
    odd = [f"{name} false" for name in ("do_resize", "do_rescale") if said.get(name) is False]
    odd += ["do_pad true"] if said.get("do_pad") else []
    if (filter_ := said.get("resample", 3)) not in _NAMES:
        odd.append(f"resample {filter_!r}")
    if not np.isclose(_number(said.get("rescale_factor", 1 / 255)), 1 / 255, rtol=1e-3):
        odd.append(f"rescale_factor {said['rescale_factor']!r}")
    resize, odd_sizes = _resize(said, usual.resize, image_size)
    _refuse(path, odd + odd_sizes, image_size)
    mean, std = _statistics(path, said, usual)
    return {
        "resize": resize,
        "interpolation": _NAMES[filter_],
        "image_mean": _three(path, "image_mean", mean),
        "image_std": _three(path, "image_std", std),
    }


def _resize(said: Mapping, usual: str, image_size: int) -> tuple[str, list[str]]:
    """What leads to a square of the model's size, and what of the settings does not."""
    odd, resize = [], usual
    if "size" in said and not (resize := _resize_of(said["size"], image_size)):
        odd.append(f"size {said['size']!r}")
    crops = said.get("do_center_crop", usual == "crop")
    if crops and (crop := said.get("crop_size")) and not _is_square(crop, image_size):
        odd.append(f"crop_size {crop!r}")
    if resize == "crop" and not crops:
        square = {"height": image_size, "width": image_size}
        odd.append(
            "do_center_crop false"
            if "do_center_crop" in said
            else f"size {said['size']!r}, the shorter side's alone, without do_center_crop (both "
            f"sides' is {json.dumps(square)})"
        )
    return resize or usual, odd


def _statistics(path: pathlib.Path, said: Mapping, usual: _Processor) -> tuple:
    """Mean and deviation, of pixels between 0 and 1.

    Raises:
      UserError: a class that leaves pixels as they are is given but half of what it would take.
    """
    given = [name for name in ("image_mean", "image_std") if name in said]
    if said.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if not usual.normalises and (given or "do_normalize" in said):
        names = ("do_normalize", "image_mean", "image_std")
        if lacks := [name for name in names if name not in said]:
            there = [name for name in names if name in said]
            raise UserError(
                f"{path} has {' and '.join(there)} and not {' and '.join(lacks)}: give all three, "
                "or do_normalize false alone, with which pixels stay between 0 and 1"
            )
    return said.get("image_mean", usual.mean), said.get("image_std", usual.std)


def _resize_of(size, image_size: int) -> str | None:
    """What leads to a square of the model's size; None if the size is another."""
    if not isinstance(size, Mapping):
        if size == [image_size, image_size]:
            return "squash"
        return "crop" if size == image_size else None
    there = {name: value for name, value in size.items() if value is not None}
    if there == {"shortest_edge": image_size}:
        return "crop"
    return "squash" if there == {"height": image_size, "width": image_size} else None


def _is_square(size, image_size: int) -> bool:
    if isinstance(size, Mapping):
        there = [value for value in size.values() if value is not None]
        return bool(there) and all(value == image_size for value in there)
    return size in (image_size, [image_size, image_size])


def _three(path: pathlib.Path, name: str, values) -> tuple[float, float, float]:
    """Numbers of red, green and blue; CLIP's own to the last digit where they are CLIP's."""
    three = isinstance(values, list | tuple) and len(values) == 3
    if not three or not all(np.isfinite(_number(value)) for value in values):
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
