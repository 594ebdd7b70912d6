"""Clips to a data set that is whole and in its place, or to none."""

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.captions import caption_counts
from glscl_jax.input_pipeline.data_dir import DECODED, STAGING
from glscl_jax.input_pipeline.prepared_data import Settings, open_data
from glscl_jax.input_pipeline.preparing import beam, builder, decoding_pool, doctor, failures
from glscl_jax.input_pipeline.preparing.checkup import Checkup, Failure
from glscl_jax.input_pipeline.preparing.decode_cache import DecodeCache, Lost
from glscl_jax.input_pipeline.preparing.failures import DAMAGED_FILE, FAILED_FILE
from glscl_jax.runtime import lock

LOCK_FILE = ".preparing.lock"


def claimed(data_dir: pathlib.Path):
    """A context that keeps other writers out of the data directory; see `lock.claimed`."""
    return lock.claimed(
        data_dir, LOCK_FILE, f"--data_dir {data_dir}", "another prepare is writing there"
    )


@dataclasses.dataclass(frozen=True)
class PrepareReport:
    """What came of preparing a data set.

    Attributes:
      splits: split name -> clips written.
      failures: the clips left out.
      damaged: the clips written with less than all of their frames.
      partial: what the data set is short of (`Settings.partial`).
    """

    splits: dict[str, int]
    failures: tuple[Failure, ...]
    damaged: tuple[Failure, ...] = ()
    partial: str = ""


def prepare(
    clips: Sequence[Clip],
    folder: pathlib.Path,
    data_dir: pathlib.Path,
    settings: Settings,
    *,
    workers: int,
    max_failed_share: float,
    allow_partial: bool = False,
    engine: dict | None = None,
    left_out: str = "",
) -> PrepareReport:
    """Checks the clips, decodes them and writes a data set, in place of one that is there.

    The same videos, clips and settings give the same records in the same order, whatever the
    number of workers and whoever they are. What was decoded before a run ended early is kept for
    the next, below `data_dir`, until a data set is in place.

    Args:
      clips: what to write.
      folder: the folder that holds their videos.
      data_dir: made if it is not there.
      settings: how to decode; stored with the data set.
      workers: threads that decode.
      max_failed_share: the share of the clips, 0 to 1, that may fail.
      allow_partial: go on with what the doctor finds missing, however much it is.
      engine: `beam.engine`, to decode on Apache Beam; by default threads of this process do.
      left_out: what the annotations hold beyond the clips, for the note on what is missing.

    Raises:
      UserError: if it is not what is published, more clips fail, or all of a split; then
        failed.csv names them, and what was in `data_dir` before stays. So it does if the disk is
        full, or another process writes there.
    """
    with claimed(data_dir), _one_line(data_dir):
        checkup = doctor.examine(
            clips,
            folder,
            settings.dataset,
            workers=workers,
            pictures_rate=settings.pictures_rate,
        )
        if checkup.remarkable:
            print(f"{checkup.table()}\n", flush=True)
        cache = DecodeCache(data_dir / STAGING / DECODED, folder, settings)
        lost = Lost(checkup.failures)
        try:
            check_findings(checkup, len(clips), max_failed_share, allow_partial)
            known = {failure.clip.clip_id for failure in checkup.failures if allow_partial}
            decoding = (
                beam.by_split(clips, cache, engine)
                if engine
                else decoding_pool.by_split(clips, cache, workers)
            )
            with decoding as told, builder.written(told, data_dir, settings, engine) as note:
                lost = cache.lost(clips)
                new = [failure for failure in lost.failed if failure.clip.clip_id not in known]
                _check_share(new, len(clips) - len(known), max_failed_share)
                short = checkup.partial(_made(clips, lost.failed))
                partial = ", ".join(filter(None, [short, left_out]))
                if partial:
                    note(partial)
        except UserError as error:
            failed = cache.lost(clips).failed or lost.failed
            failures.write_clips(checkup.explain(failed), data_dir / FAILED_FILE)
            listed = f"; {data_dir / FAILED_FILE} lists them" if failed else ""
            raise UserError(f"{error}{listed}") from error
        cache.clear()
        failed = checkup.explain(lost.failed)
        failures.write_clips(failed, data_dir / FAILED_FILE)
        failures.write_clips(lost.damaged, data_dir / DAMAGED_FILE)
        data = open_data(data_dir)
        for split in data.splits:
            caption_counts(data, split)
    return PrepareReport(data.splits, failed, lost.damaged, partial)


def check_findings(
    checkup: Checkup, total: int, max_failed_share: float, allow_partial: bool
) -> None:
    """Raises `UserError` where what the doctor found keeps a data set from being prepared."""
    if allow_partial:
        return
    mismatches = checkup.mismatches
    if mismatches:
        more = f" (and {len(mismatches) - 1} more differences)" if len(mismatches) > 1 else ""
        raise UserError(
            f"{checkup.dataset}: {mismatches[0]}{more}: mend that, or go on with --allow_partial"
        )
    _check_share(checkup.failures, total, max_failed_share)


@contextlib.contextmanager
def _one_line(data_dir: pathlib.Path) -> Iterator[None]:
    """Tells in one line that nothing can be written; reading has errors of its own."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--data_dir {data_dir}: {error.strerror}: nothing was made") from error


def _made(clips: Sequence[Clip], failures: Sequence[Failure]) -> dict[str, int]:
    """Clips of each split that did not fail."""
    return collections.Counter(clip.split for clip in clips) - collections.Counter(
        failure.clip.split for failure in failures
    )


def _check_share(failures: Sequence[Failure], total: int, max_failed_share: float) -> None:
    if len(failures) > max_failed_share * total:
        raise UserError(
            f"{len(failures)} of {total} clips failed, more than --max_failed_share"
            f" {max_failed_share:g} allows ({failures[0].description})"
        )
