"""Paths as users give them: `~` is their home, and what no file system has is refused.

Addresses in a bucket are taken where a program says so; `runtime.mirror` has what becomes of them.
"""

import os
import pathlib
import re

from absl import flags
from ml_collections import ConfigDict

from glscl_jax.errors import UserError

# One slash is what pathlib leaves of two.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")

# The kinds of buckets that can be named by their addresses.
SCHEMES = {"gs": "Google Cloud Storage", "s3": "S3"}
# How a bucket becomes a folder; docs/training.md, "Buckets". mount-s3 renames no folder and appends
# to no file, as a run does.
WAYS_OUT = {
    "gs": "mount it (gcsfuse), or copy it here (gcloud storage cp -r)",
    "s3": "mount it (s3fs; to read alone, mount-s3), or copy it here (aws s3 cp --recursive)",
}

# The settings that may be paths, and those of them that may be addresses.
TOKENIZER = "data.tokenizer"
BUCKETS = ("init_from", "data.dir")
SETTINGS = (*BUCKETS, TOKENIZER)
# A tokenizer's name, also beside a folder of that name, as `make demo` makes one.
DEMO_TOKENIZER = "demo"


def is_address(given: str | os.PathLike) -> bool:
    """Whether it is an address in a bucket: gs://bucket/folder or s3://bucket/folder."""
    scheme, found, _ = os.fspath(given).partition("://")
    return bool(found) and scheme.lower() in SCHEMES


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
        way_out = WAYS_OUT.get(scheme, "mount it, or copy it here")
        told = f"is not supported here, only a file system is: {way_out}"
        if scheme == "file":
            told = "is not supported: give the path alone"
        raise UserError(f"{name} {text}: {match[1]}:// {told}")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name} {text}: whose home that is cannot be told") from error


def expand(config: ConfigDict) -> None:
    """Makes the settings that are paths `local` and absolute: they hold in any folder from then on.

    A tokenizer may be a name, too: "demo", or what is no path that is there, stays as it is. So do
    addresses in buckets.

    Raises:
      UserError: as `local` does.
    """
    for setting in SETTINGS:
        section, _, key = setting.rpartition(".")
        values = config[section] if section else config
        # As in `train`: an empty one is none.
        in_bucket = setting in BUCKETS and is_address(values.get(key) or "")
        if values.get(key) and not in_bucket:
            path = local(values[key], f"config.{setting}")
            named = values[key] == DEMO_TOKENIZER or not path.exists()
            values[key] = str(path if setting == TOKENIZER and named else path.absolute())


class _Parser(flags.ArgumentParser):
    """Of a flag's value; raises a `UserError` before the program begins."""

    syntactic_help = "a path"

    def __init__(self, name: str, bucket: bool):
        super().__init__()
        self._name, self._bucket = name, bucket

    def parse(self, argument: str) -> str:
        if self._bucket and argument and is_address(argument):
            return argument
        return str(local(argument, f"--{self._name}")) if argument else argument

    def flag_type(self) -> str:
        return "path"


def define(
    name: str, default: str | None, help_text: str, *, bucket: bool = False, **options
) -> flags.FlagHolder:
    """Defines a flag whose value is a `local` path, as a string; with `bucket`, or an address."""
    return flags.DEFINE(
        _Parser(name, bucket),
        name,
        default,
        help_text,
        serializer=flags.ArgumentSerializer(),
        **options,
    )


# Flags are the program's that has them.
flags.disclaim_key_flags()
