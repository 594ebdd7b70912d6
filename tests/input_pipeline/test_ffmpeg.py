"""FFmpeg's own program, of whatever version the machine has, shows the frames that are stored."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from glscl_jax.input_pipeline.decoding.video import read_frames
from tests.conftest import SHARED
from tests.numbered_videos import SIZE, numbers, write

PROGRAM = shutil.which("ffmpeg")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="FFmpeg's own program (ffmpeg) is not here"),
]
CASES = SHARED / "cases" / "videos"
# Of 255, in the mean of a frame and in nearly all of its pixels. Decoders agree to the bit, but for
# some transforms; how chroma is enlarged, and pixels that are not square, is each version's own.
MEAN, MOST = 2.0, 12

CODECS = [
    ("a.mp4", "libx264", {"bframes": 2}),
    ("a.mkv", "libx264", {"pts": [33 * n + 7 * (n % 3) for n in range(90)]}),
    ("a.ts", "libx264", {"bframes": 2, "gop": 30}),
    ("a.flv", "libx264", {}),
    ("a.mp4", "libx265", {"bframes": 3}),
    ("a.webm", "libvpx", {}),
    ("a.webm", "libvpx-vp9", {}),
    ("a.mp4", "libsvtav1", {}),
    ("a.avi", "mpeg4", {"bframes": 2}),
    ("a.mpg", "mpeg1video", {}),
    ("a.vob", "mpeg2video", {"bframes": 2}),
    ("a.wmv", "wmv2", {}),
    ("a.flv", "flv", {}),
]


def shown(path):
    """What `ffmpeg` decodes: seconds from its first frame [N], frames [N,H,W,3] turned, square."""
    filters = "scale=iw*sar:ih,setsar=1,showinfo"
    output = ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [PROGRAM, "-hide_banner", "-nostdin", "-i", str(path), "-an", "-sn", "-vf", filters]
    done = subprocess.run([*command, *output], capture_output=True, check=True)
    told = done.stderr.decode(errors="replace")
    over, under = map(int, re.search(r"config in time_base: (\d+)/(\d+)", told).groups())
    times = np.array(re.findall(r" pts:\s*(-?\d+) ", told), int) * over / under
    ((width, height),) = set(re.findall(r" s:(\d+)x(\d+) ", told))
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, int(height), int(width), 3)
    assert len(frames) == len(times)
    return times - times[0], frames


def squares(frames):
    """The middle of each, as high as the shorter side."""
    side = min(frames.shape[1:3])
    top, left = (round((length - side) / 2) for length in frames.shape[1:3])
    return frames[:, top : top + side, left : left + side]


def assert_same(path, **window):
    """The frames that are stored are those that `ffmpeg` has on screen at their times."""
    times, frames = shown(path)
    expected = squares(frames)
    found = read_frames(path, size=expected.shape[1], **window)
    at = found.times + window.get("start", 0) + 1e-4
    on_screen = np.searchsorted(times, at, side="right") - 1
    difference = np.abs(found.images.astype(int) - expected[on_screen])
    assert difference.mean(axis=(1, 2, 3)).max() <= MEAN
    assert np.percentile(difference, 99) <= MOST
    return found, expected[on_screen]


@pytest.mark.parametrize(("name", "codec", "settings"), CODECS)
def test_codecs(tmp_path, name, codec, settings):
    path = write(tmp_path / name, codec=codec, **settings)
    for window in ({"rate": 1.0}, {"rate": 7.0}, {"rate": 3.0, "start": 0.9, "end": 2.1}):
        found, expected = assert_same(path, **window)
        assert found.images.shape[1] == SIZE
        assert numbers(found.images) == numbers(expected)
        assert found.fault is None


# `ffmpeg` turns by any angle and fills the corners with black, and takes jumps out of the clock.
OTHERWISE = {"deg3.mp4", "deg45.mp4", "gap_100_hours.mkv"}


@pytest.mark.skipif(not CASES.is_dir(), reason="the small videos (../shared/cases) are not here")
def test_the_cases():
    for path in sorted(CASES.iterdir()):
        if path.name not in OTHERWISE:
            try:
                assert_same(path)
            except AssertionError as error:
                raise AssertionError(path.name) from error
