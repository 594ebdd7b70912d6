"""Decodes a data set's videos once and stores their frames, ready for training.

    python -m glscl_jax.input_pipeline.prepare --source videos --data_dir prepared

`videos` is a folder of video files with a captions.csv, for example

    video,caption,split
    kitchen/one.mp4,a man slices an onion,train
    kitchen/one.mp4,someone is cooking,train
    garden.mp4,"a dog digs, then runs away",test

or a captions.jsonl of objects with these keys. Columns start and end (seconds) cut a clip out of a
video; without a split a row is for training. Videos that cannot be read are left out and listed
in failed.csv of the data directory, each with the reason; too many of them and nothing is made.
"""

import collections
import contextlib
import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent import futures

from absl import flags

from glscl_jax import program, progress
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations, builder, video
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.builder import Settings

FAILED_FILE = "failed.csv"
# Decoded clips wait in memory for those before them; so many a thread keep all threads busy.
_AHEAD_PER_WORKER = 4


@dataclasses.dataclass(frozen=True)
class Failure:
    """A clip that could not be read, and why."""

    clip: Clip
    reason: str


@dataclasses.dataclass(frozen=True)
class PrepareReport:
    """Clips written per split, and the clips left out."""

    splits: dict[str, int]
    failures: tuple[Failure, ...]


def prepare(
    clips: Sequence[Clip],
    source: pathlib.Path,
    data_dir: pathlib.Path,
    settings: Settings,
    *,
    workers: int,
    max_failed_share: float,
) -> PrepareReport:
    """Decodes the clips and writes them as a data set, in place of one that is there.

    The same videos, clips and settings give the same bytes, whatever the number of workers.

    Args:
      clips: what to write.
      source: the folder that holds their videos.
      data_dir: made if it is not there.
      settings: how to decode; stored with the data set.
      workers: threads that decode.
      max_failed_share: the share of the clips, 0 to 1, that may fail.

    Raises:
      UserError: if more fail, or all of a split; then failed.csv names them, and what was in
        `data_dir` before stays.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--data_dir {data_dir}: {error.strerror}") from error
    failures: list[Failure] = []
    try:
        _check_presence(clips, failures, max_failed_share)
        with (
            _split_examples(clips, source, settings, workers, failures) as examples,
            builder.written(examples, data_dir, settings),
        ):
            _check_share(failures, len(clips), max_failed_share)
    except UserError as error:
        _write_failures(failures, data_dir)
        listed = f"; {data_dir / FAILED_FILE} lists them" if failures else ""
        raise UserError(f"{error}{listed}") from error
    _write_failures(failures, data_dir)
    return PrepareReport(builder.open_data(data_dir).splits, tuple(failures))


def _check_presence(clips, failures: list[Failure], max_failed_share: float) -> None:
    """Counts missing files before hours of decoding, where they alone are too many."""
    missing = [Failure(clip, video.NO_SUCH_FILE) for clip in clips if not clip.video.exists()]
    try:
        _check_share(missing, len(clips), max_failed_share)
    except UserError:
        failures += missing
        raise


def _check_share(failures: Sequence[Failure], total: int, max_failed_share: float) -> None:
    if len(failures) > max_failed_share * total:
        raise UserError(
            f"{len(failures)} of {total} clips failed, more than --max_failed_share"
            f" {max_failed_share:g} allows ({_told(failures[0])})"
        )


def _told(failure: Failure) -> str:
    return f"first {failure.clip.video}: {failure.reason}"


@contextlib.contextmanager
def _split_examples(clips, source, settings, workers, failures) -> Iterator[dict[str, Iterator]]:
    """Each split's (clip id, example) pairs, to be read split after split; fills `failures`."""
    by_split = collections.defaultdict(list)
    for clip in clips:
        by_split[clip.split].append(clip)
    ordered = [clip for members in by_split.values() for clip in members]
    with futures.ThreadPoolExecutor(workers) as pool:
        # One stream for all splits, so that no thread idles where one ends and the next begins.
        stream = _decoded(ordered, source, settings, pool, workers)
        shown = progress.track(stream, "preparing", len(ordered))
        try:
            yield {
                split: _readable(split, len(members), shown, failures)
                for split, members in by_split.items()
            }
            next(shown, None)  # progress ends past the last one
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _readable(split: str, count: int, shown: Iterator, failures: list[Failure]) -> Iterator:
    """The next `count` of `shown`, less those that failed."""
    before = len(failures)
    for _ in range(count):
        clip, outcome = next(shown)
        if isinstance(outcome, video.VideoError):
            failures.append(Failure(clip, str(outcome)))
        else:
            yield clip.clip_id, outcome
    if len(failures) - before == count:
        raise UserError(
            f"none of the {count} clips of split {split!r} can be read ({_told(failures[before])})"
        )


