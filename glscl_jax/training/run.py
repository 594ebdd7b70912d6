"""What a run is made of: what was asked for, what it works with, its state and its step."""

import dataclasses
import functools
from collections.abc import Collection

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glscl_jax import paths
from glscl_jax.checkpoints.model_dir import load_model, parameters_sha256
from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import PLACES, Workdir
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.plan import Plan
from glscl_jax.input_pipeline.prepared_data import PreparedData
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.glscl import GLSCL, init_params, learned_parts
from glscl_jax.profiling import trace
from glscl_jax.runtime import launch, processes, sharding
from glscl_jax.training import inherited, inputs, precomputed_features, rand_augment, recipe, steps
from glscl_jax.training.groups import check_patterns, trained_layers
from glscl_jax.training.optim import make_optimizer
from glscl_jax.training.precomputed_features import FeatureValidation, PrecomputedFeatures
from glscl_jax.training.validation import Validation
from glscl_jax.training.warm_start import start_params


@dataclasses.dataclass(frozen=True)
class Options:
    """How a recipe is run, beside what it says; flags of `train`.

    Attributes:
      commanded: paths of the settings that were given one by one and not by a config file, such as
        "data.tokenizer": they stand against a checkpoint's, see `inherited`.
      profile: steps to trace, how many or "FIRST:LAST"; "" for none.
      peer_timeout: seconds to wait for other processes to see the work directory.
      features: where what frozen encoders made is kept; "" to encode clips at every step.
    """

    commanded: Collection[str] = ()
    profile: str = ""
    peer_timeout: int = launch.Peers.peer_timeout
    features: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's parts, which do not change while it trains.

    Attributes:
      config: the recipe, with what it leaves open filled in.
      settings: typed, of it.
      options: how it is run.
      workdir: where it is to be, or is.
      source: what it goes on from; None for nothing.
      mesh: the devices.
      data: what is trained on.
      tokenizer: for its captions; None under another's encoder.
      plan: the run's length.
      model: without parameters.
      groups: of the optimiser, by parameter.
      optimizer: over the whole run.
      validation: on the devices of `mesh`.
    """

    config: ConfigDict
    settings: recipe.Recipe
    options: Options
    workdir: Workdir
    source: inherited.Source | None
    mesh: Mesh
    data: PreparedData | PrecomputedFeatures
    tokenizer: Tokenizer | None
    plan: Plan
    model: GLSCL
    groups: dict[str, str]
    optimizer: optax.GradientTransformation
    validation: Validation | FeatureValidation

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.plan.num_steps


def check_asked(config: ConfigDict, workdir: Workdir, options: Options) -> inputs.Asked:
    """What is asked for, once all processes are seen to ask for the same.

    Args:
      config: the recipe; its paths become absolute.
      workdir: where the run is to be, or is.
      options: how it is run.

    Raises:
      UserError: naming what differs, or each setting that is unknown or cannot be meant.
    """
    chosen = inherited.Chosen.of(config, options.commanded)
    paths.expand(config)
    launch.check_agreement(config, places=PLACES)
    # First: of a run that reads something else all that follows would have another way out.
    processes.by_all(lambda: workdir.check_features(options.features))
    source = processes.by_all(lambda: inputs.origin(config, workdir, chosen))
    processes.check_same({"a run to go on with": bool(source and source.resumes)})
    resolved = inherited.resolve(config, source, chosen)
    if options.features:
        with resolved.unlocked():
            precomputed_features.freeze_encoders(resolved, options.features, source is not None)
    settings = recipe.read(resolved)
    if not settings.model.towers and not options.features:
        raise UserError(
            "config.model.towers is False: a model without encoders trains from --features alone"
        )
    return inputs.Asked(config, resolved, settings, source, chosen, options.features)


def open_run(asked: inputs.Asked, workdir: Workdir, options: Options) -> Run:
    """Opens data, tokenizer and devices, and lays out model, optimiser and validation.

    Raises:
      UserError: naming all in which they, the settings and the checkpoint do not fit.
    """
    config, settings = asked.config, asked.settings
    opened = processes.by_all(lambda: inputs.open_inputs(asked))
    mesh, data, tokenizer, plan = opened.mesh, opened.data, opened.tokenizer, opened.plan
    if isinstance(data, PrecomputedFeatures):
        data = data.as_begun(workdir.path)
    told = tokenizer.sha256 if tokenizer else ""
    processes.check_same({"data": data.identity, "tokenizer": told})
    trace.read_window(options.profile, 0, plan.num_steps)
    model = GLSCL(settings.model)
    shapes = jax.eval_shape(lambda: init_params(model, 0))
    check_patterns(shapes, settings.optim)
    optimizer = make_optimizer(settings.optim, plan.num_steps)
    if isinstance(data, PrecomputedFeatures):
        validation = FeatureValidation(config, data, model, mesh)
    else:
        validation = Validation(config, data, tokenizer, model, mesh)
    processes.check_same({"number of steps": plan.num_steps})
    return Run(
        config=config,
        settings=settings,
        options=options,
        workdir=workdir,
        source=asked.source,
        mesh=mesh,
        data=data,
        tokenizer=tokenizer,
        plan=plan,
        model=model,
        groups=trained_layers(shapes, settings.optim),
        optimizer=optimizer,
        validation=validation,
    )


def other_params(run: Run) -> dict | None:
    """The parameters of another checkpoint that the run starts from; None if it starts from none.

    Raises:
      UserError: they are not those of the run's model, or not the same for all processes.
    """
    if run.source is None or run.source.resumes:
        return None
    found = load_model(run.source.directory, sharding.replicated(run.mesh))
    loaded = found.params
    if jax.process_count() > 1:
        sha256 = parameters_sha256(loaded)
        processes.check_same({"config.init_from's parameters": sha256})
    if isinstance(run.data, PrecomputedFeatures):
        sha256 = parameters_sha256(loaded)
        precomputed_features.check_checkpoint(run.data, sha256, str(run.config.init_from))
    if run.source.left_head:
        left = learned_parts(found.config)
        loaded = {part: tree for part, tree in loaded.items() if part not in left}
    inputs.check_fit(loaded, run.settings, run.model)
    return loaded


def start(run: Run, checkpoints: Checkpoints, loaded: dict | None) -> TrainState:
    """The state to go on from: the last checkpoint's, or step 0's.

    That one is fresh, or has the parameters `loaded` of `config.init_from` and the rest fresh.
    """

    def init(loaded=None):
        params = init_params(run.model, run.config.seed)
        if loaded is not None:
            params = start_params(params, loaded, run.settings.model)
        return steps.init_state(params, run.optimizer, run.settings.optim)

    abstract = jax.eval_shape(init)
    shardings = sharding.by_rules(abstract, run.mesh)
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
    return jax.jit(init, out_shardings=shardings)(loaded)


def compiled_step(run: Run, state: TrainState):
    """A run's step under jit, see `jitted_step`."""
    return jitted_step(run.config, run.settings, run.model, run.optimizer, run.mesh, state)


def jitted_step(
    config: ConfigDict,
    settings: recipe.Recipe,
    model: GLSCL,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    state: TrainState,
):
    """`steps.train_step` under jit: (state, batch) -> (state, metrics), the old state donated.

    The new state lies as `state` does, which may be of shapes and shardings alone.
    """
    step = functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        optim=settings.optim,
        weights=settings.losses,
        seed=config.seed,
        microbatch=config.microbatch,
        joint=config.contrastive,
        gradient_dtype=config.gradient_dtype,
        mesh=mesh,
    )
    if config.data.augment:
        step = rand_augment.augment_step(step, seed=config.seed, mesh=mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(where, sharding.replicated(mesh)))
