"""The step compiled for devices that are not here, and the search for what fits on them."""

import dataclasses
import json
import os
from importlib import metadata

import jax
import pytest

from configs import demo
from glscl_jax import target
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.models.encoders import transformer
from glscl_jax.models.glscl import model_config
from glscl_jax.profiling import collectives, hlo, topologies
from glscl_jax.profiling.compiled_report import report
from glscl_jax.runtime import sharding
from glscl_jax.training import compile_for, inherited

GB = 10**9


def recipe(**changes):
    """The demo's, of seconds, with what a device would be left to choose settled."""
    config = demo.get_config("tiny")
    settled = {"model.remat": "none", "mesh.data": 8}
    return compile_for.with_settings(
        config, settled | {k.replace("__", "."): v for k, v in changes.items()}
    )


@dataclasses.dataclass(frozen=True)
class Found:
    """Stands for `CompiledReport`."""

    used: int
    fits: bool

    def lines(self) -> list[str]:
        return []


class Pod:
    """Stands for `compile_for.Compiler`: a step takes what a formula says, and nothing compiles.

    Args:
      state: bytes of it, over all chips along fsdp.
      activations: bytes a chip, with nothing computed again.
    """

    def __init__(self, state: float, activations: float, text: str = "v5e:2x4"):
        self.topology = topologies.parse(text)
        self.own, self.activations, self.tried = state, activations, []

    def mesh(self, config):
        return sharding.make_mesh(jax.devices()[:8], config.mesh.to_dict())

    def held(self, config) -> int:
        return int(self.own / config.mesh.fsdp)

    def __call__(self, config):
        self.tried.append(config)
        share = {"none": 1.0, "dots": 0.5, "full": 0.25}[config.model.remat]
        share *= (config.microbatch or config.batch_size) / config.batch_size
        used = self.held(config) + int(self.activations * share)
        room = self.topology.memory
        return Found(used, used <= room)


def search(pod: Pod, config) -> str:
    """The flags that `fitting` finds."""
    other, found = compile_for.first_that_fits(config, pod(config), pod)
    assert found.fits
    return compile_for.flags(config, other)


@pytest.mark.parametrize(
    ("state", "activations", "given"),
    [
        (2, 25, "--config.model.remat=dots"),
        (2, 50, "--config.model.remat=full"),
        (2, 100, "--config.model.remat=full --config.microbatch=32"),
        (2, 200, "--config.model.remat=full --config.microbatch=16"),
        (20, 25, "--config.model.remat=full --config.mesh.data=4 --config.mesh.fsdp=2"),
        (20, 50, "--config.model.remat=full --config.microbatch=32 --config.mesh.data=4 "
         "--config.mesh.fsdp=2"),
    ],
)  # fmt: skip
def test_what_fits_is_sought_in_order(state, activations, given, capsys):
    config = recipe(batch_size=64)
    assert search(Pod(state * GB, activations * GB), config) == given
    assert f"give         {given}" in capsys.readouterr().out


def test_micro_batches_that_cannot_help_are_not_tried(capsys):
    pod = Pod(2 * GB, 200 * GB)
    search(pod, recipe(batch_size=64))
    assert [x.microbatch for x in pod.tried] == [0, 0, 0, 16]


def test_a_step_that_no_layout_holds_is_told_in_a_line():
    pod = Pod(200 * GB, 1 * GB)
    with pytest.raises(UserError, match="no layout of 8 chips of v5e:2x4 holds"):
        search(pod, recipe(batch_size=64))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--compile_for=v5e:3x3"], "no topology that is known: there are v5e: with 1x1"),
        (
            ["--compile_for=v5e:2x2", "--workdir=README.md/x"],
            "README.md is no folder: name another",
        ),
        (
            ["--compile_for=v5e:2x2", "--config.model.clip.variant=SigLIP-B/16"],
            "config.data.num_words 16 is not 64, which all texts of this model have",
        ),
        (["--compile_for=v5e:2x2", "--features=x"], "--features says nothing beside --compile_for"),
        (["--compile_for=v5e:2x2", "--peer_timeout=9"], "--peer_timeout says nothing beside"),
        (["--compile_for=h100x8"], "jax-cuda13-plugin, the compiler for that device"),
    ],
)
def test_the_program_refuses_in_a_line(refusal, tmp_path, flags, told):
    workdir = tmp_path / "run"
    config = "--config=configs/demo.py:tiny"
    assert told in refusal("glscl_jax.train", config, f"--workdir={workdir}", *flags)
    assert not workdir.exists()


