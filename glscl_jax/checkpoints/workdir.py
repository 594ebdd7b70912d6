"""A run's directory: what it was made with, its logs, where its checkpoints are.

config.json       the resolved config
configs.json      that of every start that changed something, and the step from which it holds
plan.json         how many pairs, steps an epoch and steps in all
model.json        sizes and settings of the model
data.json         what tells the prepared data from any other, wherever it lies
groups.json       which parameters train, and in which group of the optimiser
tokenizer/        captions to ids
metrics.jsonl     one line of figures every so many steps
checkpoints/      see run_checkpoints.py
events.out.*      TensorBoard
profile/          traces of steps, see profiling/trace.py
"""

import dataclasses
import datetime
import json
import os
import pathlib

from ml_collections import ConfigDict

from glscl_jax import paths
from glscl_jax.checkpoints.model_dir import CHECKPOINTS, CONFIG, TOKENIZER, read_run_config
from glscl_jax.errors import UserError
from glscl_jax.files import differences, read_json, unfinished, write_json
from glscl_jax.input_pipeline.plan import Plan
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer
from glscl_jax.models.glscl import GLSCLConfig, model_settings
from glscl_jax.models.model_file import MODEL, read_model_config
from glscl_jax.runtime import lock

LOCK_FILE = ".running.lock"

# Settings that fix what a step computes: a run cannot go on with others. The model's, too, which
# model.json has.
FIXED = ("seed", "batch_size", "data")
# Of them the places of things that are compared themselves.
PLACES = ("dir", "tokenizer")


