"""The training benchmarks at sizes of nothing: what they time, count, choose and draw."""

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import precision, saving
from benchmarks.compiled import counts
from benchmarks.on_gpu import steps as on_gpu
from benchmarks.on_gpu.contender import ContenderError, Task
from benchmarks.timing import take_turns
from benchmarks.train_step import layouts
from benchmarks.train_step.jax_glscl import fresh_state, make_inputs
from configs import demo
from glscl_jax.checkpoints.train_state import TrainState
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.training import recipe

TINY = GLSCLConfig(
    clip=VARIANTS["tiny"],
    temporal_layers=2,
    head=GLSCLHead(lim_layers=2, lim_feed_forward=64, lim_dropout=0.0),
)


def test_turns():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = take_turns(contenders, rounds=2, turn=2)
    # One to compile each, then turns of one that is not timed and two that are.
    assert "".join(calls) == "ab" + "aaabbb" * 2
    assert [len(x) for x in times.values()] == [4, 4]


def test_a_batch_is_what_the_model_takes():
    inputs = make_inputs(3, VARIANTS["tiny"], frames=2)
    assert inputs["frames"].shape == (3, 2, 32, 32, 3)
    ids, mask = inputs["text_ids"], inputs["text_mask"]
    # The end token, which is the highest id, stands last in each caption, and padding is 0.
    assert (ids.argmax(1) == mask.sum(1) - 1).all()
    assert ids.max() == VARIANTS["tiny"].vocab_size - 1
    assert not ids[mask == 0].any()


@pytest.mark.slow
def test_recomputing_takes_less_memory_and_more_flops():
    inputs = make_inputs(2, TINY.clip, frames=2)
    all_six = layouts.layouts(TINY)
    assert {(x.remat, x.scan) for x in all_six} == {
        (remat, scan) for remat in ("none", "dots", "full") for scan in (True, False)
    }
    plain, full = (x for x in all_six if x.scan and x.remat in ("none", "full"))
    compiled = {layout: layouts.compile_step(layout, inputs) for layout in (plain, full)}
    assert compiled[full].temporary < compiled[plain].temporary
    assert compiled[full].flops > compiled[plain].flops

    turns = layouts.Turns(jax.jit(lambda: fresh_state(TINY))(), inputs)
    turns.step(compiled[plain])
    turns.step(compiled[full])
    assert int(turns.state.step) == 2

    _, first, second = layouts.table(compiled, {plain: [1.0, 2.0, 9.0], full: [3.0]})
    assert first.split()[:2] == ["none", "on"]
    assert "2.000" in first
    assert second.split()[:2] == ["full", "on"]
    assert "1.50" in second


class Counting:
    """A step that does nothing but count."""

    def __init__(self):
        zero = jnp.zeros((), jnp.int32)
        self.state = TrainState(zero, {"w": jnp.ones(4)}, {"m": jnp.zeros(4)}, zero + 0)
        self.steps = 0

    def __call__(self):
        time.sleep(0.001)
        self.steps += 1
        self.state = self.state.replace(step=self.state.step + 1)


def test_saves_among_steps(tmp_path):
    step = Counting()
    times = saving.measure(step, tmp_path, saves=2, usual=3)
    assert len(times.usual) == 6
    assert len(times.blocked) == 2
    assert len(times.overlapping) >= 2
    assert step.steps == 1 + 2 * (1 + 3) + len(times.overlapping)
    # The second save came after all but its own overlapping steps; one checkpoint is kept.
    (kept,) = [x for x in (tmp_path / "checkpoints").iterdir() if x.name.isdigit()]
    assert 2 + 2 * 4 <= int(kept.name) < step.steps


def test_what_a_save_costs():
    times = saving.Times(usual=[1.0, 1.0, 4.0], overlapping=[1.5, 2.0, 1.0, 1.5], blocked=[3.0, 1])
    assert times.ratio == 1.5
    # Two seconds in steps and four in save(), over two saves.
    assert times.cost == 3.0
    assert "1.500" in saving.table(times)[2]


@pytest.fixture
def curve(tmp_path):
    """Of 45 logged steps, 2 to 46, whose losses are their numbers."""
    records = [
        {"step": step, "loss/total": float(step), "speed/clips_per_second": 32.0}
        for step in range(2, 47)
    ]
    records.append({"step": 46, "validation/R@1": 12.5})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "config.json").write_text('{"batch_size": 64}', encoding="utf-8")
    return precision.read_curve(tmp_path)


def test_windows_of_a_curve(curve):
    ends, means = curve.windows()
    assert ends.tolist() == [20, 40]
    assert means.tolist() == [np.mean(range(2, 21)), np.mean(range(21, 41))]
    assert (curve.recall, curve.seconds) == (12.5, 2.0)
    row = precision.table({("float32", "42"): curve})[-1]
    assert row.split() == ["float32,", "seed", "42", "11.0000", "30.5000", "12.5", "2.000"]


