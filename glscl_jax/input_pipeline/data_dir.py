"""The folders of a data directory, and how a data set comes to be the one in it.

    DIR/clips/<data set>/<version>/             the data set, as TFDS writes it
    DIR/.preparing/                             only until one is whole:
    DIR/.preparing/clips/<data set>/<version>/  what is being written
    DIR/.preparing/ready/<data set>/<version>/  the same when it is whole: from then on it counts
    DIR/.preparing/old/                         what it takes the place of
    DIR/.preparing/decoded/                     clips that are decoded, for this run or the next

One rename, to `ready`, is what makes a new data set count. Whenever a process is killed there is
either the old one or the new one; the next that writes finishes the moves.
"""

import contextlib
import os
import pathlib
import shutil

from glscl_jax import files
from glscl_jax.runtime import mirror
from glscl_jax.runtime.bucket_copy import Marked

STAGING = ".preparing"
DECODED = "decoded"
_CLIPS, _READY, _OLD = "clips", "ready", "old"
_INFO = "dataset_info.json"
# A data set counts once TFDS's own word on it is there.
SETS = Marked(rf"{_CLIPS}/[^/]+/[^/]+/", _INFO)


def at_hand(data_dir: str | os.PathLike) -> contextlib.AbstractContextManager[pathlib.Path]:
    """A data directory on this machine's disks, for the body; see `mirror.fetched`.

    ArrayRecord reads at random places of files, and knows no buckets: one in a bucket is fetched
    whole.
    """
    return mirror.fetched(data_dir, "the prepared data", [SETS])


def found(data_dir: pathlib.Path) -> list[pathlib.Path]:
    """The finished data sets of a directory: one, unless somebody put another beside it."""
    return _inside(data_dir / STAGING / _READY) or _inside(data_dir / _CLIPS)


def put_in_place(data_dir: pathlib.Path) -> None:
    """Makes what was written in `DIR/.preparing/clips` the data set of the directory.

    Raises:
      OSError: a folder cannot be moved, or the disk does not take what was written.
    """
    staging = data_dir / STAGING
    files.place(staging / _CLIPS, staging / _READY)
    finish(data_dir)


def finish(data_dir: pathlib.Path) -> None:
    """Moves a data set that is whole to where it belongs, also one of a run that was killed."""
    staging = data_dir / STAGING
    for made in _inside(staging / _READY):
        shutil.rmtree(staging / _OLD, ignore_errors=True)
        (staging / _OLD).mkdir()
        for number, old in enumerate(_inside(data_dir / _CLIPS)):
            files.move(old, staging / _OLD / str(number))
            with contextlib.suppress(OSError):  # where something else lies beside it
                old.parent.rmdir()
        target = data_dir / _CLIPS / made.relative_to(staging / _READY)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.move(made, target)


def discard_unfinished(data_dir: pathlib.Path) -> None:
    """Takes away what is half written; decoded clips stay until there is no more use for them."""
    staging = data_dir / STAGING
    kept = {DECODED, _READY} if _inside(staging / _READY) else {DECODED}
    for path in staging.glob("*"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or not empty
        staging.rmdir()


def _inside(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.parent for path in folder.glob(f"*/*/{_INFO}"))
