"""Every config can be read, and its `:tiny` trains."""

import functools
import importlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from glscl_jax.input_pipeline import annotations
from glscl_jax.input_pipeline.annotations import validation
from glscl_jax.input_pipeline.captions import caption_counts
from glscl_jax.input_pipeline.plan import Plan
from glscl_jax.input_pipeline.prepared_data import Settings, open_data
from glscl_jax.input_pipeline.preparing import builder, data_set
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.runtime import sharding
from glscl_jax.training import inputs, recipe, run, steps
from glscl_jax.training.optim import make_optimizer
from tests import benchmark_files
from tests.builders import train_batch
from tests.server import REPO

NAMES = sorted(
    path.stem for path in (REPO / "configs").glob("*.py") if path.stem not in ("__init__", "common")
)
# What has files here; VATEX's recipe is MSVD's (below).
PREPARED = [name for name in NAMES if name != "vatex"]


@pytest.mark.parametrize("name", NAMES)
def test_settings_fit_together(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    settings = recipe.read(config)
    assert settings.model.clip.image_size % settings.model.clip.patch_size == 0
    assert config.data.num_words <= settings.model.clip.context_length


@pytest.fixture(scope="module")
def prepared(shapes, tmp_path_factory):
    """By config: a data set prepared from its benchmark's own files, if it is for one."""
    folder = tmp_path_factory.mktemp("benchmarks")

    @functools.cache
    def make(name: str):
        dataset = {"msrvtt": "msrvtt_9k"}.get(name, name)
        if dataset not in benchmark_files.DATASETS:
            return shapes / "data"
        source = benchmark_files.write(dataset, folder / dataset)
        clips = annotations.READERS[dataset](source, None)
        clips = validation.carve(clips, validation.default_size(dataset, clips))
        digest = builder.annotations_digest(clips)
        settings = Settings(dataset, 2.0, 32, 95, digest)
        report = data_set.prepare(
            clips,
            source,
            folder / "data" / dataset,
            settings,
            workers=2,
            max_failed_share=0.0,
            allow_partial=True,  # twenty clips are not what is published
        )
        assert report.splits == {"train": 12, "val": 4, "test": 4}
        return folder / "data" / dataset

    return make


# Pairs in twelve clips of each benchmark (thirty-two of the others), as their files have them.
PAIRS = {"msrvtt": 24, "msvd": 36, "lsmdc": 13, "didemo": 12, "activitynet": 12}


@pytest.mark.parametrize("name", PREPARED)
def test_an_epoch_passes_over_the_pairs(name, prepared):
    data = open_data(prepared(name))
    config = importlib.import_module(f"configs.{name}").get_config("tiny").unlock()
    config.num_steps = 0
    plan = inputs.make_plan(config, data)
    assert caption_counts(data, "train").sum() == plan.pairs == PAIRS.get(name, 32)
    assert plan.steps_per_epoch == plan.pairs // 8
    assert plan.num_steps == config.num_epochs * (plan.pairs // 8)
    assert bool(data.settings.partial) == (name not in ("demo", "folder"))


def test_a_benchmark_s_tiny_has_a_step():
    """Recipe, model, losses and augmentation fit: what `test_tiny_trains` runs is traced."""
    config = importlib.import_module("configs.msvd").get_config("tiny")
    assert config.data.augment
    settings = recipe.read(config)
    model, mesh = GLSCL(settings.model), sharding.make_mesh(jax.devices()[:1])
    optimizer = make_optimizer(settings.optim, 4)
    state = jax.eval_shape(
        lambda: steps.init_state(init_params(model, 0), optimizer, settings.optim)
    )
    state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        state,
        sharding.by_rules(state, mesh),
    )
    step = run.jitted_step(config, settings, model, optimizer, mesh, state)
    after, metrics = jax.eval_shape(step, state, train_batch(config.batch_size))
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
    assert metrics.losses.total.shape == ()


# The demo's is trained on in test_train.
@pytest.mark.slow
@pytest.mark.parametrize("name", PREPARED)
def test_tiny_trains(name, prepared, forks, tmp_path):
    printed = forks(
        "glscl_jax.train",
        f"--config=configs/{name}.py:tiny",
        f"--workdir={tmp_path}",
        f"--config.data.dir={prepared(name)}",
        "--config.checkpoint_every=0",
        "--config.num_steps=4",
        "--config.data.num_frames=2",
    ).stdout
    assert "trained to step 4;" in printed
    pairs, clips = PAIRS.get(name, 32), 12 if name in PAIRS else 32
    assert f"plan: {pairs} pairs of {clips} clips, 8 a batch; {pairs // 8} update" in printed
    # What the data is short of is the first thing that is said.
    partial = open_data(prepared(name)).settings.partial
    assert printed.startswith("partial: 12 of ") == bool(partial)


# The released scripts': batch, epochs, words, frames, queries, temperature, alpha, beta.
RECIPES = {
    "msrvtt": (128, 5, 32, 12, 8, 3.0, 1e-4, 2e-2),
    "msvd": (128, 5, 32, 12, 8, 3.0, 1e-4, 5e-3),
    "lsmdc": (128, 5, 32, 12, 8, 5.0, 1e-2, 5e-3),
    "didemo": (32, 5, 64, 64, 8, 3.0, 1e-4, 5e-3),
    "activitynet": (64, 10, 64, 64, 12, 3.0, 1e-4, 5e-3),
    "folder": (128, 5, 32, 12, 8, 3.0, 1e-4, 5e-3),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_reference_s(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    words, frames = config.data.num_words, config.data.num_frames
    shown = (config.batch_size, config.num_epochs, words, frames, config.model.head.queries)
    shown += (config.model.head.temperature, config.losses.alpha, config.losses.beta)
    assert shown == RECIPES[name]
    assert (config.seed, config.num_steps) == (42, 0)
    assert (config.optim.learning_rate, config.optim.coef_lr) == (1e-4, 1e-3)
    assert (config.model.head.lim_weight, config.model.head.lim_layers) == (0.5, 3)
    assert (config.model.head.share_queries, config.model.head.share_decoder) == (True, True)
    # One's own videos may be ones that must not be turned or inverted.
    assert config.data.augment == (name != "folder")
    assert config.data.validation_split != config.data.test_split


def test_vatex_trains_as_msvd():
    vatex, msvd = (importlib.import_module(f"configs.{n}").get_config() for n in ("vatex", "msvd"))
    assert vatex.data.dir == "prepared/vatex"
    vatex.data.dir = msvd.data.dir
    assert vatex.to_dict() == msvd.to_dict()


def test_the_demo_is_as_long_as_it_was():
    config = importlib.import_module("configs.demo").get_config()
    plan = Plan.of(
        np.ones(4000, int),
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        num_steps=config.num_steps,
    )
    assert (plan.steps_per_epoch, plan.num_steps) == (62, 1116)
    assert config.validate_every == 6 * plan.steps_per_epoch
    assert not config.data.augment


def test_msrvtt_has_three_splits():
    module = importlib.import_module("configs.msrvtt")
    whole = module.get_config()
    assert whole.data.dir == "prepared/msrvtt_9k"
    for variant in ("7k", "full"):
        other = module.get_config(variant)
        assert other.data.dir == f"prepared/msrvtt_{variant}"
        other.data.dir = whole.data.dir
        assert other.to_dict() == whole.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_variants_are_named(name):
    there = ":7k, :full, :videoprism_b, " if name == "msrvtt" else ""
    there += ":lim_alone, :lim_masked and :tiny"
    with pytest.raises(ValueError, match=f"no variant 'small' .* there is only {there}"):
        importlib.import_module(f"configs.{name}").get_config("small")


@pytest.mark.parametrize("name", NAMES)
def test_the_lim_may_score_alone_in_any_recipe(name):
    module = importlib.import_module(f"configs.{name}")
    alone, whole = module.get_config("lim_alone"), module.get_config()
    head = recipe.read(alone.unlock()).model.head
    assert (head.gim_weight, head.lim_weight) == (0, 1)
    assert {alone.losses[part] for part in ("alpha", "beta", "centre")} == {0}
    whole.model.head, whole.losses = alone.model.head, alone.losses
    assert whole.to_dict() == alone.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_the_lim_may_pass_padding_over_in_any_recipe(name):
    module = importlib.import_module(f"configs.{name}")
    masked, whole = module.get_config("lim_masked"), module.get_config()
    assert recipe.read(masked.unlock()).model.head.mask_padding
    whole.model.head.mask_padding = True
    whole.losses.update(alpha=0.0, beta=0.0, centre=0.0)
    assert whole.to_dict() == masked.to_dict()


def test_configs_are_data():
    script = (
        "import sys, importlib\n"
        f"for name in {NAMES}: importlib.import_module(f'configs.{{name}}').get_config()\n"
        "assert not [name for name in sys.modules if name.startswith('glscl_jax')]"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPO, check=True)
