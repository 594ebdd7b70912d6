"""Clips a second from disk to a batch, prepared or decoded anew, beside the reference's way.

    pip install --no-deps -r requirements-bench.txt
    python -m benchmarks.inputs

Renders 40 videos of 320 x 240, 10 to 15 s at 30 frames a second, cuts 4 clips from each, prepares
them, and reads those 160 clips, 12 frames of 224 x 224 of each, in turns: from the prepared data
through tf.data onto the device; by this project's decoder anew; and the reference's way, decord
and Pillow in worker processes. Then the two decoders alone, one thread each, on the same frames.
Every turn is a process of its own. Last, the pipeline's memory at a batch of 128.

Takes decord, which requirements-bench.txt has. How long was not measured.
"""

import concurrent.futures
import csv
import importlib.util
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from absl import flags

from benchmarks.inputs.figures import BATCH, Figures
from benchmarks.machine import machine
from glscl_jax.errors import UserError
from glscl_jax.runtime import program
from yardsticks import moving_clips

ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns that each way takes.", lower_bound=1)
VIDEOS = flags.DEFINE_integer("videos", 40, "Videos to render.", lower_bound=BATCH)
WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Threads or processes that decode.")

CLIPS_PER_VIDEO = 4
PREPARED_STEPS = 60  # One pass takes a second: not long enough to measure.
LARGE_BATCH, LARGE_STEPS = 128, 6


def main(_):
    if importlib.util.find_spec("decord") is None:
        raise UserError("decord is not here: pip install --no-deps -r requirements-bench.txt")
    with tempfile.TemporaryDirectory() as scratch:
        videos, data = pathlib.Path(scratch, "videos"), pathlib.Path(scratch, "data")
        render(videos)
        run("glscl_jax.input_pipeline.prepare", "--source", videos, "--data_dir", data)

        print(f"{machine()}\n{CLIPS_PER_VIDEO * VIDEOS.value} clips of {VIDEOS.value} videos")
        workers = WORKERS.value
        ways = {
            "prepared, tf.data": ("prepared", data, BATCH, PREPARED_STEPS),
            "decoded anew, PyAV": ("on_the_fly", videos, workers),
            "the reference's way": ("reference", videos, workers),
        }
        report(take_turns(ways), "the reference's way")
        alone = {
            "PyAV alone": ("decoders", videos, "pyav"),
            "decord alone": ("decoders", videos, "decord"),
        }
        times = take_turns(alone)
        report(times, "decord alone")
        checks = {figures.check for turns in times.values() for figures in turns}
        print(f"the decoders' frames are {'equal' if len(checks) == 1 else 'NOT EQUAL'}")
        large = read("prepared", data, LARGE_BATCH, LARGE_STEPS)
        print(f"peak memory of the pipeline at batch {LARGE_BATCH}: {large.peak_mb:,.0f} MB")


def render(folder: pathlib.Path) -> None:
    """The videos, and a captions.csv of the clips."""
    folder.mkdir()
    numbers = range(VIDEOS.value)
    paths = [folder / f"{number:03}.mp4" for number in numbers]
    lengths = [10 + number % 11 / 2 for number in numbers]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        list(pool.map(moving_clips.write_clip, paths, lengths, numbers))
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "caption", "start", "split"])
        for cut in range(CLIPS_PER_VIDEO):
            for path in paths:
                writer.writerow([path.name, f"{path.stem} from {cut}", cut / 5, "train"])


def take_turns(ways: dict[str, tuple]) -> dict[str, list[Figures]]:
    """Each way's figures, one for every round."""
    turns = {name: [] for name in ways}
    for _ in range(ROUNDS.value):
        for name, (module, *arguments) in ways.items():
            turns[name].append(read(module, *arguments))
    return turns


def read(module: str, *arguments) -> Figures:
    """One run of a way."""
    printed = run(f"benchmarks.inputs.{module}", *arguments)
    return Figures(**json.loads(printed.splitlines()[-1]))


def run(module: str, *arguments) -> str:
    """What a program prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def report(turns: dict[str, list[Figures]], beside: str) -> None:
    """A table of medians, each beside one of the ways."""
    rates = {name: [f.clips / f.seconds for f in figures] for name, figures in turns.items()}
    base = statistics.median(rates[beside])
    for name, values in rates.items():
        rate = statistics.median(values)
        frames = statistics.median(f.frames / f.seconds for f in turns[name])
        print(
            f"{name:<22}{rate:8.1f} clips/s{frames:10.0f} frames/s  x {rate / base:5.2f}"
            f"  (median of {len(values)}; {min(values):.1f} to {max(values):.1f})"
        )


if __name__ == "__main__":
    program.run(main)
