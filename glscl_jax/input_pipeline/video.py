"""A video file -> the frames at given times, decoded exactly.

The packets are read first, without decoding: their timestamps say which frames there are, whether
the frame rate is constant, where seeking pays and whether the file was cut off. Then the wanted
frames alone are decoded, turned upright and resized.
"""

import bisect
import dataclasses
import fractions
import itertools
import math
import os
import pathlib
from collections.abc import Iterator

import av
import numpy as np
from PIL import Image

NO_SUCH_FILE = "no such file"

# Containers that hold their own data. Playlists (HLS, concat, DASH) are left out: they name other
# files and addresses, which nobody asked to open.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,nut,rm",
}
# Intervals of a constant frame rate still differ by the rounding to the time base, and the rate
# that the header names is taken where the timestamps say nearly the same.
_INTERVAL_TOLERANCE = 0.05
_RATE_TOLERANCE = 0.005
# A header's duration and the packets differ by less than this in healthy files.
_CUT_OFF_SECONDS = 0.5
# A coded frame that says "as before" is not put out by decoders; the one before stays on screen.
_HOLD_SECONDS = 0.25
# Formats with an index of key frames. In the others timestamps can differ after a seek.
_SEEKABLE = {"mov", "matroska", "avi"}


class VideoError(Exception):
    """Why a video gives no frames, in a few words."""


class _UntrustedTimestamps(Exception):
    """Decoded frames are not where the packets say, as with H.264 in AVI."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames of a clip.

    Attributes:
      images: uint8 [V, size, size, 3], RGB.
      times: float64 [V], seconds from the clip's start. Where a window starts between two frames
        the first is the one on screen, so its time can lie a fraction of a frame below 0.
    """

    images: np.ndarray
    times: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Timeline:
    """What the packets say, in ticks of the stream's time base.

    Attributes:
      ticks: when each frame appears, ascending; complete up to `end`.
      keys: those of them where decoding can start, ascending.
      end: when the last frame leaves the screen.
      tick: seconds a tick.
      rate: frames a second as the header has it, if it does.
    """

    ticks: list[int]
    keys: list[int]
    end: int
    tick: fractions.Fraction
    rate: fractions.Fraction | None

    def seconds(self, ticks: int) -> float:
        """Seconds from the first frame."""
        return float((ticks - self.ticks[0]) * self.tick)

    def index_on_screen(self, seconds: float) -> int:
        """Index of the frame on screen at a time."""
        at = self.ticks[0] + fractions.Fraction(seconds) / self.tick
        return max(0, bisect.bisect_right(self.ticks, at) - 1)


def read_frames(
    path: pathlib.Path,
    *,
    size: int,
    rate: float = 1.0,
    start: float | None = None,
    end: float | None = None,
) -> Frames:
    """Reads a clip's frames at a fixed rate.

    Where the frame rate is constant the frames are those of the reference: every
    round(fps / rate)-th from int(start * fps) to int(end * fps), counted from 0, the last
    included. Where it varies they are the ones on screen at start, start + 1 / rate, ...

    Rotation metadata is applied, then the shorter side is brought to `size` with Pillow's bicubic
    filter and the centre cropped, rounding as torchvision does.

    Args:
      path: the video.
      size: height and width of the result, in pixels.
      rate: frames a second.
      start: seconds from the video's first frame; its beginning if None.
      end: seconds from the video's first frame; its end if None or later.

    Raises:
      VideoError: if any of these frames cannot be had.
    """
    path = pathlib.Path(path)
    _check_file(path)
    try:
        with _open(path) as container:
            timeline = _scan(container, _video_stream(container), end)
        chosen = _choose(timeline, rate, start or 0.0, end)
        images = _decode(path, timeline, sorted({timeline.ticks[i] for i in chosen}), size)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"not a video that can be read ({_reason(error)})") from error
    ticks = [timeline.ticks[i] for i in chosen]
    times = np.array([timeline.seconds(t) for t in ticks]) - (start or 0.0)
    return Frames(np.stack([images[t] for t in ticks]), times)


