"""Searching 100,000 windows: the exact scan, and neighbours by LanceDB and FAISS beside it.

Features are random, of the sizes of a ViT-B/32 with 12 frames (D = 512, K = 8), of a video's frames
near each other; vectors for neighbours have --width numbers and lie in 2,000 clusters. FAISS is for
comparison: pip install faiss-cpu.

Takes half an hour on 2 shared cores of an AMD EPYC, of which product quantisation takes most, and 8
GB of disk (--windows for fewer).
"""

import os
import pathlib
import resource
import shutil
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags

from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.search.feature_files import FeatureFiles
from glscl_jax.search.scan import Scan, to_arrays, windows_of

FRAMES, WIDTH, QUERIES = 12, 512, 8
HEAD = GLSCLHead()
CHUNK, TOP = 2048, 10


def features(random: np.random.Generator, count: int) -> VideoFeatures:
    """Windows as a model makes them: frames near a centre, concepts of length 1."""
    centres = random.standard_normal((count, 1, WIDTH), dtype=np.float32)
    frames = centres + 0.5 * random.standard_normal((count, FRAMES, WIDTH), dtype=np.float32)
    queries = random.standard_normal((count, QUERIES, WIDTH), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=-1, keepdims=True)
    return VideoFeatures(frames, np.ones((count, FRAMES), np.int32), queries)


def written(folder: pathlib.Path, count: int, dtype: str) -> FeatureFiles:
    """So many windows on the disk, without outlines, which a scan does not read."""
    files, random = FeatureFiles(folder), np.random.default_rng(0)
    for start in range(0, count, CHUNK):
        made = to_arrays(HEAD, features(random, min(CHUNK, count - start)), dtype, outline=False)
        files.put(start, made)
    return files


