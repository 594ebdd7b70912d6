"""Preparing on Apache Beam: clips are work items of a cluster, or of processes on this machine.

The builder is the same; instead of examples it is given a transform that makes them. All workers
need the videos and the data directory under the same paths, on a shared file system.
"""

import contextlib
import dataclasses
import io
import shlex
import threading
import time
from collections.abc import Iterator, Sequence

from glscl_jax import progress
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import examples
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.kept import Store

try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError:
    apache_beam = None

RUNNERS = ("DirectRunner", "SparkRunner", "FlinkRunner", "DataflowRunner", "PortableRunner")
_WATCH_SECONDS = 0.5
_WATCH_SHARE = 20  # Listing a hundred thousand files takes a while, and a share of their disk.


def engine(runner: str, options: str, workers: int) -> dict:
    """What TFDS is to be told of a runner.

    Args:
      runner: one of `RUNNERS`.
      options: the runner's own, as on a command line: "--direct_num_workers=4 --temp_location=x".
      workers: processes of a DirectRunner, where the options do not say.

    Returns:
      fields of `tfds.download.DownloadConfig`.

    Raises:
      UserError: Beam is not installed, or does not take the options.
    """
    if apache_beam is None:
        raise UserError(
            "--beam_runner needs Apache Beam: pip install -r requirements.txt"
            " -r requirements-beam.txt, in a virtual environment of its own"
        )
    try:
        given = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--beam_options {options!r}: {error}") from error
    if runner == "DirectRunner":
        # This is what runs it in the end, without asking the network for another engine first.
        runner = "FnApiRunner"
        ours = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
        given = ours + given  # the last one counts
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(given)
            parsed.get_all_options()
    except SystemExit as error:
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"--beam_options {options!r}: {reason}") from error
    return {"beam_runner": runner, "beam_options": parsed}


@contextlib.contextmanager
def by_split(clips: Sequence[Clip], store: Store) -> Iterator[dict]:
    """Each split's transform, as `examples.by_split` gives its iterator, with progress.

    Args:
      clips: what to decode.
      store: how, and where the frames are kept.

    Raises:
      UserError: when they have run, if none of a split's clips can be read, or a worker left
        nothing of a clip.
    """
    clips = [dataclasses.replace(clip, video=clip.video.absolute()) for clip in clips]
    store = store.absolute()
    there = examples.begin(store, clips)
    try:
        with _watched(store, len(clips), len(there)):
            yield {
                split: _examples(members, store)
                for split, members in examples.of_splits(clips).items()
            }
    except Exception:
        # TFDS cannot write an empty split, and says so in the words of a worker.
        examples.check_splits(clips, store.losses(clips))
        raise


def check_shared(store: Store, undone: Sequence[Clip]) -> None:
    """Raises `UserError` if workers have decoded clips and the files are not here."""
    if undone:
        raise UserError(
            f"the workers left nothing of {len(undone)} clips (first {undone[0].clip_id!r}) in"
            f" {store.directory}: every one needs --data_dir and the videos under these paths"
        )


def _examples(clips: Sequence[Clip], store: Store) -> "apache_beam.PTransform":
    return (
        apache_beam.Create(clips)
        # Without it a runner may decode them all where it listed them.
        | apache_beam.Reshuffle()
        | apache_beam.FlatMap(_readable, store)
    )


def _readable(clip: Clip, store: Store) -> list[tuple[str, dict]]:
    """A work item: the clip's id and example, if it has one."""
    done = store.decoded(clip)
    return [] if done.example is None else [(clip.clip_id, done.example)]


@contextlib.contextmanager
def _watched(store: Store, total: int, there: int) -> Iterator[None]:
    """Shows progress, whatever the runner: the files say how many are done."""
    over = threading.Event()

    def watch():
        ticks = progress.track(range(total - there), "preparing", total - there)
        shown, spent = there - 1, 0.0
        while shown < total:
            ended = over.wait(max(_WATCH_SECONDS, _WATCH_SHARE * spent))
            begun = time.monotonic()
            finished = store.finished()
            spent = time.monotonic() - begun
            for _ in range(finished - shown):
                next(ticks, None)
            shown = max(shown, finished)
            if ended:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