def _check_file(path: pathlib.Path) -> None:
    if not path.exists():
        raise VideoError(NO_SUCH_FILE)
    if not path.is_file():
        raise VideoError("not a file")
    if not path.stat().st_size:
        raise VideoError("empty file")


# Titles that are not UTF-8 are common, and nobody reads them here. PyAV 19 takes them as they are.
_TITLES = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


def _open(path: pathlib.Path):
    # With the protocol named, a colon in a file name is not taken for one.
    url = f"file:{os.fspath(path.absolute())}"
    return av.open(url, options=_OPEN_OPTIONS, **_TITLES)


def _video_stream(container):
    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            # Clips are decoded side by side, one thread each.
            stream.thread_type = "NONE"
            return stream
    raise VideoError("no video in it" + (", only audio" if container.streams.audio else ""))


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]


def _scan(container, stream, end: float | None) -> _Timeline:
    """Reads packets up to `end`; raises VideoError if the file stops before its own duration."""
    durations, keys, tails = {}, [], {}
    begin = complete_to = None
    for packet in container.demux():
        ticks = packet.dts if packet.pts is None else packet.pts
        if not packet.size or ticks is None:
            continue
        index = packet.stream.index
        tail = float((ticks + (packet.duration or 0)) * packet.time_base)
        tails[index] = max(tails.get(index, tail), tail)
        if index != stream.index:
            continue
        if packet.is_keyframe:
            keys.append(ticks)
        # Packets ahead of an edit list's start are decoded but not shown; frames ahead of the
        # first key frame lean on pictures that are not in the file.
        if packet.is_discard or not keys or ticks < keys[0]:
            continue
        begin = ticks if begin is None else min(begin, ticks)
        # Packets come in decoding order: no later frame is shown before this one's dts.
        if _seconds_from(begin, packet.dts, stream) > (math.inf if end is None else end):
            complete_to = packet.dts
            break
        durations[ticks] = packet.duration
    else:
        _check_whole(container, stream, tails, end)
    return _timeline(stream, durations, keys, complete_to)


def _seconds_from(begin: int, dts: int | None, stream) -> float:
    return 0.0 if dts is None else float((dts - begin) * stream.time_base)


def _timeline(stream, durations: dict, keys: list[int], complete_to: int | None) -> _Timeline:
    ticks = sorted(t for t in durations if complete_to is None or t < complete_to)
    if not ticks:
        raise VideoError("no frame in it")
    # Some formats store no durations: the last frame stays as long as the one before it.
    last = durations[ticks[-1]] or (ticks[-1] - ticks[-2] if len(ticks) > 1 else 1)
    end = ticks[-1] + last if complete_to is None else complete_to
    return _Timeline(ticks, sorted(keys), end, stream.time_base, stream.average_rate)


def _check_whole(container, stream, tails: dict[int, float], end: float | None) -> None:
    """Compares how far the packets go with the header's duration; MPEG streams have none."""
    if stream.duration is not None:
        begin = float((stream.start_time or 0) * stream.time_base)
        length = float(stream.duration * stream.time_base)
        if container.format.name == "avi" and stream.average_rate:
            # FFmpeg scales an AVI's duration to the size of the file, but not its frame count.
            length = max(length, float(stream.frames / stream.average_rate))
        read = tails.get(stream.index, begin) - begin
    elif container.duration is not None:
        # The header counts the longest stream.
        begin = (container.start_time or 0) / av.time_base
        length = container.duration / av.time_base
        read = max(tails.values(), default=begin) - begin
    else:
        return
    needed = length if end is None else min(length, end)
    if read < needed - _CUT_OFF_SECONDS:
        raise VideoError(f"truncated: {max(read, 0):.1f} of {length:.1f} s are there")


def _choose(timeline: _Timeline, rate: float, start: float, end: float | None) -> list[int]:
    """Indices of the frames to show; one can occur twice where the frame rate varies."""
    length = timeline.seconds(timeline.end)
    fps = _constant_rate(timeline)
    if fps is not None:
        last = len(timeline.ticks) - 1
        last = last if end is None else int(min(end * fps, last))
        chosen = list(range(int(start * fps), last + 1, max(1, round(fps / rate))))
    else:
        until = length if end is None else min(end, length)
        times = (start + k / rate for k in range(int((until - start) * rate) + 1))
        chosen = [timeline.index_on_screen(time) for time in times if time < length]
    if not chosen:
        raise VideoError(f"no frame from {start:g} s on: the video has {length:.1f} s")
    return chosen