def test_the_picture(curve, tmp_path):
    pictures = [tmp_path / name for name in ("a.svg", "b.svg")]
    for picture in pictures:
        precision.draw(dict.fromkeys(precision.RUNS, curve), picture)
    text = pictures[0].read_text(encoding="utf-8")
    assert all(label in text for label in precision.LABELS.values())
    assert text == pictures[1].read_text(encoding="utf-8")


def test_the_precisions_are_settings_of_the_demo():
    read = {}
    for name, flags in precision.RUNS.items():
        config = demo.get_config()
        for flag in flags:
            key, _, value = flag.removeprefix("--config.").partition("=")
            config.update_from_flattened_dict({key: value})
        settings = recipe.read(config)
        read[name] = (settings.model.dtype, settings.optim.clip_numerics)
    assert read == {
        "float32": ("float32", "float32"),
        "bfloat16": ("bfloat16", "float32"),
        "float16_reference": ("float32", "float16_reference"),
    }


def test_rows_on_a_gpu(monkeypatch, capsys):
    def in_process(task, seconds):
        if task.kind == "torch":
            if task.compiled:
                raise ContenderError("RuntimeError: no C++ compiler")
            return {"seconds": [3.0], "peak": 2**30}
        if task.remat == "none":
            raise ContenderError("XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while ...")
        took = 1.5 if task.attention == "fused" else 2.0
        return {"seconds": [took], "flops": 6e12, "peak": 2**31, "compiling": 9.0}

    monkeypatch.setattr(on_gpu, "in_process", in_process)
    size = on_gpu.Size(("tiny",), 4, 3, 1)
    on_gpu.steps(on_gpu.Clock(1), size, {"ceiling": 1e13, "machine": ""}, compiled=True)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert "tiny, fused, remat dots" in rows[0]
    assert "40.0 % of the ceiling, 2.0 GiB at most, 9 s to compile" in rows[0]
    assert sum("no C++ compiler" in row for row in rows) == 2
    assert "PyTorch eager, recomputing" in rows[4]
    assert "2.00 times this project's" in rows[4]
    assert sum("does not fit" in row for row in rows) == 2
    assert "fastest row of this project takes 1.500 s" in rows[-1]


def test_how_far_the_compiler_was_off(monkeypatch, capsys):
    kept = counts.Counts("remat full", fits=True, temporary=2**34, computing=0.4, seconds=0.4)
    monkeypatch.setattr(counts, "read", lambda: {counts.LAST: {"h100x1 ViT-B/16 128": kept}})
    found = {"seconds": [0.5], "flops": 6e12, "peak": 2**31, "compiling": 9.0}
    monkeypatch.setattr(on_gpu, "in_process", lambda task, seconds: found)
    machine = {"ceiling": 1e13, "machine": "1 x NVIDIA H100 80GB HBM3 (gpu)"}
    task = Task("jax", "ViT-B/16", clips=128, frames=12, remat="full", attention="fused")
    on_gpu.jax_row(on_gpu.Clock(1), task, machine)
    told = "the compiler's estimate is 0.400 s and 16.0 GiB: it took 1.25 times as long"
    assert told in capsys.readouterr().out
    # Of other layouts, sizes and devices nothing is said.
    for other in ({"remat": "dots"}, {"attention": "plain"}, {"clips": 64}, {"frames": 8}):
        assert on_gpu.estimated(dataclasses.replace(task, **other), machine["machine"]) is None
    assert on_gpu.estimated(task, "1 x cpu") is None


def test_what_there_is_no_time_for_is_named(capsys):
    assert on_gpu.Clock(0.1).run("a row", Task("jax")) is None
    assert "a row" in (row := capsys.readouterr().out)
    assert "left out: no time" in row


def test_fused_attention_compared():
    from benchmarks.on_gpu import attention

    found = attention.compare(8, "texts", True)
    differences = [float(part.split()[-1]) for part in found.split(", ")]
    assert len(differences) == 4
    assert max(differences) < 0.05, found


@pytest.mark.parametrize("variant", ["tiny", "ViT-B/16"])
def test_pytorch_s_model_has_as_many_parameters(variant):
    torch = pytest.importorskip("torch")
    from benchmarks.train_step.torch_glscl import TorchGLSCL

    with torch.device("meta"):
        theirs = sum(x.numel() for x in TorchGLSCL(VARIANTS[variant]).parameters())
    state = jax.eval_shape(lambda: fresh_state(GLSCLConfig(clip=VARIANTS[variant])))
    assert theirs == sum(x.size for x in jax.tree.leaves(state.params))