def best_of(run: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of some runs, after a first that compiles."""
    run()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return min(taken)


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
        seconds = best_of(lambda text=text: scanning.top(text, TOP, rows))
        print(
            f"{dtype}: {each:,} bytes a window, {asked} queries at once: {seconds:.3f} s,"
            f" {each * count / seconds / 1e9:.1f} GB/s",
            flush=True,
        )
    shutil.rmtree(folder)


def outlines(count: int = 1000) -> None:
    """Prints what a window's outline takes."""
    video = features(np.random.default_rng(2), count)
    begun = time.perf_counter()
    HEAD.outline(video)
    each = (time.perf_counter() - begun) / count
    print(f"outline (nearest point of {FRAMES} frames' hull): {1e3 * each:.2f} ms a window")


def vectors(count: int, width: int, seed: int) -> np.ndarray:
    """Vectors of length 1 in clusters, float32."""
    centres = np.random.default_rng(9).standard_normal((2000, width), dtype=np.float32)
    random = np.random.default_rng(seed)
    made = centres[random.integers(0, len(centres), count)]
    made += random.standard_normal((count, width), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def neighbours(folder: pathlib.Path, count: int, width: int) -> None:
    """Prints the table of engines: build, memory, recall at 10, milliseconds."""
    stored, asked = vectors(count, width, 0), vectors(50, width, 1)
    begun = time.perf_counter()
    true = np.argpartition(-(asked @ stored.T), TOP, axis=1)[:, :TOP]
    print(f"exact, NumPy, 50 at once: {20 * (time.perf_counter() - begun):.1f} ms a query")
    for name, build in (*faiss(width), *lance(folder, width)):
        before, begun = memory(), time.perf_counter()
        find = build(stored)
        built, grown = time.perf_counter() - begun, memory() - before
        find(asked[0])
        begun = time.perf_counter()
        found = [find(query) for query in asked]
        each = (time.perf_counter() - begun) / len(asked)
        recall = np.mean([np.isin(one, two).mean() for one, two in zip(true, found, strict=True)])
        print(
            f"{name}: built in {built:.0f} s, {grown / 2**20:,.0f} MiB more at most,"
            f" recall {recall:.3f}, {1e3 * each:.1f} ms",
            flush=True,
        )


def lance(folder: pathlib.Path, width: int) -> list[tuple[str, Callable]]:
    """LanceDB: without an index, and as `search.neighbours` makes one; and its trap."""
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb
    import pyarrow as pa
    from lancedb.index import HnswSq, IvfPq, IvfRq

    def build(name: str, metric: str, refine: int | None, config=None):
        def made(stored: np.ndarray):
            flat = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), stored.shape[1])
            rows = pa.array(np.arange(len(stored)))
            table = lancedb.connect(str(folder)).create_table(
                name, pa.table({"row": rows, "vector": flat}), mode="overwrite"
            )
            if config:
                table.create_index("vector", config=config)

            def find(query: np.ndarray) -> np.ndarray:
                asked = table.search(query).distance_type(metric).limit(TOP)
                if config:
                    asked = asked.nprobes(79)
                    asked = asked.refine_factor(refine) if refine else asked
                return asked.select(["row", "_distance"]).to_arrow()["row"].to_numpy()

            return find

        return made

    parts = {"num_partitions": 316}
    scalar = {"num_partitions": 16}
    product = IvfPq("cosine", num_sub_vectors=width // 16, **parts)
    return [
        ("LanceDB, no index", build("flat", "cosine", None)),
        ("LanceDB, IVF_RQ, refined 50", build("rq", "cosine", 50, IvfRq("cosine", **parts))),
        ("LanceDB, IVF_RQ, not refined", build("rq0", "cosine", None, IvfRq("cosine", **parts))),
        ("LanceDB, IVF_HNSW_SQ, refined 10", build("sq", "cosine", 10, HnswSq("cosine", **scalar))),
        ("LanceDB, IVF_HNSW_SQ, dot", build("dot", "dot", None, HnswSq("dot", **scalar))),
        ("LanceDB, IVF_PQ of 16, refined 10", build("pq", "cosine", 10, product)),
    ]


def faiss(width: int) -> list[tuple[str, Callable]]:
    """FAISS, where it is installed."""
    try:
        import faiss as library
    except ImportError:
        print("FAISS is not installed: pip install faiss-cpu")
        return []

    def build(kind: str, probes: int):
        def made(stored: np.ndarray):
            index = library.index_factory(width, kind, library.METRIC_INNER_PRODUCT)
            index.train(stored[:40_000])
            index.add(stored)
            if probes:
                library.extract_index_ivf(index).nprobe = probes
            return lambda query: index.search(query[None], TOP)[1][0]

        return made

    return [("FAISS, Flat", build("Flat", 0)), ("FAISS, IVF316,Flat", build("IVF316,Flat", 32))]


def memory() -> int:
    """The most that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(_) -> None:
    values = flags.FLAGS
    count, width = values["windows"].value, values["width"].value
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}")
    parts = values["parts"].value
    with tempfile.TemporaryDirectory(dir=values["scratch"].value) as scratch:
        folder = pathlib.Path(scratch)
        if "scan" in parts:
            outlines()
            for dtype in values["dtypes"].value:
                scan(folder / dtype, count, dtype)
        if "neighbours" in parts:
            neighbours(folder / "lance", count, width)


if __name__ == "__main__":
    flags.DEFINE_integer("windows", 100_000, "How many windows.")
    flags.DEFINE_integer("width", 1152, "Numbers of a vector for neighbours.")
    flags.DEFINE_string("scratch", None, "Where files go; the system's folder for them by default.")
    flags.DEFINE_multi_enum(
        "parts", ["scan", "neighbours"], ["scan", "neighbours"], "What is measured."
    )
    dtypes = ["float32", "bfloat16", "float16"]
    flags.DEFINE_multi_enum("dtypes", dtypes[:2], dtypes, "In which features are kept.")
    app.run(main)
