"""Augmentation does to a clip what Pillow does to its frames, and only as its draw says."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import demo
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.runtime import sharding
from glscl_jax.training import rand_augment, recipe, steps
from glscl_jax.training.run import compiled_step
from yardsticks.pillow_augment import PILLOW, by_pillow, draws_by_pillow

HEIGHT, WIDTH = 44, 60
MAGNITUDES = (-9.9, -7.31, -6.5, 0.0, 3.21, 6.96, 7.5, 9.9)


def clip(seed=0, frames=3, height=HEIGHT, width=WIDTH):
    """Frames uint8 [V,H,W,3]: soft colours, noise, and one that is nearly flat."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(30, 220, (5, 6, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(soft).resize((width, height), Image.BICUBIC))
    noise = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    flat = np.full_like(noise, 77)
    flat[3:6, 3:9] = 90
    return np.stack([(soft, noise, flat)[number % 3] for number in range(frames)])


def assert_alike(frames, expected):
    """Of two programs: a value that falls between two numbers may go to either, now and then."""
    differences = np.abs(np.asarray(frames).astype(int) - np.asarray(expected))
    # One off by 1 can grow in an operation that follows it.
    assert (differences <= 1).mean() > 0.999


def test_there_are_the_fifteen():
    assert list(rand_augment.OPERATIONS) == list(PILLOW)
    assert len(PILLOW) == 15


@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_pillows(name):
    frames = clip()
    operation = jax.jit(rand_augment.OPERATIONS[name])
    for magnitude in map(np.float32, MAGNITUDES):
        result = np.asarray(operation(frames, magnitude))
        assert (result.shape, result.dtype) == (frames.shape, np.uint8)
        differences = np.abs(result.astype(int) - by_pillow(frames, name, magnitude))
        # Pillow's coordinates are float64: a pixel whose place falls on the edge to within
        # float32's rounding may be inside for one and outside for the other.
        beyond = differences.max(-1) > 1
        assert beyond.mean() < 5e-4, (magnitude, differences.max())
        # What falls on a whole number but for float32's rounding goes to it, or to the one below:
        # one value in forty at most, by these magnitudes.
        assert (differences == 0).mean() > 0.97, magnitude


def test_operations_that_change_nothing_at_rest():
    frames = jnp.asarray(clip())
    for name in ("Rotate", "Color", "Contrast", "Brightness", "Sharpness", "ShearX", "TranslateY"):
        result = rand_augment.OPERATIONS[name](frames, np.float32(0))
        np.testing.assert_array_equal(result, frames)


def test_flat_channels_stay():
    # No contrast to stretch and no histogram to flatten: Pillow leaves such a channel alone.
    frames = jnp.full((1, 20, 20, 3), jnp.array((0, 100, 255)), jnp.uint8)
    for name in ("AutoContrast", "Equalize"):
        result = rand_augment.OPERATIONS[name](frames, np.float32(7))
        np.testing.assert_array_equal(result, frames)


# ---- What is drawn -------------------------------------------------------------------------------


def test_draws_are_as_the_reference_says():
    drawn = rand_augment.draw(0, 5, 4000)
    operations, magnitudes = np.asarray(drawn.operations), np.asarray(drawn.magnitudes)
    assert operations.shape == magnitudes.shape == (4000, 4)
    assert abs((operations == 15).mean() - 0.5) < 0.02
    shares = np.bincount(operations.ravel(), minlength=16)[:15] / (0.5 * operations.size)
    np.testing.assert_allclose(shares, 1 / 15, atol=0.01)
    # With replacement: the same one can come twice.
    assert any(len(set(row)) < 4 for row in operations[(operations < 15).all(1)])
    assert abs(np.abs(magnitudes).mean() - 7) < 0.02
    assert abs(np.abs(magnitudes).std() - 0.5) < 0.02
    assert abs((magnitudes > 0).mean() - 0.5) < 0.02
    assert np.abs(magnitudes).max() <= 10
    # Places of a batch and of a row do not know of each other.
    assert abs(np.corrcoef(magnitudes.T) - np.eye(4)).max() < 0.06


def test_draws_follow_seed_and_step_alone():
    def told(seed, step):
        drawn = rand_augment.draw(seed, jnp.int32(step), 16)
        return np.concatenate([drawn.operations, drawn.magnitudes]).tobytes()

    assert told(1, 7) == told(1, 7)
    assert len({told(seed, step) for seed in (1, 2) for step in (0, 7, 8)}) == 6


@pytest.fixture(scope="module")
def batch():
    return np.stack([clip(seed, frames=3) for seed in range(6)])


def test_clips_go_through_their_own_operations_in_order(batch):
    drawn = rand_augment.draw(3, 11, len(batch))
    assert (np.asarray(drawn.operations) < 15).any(1).sum() >= 5
    result = np.asarray(jax.jit(rand_augment.augment)(batch, drawn))
    expected = draws_by_pillow(batch, drawn)
    assert_alike(result, expected)
    assert (expected != batch).any((1, 2, 3, 4)).sum() >= 5


def test_frames_of_a_clip_are_treated_alike(batch):
    frames = np.repeat(batch[:, :1], 3, 1)
    result = np.asarray(jax.jit(rand_augment.augment)(frames, rand_augment.draw(0, 0, len(frames))))
    assert_alike(result, np.repeat(result[:, :1], 3, 1))


# ---- In a training step --------------------------------------------------------------------------


def test_a_step_sees_the_same_however_many_devices(batch):
    mesh = sharding.make_mesh(jax.devices()[:4], {"data": 2, "fsdp": 1, "tensor": 2})
    echo = rand_augment.augment_step(lambda state, batch: batch, seed=3, mesh=mesh)
    placed = sharding.put_batch({"frames": batch, "text_ids": np.arange(len(batch))}, mesh)
    run = jax.jit(lambda step, batch: echo(types.SimpleNamespace(step=step), batch))
    alone = jax.jit(rand_augment.augment)
    for step in (5, 6):
        seen = run(step, placed)
        expected = np.asarray(alone(batch, rand_augment.draw(3, step, len(batch))))
        assert_alike(seen["frames"], expected)
        np.testing.assert_array_equal(seen["text_ids"], np.arange(len(batch)))
        assert seen["frames"].sharding.is_equivalent_to(placed["frames"].sharding, 5)
        assert (expected != batch).any()


@pytest.mark.parametrize("asked", [False, True])
def test_the_config_says_whether_training_augments(batch, monkeypatch, asked):
    # The step gives back the frames that reach it.
    monkeypatch.setattr(steps, "train_step", lambda state, batch, **_: (state, batch["frames"]))
    config = demo.get_config("tiny")
    config.seed, config.data.augment = 7, asked
    mesh = sharding.make_mesh(jax.devices()[:2])
    state = TrainState(jnp.int32(4), {}, {}, jnp.int32(0))
    state = jax.device_put(state, sharding.by_rules(state, mesh))
    run = types.SimpleNamespace(
        config=config, settings=recipe.read(config), model=None, optimizer=None, mesh=mesh
    )
    step = compiled_step(run, state)
    _, seen = step(state, sharding.put_batch({"frames": batch}, mesh))
    expected = (
        jax.jit(rand_augment.augment)(batch, rand_augment.draw(7, 4, len(batch)))
        if asked
        else batch
    )
    assert_alike(seen, expected)
    assert asked == (np.asarray(seen) != batch).any()
