"""What can be told of a picture: where its four colours came out, and how round a disc is."""

import itertools

import numpy as np

# Names of the corners, read left to right, top to bottom, and their colours.
COLOURS = {"R": (200, 30, 30), "G": (30, 200, 30), "B": (30, 30, 200), "W": (220, 220, 220)}


def corners(image):
    size = len(image)
    low, high = size // 6, size - 1 - size // 6
    seen = [image[y, x].astype(int) for y, x in itertools.product((low, high), repeat=2)]
    return "".join(min(COLOURS, key=lambda c: np.abs(pixel - COLOURS[c]).sum()) for pixel in seen)


def roundness(image):
    """Width by height of what is bright."""
    bright = image.mean(-1) > 128
    return bright.any(0).sum() / bright.any(1).sum()
