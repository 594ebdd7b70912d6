"""Preparing on Apache Beam: clips are work items of a cluster, or of processes on this machine.

The builder is the same; instead of examples it is given a transform that makes them. All workers
need the videos and the data directory under the same paths, on a shared file system, and this
package.
"""

import contextlib
import dataclasses
import io
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.preparing import decoding_pool
from glscl_jax.input_pipeline.preparing.decode_cache import DecodeCache
from glscl_jax.runtime import progress

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
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            "--beam_runner needs Apache Beam: pip install -r requirements.txt"
            " -r requirements-beam.txt, in a virtual environment of its own"
        ) from error
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
            unknown = _unknown(parsed)
    except SystemExit as error:
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"--beam_options {options!r}: {reason}") from error
    # Other engines can have options that Beam hands on without knowing them.
    if unknown and runner == "FnApiRunner":
        raise UserError(f"--beam_options {options!r}: it has no --{', --'.join(unknown)}")
    return {"beam_runner": runner, "beam_options": parsed}


def _unknown(options) -> list[str]:
    """Names of the options given that Beam itself does not know, and would drop without a word."""
    known = options.get_all_options()
    return sorted(options.get_all_options(retain_unknown_options=True).keys() - known.keys())


@contextlib.contextmanager
def by_split(clips: Sequence[Clip], cache: DecodeCache, engine: dict) -> Iterator[dict]:
    """Decodes all clips, then gives each split's transform, `decoding_pool.by_split` its iterator.

    Two runs of the engine: of the first the files alone stay, so that what came of it can be
    judged before anything is written.

    Args:
      clips: what to decode.
      cache: how, and where the frames are kept.
      engine: `engine`'s.

    Raises:
      UserError: the engine or a worker fails, in the body too; none of a split's clips can be
        read; the workers left nothing of a clip.
    """
    import apache_beam

    clips = [dataclasses.replace(clip, video=clip.video.absolute()) for clip in clips]
    cache = cache.absolute()
    there = decoding_pool.begin(cache, clips)
    # A job's description has bounds on some engines, and captions are most of a clip.
    todo = [dataclasses.replace(clip, captions=()) for clip in clips if clip.clip_id not in there]
    if todo:
        runner, options = engine["beam_runner"], engine["beam_options"]
        with (
            _one_line(),
            _watched(cache, len(clips), len(there)),
            apache_beam.Pipeline(runner, options) as pipeline,  # runs as it closes
        ):
            _ = pipeline | _spread(todo) | apache_beam.Map(_decode, cache)
    lost = cache.lost(clips)
    if lost.undone:
        raise UserError(
            f"the workers left nothing of {len(lost.undone)} clips"
            f" (first {lost.undone[0].clip_id!r}) in {cache.directory}: every one needs"
            " --data_dir and the videos under these paths"
        )
    decoding_pool.check_some_are_readable(clips, lost)
    with _one_line():
        yield {
            split: _spread(members) | apache_beam.FlatMap(_readable, cache)
            for split, members in decoding_pool.of_splits(clips).items()
        }


def _spread(clips: Sequence[Clip]):
    """A Beam transform that deals clips out to the workers."""
    import apache_beam

    # Without the second a runner may do all of them where it listed them.
    return apache_beam.Create(clips) | apache_beam.Reshuffle()


def _decode(clip: Clip, cache: DecodeCache) -> None:
    """A work item; what comes of it is in the cache."""
    cache.decode(clip)


def _readable(clip: Clip, cache: DecodeCache) -> list[tuple[str, dict]]:
    """The clip's id and example, if it has one."""
    done = cache.decode(clip)
    return [] if done.example is None else [(clip.clip_id, done.example)]


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Tells what stopped an engine in one line; of a worker's traceback it takes the last.

    Raises:
      UserError: the body raised anything, or a worker process of the direct runner is gone.
    """
    with _heeded() as gone:
        try:
            yield
            return
        except UserError:
            raise
        except Exception as error:
            reason, cause = _reason(error), error
        except KeyboardInterrupt as error:
            if not gone:
                raise
            reason, cause = str(gone[0]), error
    raise UserError(
        f"Apache Beam: {reason}: nothing was made; mend that, and the next run goes on from what"
        " is decoded"
    ) from cause


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if any(line.startswith("Traceback ") for line in lines):
        return re.sub(r" \[while running .*", "", lines[-1])
    return ": ".join([type(error).__name__, *lines[:5]])


@contextlib.contextmanager
def _heeded() -> Iterator[list[BaseException]]:
    """Interrupts the body when a worker process is gone: the direct runner would wait forever.

    It starts each from a thread of its own, which raises when its process ends badly; so do those
    that were talking to it. Yields what they raise.
    """
    gone, usual = [], threading.excepthook

    def hook(told):
        if told.thread.name == "run_worker":
            gone.append(told.exc_value)
            # Not _thread.interrupt_main, which does not wake a thread that waits.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.excepthook = hook
    try:
        yield gone
    finally:
        threading.excepthook = usual


@contextlib.contextmanager
def _watched(cache: DecodeCache, total: int, there: int) -> Iterator[None]:
    """Shows progress, whatever the runner: the files say how many are done."""
    over = threading.Event()

    def watch():
        ticks = progress.track(range(total - there), "preparing", total - there)
        next(ticks, None)  # the rate counts from here
        shown, spent = there, 0.0
        while shown < total:
            ended = over.wait(max(_WATCH_SECONDS, _WATCH_SHARE * spent))
            begun = time.monotonic()
            finished = cache.finished()
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
