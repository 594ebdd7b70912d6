"""RandAugment by Pillow: what `training.rand_augment` is held to, and timed beside."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)


def transformed(matrix):
    def operation(picture, magnitude):
        data = matrix(magnitude / 10, picture.size)
        return picture.transform(picture.size, Image.AFFINE, data, Image.BICUBIC, fillcolor=GREY)

    return operation


def enhanced(kind):
    return lambda picture, magnitude: kind(picture).enhance(1 + 0.9 * magnitude / 10)


def brighter_darks(picture, magnitude):
    added = int(110 * abs(magnitude) / 10)
    return picture.point([min(255, v + added) if v < 128 else v for v in range(256)] * 3)


PILLOW = {
    "AutoContrast": lambda picture, magnitude: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, magnitude: ImageOps.equalize(picture),
    "Invert": lambda picture, magnitude: ImageOps.invert(picture),
    "Rotate": lambda picture, magnitude: picture.rotate(
        30 * magnitude / 10, Image.BICUBIC, fillcolor=GREY
    ),
    "Posterize": lambda picture, magnitude: ImageOps.posterize(
        picture, 4 - int(4 * abs(magnitude) / 10)
    ),
    "Solarize": lambda picture, magnitude: ImageOps.solarize(
        picture, 256 - int(256 * abs(magnitude) / 10)
    ),
    "SolarizeAdd": brighter_darks,
    "Color": enhanced(ImageEnhance.Color),
    "Contrast": enhanced(ImageEnhance.Contrast),
    "Brightness": enhanced(ImageEnhance.Brightness),
    "Sharpness": enhanced(ImageEnhance.Sharpness),
    "ShearX": transformed(lambda share, size: (1, 0.3 * share, 0, 0, 1, 0)),
    "ShearY": transformed(lambda share, size: (1, 0, 0, 0.3 * share, 1, 0)),
    "TranslateX": transformed(lambda share, size: (1, 0, 0.45 * share * size[0], 0, 1, 0)),
    "TranslateY": transformed(lambda share, size: (1, 0, 0, 0, 1, 0.45 * share * size[1])),
}


def by_pillow(frames, name, magnitude):
    """One operation on every frame of a clip."""
    pictures = [PILLOW[name](Image.fromarray(frame), float(magnitude)) for frame in frames]
    return np.stack([np.asarray(picture) for picture in pictures])


def draws_by_pillow(frames, drawn):
    """Every clip through what was drawn for it, in that order."""
    names = [*PILLOW, None]
    clips = []
    drawn = (np.asarray(drawn.operations), np.asarray(drawn.magnitudes))
    for one, operations, magnitudes in zip(frames, *drawn, strict=True):
        for operation, magnitude in zip(operations, magnitudes, strict=True):
            if names[operation]:
                one = by_pillow(one, names[operation], magnitude)
        clips.append(one)
    return np.stack(clips)
