"""Each data set's own annotation files -> `Clip` records.

A reader takes the folder that `--source` names, and the one with the videos where that is another,
and returns the clips, or raises one `UserError`. To add a benchmark, write its reader and, in the
same file, its `Benchmark`, and enter that in `BENCHMARKS`; its name is what `--dataset` takes.
"""

import pathlib

from glscl_jax.input_pipeline.annotations import folder
from glscl_jax.input_pipeline.annotations.activitynet import ACTIVITYNET
from glscl_jax.input_pipeline.annotations.benchmark import Benchmark, Reader
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.didemo import DIDEMO
from glscl_jax.input_pipeline.annotations.folder import read_folder
from glscl_jax.input_pipeline.annotations.lsmdc import LSMDC
from glscl_jax.input_pipeline.annotations.msrvtt import MSRVTT_7K, MSRVTT_9K, MSRVTT_FULL
from glscl_jax.input_pipeline.annotations.msvd import MSVD
from glscl_jax.input_pipeline.annotations.reading import Reading
from glscl_jax.input_pipeline.annotations.vatex import VATEX

_ALL = (MSRVTT_9K, MSRVTT_7K, MSRVTT_FULL, MSVD, VATEX, LSMDC, DIDEMO, ACTIVITYNET)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}

READERS: dict[str, Reader] = {
    "folder": read_folder,
    **{name: benchmark.read for name, benchmark in BENCHMARKS.items()},
}

__all__ = ["BENCHMARKS", "READERS", "Benchmark", "Clip", "Reader", "Reading", "read", "read_folder"]


def read(dataset: str, source: pathlib.Path, videos: pathlib.Path | None = None) -> Reading:
    """Reads the annotations of a data set, a key of `READERS`.

    Raises:
      BadRows: a benchmark's file has bad rows, or one's own none but them.
      UserError: as the reader does.
    """
    if dataset == "folder":
        return folder.read(source, videos)
    return Reading(READERS[dataset](source, videos))
