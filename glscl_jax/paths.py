"""Paths as users give them: `~` is their home, and what no file system has is refused."""

import os
import pathlib
import re

from absl import flags
from ml_collections import ConfigDict

from glscl_jax.errors import UserError

# One slash is what pathlib leaves of two.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")

# How a bucket becomes a folder; docs/training.md, "Buckets". mount-s3 renames no folder and appends
# to no file, as a run does.
_WAYS_OUT = {
    "gs": "mount it (gcsfuse), or copy it here (gcloud storage cp -r)",
    "s3": "mount it (s3fs; to read alone, mount-s3), or copy it here (aws s3 cp --recursive)",
}

# The settings that may be paths.
TOKENIZER = "data.tokenizer"
SETTINGS = ("init_from", "data.dir", TOKENIZER)
# A tokenizer's name, also beside a folder of that name, as `make demo` makes one.
DEMO_TOKENIZER = "demo"


def local(given: str | os.PathLike, name: str) -> pathlib.Path:
    """A path of this machine's file systems.

    Args:
      given: as it was given.
      name: of the flag, setting or argument, for the message.

    Raises:
      UserError: it is a bucket's or another service's (gs://, s3://, hdfs://), or is in a home
        that is not known.
    """
    text = os.fspath(given)
    if match := _SCHEME.match(text):
        scheme = match[1].lower()
        way_out = _WAYS_OUT.get(scheme, "mount it, or copy it here")
        told = f"only file systems are read and written: {way_out}"
        if scheme == "file":
            told = "give the path alone"
        raise UserError(f"{name} {text}: {match[1]}:// is not supported yet; {told}")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name} {text}: whose home that is cannot be told") from error


def settle(config: ConfigDict) -> None:
    """Makes the settings that are paths `local` and absolute: they hold in any folder from then on.

    A tokenizer may be a name, too: "demo", or what is no path that is there, stays as it is.

    Raises:
      UserError: as `local` does.
    """
    for setting in SETTINGS:
        section, _, key = setting.rpartition(".")
        values = config[section] if section else config
        # As in `train`: an empty one is none.
        if values.get(key):
            path = local(values[key], f"config.{setting}")
            named = values[key] == DEMO_TOKENIZER or not path.exists()
            values[key] = str(path if setting == TOKENIZER and named else path.absolute())


class _Parser(flags.ArgumentParser):
    """Of a flag's value; raises a `UserError` before the program begins."""

    syntactic_help = "a path"

    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def parse(self, argument: str) -> str:
        return str(local(argument, f"--{self._name}")) if argument else argument

    def flag_type(self) -> str:
        return "path"


def define(name: str, default: str | None, help_text: str, **options) -> flags.FlagHolder:
    """Defines a flag whose value is a `local` path, as a string."""
    return flags.DEFINE(
        _Parser(name), name, default, help_text, serializer=flags.ArgumentSerializer(), **options
    )


# Flags are the program's that has them.
flags.disclaim_key_flags()
