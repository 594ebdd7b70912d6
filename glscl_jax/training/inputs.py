"""What a run works with: devices, data, tokenizer, plan, opened and checked against each other."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glscl_jax.checkpoints.model_dir import steps_on_disk
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import Problems, UserError
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.plan import Plan
from glscl_jax.input_pipeline.prepared_data import PreparedData, open_data
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from glscl_jax.models.encoders.texts import TOKENIZERS, may_be
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.runtime import sharding
from glscl_jax.training import inherited, recipe
from glscl_jax.training.precomputed_features import PrecomputedFeatures, open_features
from glscl_jax.training.warm_start import start_params


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run is asked to be, each setting by itself found good.

    Attributes:
      given: the recipe as it was given.
      config: the same, with what it leaves open filled in.
      settings: typed, of it.
      source: what the run goes on from; None for nothing.
      chosen: what somebody chose in the recipe.
      features: where what frozen encoders made is kept; "" to encode clips at every step.
    """

    given: ConfigDict
    config: ConfigDict
    settings: recipe.Recipe
    source: inherited.Source | None
    chosen: inherited.Chosen
    features: str = ""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run works with.

    Attributes:
      mesh: the devices.
      data: what is trained on.
      tokenizer: for its captions; None under another's encoder.
      plan: the run's length.
    """

    mesh: Mesh
    data: PreparedData | PrecomputedFeatures
    tokenizer: Tokenizer | None
    plan: Plan


def open_inputs(asked: Asked) -> Inputs:
    """Lays out the devices, opens data and tokenizer, and plans the run.

    Raises:
      UserError: naming all in which they, the config and the checkpoint do not fit.
    """
    config, source, problems = asked.config, asked.source, Problems()
    if source:
        problems.attempt(inherited.check, asked.given, source, asked.chosen)
    if mesh := problems.attempt(sharding.make_mesh, axes=config.mesh.to_dict()):
        batch_size, eval_batch_size = config.batch_size, config.eval_batch_size
        problems.attempt(sharding.check_batch_size, batch_size, mesh)
        problems.attempt(sharding.check_microbatch, batch_size, config.microbatch, mesh)
        problems.attempt(sharding.check_batch_size, eval_batch_size, mesh, "eval_batch_size")
    plan = tokenizer = None
    opening = (open_features, asked.features, config, asked.settings.model)
    opening = opening if asked.features else (_open_data, config)
    if data := problems.attempt(*opening):
        if not asked.features:
            problems.attempt(check_data, asked, data)
        plan = problems.attempt(make_plan, config, data)
    if asked.settings.model.towers:
        tokenizer = problems.attempt(open_tokenizer, asked)
    problems.raise_all()
    return Inputs(mesh, data, tokenizer, plan)


def _open_data(config) -> PreparedData:
    """The prepared data set."""
    if not config.data.dir:
        raise UserError("config.data.dir is empty: name the directory that prepare wrote")
    return open_data(config.data.dir)


def check_data(asked: Asked, data: PreparedData) -> None:
    """Raises a `UserError` with all in which the data is not what the config asks for."""
    config, problems = asked.config, Problems()
    flags_of = {"frame_rate": "config.data.frame_rate"}
    if not asked.source:  # A checkpoint's is what it is.
        own = ("image_size", "resize", "interpolation")
        flags_of |= {name: f"config.model.clip.{name}" for name in own}
    problems.attempt(
        pipeline.check_settings,
        data,
        frame_rate=config.data.frame_rate,
        images=asked.settings.model.clip.preprocessing,
        flags_of=flags_of,
    )
    if (split := config.data.validation_split) and split not in data.splits:
        problems.add(
            f"no split {split!r} to validate on in the prepared data, only"
            f" {', '.join(data.splits)}: prepare one with --validation_size, or go on without:"
            ' --config.data.validation_split=""'
        )
    problems.raise_all()


def make_plan(config, data: PreparedData | PrecomputedFeatures) -> Plan:
    """The run's length; raises a `UserError` if the training split does not fill a batch."""
    split = config.data.train_split
    if isinstance(data, PrecomputedFeatures):
        captions = pipeline.fitting(data.split(split).counts, split, config.batch_size)
    else:
        captions = pipeline.fitting_captions(data, split, config.batch_size)
    return Plan.of(
        captions,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        num_steps=config.num_steps,
    )


