"""A VideoPrism under GLSCL learns: towers, positions, pooler and class token all move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import msrvtt
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.runtime import sharding
from glscl_jax.training import recipe, steps
from glscl_jax.training.optim import OptimConfig, make_optimizer
from glscl_jax.trees import path_name

CONFIG = GLSCLConfig(
    clip=dataclasses.replace(
        VARIANTS["tiny-VideoPrism"],
        vision_width=64,
        vision_layers=1,
        time_layers=1,
        text_width=64,
        text_layers=1,
        embed_dim=64,
        vocab_size=64,
    ),
    temporal="None",
    head=GLSCLHead(queries=2, lim_layers=1, lim_heads=2, lim_feed_forward=16, lim_dropout=0.0),
)
OPTIM = OptimConfig(learning_rate=3e-3, coef_lr=1.0, frozen=(), layer_decay=0.9)
CLIPS = 8


def batch():
    """Clips of two colours, one after the other; half of them the other way round, and padded."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (CLIPS // 2, 2, 3))
    colours = np.concatenate([colours, colours[:, ::-1]])
    frames = np.broadcast_to(colours[:, [0, 1, 1], None, None], (CLIPS, 3, 32, 32, 3))
    mask = np.ones((CLIPS, 3), np.int32)
    mask[1::2, 2] = 0
    ids = random.integers(1, 64, (CLIPS, 6)).astype(np.int32)
    text_mask = (np.arange(6) < random.integers(2, 7, (CLIPS, 1))).astype(np.int32)
    return {
        "text_ids": ids * text_mask,
        "text_mask": text_mask,
        "frames": frames.astype(np.uint8),
        "frame_mask": mask,
    }


def step_of(num_steps):
    model, optimizer = GLSCL(CONFIG), make_optimizer(OPTIM, num_steps)
    state = jax.jit(lambda: steps.init_state(init_params(model, 0), optimizer, OPTIM))()
    step = functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        optim=OPTIM,
        weights=LossWeights(),
        seed=0,
    )
    return state, step


@pytest.mark.slow
def test_the_loss_falls_and_everything_moves():
    state, step = step_of(30)
    first, step = state.params, jax.jit(step)
    losses = []
    for _ in range(30):
        state, metrics = step(state, batch())
        losses.append(float(metrics.losses.total))
    assert np.isfinite(losses).all()
    # Which of two orders a clip is in says half of it: that alone would leave log(2).
    assert losses[0] > 1.8
    assert losses[-1] < 0.5
    same = jax.tree_util.tree_map_with_path(
        lambda path, one, other: path_name(path) * bool(jnp.array_equal(one, other)),
        state.params,
        first,
    )
    assert not [name for name in jax.tree.leaves(same) if name]


@pytest.mark.slow
def test_a_step_is_the_same_on_any_mesh():
    state, step = step_of(4)
    _, alone = jax.jit(step)(state, batch())
    mesh = sharding.make_mesh(jax.devices()[:8], {"data": 2, "fsdp": 2, "tensor": 2})
    laid_out = jax.device_put(state, sharding.by_rules(state, mesh))
    # Heads of all three stacks and of the pooler lie on two devices.
    kernel = laid_out.params["clip"]["vision"]["pooler"]["attention"]["qkv_kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (32, 3 * 256 // 2)
    with mesh, sharding.constrain_activations(mesh):
        _, shared = jax.jit(step)(laid_out, sharding.put_batch(batch(), mesh))
    np.testing.assert_allclose(shared.losses.total, alone.losses.total, rtol=1e-5)


def test_the_recipe_is_videoprism_s():
    config = msrvtt.get_config("videoprism_b")
    settings = recipe.read(config)
    assert settings.model.clip == VARIANTS["VideoPrism-B/18@288"]
    assert settings.model.temporal == "None"
    assert config.data.num_frames == settings.model.clip.time_positions
    assert config.data.num_words == settings.model.clip.context_length
    with pytest.raises(ValueError, match=":7k, :full, :videoprism_b, :lim_alone, "):
        msrvtt.get_config("videoprism_x")
