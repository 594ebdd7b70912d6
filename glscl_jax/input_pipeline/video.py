"""A video file -> the frames at given times, decoded exactly.

The packets are read first, without decoding (see `timeline`). Then the wanted frames alone are
decoded, past the others that nothing leans on, turned upright and resized (see `geometry`).
"""

import bisect
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from glscl_jax.input_pipeline import geometry
from glscl_jax.input_pipeline.timeline import Timeline, VideoError, choose, scan

NO_SUCH_FILE = "no such file"

# Containers that hold their own data. Playlists (HLS, concat, DASH) are left out: they name other
# files and addresses, which nobody asked to open.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,nut,rm",
}
# A coded frame that says "as before" is not put out by decoders; the one before stays on screen.
_HOLD_SECONDS = 0.25
# Formats with an index of key frames. In the others timestamps can differ after a seek.
_SEEKABLE = {"mov", "matroska", "avi"}
# Where every packet is a frame with its own timestamp, a frame that no other leans on can be left
# undecoded: a quarter of the time at x264's defaults.
_TIMED = {"mov", "matroska"}
_SKIPPABLE = {"h264", "hevc"}
_PROGRESSIVE = 1  # FFmpeg's AV_FIELD_PROGRESSIVE; 0 is unknown


class _UntrustedTimestamps(Exception):
    """Decoded frames are not where the packets say, as with H.264 in AVI."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames of a clip.

    Attributes:
      images: uint8 [V, size, size, 3], RGB.
      times: float64 [V], seconds from the clip's start. Where a window starts between two frames
        the first is the one on screen, so its time can lie a fraction of a frame below 0.
      fault: in a few words, why frames that should be there are not; None if all are.
    """

    images: np.ndarray
    times: np.ndarray
    fault: str | None = None


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

    Of a file that is cut off or damaged the good frames are kept, and `fault` says what is not:
    nothing is taken from the packet before the first that does not decode to the next key frame.

    Args:
      path: the video.
      size: height and width of the result, in pixels.
      rate: frames a second.
      start: seconds from the video's first frame; its beginning if None.
      end: seconds from the video's first frame; its end if None or later.

    Raises:
      VideoError: if none of these frames can be had.
    """
    path = pathlib.Path(path)
    _check_file(path)
    try:
        with _open(path) as container:
            timeline = scan(container, _video_stream(container), end)
        chosen = [timeline.ticks[i] for i in choose(timeline, rate, start or 0.0, end)]
        images = _decode(path, timeline, sorted(set(chosen)), size)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"not a video that can be read ({_reason(error)})") from error
    kept = [ticks for ticks in chosen if ticks in images]
    fault = _fault(timeline, chosen, images)
    if not kept:
        raise VideoError(fault)
    times = np.array([timeline.seconds(ticks) for ticks in kept]) - (start or 0.0)
    return Frames(np.stack([images[ticks] for ticks in kept]), times, fault)


def duration(path: pathlib.Path) -> float | None:
    """Seconds that a file's header says it is long; None if it says nothing.

    Raises:
      VideoError: it cannot be opened.
    """
    try:
        with _open(pathlib.Path(path)) as container:
            known = container.duration
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"not a video that can be read ({_reason(error)})") from error
    return None if known is None else known / av.time_base


def _fault(timeline: Timeline, chosen: list[int], images: dict) -> str | None:
    lost = [ticks for ticks in chosen if ticks not in images]
    if not lost:
        return timeline.fault
    damage = (
        f"damaged: {len(lost)} of {len(chosen)} frames lost,"
        f" the first at {timeline.seconds(lost[0]):.1f} s"
    )
    return "; ".join(filter(None, [timeline.fault, damage]))


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


def _video_stream(container, strict: bool = False):
    """The stream of pictures; `strict` makes an error of what its decoder would conceal."""
    cover = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            # Clips are decoded side by side, one thread each.
            stream.thread_type = "NONE"
            if strict:
                stream.codec_context.options = {"err_detect": "explode"}
            return stream
    raise VideoError("no video in it" + (", only audio" if container.streams.audio else ""))


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]


def _decode(path, timeline: Timeline, wanted: list[int], size: int) -> dict[int, np.ndarray]:
    """Those of the wanted frames that are good, by their ticks, each uint8 [size, size, 3]."""
    reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def fitted(frame: av.VideoFrame) -> np.ndarray:
        picture = reformatter.reformat(frame, format="rgb24").to_ndarray()
        return geometry.fit(geometry.upright(picture, frame.rotation), size)

    def read(frames, **how) -> dict[int, np.ndarray]:
        with _open(path) as container:
            found = frames(container, timeline, wanted, **how)
            return {ticks: fitted(frame) for ticks, frame in found}

    try:
        images = read(_frames_by_timestamp)
        if len(images) < len(wanted):
            # Decoders conceal damage where they can. Now that some has shown, none of it may pass.
            images = read(_frames_by_timestamp, strict=True)
    except _UntrustedTimestamps:
        images = read(_frames_by_count)
    return images


def _frames_by_timestamp(
    container, timeline, wanted, strict: bool = False
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (ticks, frame) of the good wanted frames, ascending; seeks past undecoded ones."""
    stream = _video_stream(container, strict)
    seekable = not _SEEKABLE.isdisjoint(container.format.name.split(","))
    bad: set[int] = set()
    frames, position = _good_frames(container, stream, wanted, bad), timeline.keys[0]
    previous = current = None
    for ticks in wanted:
        key = timeline.keys[bisect.bisect_right(timeline.keys, ticks) - 1]
        if seekable and key > position:
            container.seek(key, stream=stream)
            frames = _good_frames(container, stream, wanted, bad)
            previous = current = None
        while current is None or current.pts < ticks:
            following = next(frames, None)
            if following is None:
                break
            if following.pts is None or (current is not None and following.pts <= current.pts):
                raise _UntrustedTimestamps
            previous, current, position = current, following, following.pts
        on_screen = current if current is not None and current.pts <= ticks else previous
        if on_screen is None and not bad:
            raise _UntrustedTimestamps
        if ticks not in bad and on_screen is not None and _holds(timeline, on_screen, ticks):
            yield ticks, on_screen


