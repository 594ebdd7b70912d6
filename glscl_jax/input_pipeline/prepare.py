"""Decodes a data set's videos once and stores their frames, ready for training.

    python -m glscl_jax.input_pipeline.prepare --source videos --data_dir prepared
    python -m glscl_jax.input_pipeline.prepare --dataset msvd --source MSVD --check
    python -m glscl_jax.input_pipeline.prepare --dataset msvd --source MSVD --data_dir prepared/msvd
    python -m glscl_jax.input_pipeline.prepare --source videos --data_dir prepared --for weights/x

`videos` is a folder of video files with a captions.csv, for example

    video,caption,split
    kitchen/one.mp4,a man slices an onion,train
    kitchen/one.mp4,someone is cooking,train
    garden.mp4,"a dog digs, then runs away",test

or a captions.jsonl of objects with these keys. Columns start and end (seconds) cut a clip out of a
video; without a split a row is for training. A video can also be a folder of numbered pictures
(--pictures_rate). A benchmark is read as it ships: docs/data.md.

First the data doctor looks at every file; `--check` ends there. A benchmark that is not as
published is prepared only with --allow_partial, and then says so wherever it is used. Videos that
cannot be read are left out and listed in failed.csv of the data directory, each with the reason;
too many of them and nothing is made. Rows that are not taken are in bad_rows.csv. A run that was
ended early goes on from what is decoded.

With --beam_runner the clips are decoded on Apache Beam (requirements-beam.txt).

In Python the same is `from glscl_jax.input_pipeline.prepare import prepare_source`:

    prepare_source("videos", "prepared", frame_rate=2.0)
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from absl import flags

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import Clip, Reading
from glscl_jax.input_pipeline.annotations import source as annotation_source
from glscl_jax.input_pipeline.data_dir import SETS
from glscl_jax.input_pipeline.decoding.picture_folder import holds_pictures
from glscl_jax.input_pipeline.prepared_data import Settings, holds_data, open_data
from glscl_jax.input_pipeline.preparing import beam, builder, doctor, prepare_flags, source_reading
from glscl_jax.input_pipeline.preparing.checkup import Checkup
from glscl_jax.input_pipeline.preparing.data_set import PrepareReport, check_findings, prepare
from glscl_jax.input_pipeline.preparing.failures import DAMAGED_FILE, FAILED_FILE
from glscl_jax.input_pipeline.preparing.options import Options
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.images import Preprocessing
from glscl_jax.models.model_file import read_model_config
from glscl_jax.runtime import mirror, program


def check_settings(prepared: Settings, asked: Settings, data_dir: pathlib.Path) -> None:
    """Raises `UserError` naming a setting in which a data set differs from what is asked."""
    way_out = "give another --data_dir, or --overwrite to replace it"
    for field in filter(lambda field: field.compare, dataclasses.fields(Settings)):
        there, wanted = getattr(prepared, field.name), getattr(asked, field.name)
        if there == wanted:
            continue
        if field.name == "annotations":
            raise UserError(f"{data_dir} was made from other annotations or splits: {way_out}")
        raise UserError(f"{data_dir} was made with --{field.name} {there}, not {wanted}: {way_out}")


def check_pictures_rate(clips: Sequence[Clip], pictures_rate: float | None) -> None:
    """Raises `UserError` if a clip's video is a folder of pictures of which no rate is known."""
    videos = dict.fromkeys(clip.video for clip in clips) if pictures_rate is None else ()
    for video in filter(holds_pictures, videos):
        raise UserError(
            f"{video} is a folder of pictures: say how many of them there are a second:"
            " --pictures_rate"
        )


def check_source(source: str | os.PathLike, **options) -> Checkup:
    """Looks at every file of a data set, prints what is missing or wrong, and writes nothing.

    Args:
      source: the folder of annotations and videos.
      options: fields of `preparing.options.Options`.

    Raises:
      UserError: `prepare_source` would refuse it.
    """
    asked = Options(source, **options)
    wanted_images(asked)
    with annotation_source.links_followed(asked.follow_links):
        folder, reading = _read(asked, None)
        checkup = doctor.examine(
            reading.clips,
            folder,
            asked.dataset,
            workers=asked.threads,
            pictures_rate=asked.pictures_rate,
        )
    print(checkup.table())
    if refused := _refusal(asked, reading, None):
        raise refused
    total = len(reading.clips)
    check_findings(checkup, total, asked.max_failed_share, asked.allow_partial)
    return checkup


