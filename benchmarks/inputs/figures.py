"""What a way of reading prints at its end, and what it reads."""

import csv
import dataclasses
import json
import pathlib
import resource
import sys
import time
from collections.abc import Iterable

BATCH = 32  # clips
NUM_FRAMES, SIZE = 12, 224


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of one run of one way.

    Attributes:
      clips: read while the clock ran.
      frames: real ones among them.
      seconds: of wall clock.
      peak_mb: the most memory that the process held, its children not counted.
      check: a checksum of what was read, where ways are to read the same; else 0.
    """

    clips: int
    frames: int
    seconds: float
    peak_mb: float
    check: int = 0

    def print_json(self) -> None:
        print(json.dumps(dataclasses.asdict(self)), flush=True)


@dataclasses.dataclass(frozen=True)
class Window:
    """A clip: a video from some second on."""

    video: pathlib.Path
    start: float


def windows(folder: pathlib.Path) -> list[Window]:
    """The clips of a folder's captions.csv, in its order."""
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Window(folder / row["video"], float(row["start"])) for row in rows]


def measure(batches: Iterable[tuple[int, int]], check: int = 0) -> Figures:
    """Reads (clips, frames) batch after batch; the first is not timed, it pays for the start."""
    batches = iter(batches)
    next(batches)
    begin = time.perf_counter()
    counts = list(batches)
    seconds = time.perf_counter() - begin
    clips, frames = map(sum, zip(*counts, strict=True))
    return Figures(clips, frames, seconds, peak_mb(), check)


def peak_mb() -> float:
    """Of this process, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
