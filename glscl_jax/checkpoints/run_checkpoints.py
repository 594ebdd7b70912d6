"""Checkpoints on disk, with Orbax.

Each step of a run is saved as `checkpoints/STEP/{params,progress}`: `params` alone is what
evaluation and search read; `progress` is the optimiser's state and the step, which is also the
position in the data. Where a moving average of the parameters is kept, it is what `params` has,
and `progress` has the parameters themselves. A step appears whole or not at all.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil

import jax
import numpy as np
from jax.sharding import Sharding
from orbax.checkpoint import v1 as ocp

from glscl_jax import paths
from glscl_jax.checkpoints.checksums import checked
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import Workdir, read_model_config
from glscl_jax.errors import UserError
from glscl_jax.files import read_json
from glscl_jax.models.glscl import GLSCLConfig, model_settings
from glscl_jax.runtime import processes
from glscl_jax.trees import copied, overlaid, part_of

BEST = "R@1"


class Checkpoints:
    """The checkpoints of a run: the best by validation R@1 and the last few are kept."""

    def __init__(self, workdir: Workdir, keep: int):
        policies = ocp.training.preservation_policies
        self.directory = workdir.checkpoints
        self._saved: int | None = None
        self._orbax = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(max(1, keep)),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics[BEST],
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            # What a killed run had begun to write.
            cleanup_tmp_directories=True,
            context=_uncompressed(),
        )

    @property
    def latest(self) -> int | None:
        """The last complete step, or None."""
        return self._orbax.latest.step if self._orbax.latest else None

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Starts saving; training may go on at once. Waits for the save before.

        Args:
          state: see there.
          metrics: of the validation at this step; R@1 decides which checkpoint is the best.

        Raises:
          UserError: this save or the one before could not be written (a full disk, say).
        """
        self.wait()
        step = int(state.step)
        if step == self.latest:
            return
        progress = {
            "step": state.step,
            "opt_state": state.opt_state,
            "nonfinite": state.nonfinite,
        }
        if state.ema is not None:
            progress["raw"] = part_of(state.params, state.ema)
        try:
            self._orbax.save_checkpointables_async(
                step, {"params": state.evaluated, "progress": progress}, metrics=metrics, force=True
            )
            self._saved = step
        except Exception as error:
            raise self._unwritten(step, error) from error

    def wait(self) -> None:
        """Returns when the last save is on disk; raises a `UserError` if it failed."""
        try:
            self._orbax.wait()
        except Exception as error:
            raise self._unwritten(self._saved, error) from error

    def _unwritten(self, step: int | None, error: Exception) -> UserError:
        # Orbax raises many kinds of exception for a write that failed; the first line says which.
        whole = [x for x in steps_on_disk(self.directory) if x != step]
        last = f"the last good one is step {max(whole)}" if whole else "there is none before it"
        shutil.rmtree(self.directory / str(step), ignore_errors=True)
        return UserError(
            f"the checkpoint at step {step} could not be written to {self.directory} "
            f"({_reason(error)}); {last}: make room and start again to go on from there"
        )

    def restore(self, abstract: TrainState) -> TrainState:
        """The latest state.

        A moving average that the checkpoint lacks begins as a copy of its parameters; one that is
        no longer wanted is left out.

        Args:
          abstract: shapes, dtypes and shardings, as `jax.eval_shape` and `jax.ShapeDtypeStruct`
            give them.

        Raises:
          UserError: the checkpoint is damaged, or other parameters were frozen in it.
        """
        step = self.latest
        path = self.directory / str(step)
        params = abstract.params
        progress = {"step": abstract.step, "opt_state": abstract.opt_state}
        try:
            stored = ocp.metadata(path, "progress").metadata
            _check_same_moments(path, stored["opt_state"], abstract.opt_state)
            # Runs that began before these were counted have no such number.
            if "nonfinite" in stored:
                progress["nonfinite"] = abstract.nonfinite
            if "raw" in stored:
                params = abstract.evaluated
                progress["raw"] = part_of(abstract.params, stored["raw"])
            loaded = self._orbax.load_checkpointables(
                step, {"params": params, "progress": progress}
            )
        except UserError:
            raise
        except Exception as error:
            raise _damaged(path, error) from error
        params, progress = loaded["params"], loaded["progress"]
        if "nonfinite" not in progress:
            progress["nonfinite"] = jax.device_put(np.int32(0), abstract.nonfinite.sharding)
        raw, average = progress.pop("raw", None), None
        if abstract.ema is not None:
            average = part_of(params, abstract.ema)
            average = copied(average) if raw is None else average
        return TrainState(params=overlaid(params, raw), ema=average, **progress)

    def close(self) -> None:
        """Waits for the last save; raises a `UserError` if it failed."""
        self.wait()
        self._orbax.close()


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """What a checkpoint directory holds for encoding.

    Attributes:
      config: of the model.
      params: parameters.
      step: of the run that trained them; None for converted ones.
      directory: where its `tokenizer/` and `config.json` are.
    """

    config: GLSCLConfig
    params: dict
    step: int | None
    directory: pathlib.Path


