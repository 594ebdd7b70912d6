"""Searching 100,000 windows: the exact scan, and neighbours by LanceDB, Qdrant and FAISS.

Features are random, of the sizes of a ViT-B/32 with 12 frames (D = 512, K = 8), of a video's frames
near each other; vectors for neighbours have --width numbers, 2,000 clusters, and the mean and the
spectrum of the demo's. What is not installed is left out: pip install faiss-cpu qdrant-client
qdrant-edge-py.

--parts=resident draws so many windows in bfloat16 on the accelerator that there is, where queries
then find them; it needs jax, flax, numpy and absl alone:

    python -m benchmarks.search --parts=resident --windows=1000000

Takes a minute so, and else half an hour on 2 cores of an AMD EPYC, of which product
quantisation takes most, and 8 GB of disk (--windows for fewer).
"""

import pathlib
import tempfile

from absl import app, flags

from benchmarks.machine import machine
from benchmarks.search import engines, resident, scanning

PARTS = ("scan", "neighbours", "resident")


def main(_) -> None:
    values = flags.FLAGS
    count, width = values["windows"].value, values["width"].value
    print(machine(), flush=True)
    parts = values["parts"].value
    with tempfile.TemporaryDirectory(dir=values["scratch"].value) as scratch:
        folder = pathlib.Path(scratch)
        if "scan" in parts:
            scanning.outlines()
            for dtype in values["dtypes"].value:
                scanning.scan(folder / dtype, count, dtype)
        if "neighbours" in parts:
            engines.neighbours(folder / "engines", count, width, values["only"].value)
        if "resident" in parts:
            resident.measure(count)


if __name__ == "__main__":
    flags.DEFINE_integer("windows", 100_000, "How many windows.")
    flags.DEFINE_integer("width", 1152, "Numbers of a vector for neighbours.")
    flags.DEFINE_string("only", "", "Engines whose names hold this regular expression.")
    flags.DEFINE_string("scratch", None, "Where files go; the system's folder for them by default.")
    flags.DEFINE_multi_enum(
        "parts", list(PARTS[:2]), list(PARTS), "What is measured; resident: on an accelerator."
    )
    dtypes = ["float32", "bfloat16", "float16"]
    flags.DEFINE_multi_enum("dtypes", dtypes[:2], dtypes, "In which features are kept.")
    app.run(main)
