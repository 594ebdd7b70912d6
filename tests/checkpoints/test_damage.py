"""Checkpoints that the disk has changed are refused; what is whole is read, old ones as well."""

import json
import random
import shutil

import jax
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from glscl_jax.checkpoints import model_dir
from glscl_jax.checkpoints.model_dir import save_params
from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from tests import small_disk

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def parameters():
    numbers = np.random.default_rng(0)
    return {
        "clip": {"kernel": numbers.normal(size=(70, 50)).astype(np.float32)},
        "lim": {"queries": numbers.normal(size=(8, 40)).astype(np.float32)},
    }


def load(path):
    return model_dir._load_params(path, ONE)


def assert_same(found):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(parameters()), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model"
    save_params(path, parameters())
    assert_same(load(path))
    return path


def told_of(hurt) -> str:
    """Why a checkpoint is refused; "" if it is read, and then it is the same."""
    try:
        found = load(hurt)
    except UserError as error:
        return str(error)
    assert_same(found)
    return ""


def files_of(path):
    return sorted(x.relative_to(path) for x in path.rglob("*") if x.is_file())


def test_a_changed_bit_is_no_other_figure(whole, tmp_path):
    """In any file: an error, or the same parameters where nothing of theirs is in it."""
    draw, refused = random.Random(0), 0
    for name in files_of(whole):
        content = (whole / name).read_bytes()
        for place in draw.sample(range(len(content)), min(8, len(content))):
            hurt = tmp_path / f"{name.name}.{place}"
            shutil.copytree(whole, hurt)
            changed = bytearray(content)
            changed[place] ^= 1 << draw.randrange(8)
            (hurt / name).write_bytes(changed)
            refused += bool(told_of(hurt))
            shutil.rmtree(hurt)
    assert refused > 20


def test_the_numbers_themselves_are_checked(whole, tmp_path):
    kernel = parameters()["clip"]["kernel"].tobytes()
    (name,) = [x for x in files_of(whole) if kernel[:400] in (whole / x).read_bytes()]
    shutil.copytree(whole, tmp_path / "hurt")
    content = bytearray((whole / name).read_bytes())
    content[content.index(kernel[:400]) + 200] ^= 4
    (tmp_path / "hurt" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"clip\.kernel: Digest mismatch"):
        load(tmp_path / "hurt")


@pytest.mark.parametrize("how", ["gone", "empty", "half"])
def test_a_damaged_file_is_named(whole, tmp_path, how):
    refused = set()
    for name in files_of(whole):
        hurt = tmp_path / how
        shutil.copytree(whole, hurt)
        size = (hurt / name).stat().st_size
        if how == "gone":
            (hurt / name).unlink()
        else:
            (hurt / name).write_bytes((whole / name).read_bytes()[: size // 2 * (how == "half")])
        if told := told_of(hurt):
            # By its name, or the array's whose numbers are in it.
            assert name.name in told or "clip.kernel: " in told or "lim.queries: " in told, told
            refused.add(name.name)
        shutil.rmtree(hurt)
    assert {"_METADATA", "manifest.ocdbt"} <= refused


def test_a_folder_that_is_gone_is_named(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "hurt")
    shutil.rmtree(tmp_path / "hurt" / "params")
    with pytest.raises(UserError, match="params is gone"):
        load(tmp_path / "hurt")


def test_a_checkpoint_without_checksums_is_read(tmp_path):
    context = ocp.Context()
    context.array.saving.use_compression = False
    with context:
        ocp.save_checkpointables(tmp_path / "old", {"params": parameters()})
    assert_same(load(tmp_path / "old"))


def state(step: int, average: float | None = None) -> TrainState:
    params = {"w": jax.numpy.full((3, 2), float(step))}
    kept = None if average is None else {"w": jax.numpy.full((3, 2), average)}
    number = jax.numpy.int32
    opt_state = optax.sgd(0.1, momentum=0.9).init(params)
    return TrainState(number(step), params, opt_state, number(0), kept)


def abstract(given: TrainState) -> TrainState:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=ONE), given)


def test_the_best_is_kept_and_read(tmp_path):
    workdir = Workdir(tmp_path)
    checkpoints = Checkpoints(workdir, keep=1)
    for step, score in enumerate((10.0, 30.0, 20.0, 5.0), 1):
        checkpoints.save(state(step), {"R@1": score})
    checkpoints.close()
    assert {x.name for x in workdir.checkpoints.iterdir()} == {"2", "4"}
    assert model_dir._best(workdir.checkpoints) == 2


def test_moments_of_other_groups_are_refused(tmp_path):
    """Of a run that did not write its groups down: equal shapes are not the same parameters."""
    params = {name: jax.numpy.ones((3, 2)) for name in ("one", "other")}
    rates = {"fast": optax.adam(1.0), "slow": optax.adam(0.1)}

    def grouped(labels) -> TrainState:
        kept = optax.partition(rates, dict(zip(params, labels, strict=True))).init(params)
        return TrainState(jax.numpy.int32(1), params, kept, jax.numpy.int32(0), None)

    saved = grouped(["fast", "slow"])
    checkpoints = Checkpoints(Workdir(tmp_path), keep=1)
    checkpoints.save(saved)
    checkpoints.wait()
    found = checkpoints.restore(abstract(saved))
    assert jax.tree.structure(found.opt_state) == jax.tree.structure(saved.opt_state)
    with pytest.raises(UserError, match="did not train the same parameters"):
        checkpoints.restore(abstract(grouped(["slow", "fast"])))
    checkpoints.close()


def test_an_average_that_is_switched_on_begins_as_the_parameters(tmp_path):
    checkpoints = Checkpoints(Workdir(tmp_path), keep=1)
    checkpoints.save(state(3))
    checkpoints.wait()
    found = checkpoints.restore(abstract(state(0, average=0.0)))
    np.testing.assert_array_equal(found.ema["w"], np.full((3, 2), 3.0))
    np.testing.assert_array_equal(found.params["w"], np.full((3, 2), 3.0))
    # It is a copy: the step that follows donates both.
    assert found.ema["w"].unsafe_buffer_pointer() != found.params["w"].unsafe_buffer_pointer()
    checkpoints.close()


def test_an_average_that_is_switched_off_leaves_the_parameters(tmp_path):
    checkpoints = Checkpoints(Workdir(tmp_path), keep=1)
    checkpoints.save(state(3, average=2.0))
    checkpoints.wait()
    assert checkpoints.restore(abstract(state(0, average=0.0))).ema["w"][0, 0] == 2
    found = checkpoints.restore(abstract(state(0)))
    assert found.ema is None
    np.testing.assert_array_equal(found.params["w"], np.full((3, 2), 3.0))
    checkpoints.close()


@pytest.mark.skipif(not small_disk.possible(), reason="no user may mount a small disk here")
def test_a_full_disk_keeps_the_last_good_checkpoint(forks, tmp_path):
    small = ("tests.small_disk", tmp_path, "8m", tmp_path / "checkpoints")
    told, kept = forks(*small, "tests.saving", tmp_path).stdout.splitlines()
    assert told.startswith("the checkpoint at step 6 could not be written to ")
    assert "No space left on device" in told
    assert "; the last good one is step 3: make room" in told
    # The failed one has no final name.
    assert "3" in json.loads(kept)
    assert "6" not in json.loads(kept)
