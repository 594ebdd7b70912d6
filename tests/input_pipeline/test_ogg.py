"""Of a damaged Ogg what is damaged is lost, and told; FFmpeg leaves it out without a word."""

import itertools
import shutil
import struct
import subprocess

import av
import numpy as np
import pytest

from glscl_jax.input_pipeline.decoding import ogg
from glscl_jax.input_pipeline.decoding.video import read_frames
from tests.numbered_videos import SIZE, numbered, numbers

COUNT, RATE, KEYS = 90, 30, 12
PROGRAM = shutil.which("ffmpeg")


def vp8(path):
    with av.open(path, "w") as container:
        options = {"g": str(KEYS), "deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
        stream = container.add_stream("libvpx", rate=RATE, options=options)
        stream.height = stream.width = SIZE
        stream.pix_fmt, stream.bit_rate, stream.thread_count = "yuv420p", 2_000_000, 1
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def theora(path):
    if PROGRAM is None:
        pytest.skip("FFmpeg's own program, which writes Theora, is not here")
    pictures = b"".join(numbered(number).tobytes() for number in range(COUNT))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE}x{SIZE}", "-r", str(RATE)]
    coding = ["-c:v", "libtheora", "-q:v", "9", "-g", str(KEYS)]
    command = [PROGRAM, "-v", "error", *source, "-i", "-", *coding, str(path)]
    done = subprocess.run(command, input=pictures, capture_output=True, check=False)
    if b"Unknown encoder" in done.stderr:
        pytest.skip("FFmpeg's own program here does not write Theora")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module", params=[vp8, theora])
def whole(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("whole") / "a.ogg")


def read(path, **window):
    """The frames by their numbers, each of which stands at its time, and what is told."""
    frames = read_frames(path, size=SIZE, rate=RATE, **window)
    found = numbers(frames.images)
    assert np.rint((frames.times + window.get("start", 0)) * RATE).astype(int).tolist() == found
    return found, frames.fault


def pages(path):
    """(begin, end) of each page; the last is marked."""
    found = list(ogg._pages(path))
    begins = [page.offset for page in found] + [path.stat().st_size]
    assert [page.ends for page in found] == [False] * (len(found) - 1) + [True]
    return list(itertools.pairwise(begins))


def changed(whole, path, change):
    data = bytearray(whole.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def test_a_whole_one_is_whole(whole):
    assert read(whole) == (list(range(COUNT)), None)
    assert read(whole, start=1.0, end=1.5) == (list(range(30, 46)), None)


def test_one_page_is_lost_and_what_leans_on_it(whole, tmp_path):
    listed = pages(whole)
    for number in range(len(listed) // 3, len(listed) - 1, 3):
        begin, end = listed[number]

        def flip(data, at=(begin + end) // 2):
            data[at] ^= 0x55

        def cut(data, begin=begin, end=end):
            del data[begin:end]

        def zero(data, begin=begin, end=end):
            data[begin:end] = bytes(end - begin)

        # As far as the clock says how much is missing.
        answers = {
            str(read(changed(whole, tmp_path / "b.ogg", change))) for change in (flip, cut, zero)
        }
        found, fault = read(tmp_path / "b.ogg")
        assert answers == {str((found, fault))}
        lost = sorted(set(range(COUNT)) - set(found))
        # A key frame's page and those up to the next.
        assert 0 < len(lost) <= 2 * KEYS + 1
        assert lost == list(range(lost[0], lost[-1] + 1))
        assert fault.startswith("damaged: data is missing in 1 places")
        # Nothing is told of a window that ends before.
        assert read(tmp_path / "b.ogg", end=0.2) == (list(range(7)), None)


def test_an_end_that_is_not_there_is_told(whole, tmp_path):
    listed = pages(whole)
    for size in (listed[-1][0], listed[-1][0] + 20, listed[-4][1] - 3, listed[-4][0]):
        path = changed(
            whole, tmp_path / "b.ogg", lambda data, size=size: data.__delitem__(slice(size, None))
        )
        found, fault = read(path)
        assert found == list(range(len(found)))
        assert len(found) > COUNT // 2
        assert fault.startswith("truncated: its end is not there")


def test_a_clock_that_runs_away_makes_no_frames(whole, tmp_path):
    """A page ahead of the last keeps its checksum and says that centuries have passed."""
    data = bytearray(whole.read_bytes())
    (gone, begin), (_, end) = pages(whole)[-3:-1]
    struct.pack_into("<q", data, begin + 6, 1 << 61)
    struct.pack_into("<I", data, begin + 22, 0)
    backwards = bytes(data[begin:end]).translate(ogg._BACKWARDS)
    checksum = int(f"{ogg.zlib.crc32(backwards, ogg._ONES) ^ ogg._ONES:032b}"[::-1], 2)
    struct.pack_into("<I", data, begin + 22, checksum)
    del data[gone:begin]
    (tmp_path / "b.ogg").write_bytes(data)
    frames = read_frames(tmp_path / "b.ogg", size=SIZE, rate=RATE)
    assert len(frames.images) <= COUNT
    assert "damaged: data is missing in 1 places" in frames.fault
