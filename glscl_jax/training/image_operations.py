"""RandAugment's operations on all frames of a clip, each as Pillow computes it.

Every one takes a clip uint8 [V,H,W,3] and a magnitude float32 [], -10 to 10, and returns the clip.
They are the 'increasing' forms: stronger with the magnitude's size, which for those that have two
directions has a sign. To within 1 of 255 they are Pillow's, which computes in float64 in places.
"""

import jax.numpy as jnp

STRONGEST = 10.0
# What an operation does at the strongest magnitude.
MOST_DEGREES = 30.0
MOST_SHEAR = 0.3
MOST_SHIFT = 0.45  # of the width or height
MOST_CHANGE = 0.9  # of colour, contrast, brightness and sharpness, up or down from 1
MOST_ADDED = 110
MOST_BITS = 4  # that posterizing takes away, of the 4 highest
GREY = 128  # what moves in from outside the picture


def auto_contrast(clip, magnitude):
    """Each channel of each frame stretched to 0 to 255."""
    del magnitude
    low = jnp.min(clip, (1, 2), keepdims=True).astype(jnp.float32)
    high = jnp.max(clip, (1, 2), keepdims=True).astype(jnp.float32)
    scale = 255.0 / jnp.maximum(high - low, 1.0)
    return jnp.where(high > low, _pixels(clip * scale - low * scale), clip)


def equalize(clip, magnitude):
    """Each channel of each frame with its histogram made flat."""
    del magnitude
    frames, height, width, channels = clip.shape
    values = clip.transpose(0, 3, 1, 2).reshape(frames * channels, height * width).astype(int)
    rows = jnp.arange(frames * channels)[:, None]
    counts = jnp.zeros((frames * channels, 256), int).at[rows, values].add(1)
    highest = jnp.max(values, 1, keepdims=True)
    # The pixels of the highest value are left out of a step's width.
    step = (height * width - jnp.take_along_axis(counts, highest, 1)) // 255
    below = jnp.cumsum(counts, 1) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    table = jnp.where(step > 0, table, jnp.arange(256)).astype(jnp.uint8)
    values = jnp.take_along_axis(table, values, 1)
    return values.reshape(frames, channels, height, width).transpose(0, 2, 3, 1)


def invert(clip, magnitude):
    """Negative."""
    del magnitude
    return 255 - clip