def _constant_rate(timeline: _Timeline) -> float | None:
    """Frames a second if all intervals are equal up to rounding; None if they vary."""
    ticks = timeline.ticks
    mean = fractions.Fraction(max(1, timeline.end - ticks[0]))
    if len(ticks) > 1:
        mean = fractions.Fraction(ticks[-1] - ticks[0], len(ticks) - 1)
    tolerance = max(1, _INTERVAL_TOLERANCE * mean)
    if any(abs(b - a - mean) > tolerance for a, b in itertools.pairwise(ticks)):
        return None
    # Regular up to the last frame, which stays longer: the window ends in a pause.
    if timeline.end - ticks[-1] > 2 * mean:
        return None
    measured = float(1 / (mean * timeline.tick))
    stated = float(timeline.rate or 0)
    return stated if abs(stated - measured) < _RATE_TOLERANCE * measured else measured


def _decode(path, timeline: _Timeline, wanted: list[int], size: int) -> dict[int, np.ndarray]:
    """The wanted frames by their ticks, each uint8 [size, size, 3]."""
    try:
        with _open(path) as container:
            found = _frames_by_timestamp(container, timeline, wanted)
            return {ticks: _fit(_upright(frame), size) for ticks, frame in found}
    except _UntrustedTimestamps:
        with _open(path) as container:
            found = _frames_by_count(container, timeline, wanted)
            return {ticks: _fit(_upright(frame), size) for ticks, frame in found}


def _frames_by_timestamp(container, timeline, wanted) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (ticks, frame) of the wanted frames, ascending; seeks only past undecoded frames."""
    stream = _video_stream(container)
    seekable = not _SEEKABLE.isdisjoint(container.format.name.split(","))
    frames, position = container.decode(stream), timeline.keys[0]
    previous = current = None
    for ticks in wanted:
        key = timeline.keys[bisect.bisect_right(timeline.keys, ticks) - 1]
        if seekable and key > position:
            container.seek(key, stream=stream)
            frames, previous, current = container.decode(stream), None, None
        while current is None or current.pts < ticks:
            following = next(frames, None)
            if following is None:
                break
            if following.pts is None or (current is not None and following.pts <= current.pts):
                raise _UntrustedTimestamps
            previous, current, position = current, following, following.pts
        on_screen = current if current is not None and current.pts <= ticks else previous
        if on_screen is None:
            raise _UntrustedTimestamps
        if (ticks - on_screen.pts) * timeline.tick > _HOLD_SECONDS:
            raise _damaged(timeline, ticks)
        yield ticks, on_screen


def _frames_by_count(container, timeline, wanted) -> Iterator[tuple[int, av.VideoFrame]]:
    """As `_frames_by_timestamp`, from the beginning: decoders put frames out in their order."""
    wanted = set(wanted)
    frames = container.decode(_video_stream(container))
    for ticks in timeline.ticks:
        frame = next(frames, None)
        if frame is None:
            raise _damaged(timeline, ticks)
        if ticks in wanted:
            yield ticks, frame


def _damaged(timeline: _Timeline, ticks: int) -> VideoError:
    return VideoError(f"damaged: no frame at {timeline.seconds(ticks):.1f} s")


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3] RGB as the video is meant to be seen."""
    # FFmpeg counts the rotation counterclockwise, as rot90 does.
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to `size`, centre cropped; uint8 [size, size, 3]."""
    height, width = image.shape[:2]
    short = min(height, width)
    resized = int(size * width / short), int(size * height / short)
    picture = Image.fromarray(np.ascontiguousarray(image))
    if short != size:
        picture = picture.resize(resized, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in picture.size)
    return np.asarray(picture.crop((left, top, left + size, top + size)))
