"""Trains GLSCL on a prepared data set.

    python -m glscl_jax.train --config configs/demo.py --workdir runs/demo
    python -m glscl_jax.train --config configs/demo.py:tiny --workdir runs/tiny  # seconds
    ... --config.batch_size=64 --config.optim.learning_rate=3e-4                # any setting

The work directory holds the config, the plan (pairs, steps an epoch and in all), the figures
(metrics.jsonl and TensorBoard's), and the checkpoints. Started again on the same one, a run goes on
where it stopped, exactly. At SIGTERM it saves and ends with status 75; with 69 when another of its
processes is lost. docs/training.md has clusters.

In Python the same is `from glscl_jax.train import train`:

    train(configs.demo.get_config("tiny"), "runs/tiny")
"""

import contextlib
import os

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import get_override_values

from glscl_jax import paths
from glscl_jax.checkpoints.model_dir import CONFIG, STEPS, steps_on_disk
from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.profiling import trace, utilisation
from glscl_jax.profiling.compilation import CompiledStep
from glscl_jax.runtime import launch, launch_flags, mirror, processes, program, sharding
from glscl_jax.runtime.preemption import PREEMPTED_STATUS, Preemption
from glscl_jax.training import compile_for, inherited, inputs
from glscl_jax.training.logbook import Log, Logbook
from glscl_jax.training.nonfinite import NonFinite
from glscl_jax.training.run import (
    Options,
    Run,
    check_asked,
    compiled_step,
    open_run,
    other_params,
    start,
)
from glscl_jax.training.start_report import describe_end, report_start, say


def _define_flags() -> None:
    config_flags.DEFINE_config_file(
        "config", None, "The recipe, e.g. configs/demo.py, or configs/demo.py:tiny."
    )
    paths.define(
        "workdir",
        None,
        "Where the run's files go: a folder, or an address in a bucket, s3:// or gs://. A run that"
        " is there already goes on.",
        bucket=True,
    )
    flags.DEFINE_string(
        "profile",
        Options.profile,
        "Steps to trace into the workdir's profile/: how many, or FIRST:LAST.",
    )
    flags.DEFINE_string(
        "compile_for",
        "",
        "Trains nothing: compiles the step for devices that are not here, e.g. v5e:4x4 or h100x8, "
        "and says whether it fits and what it computes, sends and may take.",
    )
    paths.define(
        "features",
        None,
        "What frozen encoders made of all clips and captions, as glscl_jax.evaluate --encodings"
        " keeps it, or another encoder's: no clip is read, and a head trains in minutes.",
    )
    launch_flags.define()
    flags.mark_flags_as_required(["config", "workdir"])


def main(_) -> int:
    """Runs the program."""
    values, peers = flags.FLAGS, launch_flags.given()
    config, workdir = values["config"].value, values["workdir"].value
    commanded = get_override_values(values["config"])
    if asked := values["compile_for"].value:
        program.refuse_beside("compile_for", ("features", "profile", *launch_flags.NAMES))
        return compile_for.run(asked, config, inherited.Chosen.of(config, commanded), workdir)
    with launch.join(peers):
        return train(
            config,
            workdir,
            commanded=commanded,
            profile=values["profile"].value,
            features=values["features"].value or "",
            peer_timeout=peers.peer_timeout,
        )


def train(config: ConfigDict, workdir: str | os.PathLike, **options) -> int:
    """Trains to the end, or to a scheduler's notice.

    Args:
      config: the recipe.
      workdir: where the run is to be, or is; a path, or an address in a bucket.
      options: fields of `Options`.

    Returns:
      The program's exit status: 0, or `PREEMPTED_STATUS` where it was told to end.

    Raises:
      UserError: naming what does not fit, or what could not be written.
    """
    with contextlib.ExitStack() as claims:
        # The caller's config stays as it is.
        config = config.copy_and_resolve_references()
        if paths.is_address(workdir):
            processes.check_one_host(f"--workdir {workdir}")
        kept = claims.enter_context(
            mirror.written(workdir, "--workdir", [STEPS], begun=CONFIG, by_first=processes.by_first)
        )
        return _train(config, kept, Options(**options), claims)


