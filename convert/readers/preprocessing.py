"""How a source's images are made, as far as it says so: in another way than here, it is refused.

Here a frame's shorter side is resized to the model's image size by Pillow's bicubic filter, the
centre cropped, and pixels normalised by the statistics of CLIP's training images. A model that was
trained otherwise would see other pictures than it knows.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from convert.readers.foreign import refuse_statistics
from glscl_jax.errors import UserError
from glscl_jax.files import read_json

# Of a Hugging Face directory: transformers up to 4, and from 5 on within another file.
FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
_PROCESSORS = (
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPFeatureExtractor",
)
_BICUBIC = 3  # Pillow's number


def check_hugging_face(directory: pathlib.Path, image_size: int) -> None:
    """Looks into a directory's files of its image processor, where there are any.

    Raises:
      UserError: naming what differs.
    """
    if (directory / FILE).is_file():
        _check_processor(directory / FILE, read_json(directory / FILE), image_size)
    if (directory / PROCESSOR_FILE).is_file():
        content = read_json(directory / PROCESSOR_FILE)
        if isinstance(inner := content.get("image_processor"), dict):
            _check_processor(directory / PROCESSOR_FILE, inner, image_size)


def check_open_clip(path: pathlib.Path, images: Mapping, image_size) -> None:
    """Looks into the section `preprocess_cfg` of an open_clip_config.json.

    Raises:
      UserError: naming what differs.
    """
    refuse_statistics(images.get("mean"), images.get("std"), str(path))
    image_size = image_size[0] if isinstance(image_size, list) else image_size
    expected = {
        "mode": ["RGB"],
        "interpolation": ["bicubic"],
        "resize_mode": ["shortest"],
        "size": [image_size, [image_size, image_size]],
        "fill_color": [images.get("fill_color")],  # of borders, which there are none of
        "mean": [images.get("mean")],
        "std": [images.get("std")],
    }
    odd = [
        f"preprocess_cfg.{name} {value!r}"
        for name, value in images.items()
        if value is not None and value not in expected.get(name, [])
    ]
    _refuse(path, odd, image_size)


def _check_processor(path: pathlib.Path, said: Mapping, image_size: int) -> None:
    odd = [
        f"{name} {said[name]!r}"
        for name in ("image_processor_type", "feature_extractor_type")
        if said.get(name, _PROCESSORS[0]) not in _PROCESSORS
    ]
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    odd += [f"{name} false" for name in steps if said.get(name) is False]
    odd += [f"{name} true" for name in ("do_pad",) if said.get(name)]
    if (filter_ := said.get("resample")) not in (None, _BICUBIC):
        odd.append(f"resample {filter_!r}")
    if not np.isclose(_number(said.get("rescale_factor", 1 / 255)), 1 / 255, rtol=1e-3):
        odd.append(f"rescale_factor {said['rescale_factor']!r}")
    if (size := said.get("size")) is not None and not _is_shorter_side(size, image_size):
        odd.append(f"size {size!r}")
    if (crop := said.get("crop_size")) is not None and not _is_square(crop, image_size):
        odd.append(f"crop_size {crop!r}")
    _refuse(path, odd, image_size)
    refuse_statistics(said.get("image_mean"), said.get("image_std"), str(path))


def _is_shorter_side(size, image_size: int) -> bool:
    if isinstance(size, Mapping):
        # A height and a width squash the picture instead.
        there = {name for name, value in size.items() if value is not None}
        return there == {"shortest_edge"} and size["shortest_edge"] == image_size
    return size == image_size


def _is_square(size, image_size: int) -> bool:
    if isinstance(size, Mapping):
        return {value for value in size.values() if value is not None} == {image_size}
    return size in (image_size, [image_size, image_size])


def _number(value) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _refuse(path: pathlib.Path, odd: list[str], image_size) -> None:
    if odd:
        raise UserError(
            f"{path}: its images are made in another way than here, by {', '.join(odd)}; here the "
            f"shorter side is resized to {image_size} (the model's image size) with the bicubic "
            "filter, the centre cropped, and pixels normalised: such a model cannot be converted"
        )
