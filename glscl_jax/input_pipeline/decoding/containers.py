"""A video file -> an open container, and the one stream in it that is the film."""

import contextlib
import os
import pathlib
import re
import struct

import av

NO_SUCH_FILE = "no such file"

# One codec's data and nothing else, without a clock.
CODEC_STREAMS = (
    *("h264", "hevc", "h263", "h261", "m4v", "mpegvideo", "vc1", "obu", "dirac", "dnxhd"),
)
# What FFmpeg calls the containers that hold their own data. Left out are playlists (HLS, concat,
# DASH), which name other files and addresses that nobody asked to open, and single pictures.
FORMATS = (
    *("mov", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif", "mxf", "nut"),
    *("rm", "wtv", "gxf", "dv", "swf", "ivf", "yuv4mpegpipe", "apng", "roq"),
    *CODEC_STREAMS,
)
# A picture of more pixels is a damaged header, or made to fill memory; 8K has 33 million.
MAX_PIXELS = 1 << 27
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(FORMATS),
    "max_pixels": str(MAX_PIXELS),
}
# What files begin with that are no video here, and what they are.
_STRANGERS = (
    (b"RIFF....WEBP", "WebP, whose moving pictures FFmpeg does not read: make an MP4 or GIF of it"),
    (b"RIFF....WAVE", "sound only (WAV)"),
    (b"#EXTM3U", "an HLS playlist, which names other files: make one video of them"),
    (b"ffconcat version", "an FFmpeg playlist, which names other files: make one video of them"),
    (b"\xff\xd8\xff", "JPEG pictures, not a video"),
    (b"\x89PNG", "a PNG picture, not a video"),
    (b"BM", "a BMP picture, not a video"),
    (b"ID3", "sound only (MP3)"),
    (b"fLaC", "sound only (FLAC)"),
    (b"PK\x03\x04", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    (b"<", "a page of text (HTML or XML): fetch the file itself"),
)
_EXOTIC = "damaged, or a container that is not read here: make an MP4 of it"
# Titles that are not UTF-8 are common, and nobody reads them here. PyAV 19 takes them as they are.
_TITLES = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}

# How files of formats begin that are not read on in when one is joined to another.
_BEGINNINGS = {
    "mov": rb"\0\0\0.ftyp",
    "matroska": rb"\x1aE\xdf\xa3.{1,40}\x42\x82.(matroska|webm)",
    "flv": rb"FLV\x01[\x01\x04\x05]\0\0\0\x09",
}
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_BROADCAST = 1
_HEAD_BYTES = 1 << 16
_BEHIND_BYTES = 1 << 26  # An index is there, or a cover, before another file can be.

_disposition = av.stream.Disposition
_NEVER = (
    _disposition.attached_pic
    | _disposition.timed_thumbnails
    | _disposition.still_image
    | _disposition.dependent
)


class VideoError(Exception):
    """Why a video gives no frames, in a few words."""


def check_file(path: pathlib.Path) -> None:
    """Raises `VideoError` if there is no file with anything in it."""
    try:
        if not path.exists():
            raise VideoError(NO_SUCH_FILE)
        if not path.is_file():
            raise VideoError("not a file")
        if not path.stat().st_size:
            raise VideoError("empty file")
    except OSError as error:
        raise VideoError(error.strerror) from error


def opened(path: pathlib.Path):
    """The container, to be closed.

    Raises:
      av.FFmpegError: it cannot be opened.
    """
    # With the protocol named, a colon in a file name is not taken for one.
    url = f"file:{os.fspath(path.absolute())}"
    return av.open(url, options=_OPEN_OPTIONS, **_TITLES)


def kinds(container) -> frozenset[str]:
    """The names that FFmpeg has for a container's format."""
    return frozenset(container.format.name.split(","))


