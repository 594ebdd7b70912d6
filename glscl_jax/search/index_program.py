"""Makes a folder of videos searchable, or brings its index up to date.

    python -m glscl_jax.search index --checkpoint runs/mine --videos videos --index my_index
    python -m glscl_jax.search index --index my_index
    python -m glscl_jax.search index --checkpoint runs/mine --data_dir data --index clips_index

Videos are cut into windows, of which frames are read as the run of the checkpoint read them. The
second line does what has changed since: what is new is added, what changed is read again, what went
is taken out; flags that are left out are as they were. A run that was interrupted goes on in the
same way. What cannot be read is listed in failed.csv of the index. `metadata.csv` in the folder, of
a column `video` and any others, is what one may filter by. The third line takes the clips of a
prepared data set as windows, by their ids and with their captions.
"""

import dataclasses

from absl import flags

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.preparing.failures import FAILED_FILE
from glscl_jax.runtime import program
from glscl_jax.search.index_options import DTYPES, Options
from glscl_jax.search.indexer import index_videos
from glscl_jax.search.store import NOT_SHOWN


def _define_flags() -> None:
    paths.define(
        "index", None, "The directory of the index, or its address in a bucket.", bucket=True
    )
    paths.define("videos", None, "The folder of videos.")
    paths.define(
        "data_dir",
        None,
        "A prepared data set in its place, or its address in a bucket: its clips are the windows.",
        bucket=True,
    )
    flags.DEFINE_string("split", None, "Of that; test.")
    paths.define(
        "checkpoint",
        None,
        "A directory that train or convert wrote, or its address in a bucket.",
        bucket=True,
    )
    flags.DEFINE_integer("step", None, "A step of the work directory, instead of the best.")
    paths.define("metadata", None, "What is known of the videos; metadata.csv in the folder.")
    flags.DEFINE_float("window", None, "Seconds of a window, 10; 0 for whole videos.")
    flags.DEFINE_float("stride", None, "Seconds from a window's start to the next one's; half.")
    flags.DEFINE_integer("num_frames", None, "Frames of a window; as in training.")
    flags.DEFINE_float("frame_rate", None, "Frames a second they are picked of; as in training.")
    flags.DEFINE_float("pictures_rate", None, "Pictures a second of folders of numbered pictures.")
    flags.DEFINE_enum("dtype", None, list(DTYPES), "In which features are kept; float32.")
    flags.DEFINE_integer(
        "batch_size", Options.batch_size, "Windows that are encoded and stored at once."
    )
    flags.DEFINE_integer("workers", None, "Threads that decode; one a core by default.")
    flags.DEFINE_string("only", None, 'Videos whose names match this alone, e.g. "2024/*.mp4".')
    flags.DEFINE_boolean("neighbours", None, "Keep a vector a window, for query --candidates.")
    flags.DEFINE_string(
        "qdrant",
        None,
        "With --neighbours: the address of a Qdrant server that keeps the vectors, e.g."
        " http://localhost:6333; empty for the index itself.",
    )
    flags.DEFINE_boolean("follow_links", None, "Follow links that lead out of the folder.")


def main(_) -> None:
    """Runs the program."""
    values = flags.FLAGS
    if values["index"].value is None:
        raise UserError("--index is missing: name the directory of the index")
    options = {field.name: values[field.name].value for field in dataclasses.fields(Options)}
    report = index_videos(**options)
    told = f"{report.windows:,} windows of {report.videos:,} videos, {report.added:,} of them new"
    print(f"{options['index']}: {told}")
    if report.is_prepared:
        print(NOT_SHOWN)
    if report.failed:
        print(
            f"{len(report.failed):,} could not be read, or not whole, the first"
            f" {report.failed[0].video} ({report.failed[0].reason}): see"
            f" {options['index']}/{FAILED_FILE}"
        )


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main)


if __name__ == "__main__":
    cli()
