"""Trains GLSCL on a prepared data set.

    python -m glscl_jax.train --config configs/demo.py --workdir runs/demo
    python -m glscl_jax.train --config configs/demo.py:tiny --workdir runs/tiny  # seconds
    ... --config.batch_size=64 --config.optim.learning_rate=3e-4                # any setting

The work directory holds the config, the plan (pairs, steps an epoch and in all), the figures
(metrics.jsonl and TensorBoard's), and the checkpoints. Started again on the same one, a run goes on
where it stopped, exactly. At SIGTERM it saves and ends with status 75; with 69 when another of its
processes is lost. docs/training.md has clusters.
"""

import contextlib
import functools
import itertools

import jax
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import get_override_values

from glscl_jax import paths
from glscl_jax.checkpoints.model_dir import load_model, parameters_sha256, steps_on_disk
from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import PLACES, Workdir, as_json
from glscl_jax.input_pipeline.captions import captions
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.input_pipeline.prepared_data import PreparedData
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.transformer import chosen_remat
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.profiling import trace, utilisation
from glscl_jax.profiling.compilation import CompiledStep
from glscl_jax.runtime import launch, processes, program, sharding
from glscl_jax.runtime.preemption import PREEMPTED_STATUS, Preemption
from glscl_jax.training import (
    compile_for,
    continued,
    inherited,
    inputs,
    rand_augment,
    recipe,
    steps,
)
from glscl_jax.training.groups import check_patterns, trained_layers
from glscl_jax.training.logbook import Log, Logbook
from glscl_jax.training.nonfinite import NonFinite
from glscl_jax.training.optim import make_optimizer
from glscl_jax.training.validation import Validation
from glscl_jax.training.warm_start import start_params

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe, e.g. configs/demo.py, or configs/demo.py:tiny."
)
WORKDIR = paths.define(
    "workdir", None, "Where the run's files go. A run that is there already goes on."
)
PROFILE = flags.DEFINE_string(
    "profile", "", "Steps to trace into the workdir's profile/: how many, or FIRST:LAST."
)


COMPILE_FOR = flags.DEFINE_string(
    "compile_for",
    "",
    "Trains nothing: compiles the step for devices that are not here, e.g. v5e:4x4 or h100x8, and "
    "says whether it fits and what it computes, sends and may take.",
)


def main(_):
    if COMPILE_FOR.value:
        commanded = get_override_values(flags.FLAGS[CONFIG.name])
        chosen = inherited.chosen(CONFIG.value, commanded)
        return compile_for.run(
            COMPILE_FOR.value, CONFIG.value, chosen, WORKDIR.value, compiled_step
        )
    with launch.joined(), contextlib.ExitStack() as claims:
        commanded = get_override_values(flags.FLAGS[CONFIG.name])
        chosen = inherited.chosen(CONFIG.value, commanded)
        return train(CONFIG.value, chosen, Workdir(WORKDIR.value), claims)


def train(config, chosen, workdir: Workdir, claims: contextlib.ExitStack) -> int:
    """Trains to the end, or to a scheduler's notice; returns the program's exit status.

    Args:
      config: the recipe.
      chosen: `inherited.Chosen`, what was chosen in it.
      workdir: where the run is to be, or is.
      claims: of the work directory, until the program ends.
    """
    # Everything that can be wrong is found before the work directory is touched.
    paths.settle(config)
    launch.check_agreement(config, places=PLACES)
    source = processes.by_all(lambda: inputs.origin(config, workdir))
    processes.check_same({"a run to go on with": bool(source and source.goes_on)})
    given, config = config, inherited.resolved(config, source, chosen)
    settings = recipe.read(config)
    opened = processes.by_all(lambda: inputs.open_inputs(given, config, settings, source, chosen))
    mesh, data, tokenizer, plan = opened.mesh, opened.data, opened.tokenizer, opened.plan
    processes.check_same({"data": data.identity, "tokenizer": tokenizer.sha256})
    total = plan.num_steps
    trace.read_window(PROFILE.value, 0, total)
    model = GLSCL(settings.model)
    shapes = jax.eval_shape(lambda: init_params(model, 0))
    check_patterns(shapes, settings.optim)
    optimizer = make_optimizer(settings.optim, total)
    validation = Validation(config, data, tokenizer, model, mesh)
    processes.check_same({"number of steps": total})
    loaded = None
    if source and not source.goes_on:
        loaded = load_model(source.directory, sharding.replicated(mesh)).params
        if jax.process_count() > 1:
            sha256 = parameters_sha256(loaded)
            processes.check_same({"config.init_from's parameters": sha256})
        inputs.check_fit(loaded, settings, model)
        say(inherited.told(source, config, settings.model))

    processes.by_first(lambda: claims.enter_context(workdir.claimed()))
    processes.check_shared(workdir.path, "--workdir", launch.PEER_TIMEOUT.value)
    groups = trained_layers(shapes, settings.optim)
    first, old = max(steps_on_disk(workdir.checkpoints), default=0), workdir.last_config()
    processes.check_same({"the last checkpoint's step": first})
    processes.by_first(
        lambda: workdir.begin(
            config,
            settings.model,
            data.identity,
            tokenizer,
            groups,
            plan,
            step=first,
            goes_on=first < total,
        )
    )
    if first >= total:
        say(finished(config, first, total, workdir))
        return 0
    checkpoints = Checkpoints(workdir, config.keep_checkpoints)
    state = start(config, settings, model, optimizer, checkpoints, mesh, loaded)
    del loaded  # Else all of its parameters would be held as long as the run lasts.
    if first and old:
        updates = first - int(state.nonfinite)
        tell_changes(old, config, first, updates, settings, total, plan.steps_per_epoch)
    window = trace.window_left(PROFILE.value, first, total)
    if PROFILE.value and window is None:
        say(f"--profile={PROFILE.value}: those steps are past, so this start traces none")
    if data.settings.partial:
        say(f"partial: {data.settings.partial}")
    say(plan.told())
    tell_cut_captions(config, data, tokenizer)
    announce(config, state, first, total, mesh)

    batches = inputs.training_batches(config, data, tokenizer, first, total)
    log = open_log(config, settings, workdir, mesh, first, total)
    tracer = trace.Trace(window, workdir.profile, log.pause)
    step = compiled_step(config, settings, model, optimizer, mesh, state)
    step = CompiledStep(step, log.write_compiled)
    nonfinite = NonFinite(config.max_nonfinite, int(state.nonfinite), inputs.clip_ids(config, data))
    validate_every = config.validate_every or plan.steps_per_epoch
    preemption, done = Preemption(), first
    for number, batch in enumerate(log.watch(batches), first + 1):
        with tracer.step(number):
            state, figures = step(state, sharding.put_batch(inputs.on_device(batch), mesh))
            done = log.add(figures)
        nonfinite.add(done, figures, batch["clip_index"])
        last = done == total
        preempted = preemption.reached(done) and not last
        if validation.split and (done % validate_every == 0 or last) and not preempted:
            scores = log.pause(lambda state=state: validation(state.evaluated))
            log.write_validation(scores)
            log.pause(lambda state=state, scores=scores: checkpoints.save(state, scores))
        elif last or preempted or _is_due(config.checkpoint_every, done):
            log.pause(lambda state=state: checkpoints.save(state))
        if preempted:
            break

    nonfinite.look()
    checkpoints.close()
    log.close()
    if done < total:
        say(f"told to end: saved at step {done} of {total}; start again to go on from there")
        return PREEMPTED_STATUS
    say(f"trained to step {total}; the run's files are in {workdir.path}")
    return 0


