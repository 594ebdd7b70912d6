"""A video whose frames were extracted before: a folder of numbered pictures.

The number is what a picture's name ends in: `000001.jpg`, `frame_10.png`. The pictures follow each
other in the order of their numbers, which go up by the same step each time. Where one is missing is
a gap, and one of another size than the others is of another video: both are lost, as frames that do
not decode are. Nothing outside of the folder is opened.
"""

import collections
import contextlib
import dataclasses
import fractions
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from glscl_jax.input_pipeline.annotations.source import (
    is_numbered_picture,
    is_picture,
    leads_out,
)
from glscl_jax.input_pipeline.decoding import containers
from glscl_jax.input_pipeline.decoding.containers import VideoError
from glscl_jax.input_pipeline.decoding.timeline import Timeline

# What Pillow may take a file for, whatever its name says.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
_NUMBERED = re.compile(r"(.*?)([0-9]+)", re.DOTALL)


def is_folder(path: pathlib.Path) -> bool:
    """Whether there is a folder, where that can be found out."""
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def holds_pictures(path: pathlib.Path) -> bool:
    """Whether there is a folder with numbered pictures, where that can be found out."""
    with contextlib.suppress(OSError):
        return any(is_numbered_picture(one.name) for one in path.iterdir())
    return False


@dataclasses.dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder, in their order.

    Attributes:
      path: the folder.
      names: the file's name of each picture that is there, by its place from 0.
      fault: in a few words, what is not as it should be; None if all is.
    """

    path: pathlib.Path
    names: dict[int, str]
    fault: str | None

    @classmethod
    def open(cls, path: pathlib.Path) -> "PictureFolder":
        """Lists a folder.

        Raises:
          VideoError: there are no numbered pictures in it, or not those of one video.
          OSError: it cannot be read.
        """
        pictures = sorted(one.name for one in path.iterdir() if is_picture(one.name))
        numbered: dict[int, str] = {}
        series, others = {}, []
        for name in pictures:
            match = _NUMBERED.fullmatch(name.rpartition(".")[0])
            if match is None:
                others.append(name)
                continue
            series.setdefault(match[1], name)
            there = numbered.setdefault(int(match[2]), name)
            if there != name and len(series) == 1:
                raise VideoError(f"{there} and {name} have one number: keep one of them")
        if not numbered:
            raise VideoError("a folder without numbered pictures (000001.jpg, frame_10.png)")
        if len(series) > 1:
            one, other, *_ = series.values()
            raise VideoError(f"its pictures are of several series, of {one} and of {other}")
        names = _places(numbered)
        told = []
        if missing := max(names) + 1 - len(names):
            gap = next(place for place in itertools.count() if place not in names)
            told.append(f"{missing} pictures are missing, the first behind {names[gap - 1]}")
        if others:
            told.append(f"{len(others)} pictures have no number, the first is {others[0]}")
        return cls(path, names, "; ".join(told) or None)

    def timeline(self, rate: float) -> Timeline:
        """When which picture is shown, at so many a second; those that are missing, too."""
        length = max(self.names) + 1
        return Timeline(
            ticks=list(range(length)),
            keys=[0],
            end=length,
            tick=1 / fractions.Fraction(rate),
            rate=fractions.Fraction(rate),
            whole=True,
            joints=0,
            fault=self.fault,
        )

    def read(self, places: Iterable[int], shown: Callable) -> tuple[dict[int, Any], str | None]:
        """Reads the pictures of some places.

        Args:
          places: there may be no picture at one.
          shown: is given each picture, uint8 [H,W,3], RGB, as it is read.

        Returns:
          by place what `shown` made of each that is good, and in a few words what is wrong with
          others that are there; None if nothing is.
        """
        made, sizes, bad = {}, {}, {}
        for place in sorted(self.names.keys() & set(places)):
            try:
                picture = self._picture(self.names[place])
            except Exception as error:  # of any kind, as damaged files raise
                bad[place] = _reason(error)
                continue
            sizes[place] = "{1} x {0}".format(*picture.shape)
            made[place] = shown(picture)
        usual = collections.Counter(sizes.values()).most_common(1)
        for place, size in sizes.items():
            if size != usual[0][0]:
                bad[place] = f"{size} pixels, most are {usual[0][0]}"
                del made[place]
        if not bad:
            return made, None
        first = min(bad)
        return made, f"{len(bad)} pictures left out, the first {self.names[first]}: {bad[first]}"

    def _picture(self, name: str) -> np.ndarray:
        """uint8 [H,W,3], upright; what shows through is black."""
        path = self.path / name
        if leads_out(os.path.realpath(self.path), os.fspath(path)):
            raise VideoError("a link that leads outside of its folder")
        if not path.is_file():
            raise VideoError("not a file")
        return _pixels(path)


def read_picture(path: pathlib.Path) -> np.ndarray:
    """A picture by itself: uint8 [H,W,3], upright; what shows through is black.

    Raises:
      VideoError: it cannot be read.
    """
    try:
        return _pixels(path)
    except VideoError:
        raise
    except Exception as error:  # of any kind, as damaged files raise
        raise VideoError(_reason(error)) from error


def _pixels(path: pathlib.Path) -> np.ndarray:
    with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > containers.MAX_PIXELS:
            raise VideoError(f"{image.width} x {image.height} pixels are too many")
        return np.asarray(_rgb(ImageOps.exif_transpose(image)))


def _places(numbered: dict[int, str]) -> dict[int, str]:
    """By number -> by place from 0, at the step that is usual between two numbers.

    Raises:
      VideoError: they are not at such steps, or most are missing.
    """
    numbers = sorted(numbered)
    steps = collections.Counter(b - a for a, b in itertools.pairwise(numbers))
    step = min(steps, key=lambda step: (-steps[step], step), default=1)
    places = [(number - numbers[0]) / fractions.Fraction(step) for number in numbers]
    odd = next((i for i, place in enumerate(places) if place.denominator > 1), None)
    if odd is not None or places[-1] >= 2 * len(places):
        at = len(places) - 1 if odd is None else odd
        raise VideoError(
            f"the numbers of its pictures do not follow each other: {numbered[numbers[at]]} is"
            f" behind {numbered[numbers[at - 1]]}, where a step of {step} is usual"
        )
    return {int(place): numbered[number] for place, number in zip(places, numbers, strict=True)}


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise VideoError(f"pixels of Pillow's mode {image.mode}, whose white is not known")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not the memory to read it"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that can be read"
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return told.splitlines()[0]