def reason(path: pathlib.Path, error: BaseException) -> str:
    """Why a file cannot be read, in a few words and one line."""
    if isinstance(error, MemoryError):
        return "there is not the memory to read it"
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    told = told.splitlines()[0]
    if isinstance(error, av.InvalidDataError | av.ArgumentError) and (stranger := _stranger(path)):
        told = stranger
    elif isinstance(error, av.ArgumentError):
        # So FFmpeg says that a format is known and not among those asked for.
        told = _EXOTIC
    elif not isinstance(error, av.FFmpegError | OSError):
        told = f"{type(error).__name__}: {told}"
    return f"not a video that can be read ({told})"


def _stranger(path: pathlib.Path) -> str | None:
    """What a file is by its first bytes, if that is something else than a video."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, told in _STRANGERS:
        pairs = zip(magic, start, strict=False)
        if len(start) >= len(magic) and all(m in (s, ord(".")) for m, s in pairs):
            return told
    return None


def second_file(container, position: int) -> bool:
    """Whether another file of the same kind begins behind a byte of an open one.

    Where files were joined byte by byte, FFmpeg reads on in some formats and stops in others.
    """
    magic = next((_BEGINNINGS[kind] for kind in kinds(container) if kind in _BEGINNINGS), None)
    if magic is None or position <= 0:
        return False
    with file_of(container).open("rb") as file:
        file.seek(position)
        return re.search(magic, file.read(_BEHIND_BYTES), re.DOTALL) is not None


def stated_size(container) -> int | None:
    """Bytes that an ASF's header says the file has, unless it was broadcast; None for others.

    FFmpeg leaves out the header's duration where the file is shorter.
    """
    if "asf" not in kinds(container):
        return None
    with file_of(container).open("rb") as file:
        head = file.read(_HEAD_BYTES)
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or len(head) < at + 92:
        return None
    (size,) = struct.unpack_from("<Q", head, at + 40)
    (flags,) = struct.unpack_from("<I", head, at + 88)
    return None if flags & _ASF_BROADCAST else size


def file_of(container) -> pathlib.Path:
    """The file of an open container."""
    return pathlib.Path(container.name.removeprefix("file:"))


def film(container, path: pathlib.Path):
    """The stream of pictures that a player shows: the one marked default, else the largest.

    Among equals it is the one with most frames. Never a cover or a preview; a single picture only
    where nothing moves.

    Raises:
      VideoError: there is none, or none that can be decoded.
    """
    shown = [s for s in container.streams.video if not s.disposition & _NEVER]
    if not shown:
        raise VideoError("no video in it" + (", only audio" if container.streams.audio else ""))
    readable = [s for s in shown if s.codec_context is not None]
    if not readable:
        raise VideoError("FFmpeg has no decoder for its video")
    chosen = readable[0] if len(readable) == 1 else _best(readable, path)
    width, height = chosen.codec_context.width, chosen.codec_context.height
    if width * height > MAX_PIXELS:
        raise VideoError(f"pictures of {width} x {height}, more than {MAX_PIXELS:,} pixels")
    return chosen


def _best(streams: list, path: pathlib.Path):
    counts = {stream.index: stream.frames for stream in streams}
    if not all(counts.values()):
        counts = _counted(counts, path)
    moving = [s for s in streams if counts[s.index] > 1] or streams
    marked = [s for s in moving if s.disposition & _disposition.default] or moving

    def rank(stream):
        context = stream.codec_context
        return context.width * context.height, counts[stream.index], -stream.index

    return max(marked, key=rank)


def _counted(streams, path: pathlib.Path) -> dict[int, int]:
    """Packets of each stream, where the header does not say how many there are."""
    counts = dict.fromkeys(streams, 0)
    # What is damaged from some place on is so for each of them.
    with opened(path) as container, contextlib.suppress(av.FFmpegError):
        for packet in container.demux(video=tuple(range(len(container.streams.video)))):
            if packet.size and packet.stream_index in counts:
                counts[packet.stream_index] += 1
    return counts
