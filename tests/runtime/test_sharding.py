"""The mesh's axes, what each device holds, and the same numbers on every mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip import TextTower
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.runtime import sharding
from glscl_jax.training import objective, steps
from glscl_jax.training.optim import OptimConfig, make_optimizer
from tests.builders import DROPOUT, TINY, assert_same_gradient, mesh_of, train_batch
from tests.conftest import one_line_error

ONE = {"data": 1}


@pytest.mark.parametrize(
    ("axes", "sizes"),
    [
        (None, (8, 1, 1)),
        ({"data": -1, "fsdp": 1, "tensor": 1}, (8, 1, 1)),
        ({"data": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        ({"fsdp": 8}, (1, 8, 1)),
    ],
)
def test_axes_take_the_devices(axes, sizes):
    assert tuple(sharding.make_mesh(jax.devices()[:8], axes).shape.values()) == sizes


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"data": 3, "fsdp": -1}, "multiple of 3 devices, and there are 8"),
        ({"data": 2, "fsdp": 2, "tensor": 1}, "needs 4 devices, and there are 8"),
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 0}, "sizes are 1 or more"),
        ({"data": -1, "expert": 2}, "no axis 'expert'"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(axes, told):
    with pytest.raises(UserError, match=told):
        sharding.make_mesh(jax.devices()[:8], axes)


def test_batch_sizes_must_suit_the_devices():
    mesh = mesh_of({"data": 8})
    sharding.check_batch_size(16, mesh)
    with pytest.raises(UserError, match=r"batch_size 12 .* 8 devices: try 16"):
        sharding.check_batch_size(12, mesh)
    # Devices along `tensor` work on the same examples.
    mesh = mesh_of({"data": 2, "fsdp": 2, "tensor": 2})
    sharding.check_batch_size(12, mesh)
    with pytest.raises(UserError, match="4 devices along data and fsdp"):
        sharding.check_batch_size(6, mesh)


@pytest.mark.parametrize(
    ("microbatch", "told"),
    [
        (64, "microbatch 64 does not divide config.batch_size 32"),
        (5, "microbatch 5 does not divide"),
        (-8, "microbatch -8"),
        (4, "microbatch 4 is not divisible by the 8 devices"),
    ],
)
def test_a_microbatch_that_does_not_fit_is_refused(microbatch, told):
    mesh = mesh_of({"data": 8})
    for right in (0, 8, 16, 32):
        sharding.check_microbatch(32, right, mesh)
    with pytest.raises(UserError, match=told):
        sharding.check_microbatch(32, microbatch, mesh)


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.mesh.fsdp=3", "config.mesh data -1 x fsdp 3 x tensor 1"),
        ("--config.microbatch=16", "microbatch 16 does not divide config.batch_size 8"),
        ("--config.microbatch=3", "microbatch 3 does not divide config.batch_size 8"),
    ],
)
def test_training_refuses_them_in_one_line(refusal, tmp_path, flag, told):
    workdir = tmp_path / "run"
    error = refusal(
        "glscl_jax.train", "--config=configs/demo.py:tiny", f"--workdir={workdir}", flag
    )
    assert told in error
    assert not workdir.exists()


def bytes_by_device(tree) -> dict:
    held = dict.fromkeys(jax.devices()[:8], 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return held


def test_eight_devices_hold_an_eighth_of_parameters_and_optimiser_state_each():
    config = OptimConfig()
    optimizer = make_optimizer(config, 10)

    def begun():
        return steps.init_state(init_params(GLSCL(TINY), 0), optimizer, config)

    abstract = jax.eval_shape(begun)
    where = sharding.by_rules(abstract, mesh_of({"fsdp": 8}))
    # Where each array lies is all that is looked at: their values need no compiling.
    state = jax.jit(
        lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract), out_shardings=where
    )()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    replicated = [leaf for leaf in jax.tree.leaves(state) if leaf.is_fully_replicated]
    share = sum(leaf.nbytes for leaf in replicated) / whole
    print(f"{len(replicated)} arrays, {100 * share:.5f} % of the bytes, are whole on each device")
    # Scalars alone: the logit scale and its moments, and counters.
    assert {leaf.shape for leaf in replicated} == {()}
    assert share < 1e-5
    for held in bytes_by_device(state).values():
        assert held / whole == pytest.approx(1 / 8, rel=1e-4)
        assert held / whole == pytest.approx(sharding.device_share(state))


def test_every_product_s_heads_and_hidden_units_are_split_over_tensor():
    params = jax.eval_shape(lambda: init_params(GLSCL(TINY), 0))
    where = sharding.by_rules(params, mesh_of({"data": 2, "fsdp": 2, "tensor": 2}))
    blocks, decoder = where["clip"]["vision"]["transformer"]["blocks"], where["lim"]["decoder"]
    for first, second in (
        (blocks["attention"]["qkv_kernel"], blocks["attention"]["out"]["kernel"]),
        (blocks["mlp_in"]["kernel"], blocks["mlp_out"]["kernel"]),
        (decoder["cross_attention"]["qkv_kernel"], decoder["cross_attention"]["out"]["kernel"]),
        (decoder["linear_1"]["kernel"], decoder["linear_2"]["kernel"]),
    ):
        # The leading axis counts layers.
        assert first.spec == PartitionSpec(None, "fsdp", "tensor")
        assert second.spec == PartitionSpec(None, "tensor", "fsdp")


def test_an_axis_that_does_not_divide_stays_whole():
    tree = {"linear_1": {"kernel": jax.ShapeDtypeStruct((3, 16, 6), np.float32)}}
    where = sharding.by_rules(tree, mesh_of({"data": 1, "fsdp": 2, "tensor": 4}))
    assert where["linear_1"]["kernel"].spec == PartitionSpec(None, "fsdp", None)


@functools.cache
def text_tower(rows, **axes):
    """Where a tower's parameters lie, its gradient on a mesh, and what that was compiled to."""
    mesh, clip = mesh_of(axes), dataclasses.replace(TINY.clip, text_layers=1, vocab_size=rows)
    tower = TextTower(clip, jnp.float32, "none", True)
    ids = np.random.default_rng(0).integers(0, rows, (8, 6)).astype(np.int32)
    mask = np.ones_like(ids)
    init = jax.jit(lambda: {"clip": {"text": tower.init(jax.random.key(0), ids, mask)["params"]}})
    where = sharding.by_rules(jax.eval_shape(init), mesh)

    def loss(params):
        with sharding.constrain_activations(mesh):
            out = tower.apply({"params": params["clip"]["text"]}, *on_device)
        return (out**2).mean()

    on_device = [jax.device_put(x, sharding.by_batch(mesh)) for x in (ids, mask)]
    params = jax.device_put(jax.device_get(init()), where)
    compiled = jax.jit(jax.grad(loss), out_shardings=where).lower(params).compile()
    return where["clip"]["text"]["token_embedding"], compiled(params), compiled.as_text()