def open_tokenizer(asked: Asked) -> Tokenizer:
    """The checkpoint's or the config's tokenizer, checked against vocabulary and context."""
    config, source, clip = asked.config, asked.source, asked.settings.model.clip
    if source and source.tokenizer and "data.tokenizer" not in asked.chosen.commanded:
        tokenizer = load_tokenizer(source.tokenizer)
    else:
        tokenizer = read_tokenizer(config.data.tokenizer, clip.tokenizer)
    if tokenizer.vocab_size > clip.vocab_size:
        raise UserError(
            f"config.data.tokenizer {config.data.tokenizer} has {tokenizer.vocab_size} entries, "
            f"the model's token embedding {clip.vocab_size}: give the tokenizer of the model"
        )
    # Rows of an embedding that came from elsewhere are another vocabulary's.
    begins = source and not source.resumes and not source.tokenizer
    if begins and not may_be(tokenizer.kind, clip.tokenizer):
        raise UserError(
            f"config.data.tokenizer {config.data.tokenizer} is of another vocabulary: it has "
            f"{TOKENIZERS[tokenizer.kind]}, and the model of config.init_from takes "
            f"{TOKENIZERS[clip.tokenizer]}"
        )
    if clip.text_pooling == "end" and tokenizer.end_id != clip.end_id:
        raise UserError(
            f"config.data.tokenizer {config.data.tokenizer} ends captions with id "
            f"{tokenizer.end_id}, and the model takes a sentence from id {clip.end_id} "
            "(config.model.clip.end_id): give the tokenizer of the model"
        )
    recipe.check_words(config, clip)
    return tokenizer


def origin(config, workdir: Workdir, chosen: inherited.Chosen) -> inherited.Source | None:
    """What the run goes on from: itself, if it has saved a step, else `config.init_from`."""
    if steps_on_disk(workdir.checkpoints):
        return inherited.read_source(workdir.path, resumes=True)
    if not config.init_from:
        return None
    return inherited.leave_head(inherited.read_source(config.init_from), config, chosen)


def check_fit(loaded: dict, settings: recipe.Recipe, model: GLSCL) -> None:
    """Raises a `UserError` if loaded parameters are not those of a model of these settings."""
    jax.eval_shape(
        lambda loaded: start_params(init_params(model, 0), loaded, settings.model), loaded
    )


def training_batches(config, data, tokenizer, first: int, total: int):
    """This host's share of the batches of steps `first` to `total` - 1."""
    if isinstance(data, PrecomputedFeatures):
        return data.batches(config, first, total)
    return pipeline.train_batches(
        data,
        config.data.train_split,
        tokenizer,
        batch_size=config.batch_size,
        num_frames=config.data.num_frames,
        num_words=config.data.num_words,
        seed=config.seed,
        first_step=first,
        num_steps=total,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def clip_ids(config, data) -> Callable[[np.ndarray], list[str]]:
    """What looks up the ids of training clips by their places in the split."""
    if isinstance(data, PrecomputedFeatures):
        return data.clip_ids(config)

    def look_up(places):
        with data.records(config.data.train_split) as records:
            found = records.read(places.tolist())
        fields = map(data.features.deserialize_example_np, found)
        return [field["clip_id"].decode() for field in fields]

    return look_up


def on_device(batch: pipeline.TrainBatch) -> dict:
    """The arrays that the step takes."""
    return {name: value for name, value in batch.items() if name != "clip_index"}
