"""Frames as a screen shows them: oriented, square, tone-mapped, composited, deinterlaced."""

import fractions
import struct

import av
import av.filter
import numpy as np
import pytest
from PIL import Image, ImageDraw

from glscl_jax.input_pipeline.decoding import geometry
from glscl_jax.input_pipeline.decoding.screen import Screen
from glscl_jax.input_pipeline.decoding.video import read_frames
from tests.numbered_videos import SIZE, every_frame, numbers, remuxed, write
from tests.pictures import COLOURS, corners, roundness

# A display matrix's a, b, c, d -> where the corners RGBW come out.
ORIENTATIONS = {
    (1, 0, 0, 1): "RGBW",
    (0, 1, -1, 0): "BRWG",
    (-1, 0, 0, -1): "WBGR",
    (0, -1, 1, 0): "GWRB",
    (-1, 0, 0, 1): "GRWB",
    (1, 0, 0, -1): "BWRG",
    (0, 1, 1, 0): "RBGW",
    (0, -1, -1, 0): "WGBR",
}


def quarters(height=48, width=64):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = COLOURS["R"]
    picture[: height // 2, width // 2 :] = COLOURS["G"]
    picture[height // 2 :, : width // 2] = COLOURS["B"]
    picture[height // 2 :, width // 2 :] = COLOURS["W"]
    return picture


def encode(path, pictures, codec="libx264", fmt="yuv420p", rate=10, source="rgb24", **settings):
    with av.open(path, "w", options=settings.get("container", {})) as container:
        stream = container.add_stream(codec, rate=rate, options=settings.get("options", {}))
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], fmt
        for name, value in settings.get("context", {}).items():
            setattr(stream.codec_context, name, value)
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format=source)
            container.mux(stream.encode(settings.get("prepare", lambda f: f)(frame)))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("quarters") / "a.mp4", [quarters()] * 5)


def turned(source, path, a, b, c, d):
    """The file with another display matrix, given in ones."""
    data = bytearray(source.read_bytes())
    matrix = [round(number * 65536) for number in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
    struct.pack_into(">9i", data, data.index(b"tkhd") + 4 + 40, *matrix)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_all_eight_orientations(plain, tmp_path, name, matrix):
    path = turned(plain, tmp_path / "turned.mp4", *matrix)
    if name != "a.mp4":
        path = remuxed(path, tmp_path / name)
    frames = read_frames(path, size=SIZE)
    assert corners(frames.images[0]) == ORIENTATIONS[matrix]


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [0, 3, 40, -44])
@pytest.mark.parametrize("scales", [(1, 1), (2, 2), (0.01, 0.01), (0.5, 3)])
def test_the_nearest_orientation_is_taken(matrix, degrees, scales):
    # Turned a little, and then scaled along the axes of the picture.
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = np.diag(scales) @ np.reshape(matrix, (2, 2)) @ [[cos, sin], [-sin, cos]]
    a, b, c, d = (round(number * 65536) for number in linear.ravel())
    assert geometry.orientation([a, b, 0, c, d, 0, 0, 0, 1 << 30]) == matrix


@pytest.mark.parametrize(
    "matrix", [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1), (2, -1, -4, 2)]
)
def test_a_matrix_that_cannot_be_inverted_is_none(plain, tmp_path, matrix):
    path = turned(plain, tmp_path / "a.mp4", *matrix)
    assert corners(read_frames(path, size=SIZE).images[0]) == "RGBW"


def test_45_degrees_are_no_turn():
    assert geometry.orientation([46341, 46341, 0, -46341, 46341, 0, 0, 0, 1]) == (1, 0, 0, 1)
    assert geometry.orientation([46340, -46341, 0, 46341, 46340, 0, 0, 0, 1]) == (1, 0, 0, 1)


def disc(height, width, pixel):
    """A disc that is round where pixels are `pixel` times as wide as high."""
    picture = Image.new("RGB", (width, height))
    high = min(height, width * pixel) * 0.7
    middle_x, middle_y, wide = width / 2, height / 2, high / pixel
    box = [middle_x - wide / 2, middle_y - high / 2, middle_x + wide / 2, middle_y + high / 2]
    ImageDraw.Draw(picture).ellipse(box, fill=(255, 255, 255))
    return np.asarray(picture)


