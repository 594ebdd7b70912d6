"""Which files are opened, which stream of them is the film, and what each refusal says."""

import contextlib
import errno
import os
import pathlib
import struct

import av
import numpy as np
import pytest
from PIL import Image

from glscl_jax.input_pipeline.annotations import source
from glscl_jax.input_pipeline.decoding import containers, video
from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames
from tests.numbered_videos import SIZE, numbered, numbers, write

DISPOSITION = av.stream.Disposition


def with_streams(path, streams):
    """A file of some streams: (frames, side, first number, disposition)."""
    with av.open(path, "w") as container:
        made = []
        for count, side, first, disposition in streams:
            codec = "mjpeg" if count == 1 else "libx264"
            stream = container.add_stream(codec, rate=10)
            stream.height = stream.width = side
            stream.pix_fmt = "yuvj420p" if count == 1 else "yuv420p"
            stream.disposition = disposition
            made.append((stream, count, side, first))
        for number in range(max(count for _, count, _, _ in made)):
            for stream, count, side, first in made:
                if number < count:
                    picture = numbered(first + number, side, side)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    container.mux(stream.encode(frame))
        for stream, *_ in made:
            container.mux(stream.encode())
    return path


NONE, DEFAULT = DISPOSITION(0), DISPOSITION.default
COVER, PREVIEW = DISPOSITION.attached_pic, DISPOSITION.timed_thumbnails
STREAMS = {
    "a cover first, the film marked": [(1, 192, 900, NONE), (30, 96, 0, DEFAULT)],
    "a marked cover first": [(1, 192, 900, DEFAULT), (30, 96, 0, NONE)],
    "the second is marked": [(30, 192, 500, NONE), (30, 96, 0, DEFAULT)],
    "none is marked, the second is larger": [(30, 96, 500, NONE), (30, 192, 0, NONE)],
    "both are marked, the first is larger": [(30, 192, 0, DEFAULT), (30, 96, 500, DEFAULT)],
    "as large, the second has more frames": [(12, 96, 500, NONE), (30, 96, 0, NONE)],
}


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
@pytest.mark.parametrize("kind", STREAMS)
def test_the_film_is_found_among_streams(tmp_path, kind, name):
    if name != "a.mkv" and not any(marks & DEFAULT for *_, marks in STREAMS[kind]):
        pytest.skip("the muxer marks one")
    path = with_streams(tmp_path / name, STREAMS[kind])
    frames = read_frames(path, size=SIZE)
    assert (numbers(frames.images), frames.fault) == ([0, 10, 20], None)
    assert video.measure(path) == pytest.approx(3)


def test_a_preview_is_no_film(tmp_path):
    path = with_streams(tmp_path / "a.mkv", [(30, 96, 0, NONE), (30, 192, 500, NONE)])

    class Marked:
        """The larger stream as a preview, which FFmpeg's muxers do not write."""

        def __init__(self, stream, disposition):
            self.stream, self.disposition = stream, disposition

        def __getattr__(self, name):
            return getattr(self.stream, name)

    for never in (PREVIEW, COVER, DISPOSITION.still_image, DISPOSITION.dependent):
        with av.open(path) as container:
            small, large = container.streams.video
            streams = type("Streams", (), {"audio": (), "video": (small, Marked(large, never))})
            marked = type("Container", (), {"streams": streams})
            assert containers.film(marked, path) is small


def with_codec(source, path, tag):
    data = source.read_bytes()
    path.write_bytes(data.replace(b"avc1", tag))
    return path


def test_a_codec_without_a_decoder_is_named(tmp_path):
    path = with_codec(write(tmp_path / "a.mp4", 30), tmp_path / "b.mp4", b"zzzz")
    with pytest.raises(VideoError, match=r"^FFmpeg has no decoder for its video$"):
        read_frames(path, size=SIZE)
    with pytest.raises(VideoError, match=r"^FFmpeg has no decoder for its video$"):
        video.measure(path)