def _holds(timeline: Timeline, frame: av.VideoFrame, ticks: int) -> bool:
    return (ticks - frame.pts) * timeline.tick <= _HOLD_SECONDS


def _good_frames(container, stream, wanted: list[int], bad: set[int]) -> Iterator[av.VideoFrame]:
    """Decoded frames from here on, in the order they are shown; the others' ticks go to `bad`.

    Once a packet does not decode, what follows it up to the next key frame leans on it, and the
    packet before it may be damaged where a decoder conceals it.
    """
    context = stream.codec_context
    timed = not _TIMED.isdisjoint(container.format.name.split(","))
    # Of interlaced video a packet can be half a frame.
    skipping = timed and context.name in _SKIPPABLE and context.field_order <= _PROGRESSIVE
    wanted, broken, before, ready = set(wanted), False, None, []
    for packet in container.demux(stream):
        if skipping:
            # Whether to decode a packet is asked as it is sent: there is one thread.
            needed = packet.pts is None or packet.pts in wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
        broken = (broken and not packet.is_keyframe) or packet.is_corrupt
        try:
            decoded = packet.decode()
        except av.InvalidDataError:
            decoded, broken = [], True
        if broken:
            bad.update({before, packet.pts})
        bad.update(frame.pts for frame in decoded if frame.is_corrupt)
        yield from (frame for frame in ready if frame.pts not in bad)
        before, ready = packet.pts, decoded
    yield from (frame for frame in ready if frame.pts not in bad)


def _frames_by_count(container, timeline, wanted) -> Iterator[tuple[int, av.VideoFrame]]:
    """As `_frames_by_timestamp`, from the beginning: decoders put frames out in their order."""
    wanted = set(wanted)
    frames = container.decode(_video_stream(container))
    for ticks in timeline.ticks:
        try:
            frame = next(frames, None)
        except av.InvalidDataError:
            return  # nothing behind it can be counted
        if frame is None:
            return
        if ticks in wanted:
            yield ticks, frame