RATIOS = [fractions.Fraction(*r) for r in ((2, 1), (1, 2), (64, 45), (10, 11), (4, 3), (3, 1))]


@pytest.mark.parametrize("pixel", RATIOS)
@pytest.mark.parametrize("quarter_turn", [False, True])
def test_pixels_are_shown_square(tmp_path, pixel, quarter_turn):
    shape = (96, 64) if pixel > 1 else (64, 96)
    picture = disc(*shape, pixel)
    path = encode(tmp_path / "a.mp4", [picture] * 3, context={"sample_aspect_ratio": pixel})
    if quarter_turn:
        turned(path, path, 0, 1, -1, 0)
    shown = read_frames(path, size=100).images[0]
    assert roundness(shown) == pytest.approx(1, abs=0.09)
    stored = read_frames(path, size=100, stored_pixels=True).images[0]
    np.testing.assert_array_equal(
        stored, geometry.fit(np.rot90(every_frame(path)[0], -quarter_turn), 100)
    )


@pytest.mark.parametrize(
    "aspect", [None, 0, fractions.Fraction(65535, 1), fractions.Fraction(1, 4000), -1]
)
def test_pixels_of_an_absurd_shape_are_square(aspect):
    assert geometry.pixel_shape(aspect) == 1


@pytest.mark.parametrize("shape", [(3, 3000), (3000, 3), (16, 16000)])
def test_memory_is_bound_for_absurdly_long_pictures(shape):
    picture = np.full((*shape, 3), 77, np.uint8)
    assert (geometry.fit(picture, 224) == 77).all()


def pq(nits):
    """SMPTE ST 2084: cd/m2 -> 0 to 1."""
    light = (np.asarray(nits) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * light) / (1 + 18.6875 * light)) ** 78.84375


def hlg(nits):
    """ARIB STD-B67 on a screen of 1,000 cd/m2: cd/m2 -> 0 to 1."""
    scene = (np.asarray(nits) / 1000) ** (1 / 1.2)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


TRANSFERS = {16: pq, 18: hlg}
DEEP = {
    "a.mkv": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:asm=0"}),
    "a.mp4": ("libsvtav1", {"preset": "12"}),
    "b.mp4": ("libx264", {"preset": "ultrafast"}),
}


@pytest.mark.parametrize(
    ("name", "transfer"),
    [pytest.param("a.mkv", 16, marks=pytest.mark.slow), ("a.mp4", 18), ("b.mp4", 16)],
)
def test_high_dynamic_range_is_mapped(tmp_path, name, transfer):
    # Four greys, of which the brightest is as bright as paper (203 cd/m2), and a lamp.
    nits = np.repeat([5, 26, 100, 203, 1000], 32)
    luma = np.round(64 + 876 * TRANSFERS[transfer](nits)).astype(np.uint16)

    def with_range(frame):
        deep = frame.reformat(format="yuv420p10le")
        rows = np.frombuffer(deep.planes[0], np.uint16).reshape(96, -1)
        rows[:, :160] = luma
        for plane in deep.planes[1:]:
            np.frombuffer(plane, np.uint16)[:] = 512
        deep.color_trc, deep.color_primaries, deep.colorspace = transfer, 9, 9
        return deep

    codec, options = DEEP[name]
    path = encode(
        tmp_path / name,
        [np.zeros((96, 160, 3), np.uint8)] * 3,
        codec,
        "yuv420p10le",
        options=options,
        prepare=with_range,
        context={"color_trc": transfer, "color_primaries": 9, "colorspace": 9},
    )
    with av.open(path) as container:
        frame = next(container.decode(video=0))
        assert frame.color_trc == transfer
    shown = Screen(codec)._colours(frame)[48, 16::32].mean(-1)
    # A screen of BT.1886 with 203 cd/m2 for white. HLG's system gamma is left to the screen.
    expected = 255 * (np.minimum(nits[16::32], 203) / 203) ** (1 / 2.4)
    np.testing.assert_allclose(shown, expected, atol=8 if transfer == 16 else 40)
    assert shown[3] > 210
    assert shown[4] > 250
    grey = read_frames(path, size=48)
    assert grey.fault is None