@pytest.mark.parametrize(
    ("rows", "spec"),
    [
        pytest.param(1000, PartitionSpec("fsdp", None), marks=pytest.mark.slow),
        (1001, PartitionSpec(None, "fsdp")),
    ],
)
def test_a_token_embedding_of_any_number_of_rows_is_split(rows, spec):
    """MetaCLIP 2 has an odd number of them, in 3.7 GB."""
    where, found, text = text_tower(rows, fsdp=8)
    assert where.spec == spec
    _, expected, _ = text_tower(rows, fsdp=1)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-6),
        *map(jax.device_get, (found, expected)),
    )
    # No device has it whole, nor its gradient; by rows or by columns.
    width = TINY.clip.text_width
    assert f"f32[{rows},{width}]" not in text
    assert f"f32[{rows // 8},{width}]" in text or f"f32[{rows},{width // 8}]" in text


# Without the temporal module, whose blocks are the towers', to compile faster.
MODEL = GLSCL(dataclasses.replace(DROPOUT, temporal="None"))


@functools.cache
def fresh(**axes):
    """Parameters of one seed, made where they are to lie."""

    def begin():
        return init_params(MODEL, 0)

    where = sharding.by_rules(jax.eval_shape(begin), mesh_of(axes))
    return jax.jit(begin, out_shardings=where)()


@functools.cache
def loss_and_gradient(**axes):
    mesh, params = mesh_of(axes), fresh(**axes)

    def compute(params, batch):
        return objective.gradient(
            params, batch, jax.random.key(7), model=MODEL, weights=LossWeights(), mesh=mesh
        )

    where = jax.tree.map(lambda leaf: leaf.sharding, params)
    compiled = jax.jit(compute, out_shardings=(where, sharding.replicated(mesh)))
    return jax.device_get(compiled(params, sharding.put_batch(train_batch(8), mesh)))


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param({"data": 8}, marks=pytest.mark.slow),
        {"data": 2, "fsdp": 2, "tensor": 2},
        pytest.param({"data": 4, "fsdp": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_mesh_computes_what_one_device_does(axes):
    grads, losses = loss_and_gradient(**axes)
    expected, expected_losses = loss_and_gradient(**ONE)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7),
        fresh(**axes),
        fresh(**ONE),
    )
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5),
        losses,
        expected_losses,
    )
    assert_same_gradient(grads, expected)