STRANGERS = {
    "a.m3u8": (b"#EXTM3U\n#EXT-X-VERSION:3\n", "HLS playlist"),
    "b.mp4": (b"ffconcat version 1.0\nfile other.mp4\n", "playlist"),
    "a.html": (b"\n<!DOCTYPE html><html>Video unavailable</html>", "page of text"),
    "a.zip": (b"PK\x03\x04" + bytes(100), "ZIP archive"),
    "lfs.mp4": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "noise.bin": (np.random.default_rng(3).bytes(5000), "not a video that can be read"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_video_is_named(tmp_path, name):
    data, told = STRANGERS[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(VideoError, match=told) as error:
        read_frames(path, size=SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "told"), [("webp", "WebP"), ("jpeg", "JPEG pictures"), ("png", "PNG")]
)
def test_pictures_are_named(tmp_path, kind, told):
    pictures = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in (0, 99, 200)]
    moving = {"save_all": True, "append_images": pictures[1:]} if kind == "webp" else {}
    pictures[0].save(tmp_path / f"a.{kind}", **moving)
    with pytest.raises(VideoError, match=f"not a video that can be read .*{told}"):
        read_frames(tmp_path / f"a.{kind}", size=SIZE)


EXOTIC = {
    "a.ivf": "libvpx",
    "a.y4m": "wrapped_avframe",
    "a.swf": "flv1",
    "a.m1v": "mpeg1video",
    "a.m2v": "mpeg2video",
    "a.apng": "apng",
    "a.nut": "mpeg4",
    "a.rm": "rv10",
    "a.wtv": "mpeg2video",
    "a.264": "libx264",
}


@pytest.mark.parametrize("name", EXOTIC)
def test_containers_that_hold_their_own_data_are_read(tmp_path, name):
    options = {"format": "h264"} if name == "a.264" else {}
    with av.open(tmp_path / name, "w", **options) as container:
        stream = container.add_stream(EXOTIC[name], rate=25, options={"g": "12", "bf": "0"})
        stream.height = stream.width = 96
        stream.pix_fmt = "rgb24" if name == "a.apng" else "yuv420p"
        for number in range(75):
            frame = av.VideoFrame.from_ndarray(numbered(number, 96, 96), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    frames = read_frames(tmp_path / name, size=SIZE)
    assert (numbers(frames.images), frames.fault) == ([0, 25, 50], None)


ERRORS = (errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG)


@pytest.mark.parametrize("number", ERRORS)
def test_the_systems_errors_are_the_files(tmp_path, monkeypatch, number):
    path = write(tmp_path / "a.mp4", 30)

    def broken(*_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(pathlib.Path, "stat", broken)
    with pytest.raises(VideoError, match=f"^{os.strerror(number)}$"):
        read_frames(path, size=SIZE)
    monkeypatch.undo()
    monkeypatch.setattr(av, "open", broken)
    with pytest.raises(VideoError, match=os.strerror(number)):
        read_frames(path, size=SIZE)


def test_names_of_any_bytes_and_lengths(tmp_path):
    with pytest.raises(VideoError, match=r"^File name too long$"):
        read_frames(tmp_path / ("x" * 300 + ".mp4"), size=SIZE)
    odd = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.mp4"))
    odd.write_bytes(write(tmp_path / "a.mp4", 31).read_bytes())
    assert numbers(read_frames(odd, size=SIZE).images) == [0, 30]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("odd"), av.MemoryError(12, "no")])
def test_whatever_fails_in_a_clip_is_the_clips(tmp_path, monkeypatch, error):
    path = write(tmp_path / "a.mp4", 30)

    def failing(*_, **how):
        raise error

    monkeypatch.setattr("glscl_jax.input_pipeline.decoding.screen.Screen.show", failing)
    told = "odd" if isinstance(error, RuntimeError) else "there is not the memory to read it"
    with pytest.raises(VideoError, match=told):
        read_frames(path, size=SIZE)


def test_pictures_that_would_fill_the_memory_are_refused(tmp_path):
    # A header of 40,000 x 40,000 pixels before data of a small picture.
    path = tmp_path / "a.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height = stream.width = 96
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(numbered(1, 96, 96), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = path.read_bytes()
    begin = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:begin] + struct.pack(">HH", 40_000, 40_000) + data[begin + 4 :])
    with pytest.raises(VideoError, match=r"pictures of 40000 x 40000|lost|not a video"):
        read_frames(path, size=SIZE)


# Sound and single pictures in the same containers.
NO_VIDEO = {"heic", "heif", "isma", "m4a", "m4b", "mka", "mks", "ra", "wma"}


def test_files_of_all_containers_that_are_read_are_found(tmp_path):
    """By the endings that FFmpeg knows of them, and those of its elementary streams and discs."""
    known = {"divx", "m1v", "m2p", "m2v", "mpe", "mpv", "ogm", "ogv", "qt", "rmvb", "vob"}
    for name in containers.FORMATS:
        for mode in ("r", "w"):
            with contextlib.suppress(ValueError):
                known |= av.ContainerFormat(name, mode).extensions
    for ending in known - NO_VIDEO:
        (tmp_path / f"{ending} file.{ending.upper()}").touch()
    for ending in NO_VIDEO | {"txt", "srt", "wav", "jpg"}:
        (tmp_path / f"{ending} file.{ending}").touch()
    found = {path.suffix[1:].lower() for path in source.videos_below(tmp_path)}
    assert found == known - NO_VIDEO
    assert len(found) > 50
    assert {f".{ending}" for ending in found} <= source.VIDEO_SUFFIXES
