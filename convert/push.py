"""Uploads a model directory to the hub of Hugging Face, as safetensors and JSON.

    python -m convert push runs/mine user/mine
    python -m convert push runs/mine user/mine --public

CHECKPOINT is a work directory of `train` (its best step) or what `convert` wrote. REPO is made, and
is private unless --public is said; one that holds something is refused. `hf auth login` or HF_TOKEN
says who asks. Of a run's config.json no more than how many words and frames it read goes along.

In Python the same is `convert.hub.push`.
"""

from absl import flags

from convert import hub
from glscl_jax.runtime import program


def _define_flags() -> None:
    flags.DEFINE_bool("public", False, "Whether everybody may read it.")
    flags.DEFINE_integer("step", None, "A step of the work directory, instead of the best.")


def main(argv) -> None:
    """Runs the program."""
    _, path, repo = argv
    values = flags.FLAGS
    hub.push(path, repo, public=values["public"].value, step=values["step"].value)


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main, positional=("CHECKPOINT", "REPO"))


if __name__ == "__main__":
    cli()
