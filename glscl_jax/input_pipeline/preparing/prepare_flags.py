"""The flags of `prepare`: --data_dir, --check, and the fields of `preparing.options.Options`."""

import dataclasses
import os

from absl import flags

from glscl_jax import paths
from glscl_jax.input_pipeline import annotations
from glscl_jax.input_pipeline.preparing import beam
from glscl_jax.input_pipeline.preparing.options import Options
from glscl_jax.models.encoders.images import INTERPOLATIONS, RESIZES


def define() -> None:
    """Defines the flags."""
    readers = list(annotations.READERS)
    flags.DEFINE_enum("dataset", Options.dataset, readers, "Whose annotation files --source holds.")
    paths.define("source", None, "Folder of annotations and videos.", required=True)
    paths.define("videos", None, "Folder of the videos, where that is another.")
    paths.define(
        "names",
        None,
        "A CSV file with the columns id and file: what file below the folder of the videos each id"
        " is, where its name does not say so.",
    )
    flags.DEFINE_boolean(
        "allow_partial",
        False,
        "Go on where videos are missing, rows of a caption file bad, or a benchmark other than what"
        " is published; the data set, and all that is trained or evaluated on it, says what it is"
        " short of.",
    )
    flags.DEFINE_alias("allow-partial", "allow_partial")
    flags.DEFINE_boolean(
        "follow_links",
        False,
        "Follow links, of files and of folders, that lead out of --source or --videos.",
    )
    flags.DEFINE_integer(
        "validation_size",
        None,
        "Training videos to hold out as split val. By default 500 of MSR-VTT and of ActivityNet,"
        " which have no validation split, and 0 elsewhere.",
        lower_bound=0,
    )
    paths.define(
        "data_dir",
        None,
        "Folder to write the data set to, or an address in a bucket, s3:// or gs://.",
        bucket=True,
    )
    flags.DEFINE_boolean("check", False, "Only say what is missing or wrong; write nothing.")
    flags.DEFINE_float(
        "frame_rate", Options.frame_rate, "Frames stored per second of video.", lower_bound=0.001
    )
    paths.define(
        "for_model",
        None,
        "A model directory, converted or trained: frames of its size, made as it wants them."
        " Without it as OpenAI's CLIP does, 224 pixels.",
    )
    flags.DEFINE_alias("for", "for_model")
    flags.DEFINE_integer(
        "image_size", None, "Height and width of the frames, if not the model's.", lower_bound=1
    )
    flags.DEFINE_enum(
        "resize",
        None,
        RESIZES,
        "How pictures become squares, if not the model's way: the shorter side resized and the"
        " centre cropped, or both sides resized.",
    )
    flags.DEFINE_enum("interpolation", None, INTERPOLATIONS, "Pillow's filter, if not the model's.")
    flags.DEFINE_boolean(
        "stored_pixels",
        False,
        "Leave pixels that are not square as they are stored, as the reference does; by default"
        " pictures are stretched to what a player shows.",
    )
    flags.DEFINE_float(
        "pictures_rate",
        None,
        "Pictures a second of videos that are folders of numbered pictures; needed where one is.",
        lower_bound=0.001,
    )
    flags.DEFINE_integer(
        "jpeg_quality", Options.jpeg_quality, "Of the frames.", lower_bound=1, upper_bound=100
    )
    flags.DEFINE_float(
        "max_failed_share",
        Options.max_failed_share,
        "Share of the clips that may fail; with more of them nothing is made.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer(
        "workers", os.cpu_count() or 1, "Threads that decode; processes on Beam.", lower_bound=1
    )
    flags.DEFINE_enum(
        "beam_runner", None, list(beam.RUNNERS), "Decode on this engine of Apache Beam."
    )
    flags.DEFINE_string(
        "beam_options", Options.beam_options, "Its options, as '--flag=value --other=value'."
    )
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Replace a data set that is there. Needed too where only video files have changed: what is"
        " compared is annotations and flags.",
    )


def given() -> Options:
    """What they say, once they are parsed."""
    names = [field.name for field in dataclasses.fields(Options)]
    return Options(**{name: flags.FLAGS[name].value for name in names})
