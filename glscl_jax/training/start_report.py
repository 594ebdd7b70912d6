"""What a run says before it trains and where there is nothing left to train."""

import itertools

import jax

from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import as_json
from glscl_jax.input_pipeline.captions import captions
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.models.encoders.transformer import resolve_remat
from glscl_jax.profiling import trace
from glscl_jax.runtime import sharding
from glscl_jax.training import config_changes, recipe
from glscl_jax.training.run import Run


def say(line: str) -> None:
    """Prints a line, once for all processes."""
    if jax.process_index() == 0:
        print(line, flush=True)


def describe_end(run: Run, done: int) -> str:
    """A line on a run that has nothing left to do."""
    config, total, place = run.config, run.total, run.workdir.called
    if done > total:
        name = "num_steps" if config.num_steps else "num_epochs"
        said = f"{name} {config[name]}" + ("" if config.num_steps else f", which is {total} steps,")
        return (
            f"nothing to train: config.{said} is below the {done} steps that the run has done; it "
            f"stays as it is in {place}"
        )
    return f"nothing to train: the run has reached its last step, {total}; its files are in {place}"


def report_start(run: Run, state: TrainState, first: int, old: dict | None) -> None:
    """Lines on what is about to run.

    Args:
      run: see there.
      state: to go on from.
      first: steps done.
      old: the config of the run's last start; None if there was none.
    """
    if first and old:
        _report_changes(run, old, first, first - int(state.nonfinite))
    profile = run.options.profile
    if profile and trace.window_left(profile, first, run.total) is None:
        say(f"--profile={profile}: those steps are past, so this start traces none")
    if partial := run.data.partial:
        say(f"partial: {partial}")
    if run.options.features:
        say(f"from the features in {run.options.features}: encoders stay as they are")
    say(run.plan.describe())
    if idle := recipe.without_part(run.config, run.settings.model):
        say(idle)
    _report_cut_captions(run)
    _report_size(run, state, first)


def _report_changes(run: Run, old: dict, step: int, updates: int) -> None:
    """Lines on what changed since the run's last start."""
    before = config_changes.Schedule.of_config(old, run.plan.steps_per_epoch)
    after = config_changes.Schedule.of(run.settings.optim, run.total)
    for line in config_changes.describe(old, as_json(run.config), step, updates, before, after):
        say(line)


def _report_cut_captions(run: Run) -> None:
    """A line for each split that the run reads of which captions lose their end."""
    if jax.process_index() or run.options.features:
        return
    data = run.config.data
    for split in filter(None, (data.train_split, data.validation_split)):
        texts = itertools.chain.from_iterable(captions(run.data, split))
        if line := Cut.of(texts, run.tokenizer, data.num_words).describe(split):
            say(line)


def _report_size(run: Run, state: TrainState, first: int) -> None:
    """How large it is and where it runs."""
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    device, mesh = jax.devices()[0], run.mesh
    where = f"{mesh.size} x {device.device_kind} ({device.platform})"
    hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    say(
        f"training {count:,} parameters from step {first} to {run.total}, "
        f"batches of {run.config.batch_size} clips, on {where}{hosts}, "
        f"remat {resolve_remat(run.config.model.remat)}, "
        f"gradients summed in {run.config.gradient_dtype}"
    )
    if (share := sharding.device_share(state)) < 1:
        axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
        say(f"{axes}: a device holds {100 * share:.2f} % of parameters and optimiser state")
