"""The exact scan of features on the disk, and what a window's outline takes."""

import functools
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


def best_of(runs: dict[str, Callable[[], object]], times: int = 9) -> dict[str, tuple]:
    """Seconds of the fastest of some tries each, and of CPU of the cheapest.

    They take turns, after one that compiles: what else the machine does meets them alike.
    """
    for run in runs.values():
        run()
    taken, spent = ({name: [] for name in runs} for _ in range(2))
    for _ in range(times):
        for name, run in runs.items():
            begun, before = time.perf_counter(), time.process_time()
            run()
            taken[name].append(time.perf_counter() - begun)
            spent[name].append(time.process_time() - before)
    return {name: (min(taken[name]), min(spent[name])) for name in runs}


def reading(arrays: list[np.ndarray], threads: int) -> None:
    """Reads all bytes once."""
    parts = [part for x in arrays for part in np.array_split(x.reshape(-1).view(np.int64), 64)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(np.max, parts))


def scan(folder: pathlib.Path, count: int, dtype: str) -> None:
    """Prints what the exact scan takes."""
    begun = time.perf_counter()
    files = written(folder, count, dtype)
    print(f"{dtype}: {count:,} windows written in {time.perf_counter() - begun:.0f} s", flush=True)
    each = sum(files.row_bytes().values())
    windows = windows_of(HEAD, files.maps(count))
    rows, random = np.arange(count), np.random.default_rng(1)
    print(f"{dtype}: {each:,} bytes a window, {each * count / 1e9:.1f} GB", flush=True)
    for asked in (1, 16):
        video = features(random, asked)
        text = TextFeatures(video.frames[:, 0], video.queries)
        kinds = ({}, {"threads": 1}, {"threads": 1, "block": 1024})
        scans = [Scan(windows, HEAD, **kind) for kind in kinds]
        tried = {
            f"{scan.threads} threads, blocks of {scan.blocks.size:,}": functools.partial(
                scan.top, text, TOP, rows
            )
            for scan in scans
        }
        for how, (seconds, cpu) in best_of(tried).items():
            told = f"{asked} queries at once, {how}: {seconds:.3f} s, {cpu:.3f} s of CPU"
            print(f"{dtype}: {told}, {each * count / seconds / 1e9:.1f} GB/s", flush=True)
    arrays = [x for x in jax.tree.leaves(windows) if x.size % 8 == 0]
    counts = (1, os.cpu_count() or 1)
    tried = {f"{x} threads": functools.partial(reading, arrays, x) for x in counts}
    for how, (seconds, cpu) in best_of(tried).items():
        told = f"read by {how} in {seconds:.3f} s, {cpu:.3f} s of CPU"
        print(f"{dtype}: the bytes alone are {told}; load {os.getloadavg()[0]:.0f}", flush=True)
    shutil.rmtree(folder)


def outlines(count: int = 1000) -> None:
    """Prints what a window's outline takes."""
    video = features(np.random.default_rng(2), count)
    begun = time.perf_counter()
    HEAD.outline(video)
    each = (time.perf_counter() - begun) / count
    print(f"outline (nearest point of {FRAMES} frames' hull): {1e3 * each:.2f} ms a window")
