"""Engines of neighbours beside each other, and beside an exact scan."""

import os
import pathlib
import resource
import time
from collections.abc import Callable

import numpy as np

from benchmarks.search.made import TOP


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
