"""The checkpoints of a run, with Orbax.

Each step of a run is saved as `checkpoints/STEP/{params,progress}`: `params` alone is what
evaluation and search read; `progress` is the optimiser's state and the step, which is also the
position in the data. Where a moving average of the parameters is kept, it is what `params` has,
and `progress` has the parameters themselves. A step appears whole or not at all.
"""

import pathlib
import shutil

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from glscl_jax.checkpoints.model_dir import BEST, damaged, reason, steps_on_disk, uncompressed
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.trees import copy, merge, part_of


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
            context=uncompressed(),
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
                step,
                {"params": state.eval_params, "progress": progress},
                metrics=metrics,
                force=True,
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
            f"({reason(error)}); {last}: make room and start again to go on from there"
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
                params = abstract.eval_params
                progress["raw"] = part_of(abstract.params, stored["raw"])
            loaded = self._orbax.load_checkpointables(
                step, {"params": params, "progress": progress}
            )
        except UserError:
            raise
        except Exception as error:
            raise damaged(path, error) from error
        params, progress = loaded["params"], loaded["progress"]
        if "nonfinite" not in progress:
            progress["nonfinite"] = jax.device_put(np.int32(0), abstract.nonfinite.sharding)
        raw, average = progress.pop("raw", None), None
        if abstract.ema is not None:
            average = part_of(params, abstract.ema)
            average = copy(average) if raw is None else average
        return TrainState(params=merge(params, raw), ema=average, **progress)

    def close(self) -> None:
        """Waits for the last save; raises a `UserError` if it failed."""
        self.wait()
        self._orbax.close()


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