def prepare_source(
    source: str | os.PathLike, data_dir: str | os.PathLike, **options
) -> PrepareReport:
    """Prepares what a folder holds, and says what came of it; see `prepare`.

    Args:
      source: the folder of annotations and videos.
      data_dir: the folder to write to, or an address in a bucket. One that holds the same already
        stays as it is.
      options: fields of `preparing.options.Options`.

    Raises:
      UserError: naming what cannot be read or written, what is missing, or what `data_dir` holds
        instead.
    """
    asked = Options(source, **options)
    with (
        annotation_source.links_followed(asked.follow_links),
        # A bucket has the data set when it is whole: nothing is sent before.
        mirror.written(data_dir, "--data_dir", [SETS], watch=False) as kept,
    ):
        report, told = _prepare_source(asked, kept.path)
        kept.finish()
        print("\n".join(map(kept.told, told)))
        return report


def _prepare_source(
    options: Options, data_dir: pathlib.Path
) -> tuple[PrepareReport, Sequence[str]]:
    """What was made, and lines that say so."""
    images = wanted_images(options)
    folder, reading = _read(options, data_dir)
    if refused := _refusal(options, reading, data_dir):
        raise refused
    clips = reading.clips
    settings = Settings(
        options.dataset,
        options.frame_rate,
        images.size,
        options.jpeg_quality,
        builder.annotations_digest(clips),
        stored_pixels=options.stored_pixels,
        pictures_rate=options.pictures_rate,
        resize=images.resize,
        interpolation=images.interpolation,
    )
    engine = None
    if options.beam_runner:
        engine = beam.engine(options.beam_runner, options.beam_options, options.threads)
    elif options.beam_options:
        raise UserError("--beam_options without --beam_runner: name one, or leave them out")
    if holds_data(data_dir) and not options.overwrite:
        there = open_data(data_dir)
        check_settings(there.settings, settings, data_dir)
        told = _summary(there.splits, len(clips), data_dir, there.settings.partial)
        report = PrepareReport(there.splits, (), partial=there.settings.partial)
        return report, [f"{data_dir} is prepared already: {told}"]
    report = prepare(
        clips,
        folder,
        data_dir,
        settings,
        workers=options.threads,
        max_failed_share=options.max_failed_share,
        allow_partial=options.allow_partial,
        engine=engine,
        left_out=f"{len(reading.bad):,} bad rows left out" if reading.bad else "",
    )
    told = [f"prepared {_summary(report.splits, len(clips), data_dir, report.partial)}"]
    if report.damaged:
        short = f"{len(report.damaged)} of them without all of their frames"
        told.append(f"{short}: {data_dir / DAMAGED_FILE} lists them")
    return report, told


def wanted_images(options: Options) -> Preprocessing:
    """How frames are to be made: as a model wants them, where one is named, or as is said.

    Raises:
      UserError: both are, and they differ.
    """
    images = CLIPConfig().preprocessing
    if options.for_model:
        directory = paths.local(options.for_model, "--for")
        images = read_model_config(directory).clip.preprocessing
    names = {"image_size": "size", "resize": "resize", "interpolation": "interpolation"}
    for flag, name in names.items():
        given, wanted = getattr(options, flag), getattr(images, name)
        if options.for_model and given not in (None, wanted):
            raise UserError(
                f"--{flag} {given}: the model of --for {options.for_model} takes {wanted}: leave"
                f" --{flag} out, or --for"
            )
        if given is not None:
            images = dataclasses.replace(images, **{name: given})
    return images


def _read(options: Options, data_dir: pathlib.Path | None) -> tuple[pathlib.Path, Reading]:
    """The folder of the videos, and what the annotations hold."""
    folder, reading = options.video_folder, source_reading.read(options, data_dir)
    check_pictures_rate(reading.clips, options.pictures_rate)
    return folder, reading


def _refusal(options: Options, reading: Reading, data_dir: pathlib.Path | None) -> UserError | None:
    return None if options.allow_partial else source_reading.refusal(reading, data_dir)


def _summary(splits: dict[str, int], total: int, data_dir: pathlib.Path, partial: str) -> str:
    """How many clips there are and, where some are missing, where they are listed."""
    made = sum(splits.values())
    each = ", ".join(f"{split} {count}" for split, count in splits.items())
    failed = f"; {total - made} failed, listed in {data_dir / FAILED_FILE}" if made < total else ""
    short = f"; partial: {partial}" if partial else ""
    return f"{made} of {total} clips ({each}){failed}{short}"


def main(_) -> None:
    """Runs the program."""
    data_dir, check = flags.FLAGS.data_dir, flags.FLAGS.check
    if not data_dir and not check:
        raise UserError("--data_dir is missing: name a folder to write to, or --check alone")
    options = dataclasses.asdict(prepare_flags.given())
    if check:
        check_source(**options)
    else:
        prepare_source(data_dir=data_dir, **options)


def cli() -> None:
    """Runs the program."""
    prepare_flags.define()
    flags.adopt_module_key_flags(prepare_flags)
    program.run(main)


if __name__ == "__main__":
    cli()