def rotate(clip, magnitude):
    """By up to 30 degrees either way."""
    angle = jnp.deg2rad(_share(magnitude) * MOST_DEGREES)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = clip.shape[2] / 2, clip.shape[1] / 2
    # About the centre; Pillow turns counterclockwise, with y downwards.
    return _affine(clip, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def posterize(clip, magnitude):
    """Only the highest bits kept: 4 less the magnitude's share of 4, none at the strongest."""
    dropped = 8 - MOST_BITS + (jnp.abs(_share(magnitude)) * MOST_BITS).astype(jnp.int32)
    return ((clip.astype(jnp.int32) >> dropped) << dropped).astype(jnp.uint8)


def solarize(clip, magnitude):
    """Negative from a threshold on, which the magnitude lowers from 256."""
    threshold = 256 - (jnp.abs(_share(magnitude)) * 256).astype(jnp.int32)
    return jnp.where(clip < threshold, clip, 255 - clip)


def solarize_add(clip, magnitude):
    """Up to 110 added to what is darker than 128."""
    added = (jnp.abs(_share(magnitude)) * MOST_ADDED).astype(jnp.int32)
    return jnp.where(clip < 128, jnp.minimum(clip + added, 255), clip).astype(jnp.uint8)


def color(clip, magnitude):
    """Away from the greyscale picture, or towards it."""
    return _enhanced(_luma(clip), clip, magnitude)


def contrast(clip, magnitude):
    """Away from the mean grey of each frame, or towards it."""
    pixels = clip.shape[1] * clip.shape[2]
    total = jnp.sum(_luma(clip), (1, 2, 3), keepdims=True)
    return _enhanced((2 * total + pixels) // (2 * pixels), clip, magnitude)


def brightness(clip, magnitude):
    """Away from black, or towards it."""
    return _enhanced(jnp.zeros_like(clip), clip, magnitude)


def sharpness(clip, magnitude):
    """Away from the smoothed picture, or towards it; the outermost pixels stay."""
    values = clip.astype(jnp.int32)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    nine = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = values[:, 1:-1, 1:-1]
    # The kernel is 1 all around 5, over 13; rounded half up.
    smooth = (2 * (nine + 4 * inner) + 13) // 26
    return _enhanced(values.at[:, 1:-1, 1:-1].set(smooth), clip, magnitude)


def shear_x(clip, magnitude):
    """Rows shifted by up to 0.3 of their distance from the top."""
    return _affine(clip, (1.0, _share(magnitude) * MOST_SHEAR, 0.0), (0.0, 1.0, 0.0))


def shear_y(clip, magnitude):
    """Columns shifted by up to 0.3 of their distance from the left."""
    return _affine(clip, (1.0, 0.0, 0.0), (_share(magnitude) * MOST_SHEAR, 1.0, 0.0))


def translate_x(clip, magnitude):
    """Shifted sideways by up to 0.45 of the width."""
    shift = _share(magnitude) * MOST_SHIFT * clip.shape[2]
    return _affine(clip, (1.0, 0.0, shift), (0.0, 1.0, 0.0))


def translate_y(clip, magnitude):
    """Shifted up or down by up to 0.45 of the height."""
    shift = _share(magnitude) * MOST_SHIFT * clip.shape[1]
    return _affine(clip, (1.0, 0.0, 0.0), (0.0, 1.0, shift))


# ---- What they share --------------------------------------------------------------------------


def _share(magnitude):
    """Of the strongest, -1 to 1."""
    return magnitude / STRONGEST


def _pixels(values):
    """Float values cut to 0 to 255 and to integers, as Pillow does."""
    return jnp.clip(values, 0.0, 255.0).astype(jnp.uint8)


def _luma(clip):
    """Greyscale int32 [V,H,W,1], in Pillow's fixed point of ITU-R 601-2."""
    red, green, blue = (clip[..., channel, None].astype(jnp.int32) for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def _enhanced(dull, clip, magnitude):
    """`dull` at factor 0, `clip` at 1, on in the same direction beyond."""
    factor = 1.0 + _share(magnitude) * MOST_CHANGE
    dull = dull.astype(jnp.float32)
    return _pixels(dull + factor * (clip.astype(jnp.float32) - dull))


def _affine(clip, to_x, to_y):
    """Each pixel from where (a, b, c) takes its centre: a x + b y + c. Bicubic, grey outside.

    Pillow's bicubic here has the parameter -1, not the -0.5 of its resizing; past an edge it
    repeats the outermost pixels.
    """
    frames, height, width, channels = clip.shape
    x, y = jnp.arange(width)[None, :] + 0.5, jnp.arange(height)[:, None] + 0.5
    at_x, at_y = (a * x + b * y + c for a, b, c in (to_x, to_y))
    inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
    left, top = jnp.floor(at_x - 0.5), jnp.floor(at_y - 0.5)
    along, down = (at_x - 0.5 - left)[..., None], (at_y - 0.5 - top)[..., None]
    # The pixels of a place side by side: one gather serves all frames.
    places = clip.transpose(1, 2, 0, 3).reshape(height * width, frames * channels)

    def row(offset):
        row_at = jnp.clip(top.astype(jnp.int32) + offset, 0, height - 1) * width
        taps = (
            places[row_at + jnp.clip(left.astype(jnp.int32) + step, 0, width - 1)]
            for step in range(-1, 3)
        )
        return _cubic(*(tap.astype(jnp.float32) for tap in taps), along)  # pyright: ignore[reportCallIssue]

    rows = map(row, range(-1, 3))
    values = _pixels(_cubic(*rows, down))  # pyright: ignore[reportCallIssue]
    values = jnp.where(inside[..., None], values, jnp.uint8(GREY))
    return values.reshape(height, width, frames, channels).transpose(2, 0, 1, 3)


def _cubic(before, here, after, beyond, share):
    """Between `here` (share 0) and `after` (share 1)."""
    slope = after - before
    bend = 2.0 * (before - here) + after - beyond
    twist = here - before + beyond - after
    return here + share * (slope + share * (bend + share * twist))