def load_model(
    directory: str | os.PathLike, sharding: Sharding, step: int | None = None
) -> LoadedModel:
    """Reads a checkpoint directory, converted or trained.

    Args:
      directory: a work directory, or what `convert` wrote.
      sharding: where the parameters go. Of several processes all call this together, but for a
        sharding over devices of one alone, which reads by itself.
      step: of a work directory; without one the best by validation R@1, else the latest.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    if jax.process_count() == 1:
        found = _found(directory, step)
        return dataclasses.replace(found, params=_load_params(_params_of(found), sharding))

    def found_alone():
        with _alone():
            return _found(directory, step)

    if sharding.is_fully_addressable:
        found = found_alone()
        with _alone():
            return dataclasses.replace(found, params=_load_params(_params_of(found), sharding))
    # Reading another model, or nothing at all, one would keep the others waiting.
    found = processes.by_all(found_alone)
    told = {"step": found.step, "model": model_settings(found.config)}
    processes.check_same({"checkpoint": told})
    return dataclasses.replace(found, params=_load_params(_params_of(found), sharding))


def _found(directory: str | os.PathLike, step: int | None) -> LoadedModel:
    """What `load_model` is to read, without the parameters."""
    directory = paths.local(directory, "the checkpoint").absolute()
    config = read_model_config(directory)
    if (directory / "params").is_dir():
        return LoadedModel(config, {}, None, directory)
    steps = steps_on_disk(directory / "checkpoints")
    if not steps:
        raise UserError(f"{directory} holds no complete checkpoint: has its run saved one yet?")
    if step is None:
        step = _best(directory / "checkpoints")
    if step not in steps:
        raise UserError(f"{directory} has no step {step}: there are {', '.join(map(str, steps))}")
    return LoadedModel(config, {}, step, directory)


def _params_of(found: LoadedModel) -> pathlib.Path:
    if found.step is None:
        return found.directory
    return found.directory / "checkpoints" / str(found.step)


def save_params(directory: pathlib.Path, params: dict) -> None:
    """Writes parameters alone, as `convert` does: `directory/params`.

    Takes hardly more memory than the parameters. Orbax's own settings take three times as much:
    it copies arrays first, and holds all that it has compressed until the end.
    """
    context = _uncompressed()
    context.memory.deepcopy_host_arrays = False
    with context:
        ocp.save_checkpointables(directory.absolute(), {"params": params}, overwrite=True)


def _uncompressed() -> ocp.Context:
    """Settings to save with: compression makes float32 weights smaller by 7 %, and takes most of
    the time of a save from the processors that prepare the next batches.
    """
    context = ocp.Context()
    context.array.saving.use_compression = False
    return checked(context)


def _alone() -> ocp.Context:
    """Settings to read with while the other processes do something else."""
    context, number = ocp.Context(), jax.process_index()
    context.multiprocessing_options.primary_host = number
    context.multiprocessing_options.active_processes = {number}
    context.multiprocessing_options.barrier_sync_key_prefix = f"process{number}"
    return context


def _load_params(path: pathlib.Path, sharding: Sharding) -> dict:
    try:
        # Asked for by name: Orbax would take the other directories for unreadable parts.
        stored = ocp.metadata(path, "params").metadata
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), stored
        )
        return ocp.load(path, abstract, checkpointable_name="params")
    except Exception as error:
        raise _damaged(path, error) from error


def _check_same_moments(path: pathlib.Path, stored, abstract) -> None:
    """Raises a `UserError` if the optimiser's state is not of the same arrays."""
    if _named_shapes(stored) != _named_shapes(abstract):
        raise UserError(
            f"the run of {path} did not train the same parameters: go on with the "
            "config.optim.frozen and clip_group that it had, or give the run a --workdir of its own"
        )


def _named_shapes(tree) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Of each array, by its keys: Orbax reads named tuples back as dicts, and tuples as lists."""

    def name(key) -> str:
        return str(next(getattr(key, x) for x in ("name", "key", "idx") if hasattr(key, x)))

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(map(name, keys)): leaf.shape for keys, leaf in leaves}


def steps_on_disk(directory: pathlib.Path) -> list[int]:
    """Complete steps in a run's `checkpoints`, ascending."""
    names = (path.name for path in directory.iterdir()) if directory.is_dir() else ()
    return sorted(int(name) for name in names if name.isdigit())


def _best(directory: pathlib.Path) -> int:
    # Read as files: Orbax's own reader asks for all processes.
    steps = steps_on_disk(directory)
    files = {step: directory / str(step) / "metrics" / "metrics" for step in steps}
    scores = {step: read_json(path).get(BEST) for step, path in files.items() if path.exists()}
    judged = {step: score for step, score in scores.items() if score is not None}
    return max(judged, key=judged.get, default=steps[-1])


def _damaged(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"the checkpoint {path} cannot be read ({_missing(path) or _reason(error)}): move it away "
        "to use an earlier one"
    )


def _missing(path: pathlib.Path) -> str:
    """Which of the files that every checkpoint has is gone or no JSON, "" for none."""
    if not (path / "_CHECKPOINT_METADATA").exists():
        return "_CHECKPOINT_METADATA is gone"
    if not (path / "params").is_dir():
        return "params is gone"
    for folder in (path / name for name in ("params", "progress") if (path / name).is_dir()):
        for name in ("_METADATA", "manifest.ocdbt"):
            if not (folder / name).exists():
                return f"{folder.name}/{name} is gone"
        try:
            json.loads((folder / "_METADATA").read_text(encoding="utf-8"))["tree_metadata"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{folder.name}/_METADATA is damaged"
    return ""


def _reason(error: BaseException) -> str:
    """What the disk said, without the names that Orbax and its threads wrap around it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    text = str(error).strip().partition("\n")[0]
    text = text.split(" [tensorstore_spec")[0].split(" [os_error")[0]
    reason = text.split(": ")[-1]
    # Of a damaged array its name, of a damaged index the file.
    arrays = re.findall(r'"([^"]+)/c/[^"]*" in OCDBT', text)
    files = re.findall(r'local file "([^"]+)"', text)
    if (named := arrays or files) and named[-1] not in reason:
        reason = f"{named[-1]}: {reason}"
    return reason or type(error).__name__
