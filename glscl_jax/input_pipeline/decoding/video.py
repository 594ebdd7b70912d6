"""A video file, or a folder of numbered pictures -> the frames at given times, decoded exactly.

The packets are read first, without decoding (see `timeline`). Then the wanted frames alone are
decoded (see `decoding`), shown as on a screen (`screen`) and brought to size (`geometry`).
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import numpy as np

from glscl_jax.input_pipeline.decoding import containers, geometry, packets
from glscl_jax.input_pipeline.decoding.containers import NO_SUCH_FILE, VideoError
from glscl_jax.input_pipeline.decoding.packet_scan import scan
from glscl_jax.input_pipeline.decoding.packets import Film, UntrustedTimestamps
from glscl_jax.input_pipeline.decoding.picture_folder import PictureFolder, is_folder
from glscl_jax.input_pipeline.decoding.screen import Screen
from glscl_jax.input_pipeline.decoding.timeline import Timeline, choose

__all__ = [
    "NO_SUCH_FILE",
    "Frames",
    "VideoError",
    "duration",
    "measure",
    "read_frames",
    "read_windows",
]


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames of a clip.

    Attributes:
      images: uint8 [V, size, size, 3], RGB; or a list of V of whatever `keep` made of each.
      times: float64 [V], seconds from the clip's start. Where a window starts between two frames
        the first is the one on screen, so its time can lie a fraction of a frame below 0.
      fault: in a few words, why frames that should be there are not; None if all are.
    """

    images: np.ndarray | list
    times: np.ndarray
    fault: str | None = None


@dataclasses.dataclass(frozen=True)
class _Found:
    """Those frames of a timeline that were chosen, and those that could be had.

    Attributes:
      timeline: what was chosen from.
      chosen: indices of frames; one can occur twice.
      images: by index; some may be missing.
    """

    timeline: Timeline
    chosen: list[int]
    images: dict[int, Any]


def read_frames(
    path: pathlib.Path,
    *,
    size: int,
    rate: float = 1.0,
    start: float | None = None,
    end: float | None = None,
    stored_pixels: bool = False,
    pictures_rate: float | None = None,
    resize: str = "crop",
    interpolation: str = "bicubic",
    keep: Callable[[np.ndarray], Any] | None = None,
) -> Frames:
    """Reads a clip's frames at a fixed rate.

    Where the frame rate is constant the frames are those of the reference: every
    round(fps / rate)-th from int(start * fps) to int(end * fps), counted from 0, the last
    included. Where it varies they are the ones on screen at start, start + 1 / rate, ...

    Pictures are turned as their display matrix says, stretched to square pixels and brought to
    `size` by Pillow's filters, rounding as torchvision does.

    Of a file that is cut off or damaged the good frames are kept, and `fault` says what is not:
    nothing is taken from the packet before the first that does not decode to the next key frame.

    Args:
      path: the video; or a folder of pictures, which are a video of a constant frame rate.
      size: height and width of the result, in pixels.
      rate: frames a second.
      start: seconds from the video's first frame; its beginning if None.
      end: seconds from the video's first frame; its end if None or later.
      stored_pixels: leaves pixels that are not square as they are stored, as the reference does.
      pictures_rate: pictures a second, where it is a folder.
      resize: "crop": the shorter side to `size` and the centre cropped; "squash": both sides.
      interpolation: "bicubic" or "bilinear".
      keep: is given each frame, uint8 [size, size, 3], as it is decoded; what it returns is kept
        in its place. By default the frames are, in one array.

    Raises:
      VideoError: if none of these frames can be had, whatever the reason.
    """
    path, start = pathlib.Path(path), start or 0.0
    kept_as = keep or (lambda picture: picture)
    how = {"resize": resize, "interpolation": interpolation}

    def pick(line: Timeline) -> list[int]:
        return choose(line, rate, start, end)

    with _told(path):
        if is_folder(path):
            found = _find_pictures(
                path,
                pictures_rate,
                pick,
                lambda picture: kept_as(geometry.fit(picture, size, **how)),
            )
        else:
            film, screen = _opened(path, end, stored_pixels)
            found = _find(film, pick, lambda frame: kept_as(screen.show(frame, size, **how)))
    return _frames(found, start, whole=keep is None)


def read_windows(
    path: pathlib.Path,
    cut: Callable[[float], Sequence[tuple[float, float]]],
    *,
    size: int,
    rate: float = 1.0,
    pictures_rate: float | None = None,
    **how: str,
) -> Iterator[tuple[tuple[float, float], Frames | VideoError]]:
    """Reads windows of a video, each as `read_frames`; packets are read once for all of them.

    Args:
      path, size, rate, pictures_rate: as `read_frames` takes them.
      cut: seconds that the video is long -> the start and the end of each window.
      how: `resize` and `interpolation`, likewise.

    Yields:
      each window, and its frames or why there are none.

    Raises:
      VideoError: the video cannot be read at all.
    """
    path = pathlib.Path(path)
    if is_folder(path):
        for window in cut(duration(path, pictures_rate)):
            start, end = window
            try:
                more = {"pictures_rate": pictures_rate, **how}
                yield window, read_frames(path, size=size, rate=rate, start=start, end=end, **more)
            except VideoError as error:
                yield window, error
        return
    with _told(path):
        film, screen = _opened(path, None, stored_pixels=False)
        length = film.packets.timeline().length
    for window in cut(length):
        start, end = window
        try:
            with _told(path):
                found = _find(
                    film,
                    lambda line, start=start, end=end: choose(line, rate, start, end),
                    lambda frame: screen.show(frame, size, **how),
                )
            yield window, _frames(found, start)
        except VideoError as error:
            yield window, error


