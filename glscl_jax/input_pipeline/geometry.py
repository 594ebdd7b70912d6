"""A decoded picture -> the square that a model sees: turned upright, resized, centre cropped."""

import numpy as np
from PIL import Image


def upright(picture: np.ndarray, degrees: float) -> np.ndarray:
    """A picture as it is meant to be seen.

    Args:
      picture: [H,W,3].
      degrees: counterclockwise, as FFmpeg reads the rotation of the container; taken to the
        nearest quarter turn.
    """
    return np.rot90(picture, round(degrees / 90))


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to `size` with Pillow's bicubic filter, then the centre cropped.

    Sizes and offsets are rounded as by torchvision's Resize and CenterCrop.

    Args:
      picture: uint8 [H,W,3].
      size: in pixels.

    Returns:
      uint8 [size,size,3].
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    image = Image.fromarray(np.ascontiguousarray(picture))
    if short != size:
        resized = int(size * width / short), int(size * height / short)
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))
