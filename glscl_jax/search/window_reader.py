"""Videos -> the frames of their windows, on threads, in order."""

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures

import numpy as np

from glscl_jax.input_pipeline.decoding.video import VideoError, read_windows
from glscl_jax.input_pipeline.video_files import pick
from glscl_jax.search.video_folder import Known, Video
from glscl_jax.search.windows import Cut, Window

# Windows of a video that wait to be encoded; of each, frames are held.
_AHEAD = 8


@dataclasses.dataclass(frozen=True)
class Reading:
    """How windows are read.

    Attributes:
      cut: how videos are cut.
      size: S, pixels; `resize` and `interpolation`: as `read_frames` takes them.
      rate: frames a second, of which `num_frames` (V) are picked.
      pictures_rate: pictures a second of a folder of them.
    """

    cut: Cut
    size: int
    rate: float
    num_frames: int
    resize: str = "crop"
    interpolation: str = "bicubic"
    pictures_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class ReadWindow:
    """A window that was read, or why it was not.

    Attributes:
      video: whose it is.
      sha256: of the video.
      window: where in it; None if the whole video cannot be read.
      windows: how many the video has.
      frames: uint8 [V or fewer,S,S,3].
      times: float64 [V or fewer], seconds from the video's first frame.
      fault: why frames are missing; None if none is.
    """

    video: Video
    sha256: str
    window: Window | None
    windows: int
    frames: np.ndarray
    times: np.ndarray
    fault: str | None


def read_all(
    wanted: Sequence[tuple[Video, Known | None]], how: Reading, workers: int
) -> Iterator[ReadWindow]:
    """Reads the windows of videos, those of each video in turn.

    Args:
      wanted: videos, each with what of it is there already and is passed over.
      how: how windows are cut and read.
      workers: threads.
    """
    stop, waiting, begun = threading.Event(), [], iter(wanted)
    with futures.ThreadPoolExecutor(workers) as pool:

        def begin() -> None:
            for video, known in itertools.islice(begun, 1):
                ready = queue.Queue(_AHEAD)
                waiting.append(ready)
                pool.submit(_produce, video, known, how, ready, stop)

        try:
            for _ in range(workers):
                begin()
            while waiting:
                while (found := waiting[0].get()) is not None:
                    if isinstance(found, BaseException):
                        raise found
                    yield found
                waiting.pop(0)
                begin()
        finally:
            stop.set()


def _produce(video: Video, known: Known | None, how: Reading, ready, stop) -> None:
    def put(item) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return True
        return False

    try:
        for found in _read(video, known.starts if known else frozenset(), how):
            if not put(found):
                return
        put(None)
    except BaseException as error:
        put(error)


def _read(video: Video, there: frozenset[float], how: Reading) -> Iterator[ReadWindow]:
    nothing = (np.zeros((0, how.size, how.size, 3), np.uint8), np.zeros(0))
    digest, cut = "", []

    def plan(length: float) -> list[tuple[float, float]]:
        cut[:] = how.cut.windows(length)
        return [(one.start, one.end) for one in cut if one.start not in there]

    try:
        digest = video.sha256()
        found = read_windows(
            video.path,
            plan,
            size=how.size,
            rate=how.rate,
            pictures_rate=how.pictures_rate,
            resize=how.resize,
            interpolation=how.interpolation,
        )
        for (start, end), frames in found:
            window = Window(start, end)
            if isinstance(frames, VideoError):
                told = str(frames)
                yield ReadWindow(video, digest, window, len(cut), *nothing, told)
                continue
            taken = pick(len(frames.images), how.num_frames)
            images, times = frames.images[taken], frames.times[taken] + start
            yield ReadWindow(video, digest, window, len(cut), images, times, frames.fault)
    except (VideoError, OSError) as error:
        told = getattr(error, "strerror", None) or str(error)
        yield ReadWindow(video, digest, None, 0, *nothing, told)