def _train(config, kept: mirror.Kept, options: Options, claims: contextlib.ExitStack) -> int:
    """As `train`; the work directory is claimed until `claims` are closed."""
    workdir = Workdir(kept.path, kept.called)

    # 1. Check the settings; up to 3 all that can be wrong is found, and nothing is written.
    asked = check_asked(config, workdir, options)

    # 2. Open what the run works with: data, tokenizer, devices, another run's parameters.
    run = open_run(asked, workdir, options)
    loaded, total = other_params(run), run.total
    if loaded is not None:
        say(inherited.describe(run.source, run.config, run.settings.model))

    # 3. Claim the work directory, and write down in it what the run is made with.
    first, old = claim(run, claims)
    if first >= total:
        say(describe_end(run, first))
        return 0

    # 4. The state to go on from.
    checkpoints = Checkpoints(workdir, run.config.keep_checkpoints)
    state = start(run, checkpoints, loaded)
    del loaded  # Else all of its parameters would be held as long as the run lasts.
    report_start(run, state, first, old)

    # 5. Step by step: train, log, validate, save.
    batches = inputs.training_batches(run.config, run.data, run.tokenizer, first, total)
    log = open_log(run, first)
    window = trace.window_left(options.profile, first, total)
    tracer = trace.Trace(window, workdir.profile, log.paused)
    step = CompiledStep(compiled_step(run, state), log.write_compiled)
    look_up = inputs.clip_ids(run.config, run.data)
    nonfinite = NonFinite(run.config.max_nonfinite, int(state.nonfinite), look_up)
    preemption, done = claims.enter_context(Preemption()), first
    for number, batch in enumerate(log.watch(batches), first + 1):
        with tracer.step(number):
            state, figures = step(state, sharding.put_batch(inputs.on_device(batch), run.mesh))
            done = log.add(figures)
        nonfinite.add(done, figures, batch["clip_index"])
        preempted = preemption.reached(done) and done < total
        if validates(run, done) and not preempted:
            with log.paused():
                scores = run.validation(state.eval_params)
            log.write_validation(scores)
            with log.paused():
                checkpoints.save(state, scores)
        elif preempted or done == total or _is_due(run.config.checkpoint_every, done):
            with log.paused():
                checkpoints.save(state)
        if preempted:
            break
        kept.check()

    # 6. End, when all is on disk.
    nonfinite.look()
    checkpoints.close()
    log.close()
    kept.finish()
    if done < total:
        say(f"told to end: saved at step {done} of {total}; start again to go on from there")
        return PREEMPTED_STATUS
    say(f"trained to step {total}; the run's files are in {workdir.called}")
    return 0


def claim(run: Run, claims: contextlib.ExitStack) -> tuple[int, dict | None]:
    """Makes the work directory this run's, until `claims` are closed.

    Returns:
      The last step that is saved in it, 0 for none, and the config of the run's last start, None
      for a fresh one.

    Raises:
      UserError: another run is in it, or was; or the processes do not share it.
    """
    workdir = run.workdir
    processes.by_first(lambda: claims.enter_context(workdir.claimed()))
    processes.check_shared(workdir.path, "--workdir", run.options.peer_timeout)
    first, old = max(steps_on_disk(workdir.checkpoints), default=0), workdir.last_config()
    processes.check_same({"the last checkpoint's step": first})
    processes.by_first(
        lambda: workdir.begin(
            run.config,
            run.settings.model,
            run.data.identity,
            run.tokenizer,
            run.groups,
            run.plan,
            step=first,
            steps_left=first < run.total,
        )
    )
    return first, old


def open_log(run: Run, first: int) -> Log:
    """The run's log, which only the first process writes."""
    logbook = Logbook(run.workdir, first) if jax.process_index() == 0 else None
    towers = not run.options.features
    against = utilisation.of_training(run.settings.model, run.config, run.mesh, towers=towers)
    return Log(run.config, logbook, first, run.total, against)


def validates(run: Run, done: int) -> bool:
    """Whether the validation split is looked at after so many steps."""
    every = run.config.validate_every or run.plan.steps_per_epoch
    return bool(run.validation.split) and (_is_due(every, done) or done == run.total)


def _is_due(every: int, done: int) -> bool:
    return bool(every) and done % every == 0


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main)


if __name__ == "__main__":
    cli()