def test_remat_follows_the_device_unless_somebody_chose():
    assert transformer.resolve_remat("auto") == "none"
    with target.compiling_for("tpu"):
        assert transformer.resolve_remat("auto") == transformer.REMAT_BY_DEVICE["tpu"] != "none"
        assert transformer.resolve_remat("none") == "none"


def test_a_run_goes_on_with_another_remat_and_with_no_other_model(tmp_path):
    config, workdir = recipe(), Workdir(tmp_path)
    model = model_config(config.model.to_dict())
    workdir.begin(config, model)
    workdir.begin(config, dataclasses.replace(model, remat="full"))
    head = dataclasses.replace(model.head, queries=3)
    with pytest.raises(UserError, match=r"another model .*queries"):
        workdir.begin(config, dataclasses.replace(model, head=head))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """`train --compile_for` of the smallest step, on four TPUs: its JSON and its module."""
    try:
        metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        pytest.skip("libtpu, the compiler for TPUs, is not installed: make aot")

    config = compile_for.with_settings(
        demo.get_config("tiny"),
        {
            "model.dtype": "bfloat16",
            "model.temporal": "None",
            "model.lim_layers": 1,
            # Without its backward pass the compile takes half as long.
            "optim.frozen": ("^clip/vision/",),
            "mesh.data": 2,
            "mesh.fsdp": 2,
        },
    )
    modules, before = [], dict(os.environ)

    def kept(compiled, *args, **kwargs):
        modules.append(hlo.Module(compiled.as_text()))
        return report(compiled, *args, **kwargs)

    workdir = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch, jax.default_matmul_precision("default"):
        patch.setattr(compile_for, "report", kept)
        chosen = inherited.Chosen.of(config)
        assert compile_for.run("v5e:2x2", config, chosen, workdir) == 0
    os.environ.clear()
    os.environ.update(before)
    return json.loads((workdir / "compiled-v5e-2x2.json").read_text())["asked"], modules[0]


def test_a_step_compiles_for_four_tpus(compiled):
    found, _ = compiled
    assert found["fits"]
    assert found["left"] == found["memory"] - (
        found["arguments"] + found["results"] + found["temporary"]
    )
    assert 0 < found["state"] <= found["arguments"]
    assert found["remat"] == transformer.REMAT_BY_DEVICE["tpu"]
    # What is frozen has no backward pass, and layers are computed again.
    assert 0.8 < found["flops"] / found["model_flops"] < 1
    assert found["estimate"]["seconds"] > 0


def test_what_is_sent_there_is_what_the_mesh_says(compiled):
    _, module = compiled
    found = collectives.collectives(module, {"data": 2, "fsdp": 2, "tensor": 1})
    by = collectives.sent_by_axis(found)
    # Layers are gathered along fsdp, and their gradient comes back; its share is summed along data.
    assert by["fsdp", "all-gather"] > 0
    assert by["fsdp", "reduce-scatter"] + by["fsdp", "all-reduce"] > 0
    assert by["data", "all-reduce"] > 0
    gathers = [x for x in found if (x.axes, x.kind) == ("fsdp", "all-gather")]
    hidden = sum(x.sent for x in gathers if x.asynchronous)
    assert hidden > 0.5 * by["fsdp", "all-gather"]


def test_no_float32_product_where_bfloat16_is_asked(compiled):
    _, module = compiled
    wide = {
        instruction.source
        for instruction, _ in module.executed()
        if hlo.product_flops(instruction)
        and any(array.dtype == "f32" for array in instruction.operands[:2])
    }
    # Scores and losses are of float32; the model's own products are not.
    assert not [source for source in wide if "GLSCL" in source]