HALF = np.zeros((48, 64, 4), np.uint8)
HALF[:, 32:] = (200, 30, 30, 255)
HALF[:, :32] = (30, 200, 30, 0)  # a colour that nobody is to see
CLEAR = {
    "a.webm": ("libvpx", "yuva420p", {"auto-alt-ref": "0"}),
    "b.webm": ("libvpx-vp9", "yuva420p", {"deadline": "realtime", "cpu-used": "8"}),
    "a.mov": ("prores_ks", "yuva444p10le", {"profile": "4444"}),
    "b.mov": ("png", "rgba", {}),
    "c.mov": ("qtrle", "argb", {}),
    "a.apng": ("apng", "rgba", {}),
    "a.avi": ("ffv1", "bgra", {}),
}


@pytest.mark.parametrize("name", CLEAR)
def test_hidden_colours_stay_hidden(tmp_path, name):
    codec, fmt, options = CLEAR[name]
    path = encode(tmp_path / name, [HALF] * 25, codec, fmt, source="rgba", options=options)
    frames = read_frames(path, size=48)
    assert len(frames.images) == 3
    for image in frames.images:
        np.testing.assert_allclose(image[8:40, 2:18].mean((0, 1)), 0, atol=6)
        np.testing.assert_allclose(image[8:40, 30:].mean((0, 1)), (200, 30, 30), atol=12)
    assert frames.fault is None


def test_of_a_gif_what_is_clear_is_black(tmp_path):
    pictures = [Image.fromarray(HALF), Image.fromarray(HALF[:, ::-1])]
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=1000, disposal=2)
    first, second = read_frames(path, size=48).images[:2].astype(int)
    assert np.abs(first[24, 4]).max() < 8
    assert np.abs(first[24, 44] - (200, 30, 30)).max() < 40
    assert np.abs(second[24, 44]).max() < 8


def test_a_byte_that_only_fills_is_no_alpha(tmp_path):
    opaque = HALF[:, 32:].copy()
    opaque[..., 3] = 0
    path = encode(tmp_path / "a.avi", [opaque] * 3, "rawvideo", "bgra", source="rgba")
    np.testing.assert_allclose(read_frames(path, size=32).images[0, 16, 16], (200, 30, 30), atol=4)


INTERLACED = {
    "a.mkv": ("libx264", {"x264-params": "tff=1"}),
    "b.mkv": ("libx264", {"x264-params": "bff=1"}),
    "a.mpg": ("mpeg2video", {"flags": "+ilme+ildct"}),
    "a.ts": ("libx264", {"x264-params": "tff=1"}),
}


@pytest.mark.parametrize("name", INTERLACED)
def test_interlaced_video_is_not_combed(tmp_path, name):
    # A bar that moves by 8 pixels from field to field.
    def field(number):
        picture = np.full((96, 128, 3), 20, np.uint8)
        picture[:, 8 * number % 96 : 8 * number % 96 + 16] = 230
        return picture

    woven = []
    for number in range(30):
        picture = field(2 * number)
        picture[1::2] = field(2 * number + 1)[1::2]
        woven.append(picture)
    codec, options = INTERLACED[name]
    path = encode(tmp_path / name, woven, codec, rate=25, options=options)
    with av.open(path) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames = read_frames(path, size=96, rate=25)

    def comb(image):
        """How much every other line differs from those between."""
        lines = image[10:86, :, 1].astype(int)
        return np.abs(lines[1:-1] * 2 - lines[:-2] - lines[2:]).mean()

    stored = comb(geometry.fit(every_frame(path)[5], 96))
    shown = [comb(image) for image in frames.images]
    assert len(shown) == 30
    assert max(shown) < stored / 4
    assert frames.fault is None


def test_progressive_video_is_left_as_it_is(tmp_path):
    path = write(tmp_path / "a.mp4", 31)
    frames = read_frames(path, size=SIZE)
    np.testing.assert_array_equal(frames.images, every_frame(path)[[0, 30]])
    assert numbers(frames.images) == [0, 30]
