"""A decoded picture -> the square that a model sees: turned upright, resized, cropped."""

import fractions

import numpy as np
from PIL import Image

# What a display matrix can mean, as (x, y) -> (a x + c y, b x + d y): (a, b, c, d). The first of
# equally near ones counts.
_TURNS = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))
_MIRRORS = ((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0))
IDENTITY = _TURNS[0]
# By the names of `images.INTERPOLATIONS`; they widen where a picture shrinks.
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# Pixels beyond this are a damaged header; the widest in use are twice as wide as high.
_WIDEST_PIXEL = 8
# Of a picture longer than this only what the crop shows is resized.
_LONG = 64


def orientation(matrix) -> tuple[int, int, int, int]:
    """The one of the eight orientations that a display matrix is nearest to.

    Args:
      matrix: its nine numbers as a container stores them, row by row: a, b, u, c, d, v, x, y, w.

    Returns:
      (a, b, c, d), each -1, 0 or 1; the identity where the matrix cannot be inverted.
    """
    a, b, _, c, d = (float(number) for number in matrix[:5])
    determinant = a * d - b * c
    if determinant == 0:
        return IDENTITY
    # A scale in it, be it one for each axis, turns nothing.
    x, y = np.hypot(a, b), np.hypot(c, d)
    unit = (a / x, b / x, c / y, d / y)
    candidates = _TURNS if determinant > 0 else _MIRRORS
    # Rounded, for a turn by 45 degrees is as far from two of them.
    return max(candidates, key=lambda one: round(np.dot(one, unit), 4))


def upright(picture: np.ndarray, oriented: tuple[int, int, int, int]) -> np.ndarray:
    """A picture as it is meant to be seen.

    Args:
      picture: [H,W,3].
      oriented: where its axes point to, of `orientation`.
    """
    a, b, c, d = oriented
    if a == 0:  # stored rows are shown as columns
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: d or 1, :: a or 1]


def pixel_shape(aspect: fractions.Fraction | None) -> fractions.Fraction:
    """Width by height of a pixel as it is shown; 1 where what a file says cannot be meant."""
    if not aspect or not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL:
        return fractions.Fraction(1)
    return aspect


def fit(
    picture: np.ndarray,
    size: int,
    pixel: fractions.Fraction | int = 1,
    resize: str = "crop",
    interpolation: str = "bicubic",
) -> np.ndarray:
    """A square of a picture, by Pillow's filters.

    Sizes and offsets are rounded as by torchvision's Resize and CenterCrop.

    Args:
      picture: uint8 [H,W,3].
      size: in pixels.
      pixel: width by height of its pixels; sides are counted as they are shown.
      resize: "crop": the shorter side to `size` and the centre cropped; "squash": both sides.
      interpolation: "bicubic" or "bilinear".

    Returns:
      uint8 [size,size,3].
    """
    if resize == "squash":
        image = Image.fromarray(np.ascontiguousarray(picture))
        # As it is where it has that size, as the filters leave it.
        return np.asarray(image.resize((size, size), _FILTERS[interpolation]))
    height, width = picture.shape[:2]
    shown = width if pixel == 1 else float(width * pixel)
    short = min(height, shown)
    image = Image.fromarray(np.ascontiguousarray(picture))
    if max(height, shown) > _LONG * short:
        image = _middle(image, shown / height)
        (width, height), shown = image.size, float(image.size[0] * pixel)
        short = min(height, shown)
    if short != size or pixel != 1:
        resized = max(size, int(size * shown / short)), max(size, int(size * height / short))
        image = image.resize(resized, _FILTERS[interpolation])
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _middle(image: Image.Image, ratio: float) -> Image.Image:
    """The middle of a picture `ratio` times as wide as high, wide enough for any filter."""
    width, height = image.size
    if ratio > 1:
        side = min(width, max(1, round(width * _LONG / ratio)))
        left = (width - side) // 2
        return image.crop((left, 0, left + side, height))
    side = min(height, max(1, round(height * _LONG * ratio)))
    top = (height - side) // 2
    return image.crop((0, top, width, top + side))
