"""A checkpoint of random weights, and some videos of a few seconds, to index and search."""

import functools

import jax
import numpy as np
import pytest

from convert.checkpoint_output import settings
from glscl_jax.checkpoints.model_dir import save_params
from glscl_jax.files import write_json
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.retriever import load
from glscl_jax.search import indexer, provenance
from tests import numbered_videos
from tests.builders import SMALL

# Frames are read at 2 a second, 4 of a window: what a run's config.json says.
READING = {"num_words": 16, "num_frames": 4, "frame_rate": 2.0}
# Of 10 frames a second, windows of 2 s from second to second: 5 s are 4 windows.
CUT = {"window": 2.0, "stride": 1.0}


@pytest.fixture(scope="session")
def lance():
    """Skips where LanceDB is not installed."""
    return pytest.importorskip("lancedb", reason="search needs lancedb: make search installs it")


@pytest.fixture(scope="session", autouse=True)
def loaded_once():
    """A checkpoint is read, and its encoders are compiled, once for all these tests."""
    with pytest.MonkeyPatch.context() as patched:
        once = functools.cache(load)
        for module in (indexer, provenance):
            patched.setattr(module, "load", lambda path, step: once(str(path), step=step))
        yield


def write_checkpoint(path, seed=0, config=SMALL):
    """A converted checkpoint of random weights."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(config), 0))
    params = jax.tree.map(lambda x: random.normal(size=x.shape, scale=0.2).astype(x.dtype), shapes)
    save_params(path, params)
    write_json(path / "model.json", settings(config, tuple(params)))
    write_json(path / "config.json", {"data": READING})
    CLIPTokenizer.from_merges(DEMO_MERGES).save(path / "tokenizer")
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("search") / "weights")


def write_video(path, first, seconds=5.0):
    """A video of noise that its first number tells from others, 10 frames a second."""
    numbered_videos.write(path, int(seconds * 10), 10, gop=10 + first)
    return path


def index_two(folder, checkpoint, second):
    """An index of two videos of a folder, "a.mp4" of 2024 and `second`."""
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "a.mp4", 0)
    write_video(folder / "videos" / second, 1, seconds=1.0)
    (folder / "videos" / "metadata.csv").write_text("video,year\na.mp4,2024\n")
    indexer.index_videos(folder / "index", videos=folder / "videos", checkpoint=checkpoint, **CUT)


@pytest.fixture
def videos(tmp_path):
    """A folder of three videos, 4, 2 and 1 windows, and a file that is none."""
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    write_video(folder / "a.mp4", 0)
    write_video(folder / "deep" / "b'c.mp4", 1, seconds=3.0)
    write_video(folder / "d.mp4", 2, seconds=1.5)
    (folder / "bad.mp4").write_bytes(b"no video")
    return folder
