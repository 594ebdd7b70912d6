"""Downloads a model that `push` uploaded to the hub of Hugging Face into a model directory.

    python -m convert pull user/mine weights/mine

OUT is a new directory that `glscl_jax.evaluate`, `search` and `glscl_jax.load` read and
`glscl_jax.train` starts from. Fetched are safetensors, JSON and the tokenizer's files, and nothing
that is run.

In Python the same is `convert.hub.pull`.
"""

from absl import flags

from convert import hub
from glscl_jax.runtime import program


def _define_flags() -> None:
    flags.DEFINE_string("revision", None, "A branch, tag or commit, instead of the newest.")


def main(argv) -> None:
    """Runs the program."""
    _, repo, out = argv
    hub.pull(repo, out, revision=flags.FLAGS["revision"].value)


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main, positional=("REPO", "OUT"))


if __name__ == "__main__":
    cli()
