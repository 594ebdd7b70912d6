"""Evaluation of a trained run: the table, results.json, and what it refuses."""

import json
import shutil

import jax
import numpy as np
import pytest

from glscl_jax import metrics, sharding
from glscl_jax.checkpoint import load_model, save_params


@pytest.fixture(scope="module")
def workdir(shapes, run_program, tmp_path_factory):
    """A run of a few steps."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    run_program(
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={workdir}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.num_steps=4",
        "--config.validate_every=2",
    )
    return workdir


def test_the_table_and_results(workdir, run_program, shapes):
    done = run_program(
        "glscl_jax.evaluate",
        f"--checkpoint={workdir}",
        "--config=configs/demo.py:tiny",
        f"--config.data.dir={shapes / 'data'}",
    )
    results = json.loads((workdir / "results.json").read_text())
    assert results["videos"] == results["t2v"]["queries"] == results["v2t"]["queries"] == 8
    assert results["split"] == "test"
    shown = [line for line in done.stdout.splitlines() if line.startswith("text-to-video")]
    assert float(shown[0].split()[1]) == round(results["t2v"]["mean"]["R@1"], 1)
    assert results["t2v"]["mean"]["R@10"] == 100


def test_validation_and_evaluation_agree(workdir, run_program, tmp_path):
    # The run's own config, another split, a given step, another place for the results.
    run_program(
        "glscl_jax.evaluate",
        f"--checkpoint={workdir}",
        "--split=val",
        "--step=4",
        f"--out={tmp_path}",
    )
    results = json.loads((tmp_path / "results.json").read_text())
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    validation = next(
        row for row in map(json.loads, lines) if row["step"] == 4 and "validation/R@1" in row
    )
    for name in ("R@1", "R@5", "MnR"):
        assert results["t2v"]["mean"][name] == pytest.approx(validation[f"validation/{name}"])
        assert results["v2t"]["mean"][name] == pytest.approx(validation[f"validation/v2t {name}"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--checkpoint=nowhere"], "nowhere"),
        (["--step=3"], "no step 3"),
        (["--split=testing"], "testing"),
    ],
)
def test_what_is_not_there_is_named(workdir, refusal, flags, told):
    assert told in refusal("glscl_jax.evaluate", f"--checkpoint={workdir}", *flags)


def test_a_clip_alone_is_named(workdir, refusal, tmp_path):
    sharded = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    clip = load_model(workdir, sharded).params["clip"]
    save_params(tmp_path, {"clip": clip})
    shutil.copy(workdir / "model.json", tmp_path)
    assert "holds CLIP alone" in refusal("glscl_jax.evaluate", f"--checkpoint={tmp_path}")


def test_a_damaged_checkpoint_is_named(workdir, refusal, tmp_path):
    damaged = tmp_path / "run"
    shutil.copytree(workdir, damaged)
    for step in (2, 4):
        for path in (damaged / "checkpoints" / str(step)).rglob("d/*"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = refusal("glscl_jax.evaluate", f"--checkpoint={damaged}", "--step=2")
    assert "checkpoints/2 cannot be read" in error
    error = refusal(
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={damaged}",
        f"--config.data.dir={json.loads((workdir / 'config.json').read_text())['data']['dir']}",
        "--config.num_steps=6",
    )
    assert "checkpoints/4 cannot be read" in error


def test_a_half_written_checkpoint_is_passed_over(workdir, run_program, tmp_path):
    interrupted = tmp_path / "run"
    shutil.copytree(workdir, interrupted)
    # What a killed Orbax leaves: the directory has not got its final name.
    steps = interrupted / "checkpoints"
    (steps / "4").rename(steps / "4.orbax-checkpoint-tmp")
    done = run_program("glscl_jax.evaluate", f"--checkpoint={interrupted}", f"--out={tmp_path}")
    assert "(step 2)" in done.stdout


def test_several_captions_a_video():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.4], [0.1, 0.6]])
    result = metrics.retrieval(scores, np.array([0, 0, 1, 1]))
    assert result.t2v.mean.tolist() == [1, 2, 1, 1]
    # Video 1's best caption among all (0.8) belongs to video 0.
    assert result.v2t.mean.tolist() == [1, 2]