def _decoded(clips, source, settings, pool, workers) -> Iterator[tuple[Clip, object]]:
    """Yields (clip, example or VideoError) in the order of the clips."""
    waiting = collections.deque()
    for clip in clips:
        waiting.append((clip, pool.submit(_decode, clip, source, settings)))
        if len(waiting) > workers * _AHEAD_PER_WORKER:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()


def _decode(clip: Clip, source: pathlib.Path, settings: Settings) -> dict | video.VideoError:
    try:
        frames = video.read_frames(
            clip.video,
            size=settings.image_size,
            rate=settings.frame_rate,
            start=clip.start,
            end=clip.end,
        )
    except video.VideoError as error:
        return error
    return builder.example(clip, frames, source, settings)


def _write_failures(failures: Sequence[Failure], data_dir: pathlib.Path) -> None:
    path = data_dir / FAILED_FILE
    if not failures:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "split", "video", "reason"])
        for failure in failures:
            clip = failure.clip
            writer.writerow([clip.clip_id, clip.split, clip.video, failure.reason])


def check_settings(prepared: Settings, asked: Settings, data_dir: pathlib.Path) -> None:
    """Raises `UserError` naming a setting in which a data set differs from what is asked."""
    way_out = "give another --data_dir, or --overwrite to replace it"
    for field in dataclasses.fields(Settings):
        there, wanted = getattr(prepared, field.name), getattr(asked, field.name)
        if there == wanted:
            continue
        if field.name == "annotations":
            raise UserError(f"{data_dir} was made from other annotations: {way_out}")
        raise UserError(f"{data_dir} was made with --{field.name} {there}, not {wanted}: {way_out}")


def _define_flags() -> None:
    readers = list(annotations.READERS)
    flags.DEFINE_enum("dataset", "folder", readers, "Whose annotation files --source holds.")
    flags.DEFINE_string("source", None, "Folder of videos and annotations.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder to write the data set to.", required=True)
    flags.DEFINE_float("frame_rate", 1.0, "Frames stored per second of video.", lower_bound=0.001)
    flags.DEFINE_integer("image_size", 224, "Height and width of the frames.", lower_bound=1)
    flags.DEFINE_integer("jpeg_quality", 95, "Of the frames.", lower_bound=1, upper_bound=100)
    flags.DEFINE_float(
        "max_failed_share",
        0.01,
        "Share of the clips that may fail; with more of them nothing is made.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer("workers", os.cpu_count() or 1, "Threads that decode.", lower_bound=1)
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Replace a data set that is there. Needed too where only video files have changed: what is"
        " compared is annotations and flags.",
    )


def main(_) -> None:
    """Runs the program."""
    values = flags.FLAGS
    source, data_dir = pathlib.Path(values.source), pathlib.Path(values.data_dir)
    clips = annotations.READERS[values.dataset](source)
    settings = Settings(
        values.dataset,
        values.frame_rate,
        values.image_size,
        values.jpeg_quality,
        builder.annotations_digest(clips),
    )
    if builder.holds_data(data_dir) and not values.overwrite:
        prepared = builder.open_data(data_dir)
        check_settings(prepared.settings, settings, data_dir)
        print(f"{data_dir} is prepared already: {_summary(prepared.splits, len(clips), data_dir)}")
        return
    report = prepare(
        clips,
        source,
        data_dir,
        settings,
        workers=values.workers,
        max_failed_share=values.max_failed_share,
    )
    print(f"prepared {_summary(report.splits, len(clips), data_dir)}")


def _summary(splits: dict[str, int], total: int, data_dir: pathlib.Path) -> str:
    """How many clips there are and, where some are missing, where they are listed."""
    made = sum(splits.values())
    each = ", ".join(f"{split} {count}" for split, count in splits.items())
    failed = f"; {total - made} failed, listed in {data_dir / FAILED_FILE}" if made < total else ""
    return f"{made} of {total} clips ({each}){failed}"


if __name__ == "__main__":
    _define_flags()
    program.run(main)
