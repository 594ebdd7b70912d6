"""The LIM study's order: what runs, what is there already, and whose towers features are of."""

import json
import time
import types

import jax
import numpy as np
import pytest

from benchmarks.figure1 import results as figure1
from benchmarks.lim_study import recipe as demo
from benchmarks.lim_study import results
from benchmarks.lim_study.__main__ import drawn
from benchmarks.lim_study.base import read_base, towers_name
from benchmarks.lim_study.jobs import BASE, Study, jobs_of
from benchmarks.lim_study.lanes import Length, lanes_of
from benchmarks.lim_study.trainer import Program, features
from benchmarks.lim_study.variants import ALL, LIM_VARIANTS, Shape, Variant
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCL, init_params


def test_all_variants_run_once_and_the_first_ones_first():
    jobs = jobs_of(ALL, {name: Length(3, 2) for name in demo.PROTOCOLS})
    names = [(job.program.protocol, x.name) for job in jobs for x in job.variants]
    assert sorted(names) == sorted((name, x.name) for name in demo.PROTOCOLS for x in ALL)
    assert names[0] == ("end_to_end", "gim")
    assert all(x.shape == job.program.shape for job in jobs for x in job.filled())
    # The plain mean's towers are what features are of.
    of_features = [number for number, job in enumerate(jobs) if job.program.of_features]
    base = next(n for n, job in enumerate(jobs) if job.program.shape == BASE)
    assert base < min(of_features)
    # Variants side by side are one program.
    assert len({job.compiled for job in jobs if job.program.shape == Shape()}) == 2
    assert len({json.dumps(x.settings) for x in LIM_VARIANTS}) == len(LIM_VARIANTS)


def test_the_figure_reads_all_heads_of_it():
    assert set(figure1.RUNS) <= {variant.name for variant in ALL}


def test_what_is_there_is_not_run_again(tmp_path):
    lengths = {name: Length(3, 2) for name in demo.PROTOCOLS}
    usual = {"seeds": [1, 2], "steps": 3}
    lines = [
        {"protocol": "end_to_end", "name": "gim", "towers": None, **usual},
        {"protocol": "from_features", "name": "gim", "towers": "ours", **usual},
        {"protocol": "from_features", "name": "wti", "towers": "theirs", **usual},
        {"protocol": "from_features", "name": "x_pool", "towers": "ours", **usual, "steps": 4},
        {"protocol": "from_features", "name": "dicosa", "towers": "ours", **usual, "seeds": [1]},
    ]
    path = tmp_path / "lines"
    assert results.there(path, lengths, (1, 2), "ours") == set()
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    there = results.there(path, lengths, (1, 2), "ours")
    assert there == {("end_to_end", "gim"), ("from_features", "gim")}
    # Towers that are yet to be trained are none that a line is of.
    assert results.there(path, lengths, (1, 2), None) == {("end_to_end", "gim")}
    jobs = jobs_of(ALL, lengths, 3, there)
    names = [(job.program.protocol, x.name) for job in jobs for x in job.variants]
    everything = {(name, x.name) for name in demo.PROTOCOLS for x in ALL}
    assert sorted(names) == sorted(everything - there)
    assert max(len(job.filled()) for job in jobs) == 3


def test_a_run_is_a_base_where_it_is_of_the_model(monkeypatch):
    from glscl_jax.checkpoints import model_dir

    shapes = jax.eval_shape(lambda: init_params(GLSCL(BASE.model_config()), 0))
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    loaded = {"params": params}
    monkeypatch.setattr(model_dir, "load_model", lambda *_: types.SimpleNamespace(**loaded))
    assert read_base("run") is params
    other = jax.tree.map(np.copy, params)
    assert towers_name(params) == towers_name(other)
    other["clip"]["logit_scale"] += 1
    assert towers_name(params) != towers_name(other)
    # With the module over time, too, but with none of other sizes.
    timely = GLSCL(Shape("mean").model_config())
    loaded["params"] = jax.eval_shape(lambda: init_params(timely, 0))
    assert "temporal" in read_base("run")
    loaded["params"] = {**params, "temporal": {"positions": np.zeros(3)}}
    with pytest.raises(UserError, match=r"--base run is of another model.*: temporal/"):
        read_base("run")


@pytest.mark.parametrize("temporal", ["seqTransf", "None"])
def test_every_head_goes_on_from_a_base_with_a_module_over_time(temporal):
    base, plain = (
        jax.eval_shape(lambda shape=shape: init_params(GLSCL(shape.model_config()), 0))
        for shape in (Shape("mean"), BASE)
    )
    assert base.keys() - plain.keys() == {"temporal"}
    length, clips = Length(1, 2), drawn(8, 4)
    splits = [
        jax.eval_shape(lambda base, part=part: features(base, part, BASE), base)
        for part in clips.values()
    ]
    shape = Shape("mean", temporal)
    lanes = lanes_of([Variant("one", shape)], (1,), length, clips=8)
    trained = jax.eval_shape(Program(shape, demo.FROM_FEATURES, length), lanes, *splits, base)
    assert trained.scores.shape == (1, 4, 4)


def test_a_failed_job_is_told_of_and_the_next_one_begun(tmp_path, monkeypatch):
    said = []
    study = Study(
        **drawn(8, 4),
        seeds=(0,),
        out=tmp_path / "lines",
        deadline=time.monotonic() + 60,
        threads=1,
        say=said.append,
    )
    begun = []
    monkeypatch.setattr(Study, "_lower", lambda self, job: None)
    monkeypatch.setattr(Study, "_compile", lambda self, job, traced: None)

    def fails(self, job, *rest):
        begun.append(job)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Study, "_train", fails)
    jobs = jobs_of(ALL[:2], {name: Length(3, 2) for name in demo.PROTOCOLS})
    study.run(jobs)
    assert begun == jobs[:2]
    assert "end_to_end, gim failed" in said[0]
    assert "out of memory" in said[0]
    assert said[-1] == "there are no features for from_features, mean_pooling"