class Workdir:
    """Paths of a work directory, and its JSON files."""

    def __init__(self, path: str | os.PathLike, called: str = ""):
        """Opens nothing yet.

        Args:
          path: the directory.
          called: what the user knows it by; a bucket's address, where it stands for that.
        """
        self.path = paths.local(path, "--workdir").absolute()
        self.called = called or str(self.path)
        self.checkpoints = self.path / CHECKPOINTS
        self.tokenizer = self.path / TOKENIZER
        self.metrics = self.path / "metrics.jsonl"
        self.profile = self.path / "profile"

    def begin(
        self,
        config: ConfigDict,
        model: GLSCLConfig,
        data: dict | None = None,
        tokenizer: Tokenizer | None = None,
        groups: dict[str, str] | None = None,
        plan: Plan | None = None,
        *,
        step: int = 0,
        steps_left: bool = True,
    ) -> None:
        """Writes down what the run is made with, or checks that an earlier start agrees.

        Args:
          config: resolved.
          model: of it.
          data: `identity` of the prepared data; None where there is none.
          tokenizer: kept in the directory; None where there is none.
          groups: of the optimiser, as `groups.trained_layers` tells them; None where there is none.
          plan: how long it is to be; None where that is not known.
          step: from which the config holds.
          steps_left: whether anything is to be trained; a finished run keeps what it was made with.

        Raises:
          UserError: the directory holds a run with other settings, other data or another
            tokenizer, or cannot be written.
        """
        # config.json last: where it is, the others are.
        new = {
            "data.json": data,
            "groups.json": groups,
            "plan.json": dataclasses.asdict(plan) if plan else None,
            MODEL: model_settings(model),
            CONFIG: as_json(config),
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._check_same(new, tokenizer)
            if not steps_left:
                return
            # One that is there is the same: that was compared.
            if tokenizer and not self.tokenizer.is_dir():
                with unfinished(self.tokenizer) as part:
                    tokenizer.save(part)
            self._keep_history(new[CONFIG], step)
            for name, content in new.items():
                if content is not None:
                    write_json(self.path / name, content)
        except OSError as error:
            raise UserError(f"--workdir {self.path}: {error.strerror}") from error

    def claimed(self):
        """A context in which no other run may use the directory; see `lock.claimed`."""
        return lock.claimed(self.path, LOCK_FILE, f"--workdir {self.path}", "another run is in it")

    def check_features(self, given: str) -> None:
        """Raises a `UserError` where a run from features is to go on from clips, or a run from
        clips from features.

        Args:
          given: the directory that --features names; "" for none.
        """
        data = self._read("data.json") if self.last_config() else None
        if data is None or _of_features(data) == bool(given):
            return
        trains = f"--workdir {self.called}: by its data.json the run in it trains from"
        if given:
            raise UserError(f"{trains} clips: leave --features {given} out, or {self._way_out}")
        raise UserError(
            f"{trains} features: name the directory that holds them (--features), or "
            f"{self._way_out}"
        )

    @property
    def _way_out(self) -> str:
        return f"give the run a --workdir of its own, or remove {self.called}"

    def _check_same(self, new: dict, tokenizer: Tokenizer | None) -> None:
        way_out = self._way_out
        # Through `model_config`: a run may have begun before a setting was there.
        model = (self.path / MODEL).exists() and model_settings(read_model_config(self.path))
        # What is computed twice changes no result: a run may go on with another `remat`.
        old, now = ({**(x or {}), "remat": None} for x in (model, new[MODEL]))
        if found := differences(old if model else None, now):
            raise UserError(f"the run in {self.path} has another model ({found}): {way_out}")
        if not (old := read_run_config(self.path)):
            return
        plan = new["plan.json"]
        if plan and plan["pairs"] != plan["clips"] and not self._read("plan.json"):
            raise UserError(
                f"the run in {self.path} is of a version whose epochs passed over clips, not over"
                f" pairs of a clip and a caption: {way_out}"
            )
        if found := differences(_fixed(old), _fixed(new[CONFIG])):
            raise UserError(f"the run in {self.path} has another {found}: {way_out}")
        self._check_groups(new["groups.json"], way_out)
        data = self._read("data.json")
        if data is None:
            # Begun before this was written down: the place is all that is known of its data.
            old_dir, new_dir = (
                pathlib.Path(x.get("data", {}).get("dir", "")) for x in (old, new[CONFIG])
            )
            if old_dir.absolute() != new_dir.absolute():
                raise UserError(
                    f"the run in {self.path} has another data.dir {old_dir}, now {new_dir}, "
                    f"and does not say what data it had: go on with that once, or {way_out}"
                )
        elif found := differences(data, new["data.json"] or {}):
            flag = "--features" if _of_features(data) else "--config.data.dir"
            raise UserError(
                f"the run in {self.path} was trained on other data ({found}): name the directory "
                f"that holds its data ({flag}), or {way_out}"
            )
        known = tokenizer and self.tokenizer.is_dir()
        if known and load_tokenizer(self.tokenizer).sha256 != tokenizer.sha256:
            raise UserError(
                f"the run in {self.path} has another tokenizer than config.data.tokenizer "
                f"{new[CONFIG]['data']['tokenizer']}: {way_out}"
            )

    def _check_groups(self, new: dict | None, way_out: str) -> None:
        """The moments on disk are of the parameters, and the layers, that trained till then."""
        old = self._read("groups.json")
        if old is None or new is None:  # Begun before this was written down.
            return
        if differing := [name for name in new if old.get(name) != new[name]]:
            name, more = differing[0], len(differing) - 1
            raise UserError(
                f"the run in {self.path} trained other parameters ({name}: {old.get(name)}, now "
                f"{new[name]}{f'; and {more} more' if more else ''}): go on with the "
                f"config.optim.frozen and clip_group that it had, or {way_out}"
            )

    def _keep_history(self, config: dict, step: int) -> None:
        """Adds a config to configs.json if it is another than that of the last start."""
        kept = (self._read("configs.json") or {}).get("configs", [])
        old = read_run_config(self.path)
        if not kept and old is not None:
            # Begun before there was such a file.
            kept = [{"from_step": 0, "config": old}]
        if not kept or kept[-1]["config"] != config:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            kept.append({"from_step": step, "date": now, "config": config})
            write_json(self.path / "configs.json", {"configs": kept})

    def last_config(self) -> dict | None:
        """config.json, with the settings where they are now; None where there is none."""
        return read_run_config(self.path)

    def _read(self, name: str) -> dict | None:
        path = self.path / name
        return read_json(path) if path.exists() else None

    def config(self) -> ConfigDict:
        """The config that the run was made with.

        Raises:
          UserError: there is none, or no more of it than goes to the hub.
        """
        values = read_run_config(self.path)
        if values is None:
            raise UserError(f"{self.path} holds no {CONFIG}: give --config")
        if "model" not in values:
            raise UserError(f"{self.path / CONFIG} is no run's whole config: give --config")
        return ConfigDict(values)


def as_json(config: ConfigDict) -> dict:
    """A config as config.json has it."""
    return json.loads(config.to_json_best_effort())


def _of_features(data: dict) -> bool:
    """Whether a data.json is of features: they have an identity a split, and no settings."""
    return bool(data) and all(isinstance(split, dict) for split in data.values())


def _fixed(config: dict) -> dict:
    """The settings that a run cannot change, without the places of what is compared itself."""
    fixed = {key: config[key] for key in FIXED if key in config}
    data = fixed.get("data", {})
    return {**fixed, "data": {key: data[key] for key in data if key not in PLACES}}
