"""Heads from features, as a user trains them: kept once, then without a clip."""

import json

import jax
import numpy as np
import pytest

from glscl_jax import compare
from glscl_jax.checkpoints.model_dir import load_model, save_params
from glscl_jax.files import write_json
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.models.glscl import GLSCLConfig, model_settings
from glscl_jax.retrieval import tower_features
from glscl_jax.retrieval.encoded_split import Store
from glscl_jax.runtime import sharding
from tests.builders import SHAPES_CLIP, random_params

STEPS = 5


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A converted CLIP of the smallest size."""
    folder = tmp_path_factory.mktemp("clip") / "clip"
    params = random_params(GLSCLConfig(clip=SHAPES_CLIP, temporal="None"))["clip"]
    params = jax.tree.map(lambda x: np.asarray(x * 0.1, np.float32), params)
    params["logit_scale"] = np.array(2.0, np.float32)
    save_params(folder, {"clip": params})
    settings = model_settings(GLSCLConfig(clip=SHAPES_CLIP))
    write_json(folder / "model.json", {"clip": settings["clip"]})
    CLIPTokenizer.from_merges(DEMO_MERGES).save(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def features(clip, shapes, forks, tmp_path_factory):
    """What its encoders make of the demo's smallest data."""
    folder = tmp_path_factory.mktemp("features") / "kept"
    done = forks(
        "glscl_jax.evaluate",
        f"--checkpoint={clip}",
        "--config=configs/demo.py:tiny",
        f"--config.data.dir={shapes / 'data'}",
        f"--encodings={folder}",
    )
    assert f"encodings are in {folder}: " in done.stdout
    assert "train (32 videos, 32 captions)" in done.stdout
    return folder


def arguments(workdir, *more):
    return (
        "--config=configs/demo.py:tiny",
        f"--workdir={workdir}",
        f"--config.num_steps={STEPS}",
        "--config.validate_every=5",
        "--config.checkpoint_every=0",
        "--config.log_every=1",
        "--config.model.head.name=wti",
        *more,
    )


def figures(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


# A step alone is compared in tests/training/test_precomputed_features.py.
@pytest.mark.slow
def test_a_run_from_features_is_that_of_frozen_encoders(clip, features, shapes, forks, tmp_path):
    whole, short = tmp_path / "whole", tmp_path / "short"
    start = f"--config.init_from={clip}"
    frozen = "--config.optim.frozen=('^clip/(vision|text)/',)"
    _, printed = forks.together(
        (
            "glscl_jax.train",
            *arguments(whole, start, frozen, f"--config.data.dir={shapes / 'data'}"),
        ),
        ("glscl_jax.train", *arguments(short, start, f"--features={features}")),
    )
    assert f"from the features in {features}: encoders stay as they are" in printed.stdout
    compared = 0
    for one, other in zip(figures(whole), figures(short), strict=True):
        assert one["step"] == other["step"]
        for name in ("loss/total", "validation/R@1", "validation/v2t MnR", "gradient_norm"):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5)
                compared += 1
    assert compared >= 2 * (STEPS - 1) + 2
    where = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    one, other = (load_model(x, where).params for x in (whole, short))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), one, other)
    # It is a checkpoint as any: pixels go in.
    card = forks(
        "glscl_jax.evaluate",
        f"--checkpoint={short}",
        "--split=val",
        f"--config.data.dir={shapes / 'data'}",
        "--noreport",
    )
    assert "written to" in card.stdout


@pytest.mark.slow
def test_another_head_trains_from_a_glscl_s_features(clip, shapes, forks, tmp_path):
    data = f"--config.data.dir={shapes / 'data'}"
    whole, short, kept = (tmp_path / name for name in ("whole", "short", "kept"))
    flags = (f"--config.init_from={clip}", data, "--config.model.head.name=glscl")
    forks("glscl_jax.train", *arguments(whole, *flags))
    forks("glscl_jax.evaluate", f"--checkpoint={whole}", data, f"--encodings={kept}")
    flags = (f"--config.init_from={whole}", f"--features={kept}")
    done = forks("glscl_jax.train", *arguments(short, *flags))
    assert "its head glscl is left behind, the head wti starts fresh" in done.stdout
    assert f"trained to step {STEPS}" in done.stdout
    where = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    one, other = (load_model(path, where).params for path in (whole, short))
    assert "lim" not in other
    for tower in ("vision", "text"):
        pair = one["clip"][tower], other["clip"][tower]
        jax.tree.map(np.testing.assert_array_equal, *pair)