HALF = GLSCL(dataclasses.replace(MODEL.config, dtype="bfloat16"))


@pytest.mark.slow
@pytest.mark.parametrize("gradient_dtype", ["float32", "bfloat16"])
def test_in_bfloat16_a_mesh_computes_the_same_but_for_rounding(gradient_dtype):
    def gradient(**axes):
        mesh, params = mesh_of(axes), fresh(**axes)
        compute = functools.partial(
            objective.gradient,
            model=HALF,
            weights=LossWeights(),
            gradient_dtype=gradient_dtype,
            mesh=mesh,
        )
        where = jax.tree.map(lambda leaf: leaf.sharding, params)
        compiled = jax.jit(compute, out_shardings=(where, sharding.replicated(mesh)))
        batch = sharding.put_batch(train_batch(64), mesh)
        return optax.tree.cast(jax.device_get(compiled(params, batch, jax.random.key(7))[0]), float)

    found, expected = gradient(data=4, fsdp=2), gradient(**ONE)
    off = jax.tree.map(np.subtract, found, expected)
    # Eight bits each, of which what stands for rounding differs with the devices' own batches.
    assert optax.tree.norm(off) < 0.02 * optax.tree.norm(expected)


def small_state(mesh):
    """A train state of few numbers, laid out by the rules."""
    rng = np.random.default_rng(0)
    params = {"mlp_in": {"kernel": rng.normal(size=(2, 8, 16)).astype(np.float32)}}
    moments = optax.adam(1e-3).init(jax.tree.map(jnp.asarray, params))
    state = TrainState(np.int32(7), params, moments, np.int32(2))
    return jax.device_put(state, sharding.by_rules(state, mesh))


def abstract(state, mesh):
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        state,
        sharding.by_rules(state, mesh),
    )


def test_a_checkpoint_is_restored_onto_another_mesh(tmp_path):
    state = small_state(mesh_of({"fsdp": 8}))
    checkpoints = Checkpoints(Workdir(tmp_path), 1)
    checkpoints.save(state)
    checkpoints.wait()
    other = mesh_of({"data": 2, "fsdp": 2, "tensor": 2})
    restored = checkpoints.restore(abstract(state, other))
    checkpoints.close()
    kernel = restored.params["mlp_in"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", "tensor")
    assert kernel.addressable_shards[0].data.shape == (2, 4, 8)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_checkpoint_from_before_non_finite_steps_were_counted(tmp_path):
    mesh = mesh_of({"fsdp": 8})
    state = small_state(mesh)
    checkpoints = Checkpoints(Workdir(tmp_path), 1)
    progress = {"step": state.step, "opt_state": state.opt_state}
    checkpoints._orbax.save_checkpointables(7, {"params": state.params, "progress": progress})
    restored = checkpoints.restore(abstract(state, mesh))
    checkpoints.close()
    assert restored.nonfinite == 0
    jax.tree.map(np.testing.assert_array_equal, restored.opt_state, state.opt_state)


def test_a_run_on_a_mesh_until_it_is_not_finite(shapes, forks, tmp_path):
    process = forks(
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.data.validation_split=",
        "--config.log_every=1",
        "--config.mesh.fsdp=2",
        "--config.mesh.tensor=2",
        "--config.microbatch=4",
        "--config.model.temporal=None",
        # What the LIM does on a mesh is looked at above.
        "--config.model.head.name=mean",
        # The first step's rate is 0; the second's takes the parameters out of float32's range.
        "--config.optim.learning_rate=1e38",
        "--config.max_nonfinite=2",
        devices=4,
        check=False,
    )
    assert "data 1 x fsdp 2 x tensor 2: a device holds" in process.stdout
    assert "step 2/12  loss 2." in process.stdout
    assert "step 3: loss or gradient is not finite" in process.stdout
    assert "not applied (1 of at most 2); clips " in process.stdout
    error = one_line_error(process)
    assert "step 4: " in error
    assert "(2 of at most 2)" in error
    clips = error.split("clips ")[1].split(":")[0].split(", ")
    assert len(set(clips)) == 8
