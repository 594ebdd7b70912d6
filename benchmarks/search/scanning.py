"""The exact scan of features on the disk, and what a window's outline takes."""

import os
import pathlib
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from benchmarks.search.made import FRAMES, HEAD, TOP, features
from glscl_jax.models.heads.features import TextFeatures
from glscl_jax.search.feature_files import FeatureFiles
from glscl_jax.search.scan import Scan, to_arrays, windows_of

CHUNK = 2048


def written(folder: pathlib.Path, count: int, dtype: str) -> FeatureFiles:
    """So many windows on the disk, without outlines, which a scan does not read."""
    files, random = FeatureFiles(folder), np.random.default_rng(0)
    for start in range(0, count, CHUNK):
        made = to_arrays(HEAD, features(random, min(CHUNK, count - start)), dtype, outline=False)
        files.put(start, made)
    return files


def best_of(run: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """Seconds of the fastest of some runs, and of CPU of the cheapest, after one that compiles."""
    run()
    taken, spent = [], []
    for _ in range(times):
        begun, before = time.perf_counter(), time.process_time()
        run()
        taken.append(time.perf_counter() - begun)
        spent.append(time.process_time() - before)
    return min(taken), min(spent)


def reading(arrays: list[np.ndarray]) -> tuple[float, float]:
    """As `best_of`: what it takes to read all bytes once, by a thread a core."""
    parts = [part for x in arrays for part in np.array_split(x.reshape(-1).view(np.int64), 64)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return best_of(lambda: list(pool.map(np.max, parts)))


def scan(folder: pathlib.Path, count: int, dtype: str) -> None:
    """Prints what the exact scan takes."""
    begun = time.perf_counter()
    files = written(folder, count, dtype)
    print(f"{dtype}: {count:,} windows written in {time.perf_counter() - begun:.0f} s", flush=True)
    each = sum(files.row_bytes().values())
    windows = windows_of(HEAD, files.maps(count))
    scanning, rows = Scan(windows, HEAD), np.arange(count)
    random = np.random.default_rng(1)
    for asked in (1, 16):
        video = features(random, asked)
        text = TextFeatures(video.frames[:, 0], video.queries)
        seconds, cpu = best_of(lambda text=text: scanning.top(text, TOP, rows))
        print(
            f"{dtype}: {each:,} bytes a window, {asked} queries at once: {seconds:.3f} s,"
            f" {cpu:.3f} s of CPU, {each * count / seconds / 1e9:.1f} GB/s",
            flush=True,
        )
    seconds, cpu = reading([x for x in jax.tree.leaves(windows) if x.size % 8 == 0])
    print(f"{dtype}: the bytes alone are read in {seconds:.3f} s, {cpu:.3f} s of CPU", flush=True)
    shutil.rmtree(folder)


def outlines(count: int = 1000) -> None:
    """Prints what a window's outline takes."""
    video = features(np.random.default_rng(2), count)
    begun = time.perf_counter()
    HEAD.outline(video)
    each = (time.perf_counter() - begun) / count
    print(f"outline (nearest point of {FRAMES} frames' hull): {1e3 * each:.2f} ms a window")