@pytest.mark.slow
def test_another_s_features_train_a_head_too(forks, refusal, tmp_path):
    rng = np.random.default_rng(0)
    for split, videos in (("train", 24), ("val", 8)):
        ids = [f"{split} {number}" for number in range(videos)]
        store = Store.open(tmp_path / "theirs" / split, identity={"encoder": "theirs"})
        frames = rng.normal(size=(videos, 3, 32)).astype(np.float16)
        mask = np.ones((videos, 3), np.int32)
        store.put("video", 0, tower_features.video_file(ids, frames, mask))
        sentence = frames.mean(axis=1)
        store.put("text", 0, {"ids": np.array(ids), "sentence": sentence, "lengths": mask[:, 0]})
        store.finish()
    own = (
        f"--features={tmp_path / 'theirs'}",
        "--config.model.clip.embed_dim=32",
        "--config.model.temporal=None",
        "--config.data.num_frames=3",
    )
    pooled = "--config.model.head.name=x_pool"
    done = forks("glscl_jax.train", *arguments(tmp_path / "run", *own, pooled))
    assert f"trained to step {STEPS}" in done.stdout
    # The clip's mean frame is its text: random features, and a head that starts as a mean finds it.
    assert figures(tmp_path / "run")[-1]["validation/R@1"] > 50
    longer = (*own, pooled, "--config.num_steps=7")
    done = forks("glscl_jax.train", *arguments(tmp_path / "run", *longer))
    assert "from step 5 to 7" in done.stdout
    told = refusal("glscl_jax.train", *arguments(tmp_path / "run", *longer[1:]))
    assert "name the directory that holds them (--features)" in told
    told = refusal("glscl_jax.train", *arguments(tmp_path / "other", *own))
    assert "has no 'tokens', which this head reads" in told
    told = refusal("glscl_jax.evaluate", f"--checkpoint={tmp_path / 'run'}")
    assert "has no encoders of its own" in told
    evaluated = [f"--checkpoint={tmp_path / 'run'}", "--split=val", f"--out={tmp_path / 'out'}"]
    theirs = f"--features={tmp_path / 'theirs'}"
    forks("glscl_jax.evaluate", *evaluated, theirs, "--top_k=2")
    assert len((tmp_path / "out" / "top.csv").read_text().splitlines()) == 1 + 2 * 8 * 2
    assert "--top_k 9: split 'val' has 8" in refusal(
        "glscl_jax.evaluate", *evaluated, theirs, "--top_k=9"
    )
    odd = "--config.eval_batch_size=0"
    assert "eval_batch_size is 0" in refusal("glscl_jax.evaluate", *evaluated, theirs, odd)
    evaluated[-1] = f"--out={tmp_path / 'out' / 'top.csv'}"
    assert "top.csv: File exists" in refusal("glscl_jax.evaluate", *evaluated, theirs)
    evaluated[-1] = f"--out={tmp_path / 'out'}"
    card = json.loads((tmp_path / "out" / "results.json").read_text())
    assert card["t2v"]["mean"]["R@1"] == figures(tmp_path / "run")[-1]["validation/R@1"]
    assert card["data"]["dataset"] == "features of theirs"
    one = compare.read_run(tmp_path / "out")
    assert compare.compare(one, one)["t2v"]["R@1"].difference == 0
    path = tmp_path / "theirs" / "val" / "identity.json"
    write_json(path, {"encoder": "theirs", "layer": 12})
    told = refusal("glscl_jax.evaluate", *evaluated, f"--features={tmp_path / 'theirs'}")
    assert "made otherwise than those that the head in" in told
    write_json(path, {"encoder": "others"})
    told = refusal("glscl_jax.evaluate", *evaluated, f"--features={tmp_path / 'theirs'}")
    assert "they are of others, the head in" in told
