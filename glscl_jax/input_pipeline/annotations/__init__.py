"""Each data set's own annotation files -> `Clip` records.

A reader takes the folder that `--source` names, and the one with the videos where that is another,
and returns the clips, or raises one `UserError`. To add a benchmark, write its reader and enter it
in `READERS`; its key is what `--dataset` takes. Its published counts belong into `counts.py`.
"""

import functools
import pathlib
from collections.abc import Callable

from glscl_jax.input_pipeline.annotations import folder, msrvtt
from glscl_jax.input_pipeline.annotations.activitynet import read_activitynet
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.didemo import read_didemo
from glscl_jax.input_pipeline.annotations.folder import read_folder
from glscl_jax.input_pipeline.annotations.lsmdc import read_lsmdc
from glscl_jax.input_pipeline.annotations.msrvtt import read_msrvtt, read_msrvtt_full
from glscl_jax.input_pipeline.annotations.msvd import read_msvd
from glscl_jax.input_pipeline.annotations.reading import Reading
from glscl_jax.input_pipeline.annotations.vatex import read_vatex

Reader = Callable[[pathlib.Path, pathlib.Path | None], list[Clip]]

READERS: dict[str, Reader] = {
    "folder": read_folder,
    "msrvtt_9k": functools.partial(read_msrvtt, train_list=msrvtt.TRAIN_9K),
    "msrvtt_7k": functools.partial(read_msrvtt, train_list=msrvtt.TRAIN_7K),
    "msrvtt_full": read_msrvtt_full,
    "msvd": read_msvd,
    "vatex": read_vatex,
    "lsmdc": read_lsmdc,
    "didemo": read_didemo,
    "activitynet": read_activitynet,
}

__all__ = ["READERS", "Clip", "Reader", "Reading", "read", "read_folder"]


def read(dataset: str, source: pathlib.Path, videos: pathlib.Path | None = None) -> Reading:
    """Reads the annotations of a data set, a key of `READERS`.

    Raises:
      BadRows: a benchmark's file has bad rows, or one's own none but them.
      UserError: as the reader does.
    """
    if dataset == "folder":
        return folder.read(source, videos)
    return Reading(READERS[dataset](source, videos))
