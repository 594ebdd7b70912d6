"""An evaluation compiled for devices that are not here."""

import json
import os
from importlib import metadata

import jax
import pytest

from configs import demo
from glscl_jax.evaluation import compile_for


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--compile_for=v5e:4x4"], "--checkpoint or --config is missing"),
        (["--compile_for=v5e:4x4", "--config=configs/demo.py:tiny"], "--out is missing"),
        (
            ["--compile_for=v5e:4x4", "--config=configs/demo.py:tiny", "--out=README.md"],
            "--out README.md: ",
        ),
        (["--compile_for=v9:4x4", "--config=configs/demo.py:tiny"], "no topology that is known"),
    ],
)
def test_what_is_missing_is_told_in_a_line(refusal, flags, told):
    assert told in refusal("glscl_jax.evaluate", *flags)


# A minute; that the TPU's compiler can be asked, tests/training/test_compile_for.py sees, too.
@pytest.mark.slow
def test_encoders_scores_and_ranking_compile_for_a_tpu(tmp_path, capsys):
    try:
        metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        pytest.skip("libtpu, the compiler for TPUs, is not installed: make aot")
    before = dict(os.environ)
    config = demo.get_config("tiny")
    with jax.default_matmul_precision("default"):
        assert compile_for.run("v5e:1x1", config, None, str(tmp_path)) == 0
    os.environ.clear()
    os.environ.update(before)
    found = json.loads((tmp_path / "compiled-evaluation-v5e-1x1.json").read_text())["programs"]
    names = [part["name"] for part in found]
    assert names == [
        "encoding 8 captions",
        "encoding 8 videos",
        "preparing 4,096 videos",
        "scoring 256 captions against 4,096 videos",
        "ranking 256 captions among 4,096 videos",
    ]
    text, video, _, scores, ranking = found
    assert all(part["fits"] for part in found)
    for part in (text, video):
        assert 1 <= part["flops"] / part["model_flops"] < 1.5
    # Of a pair: K queries, and frames' weights and their row of weights times the Gram matrix.
    config = config.model
    queries, frames, width = config.head.queries, 3, 128
    pair = frames * (width + frames) + queries * width
    assert scores["flops"] >= 2 * 256 * 4096 * pair
    assert ranking["flops"] == 0
    assert capsys.readouterr().out.count("an estimate, not a measurement") == len(found)