def finished(config, done: int, total: int, workdir: Workdir) -> str:
    """A line on a run that has nothing left to do."""
    if done > total:
        name = "num_steps" if config.num_steps else "num_epochs"
        said = f"{name} {config[name]}" + ("" if config.num_steps else f", which is {total} steps,")
        return (
            f"nothing to train: config.{said} is below the {done} steps that the run has done; it "
            f"stays as it is in {workdir.path}"
        )
    return (
        f"nothing to train: the run has reached its last step, {total}; its files are in "
        f"{workdir.path}"
    )


def tell_changes(
    old: dict, config, step: int, updates: int, settings, total: int, per_epoch: int
) -> None:
    """Lines on what changed since the run's last start."""
    before = continued.Schedule.of_config(old, per_epoch)
    after = continued.Schedule.of(settings.optim, total)
    for line in continued.told(old, as_json(config), step, updates, before, after):
        say(line)


def say(line: str) -> None:
    """Prints a line, once for all processes."""
    if jax.process_index() == 0:
        print(line, flush=True)


def _is_due(every: int, done: int) -> bool:
    return bool(every) and done % every == 0


def tell_cut_captions(config, data: PreparedData, tokenizer: Tokenizer) -> None:
    """A line for each split that the run reads of which captions lose their end."""
    if jax.process_index():
        return
    for split in filter(None, (config.data.train_split, config.data.validation_split)):
        texts = itertools.chain.from_iterable(captions(data, split))
        if line := Cut.of(texts, tokenizer, config.data.num_words).told(split):
            say(line)


def start(config, settings, model, optimizer, checkpoints, mesh, loaded) -> TrainState:
    """The state to go on from: the last checkpoint's, or step 0's.

    That one is fresh, or has the parameters `loaded` of `config.init_from` and the rest fresh.
    """

    def begun(loaded=None):
        params = init_params(model, config.seed)
        if loaded is not None:
            params = start_params(params, loaded, settings.model)
        return steps.init_state(params, optimizer, settings.optim)

    abstract = jax.eval_shape(begun)
    shardings = sharding.by_rules(abstract, mesh)
    if checkpoints.latest is not None:
        return checkpoints.restore(
            jax.tree.map(
                lambda leaf, sharded: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=sharded
                ),
                abstract,
                shardings,
            )
        )
    # No device ever holds more than its part of a fresh state.
    return jax.jit(begun, out_shardings=shardings)(loaded)


def announce(config, state, first: int, total: int, mesh) -> None:
    """One line on what is about to run."""
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    device = jax.devices()[0]
    where = f"{mesh.size} x {device.device_kind} ({device.platform})"
    hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    say(
        f"training {count:,} parameters from step {first} to {total}, "
        f"batches of {config.batch_size} clips, on {where}{hosts}, "
        f"remat {chosen_remat(config.model.remat)}"
    )
    if (share := sharding.device_share(state)) < 1:
        axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
        say(f"{axes}: a device holds {100 * share:.2f} % of parameters and optimiser state")


def open_log(config, settings: recipe.Recipe, workdir, mesh, first: int, total: int) -> Log:
    """The run's log, which only the first process writes."""
    logbook = Logbook(workdir, first) if jax.process_index() == 0 else None
    against = utilisation.of_training(settings.model, config, mesh)
    return Log(config, logbook, first, total, against)


def compiled_step(config, settings: recipe.Recipe, model, optimizer, mesh, state):
    """`steps.train_step` under jit: (state, batch) -> (state, metrics), the old state donated.

    The new state lies as `state` does.
    """
    step = functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        optim=settings.optim,
        weights=settings.losses,
        seed=config.seed,
        microbatch=config.microbatch,
        mesh=mesh,
    )
    if config.data.augment:
        step = rand_augment.augmented(step, seed=config.seed, mesh=mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(where, sharding.replicated(mesh)))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    program.run(main)