@contextlib.contextmanager
def _told(path: pathlib.Path) -> Iterator[None]:
    """Makes a `VideoError` of whatever goes wrong with a file."""
    try:
        yield
    except VideoError:
        raise
    except Exception as error:  # of any kind: one file must not end a run over many
        raise VideoError(containers.reason(path, error)) from error


def _opened(path: pathlib.Path, end: float | None, stored_pixels: bool) -> tuple[Film, Screen]:
    """The packets of a file up to `end`, and how its pictures are shown."""
    containers.check_file(path)
    with containers.opened(path) as container:
        stream = containers.film(container, path)
        film = Film(path, stream.index, scan(container, stream, end))
        pixel = 1 if stored_pixels else geometry.pixel_shape(stream.sample_aspect_ratio)
        return film, Screen(stream.codec_context.name, pixel)


def _frames(found: _Found, start: float, whole: bool = True) -> Frames:
    """What was found, less what is lost; in one array if `whole`."""
    kept = [index for index in found.chosen if index in found.images]
    fault = _fault(found)
    if not kept:
        raise VideoError(fault)
    line = found.timeline
    times = np.array([line.seconds(line.ticks[index]) for index in kept]) - start
    images = [found.images[index] for index in kept]
    return Frames(np.stack(images) if whole else images, times, fault)


def duration(path: pathlib.Path, pictures_rate: float | None = None) -> float | None:
    """Seconds that a file's header says it is long, or pictures are; None if it says nothing.

    Raises:
      VideoError: it cannot be opened.
    """
    path = pathlib.Path(path)
    try:
        if is_folder(path):
            return _folder(path, pictures_rate)[1].length
        with containers.opened(path) as container:
            known = container.duration
            # In Matroska the clock counts, which need not start at 0.
            late = "matroska" in containers.kinds(container) and container.start_time
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(containers.reason(path, error)) from error
    if known is None:
        return None
    return max(0, known - max(0, late or 0)) / av.time_base


def measure(path: pathlib.Path, pictures_rate: float | None = None) -> float:
    """Seconds that a file is long by its frames, whatever its header says.

    Raises:
      VideoError: it cannot be read.
    """
    path = pathlib.Path(path)
    if is_folder(path):
        return duration(path, pictures_rate)
    try:
        with containers.opened(path) as container:
            return scan(container, containers.film(container, path), None).timeline().length
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(containers.reason(path, error)) from error


def _folder(path: pathlib.Path, pictures_rate: float | None) -> tuple[PictureFolder, Timeline]:
    folder = PictureFolder.open(path)
    if pictures_rate is None:
        raise VideoError("a folder of pictures: say how many there are a second, --pictures_rate")
    return folder, folder.timeline(pictures_rate)


def _find_pictures(
    path: pathlib.Path, pictures_rate: float | None, pick: Callable, shown: Callable
) -> _Found:
    """Those of a folder's pictures that `pick` picks of its timeline, each as `shown` makes it."""
    folder, line = _folder(path, pictures_rate)
    chosen = pick(line)
    images, fault = folder.read(chosen, shown)
    fault = "; ".join(filter(None, [line.fault, fault])) or None
    return _Found(dataclasses.replace(line, fault=fault), chosen, images)


def _find(film: Film, pick: Callable, shown: Callable) -> _Found:
    """The frames that `pick` picks of a timeline, each as `shown` makes it."""
    if film.packets.trusted:
        line = film.packets.timeline()
        chosen = pick(line)
        index_of = {line.ticks[index]: index for index in chosen}
        wanted = sorted(index_of)

        def read(strict: bool) -> dict[int, Any]:
            frames = packets.by_timestamp(film, line, wanted, strict)
            return {index_of[ticks]: image for ticks, image in _each(frames, shown)}

        try:
            images = read(strict=False)
            if len(images) < len(wanted):
                # Decoders conceal damage where they can. Now that some has shown, none of it may
                # pass.
                images = read(strict=True)
            return _Found(line, chosen, images)
        except UntrustedTimestamps:
            pass
    counted = packets.count(film)
    strict = bool(counted.lost)
    if strict:
        counted = packets.count(film, strict)
    line = film.packets.timeline(counted.times + counted.lost)
    chosen = pick(line)
    index_of = _good_ones(line, counted)
    wanted = sorted(number for number, index in index_of.items() if index in set(chosen))
    frames = packets.by_count(film, wanted, strict) if wanted else ()
    images = {index_of[number]: image for number, image in _each(frames, shown)}
    return _Found(line, chosen, images)


def _each(frames: Iterator[tuple[int, av.VideoFrame]], shown: Callable) -> Iterator:
    for name, frame in frames:
        yield name, shown(frame)


def _good_ones(timeline: Timeline, counted: packets.Counted) -> dict[int, int]:
    """Where each good frame, by its number, is in a timeline of good ones and lost ones."""
    told = [(time, True) for time in counted.times] + [(time, False) for time in counted.lost]
    indices = (index for index, (_, good) in enumerate(sorted(told)) if good)
    return {number: index for number, index in enumerate(indices) if index < len(timeline.ticks)}


def _fault(found: _Found) -> str | None:
    lost = sorted(set(found.chosen) - found.images.keys())
    if not lost:
        return found.timeline.fault
    line = found.timeline
    damage = (
        f"damaged: {len(lost)} of {len(set(found.chosen))} frames lost,"
        f" the first at {line.seconds(line.ticks[lost[0]]):.1f} s"
    )
    return "; ".join(filter(None, [line.fault, damage]))
