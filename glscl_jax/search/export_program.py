"""Writes the features of an index for other engines: Parquet, or safetensors.

    python -m glscl_jax.search export --index my_index --out features.parquet
    python -m glscl_jax.search export --index my_index --out features.safetensors

A row is a window: its number, its video, where it starts and ends, the head's one vector for a
search of neighbours, where the head has one, and the features that its score is made of. Parquet
has the columns of metadata.csv besides. The checkpoint is not asked for.
"""

from absl import flags

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.runtime import program
from glscl_jax.search.exported_features import export_features


def _define_flags() -> None:
    paths.define(
        "index", None, "The directory of the index, or its address in a bucket.", bucket=True
    )
    paths.define("out", None, "The file, .parquet or .safetensors.")


def main(_) -> None:
    """Runs the program."""
    given = {name: flags.FLAGS[name].value for name in ("index", "out")}
    if given["index"] is None:
        raise UserError("--index is missing: name the directory of the index")
    if given["out"] is None:
        raise UserError("--out is missing: name a file, .parquet or .safetensors")
    export_features(given["index"], given["out"])


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main)


if __name__ == "__main__":
    cli()
