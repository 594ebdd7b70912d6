"""A run's directory: what it was made with, its logs, where its checkpoints are.

config.json       the resolved config
model.json        sizes and settings of the model
tokenizer/        captions to ids
metrics.jsonl     one line of figures every so many steps
checkpoints/      see checkpoint.py
events.out.*      TensorBoard
profile/          traces of steps, see trace.py
"""

import json
import os
import pathlib

from ml_collections import ConfigDict

from glscl_jax import lock
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCLConfig, model_config, model_settings

LOCK_FILE = ".running.lock"

# Settings that fix what a step computes: a run cannot go on with others.
FIXED = ("seed", "batch_size", "data", "model")


class Workdir:
    """Paths of a work directory, and its JSON files."""

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).absolute()
        self.checkpoints = self.path / "checkpoints"
        self.tokenizer = self.path / "tokenizer"
        self.metrics = self.path / "metrics.jsonl"
        self.profile = self.path / "profile"

    def begin(self, config: ConfigDict, model: GLSCLConfig) -> None:
        """Writes down what the run is made with, or checks that an earlier start agrees.

        Raises:
          UserError: the directory holds a run with other settings, or cannot be written.
        """
        new = {
            "config.json": json.loads(config.to_json_best_effort()),
            "model.json": model_settings(model),
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_same(new)
            for name, content in new.items():
                write_json(self.path / name, content)
        except OSError as error:
            raise UserError(f"--workdir {self.path}: {error.strerror}") from error

    def claimed(self):
        """A context in which no other run may use the directory; see `lock.claimed`."""
        return lock.claimed(self.path, LOCK_FILE, f"--workdir {self.path}", "another run is in it")

    def _check_same(self, new: dict) -> None:
        way_out = f"give the run a --workdir of its own, or remove {self.path}"
        if found := differences(self._read("model.json"), new["model.json"]):
            raise UserError(f"the run in {self.path} has another model ({found}): {way_out}")
        old = self._read("config.json")
        old, given = (
            {key: x[key] for key in FIXED if key in x} for x in (old or {}, new["config.json"])
        )
        if old and (found := differences(old, given)):
            raise UserError(f"the run in {self.path} has another {found}: {way_out}")

    def _read(self, name: str) -> dict | None:
        path = self.path / name
        return read_json(path) if path.exists() else None

    def config(self) -> ConfigDict:
        """The config that the run was made with.

        Raises:
          UserError: there is none.
        """
        values = self._read("config.json")
        if values is None:
            raise UserError(f"{self.path} holds no config.json: give --config")
        return ConfigDict(values)


def read_model_config(directory: pathlib.Path) -> GLSCLConfig:
    """The model of a work directory or a converted one, from its `model.json`.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = directory / "model.json"
    if not path.exists():
        raise UserError(
            f"{directory} is no checkpoint directory (no model.json): give one that "
            "glscl_jax.train or convert wrote"
        )
    try:
        return model_config(read_json(path))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def read_json(path: pathlib.Path) -> dict:
    """Raises a `UserError` that names a file which is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return content


def write_json(path: pathlib.Path, content: dict) -> None:
    """The file appears whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def differences(old: dict | None, new: dict, prefix: str = "") -> str:
    """Tells the settings in which two nested dicts differ, "" for none (or nothing to compare)."""
    found = []
    for key in new if old is not None else ():
        before, after = old.get(key), new[key]
        if isinstance(after, dict) and isinstance(before, dict):
            if inner := differences(before, after, f"{prefix}{key}."):
                found.append(inner)
        elif before != after:
            found.append(f"{prefix}{key} {before!r}, now {after!r}")
    return ", ".join(found)
