"""Engines of neighbours beside each other: build, memory, recall and milliseconds.

Each is measured in a process of its own, whose memory is its alone.
"""

import dataclasses
import importlib
import multiprocessing
import os
import pathlib
import re
import time
from collections.abc import Callable

import numpy as np

from benchmarks.search.made import TOP

ASKED = 50
CLUSTERS = 2000
# Of vectors of the demo's test clips the mean has this length, and the variances along their
# principal axes fall about as the square of the axis's number.
MEAN = 0.745
# Points that are handed to Qdrant at once.
POINTS = 500


@dataclasses.dataclass(frozen=True)
class Engine:
    """What is measured.

    Attributes:
      name: of the row.
      build: from a folder and vectors to what finds the nearest of one.
      package: the one that it needs.
    """

    name: str
    build: Callable[[pathlib.Path, np.ndarray], Callable[[np.ndarray], np.ndarray]]
    package: str = "numpy"


def vectors(count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1, float32 [count,width], and some like them that are asked for.

    Half of the variance is between clusters, half within.
    """
    random = np.random.default_rng(0)
    scale = 1 / np.arange(1, width + 1, dtype=np.float32)
    # Half of the variance is the centres'.
    scale *= np.float32(np.sqrt((1 - MEAN**2) / np.sum(scale**2) / 2))
    axes = np.linalg.qr(random.standard_normal((width, width), np.float32))[0]
    mean = MEAN * axes[-1]
    centres = random.standard_normal((CLUSTERS, width), np.float32)

    def drawn(number: int) -> np.ndarray:
        made = centres[random.integers(0, CLUSTERS, number)]
        made += random.standard_normal((number, width), np.float32)
        made = (made * scale) @ axes + mean
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    return drawn(count), drawn(ASKED)


def neighbours(folder: pathlib.Path, count: int, width: int, only: str) -> None:
    """Prints the table of engines whose names hold the regular expression `only`."""
    stored, asked = vectors(count, width)
    true = np.argpartition(-(asked @ stored.T), TOP, axis=1)[:, :TOP]
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{count:,} vectors of {width} numbers, {stored.nbytes / 1e6:,.0f} MB")
    print(
        "| | built in | of CPU | memory | on disk | recall at 10 | a query | of CPU |", flush=True
    )
    for name, array in {"stored": stored, "asked": asked, "true": true}.items():
        np.save(folder / f"{name}.npy", array)
    spawn = multiprocessing.get_context("spawn")
    for number, engine in enumerate(ENGINES):
        if not re.search(only, engine.name):
            continue
        process = spawn.Process(target=measured, args=(number, folder))
        process.start()
        process.join()
        if process.exitcode:
            print(f"| {engine.name} | ended by {process.exitcode} |", flush=True)


def measured(number: int, folder: pathlib.Path) -> None:
    """Prints one engine's row, by its number."""
    engine = ENGINES[number]
    stored, asked, true = (np.load(folder / f"{name}.npy") for name in ("stored", "asked", "true"))
    try:
        importlib.import_module(engine.package)
    except ModuleNotFoundError as error:
        print(f"| {engine.name} | needs {error.name} |", flush=True)
        return
    within = folder / engine.name.replace(" ", "_").replace(",", "")
    within.mkdir()
    before, begun, spent = memory(), time.perf_counter(), time.process_time()
    find = engine.build(within, stored)
    built, burnt = time.perf_counter() - begun, time.process_time() - spent
    found, taken = [find(asked[0])], []
    spent = time.process_time()
    for query in asked:
        begun = time.perf_counter()
        found.append(find(query))
        taken.append(time.perf_counter() - begun)
    each = (time.process_time() - spent) / len(asked)
    pairs = zip(true, found[1:], strict=True)
    recall = np.mean([np.isin(one, two).mean() for one, two in pairs])
    on_disk = sum(file.stat().st_size for file in within.rglob("*") if file.is_file())
    print(
        f"| {engine.name} | {built:.0f} s | {burnt:.0f} s | {(memory() - before) / 1e6:,.0f} MB |"
        f" {on_disk / 1e6:,.0f} MB | {recall:.3f} | {1e3 * np.median(taken):.1f} ms |"
        f" {1e3 * each:.1f} ms |",
        flush=True,
    )


def memory() -> int:
    """Bytes of this process's memory, but for files that it maps."""
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


def plain(_: pathlib.Path, stored: np.ndarray):
    """One product of NumPy."""

    def find(query: np.ndarray) -> np.ndarray:
        return np.argpartition(-(stored @ query), TOP)[:TOP]

    return find


def faiss(kind: str, probes: int = 0) -> Callable:
    """FAISS, by the name of its factory."""

    def build(_, stored: np.ndarray):
        import faiss as library

        index = library.index_factory(stored.shape[1], kind, library.METRIC_INNER_PRODUCT)
        index.train(stored[:40_000])
        index.add(stored)
        if probes:
            library.extract_index_ivf(index).nprobe = probes
        if "HNSW" in kind:
            index.hnsw.efSearch = 128
        return lambda query: index.search(query[None], TOP)[1][0]

    return build


def lance(kind: str = "", metric: str = "cosine", refine: int | None = None, **how) -> Callable:
    """LanceDB, by the name of its index; refined: vectors that are compared, of each asked."""

    def build(folder: pathlib.Path, stored: np.ndarray):
        os.environ.setdefault("LANCEDB_LOG", "error")
        import lancedb
        import lancedb.index
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), stored.shape[1])
        rows = pa.array(np.arange(len(stored)))
        data = pa.table({"row": rows, "vector": flat})
        table = lancedb.connect(str(folder)).create_table("vectors", data)
        parts = how.get("num_partitions", 0)
        if kind:
            table.create_index("vector", config=getattr(lancedb.index, kind)(metric, **how))

        def find(query: np.ndarray) -> np.ndarray:
            asked = table.search(query).distance_type(metric).limit(TOP)
            if kind:
                asked = asked.nprobes(max(16, parts // 4))
                asked = asked.refine_factor(refine) if refine else asked
            return asked.select(["row", "_distance"]).to_arrow()["row"].to_numpy()

        return find

    return build


def qdrant_local(_: pathlib.Path, stored: np.ndarray):
    """The local mode of Qdrant's client: a product of NumPy."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    how = models.VectorParams(size=stored.shape[1], distance=models.Distance.COSINE)
    client.create_collection("vectors", vectors_config=how)
    for start in range(0, len(stored), POINTS):
        part = stored[start : start + POINTS]
        ids = list(range(start, start + len(part)))
        client.upsert("vectors", models.Batch(ids=ids, vectors=part.tolist()))

    def find(query: np.ndarray) -> np.ndarray:
        found = client.query_points("vectors", query=query, limit=TOP, with_payload=False)
        return np.array([point.id for point in found.points])

    return find


def qdrant_edge(folder: pathlib.Path, stored: np.ndarray):
    """Qdrant's own storage and graph, as a server has them, in this process."""
    import qdrant_edge as edge

    graph = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
    params = edge.EdgeVectorParams(size=stored.shape[1], distance=edge.Distance.Cosine)
    config = edge.EdgeConfig(vectors=params, hnsw_config=graph)
    shard = edge.EdgeShard.create(str(folder), config)
    for start in range(0, len(stored), POINTS):
        part = stored[start : start + POINTS].tolist()
        points = [edge.Point(start + number, vector) for number, vector in enumerate(part)]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    params = edge.SearchParams(hnsw_ef=256)

    def find(query: np.ndarray) -> np.ndarray:
        nearest = edge.Query.Nearest(query.tolist())
        found = shard.query(edge.QueryRequest(limit=TOP, query=nearest, params=params))
        return np.array([point.id for point in found])

    return find


# The first index of LanceDB's is what `search.lance_vectors` makes.
_RQ = {"kind": "IvfRq", "num_partitions": 316}
_SQ = {"kind": "HnswSq", "num_partitions": 16}
_PQ = {"kind": "IvfPq", "num_partitions": 316, "num_sub_vectors": 72}
# Those that take the longest come last.
ENGINES = [
    Engine("NumPy, exact", plain),
    Engine("FAISS, Flat", faiss("Flat"), "faiss"),
    Engine("FAISS, IVF316, 32 probed", faiss("IVF316,Flat", 32), "faiss"),
    Engine("LanceDB, IVF_RQ, refined 50", lance(refine=50, **_RQ), "lancedb"),
    Engine("LanceDB, no index", lance(), "lancedb"),
    Engine("Qdrant, its engine in process", qdrant_edge, "qdrant_edge"),
    Engine("LanceDB, IVF_HNSW_SQ, refined 10", lance(refine=10, **_SQ), "lancedb"),
    Engine("FAISS, HNSW32", faiss("HNSW32,Flat"), "faiss"),
    Engine("Qdrant, the client's local mode", qdrant_local, "qdrant_client"),
    Engine("LanceDB, IVF_RQ, not refined", lance(**_RQ), "lancedb"),
    Engine("LanceDB, IVF_HNSW_SQ, dot", lance(metric="dot", **_SQ), "lancedb"),
    Engine("LanceDB, IVF_PQ of 72 parts, refined 10", lance(refine=10, **_PQ), "lancedb"),
]
