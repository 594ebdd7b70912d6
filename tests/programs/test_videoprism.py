"""A VideoPrism from its file to a search: converted, prepared for, trained, evaluated, loaded."""

import json

import numpy as np
import pytest

import glscl_jax
from convert.naming.sizes import parameter_shapes
from convert.naming.videoprism_names import NPZ
from convert.readers import videoprism
from glscl_jax.models.encoders.variants import VARIANTS
from tests import trained_tokenizers

CLIP = VARIANTS["tiny-VideoPrism"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """As its authors write it, with random weights."""
    random, shapes = np.random.default_rng(0), parameter_shapes(CLIP)
    tensors = {
        name: random.normal(size=place.view(np.broadcast_to(0, shapes[place.path])).shape)
        for name, place in NPZ.places(shapes).items()
    }
    tensors = {name: np.float32(0.5 * x * x.shape[-1] ** -0.5) for name, x in tensors.items()}
    path = tmp_path_factory.mktemp("theirs") / "lvt.npz"
    np.savez(path, **videoprism.unfold(tensors, CLIP))
    return path


@pytest.mark.slow
def test_from_a_file_to_a_search(file, shapes, forks, tmp_path):
    weights, data, run = tmp_path / "weights", tmp_path / "data", tmp_path / "run"
    tokenizer = trained_tokenizers.videoprism(tmp_path / "any.model")
    forks("convert.clip", file, weights, f"--tokenizer={tokenizer}")
    forks(
        "glscl_jax.input_pipeline.prepare",
        "--dataset=folder",
        f"--source={shapes / 'videos'}",
        f"--data_dir={data}",
        "--frame_rate=2",
        f"--for={weights}",
    )
    trained = forks(
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={run}",
        f"--config.data.dir={data}",
        f"--config.init_from={weights}",
        "--config.model.temporal=None",
        "--config.data.num_frames=3",
        "--config.num_steps=12",
        "--config.optim.layer_decay=0.9",
        "--config.optim.frozen=('^clip/vision/(patch|positional|transformer/)',)",
    )
    assert "starting from" in trained.stdout
    assert "tiny-VideoPrism, 32 pixels" in trained.stdout
    losses = [
        line["loss/total"]
        for line in map(json.loads, (run / "metrics.jsonl").open())
        if "loss/total" in line
    ]
    assert losses[-1] < losses[0]
    said = forks(
        "glscl_jax.evaluate",
        f"--checkpoint={run}",
        f"--out={tmp_path / 'results'}",
        "--noreport",
    )
    assert "R@1" in said.stdout
    model = glscl_jax.load(run)
    videos = sorted((shapes / "videos").rglob("*.mp4"))[:3]
    scores = model.score(model.encode_captions(["a red circle"]), model.encode_video_files(videos))
    assert scores.shape == (1, 3)
    assert np.isfinite(scores).all()
    # Of the frozen blocks nothing has moved.
    one, other = (
        found.params["clip"]["vision"]["transformer"]["blocks"]["mlp_in"]["kernel"]
        for found in (glscl_jax.load(weights), model)
    )
    assert np.array_equal(one, other)
