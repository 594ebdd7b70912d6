"""An index of a prepared data set: its clips are the windows, as evaluation reads them."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

import glscl_jax.search
from convert.checkpoint_output import settings
from glscl_jax.checkpoints.model_dir import save_params
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.pipeline import eval_batches
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.search import server
from glscl_jax.search.indexer import index_videos
from glscl_jax.search.store import Store
from tests.builders import SHAPES_CLIP, SMALL, random_params

pytestmark = pytest.mark.usefixtures("lance")
FRAMES = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of random weights for the images of `shapes`."""
    path = tmp_path_factory.mktemp("prepared") / "weights"
    config = dataclasses.replace(SMALL, clip=SHAPES_CLIP, temporal="None")
    params = jax.tree.map(lambda x: np.asarray(x / 4), random_params(config))
    save_params(path, params)
    write_json(path / "model.json", settings(config, tuple(params)))
    write_json(path / "config.json", {"data": {"num_words": 16, "num_frames": FRAMES}})
    CLIPTokenizer.from_merges(DEMO_MERGES).save(path / "tokenizer")
    return path


@pytest.fixture(scope="module")
def made(weights, shapes, tmp_path_factory, lance):
    """An index of the test clips; first of a part of them, then of all."""
    folder = tmp_path_factory.mktemp("prepared_index") / "index"
    what = {"data_dir": shapes / "data", "checkpoint": weights, "batch_size": 3}
    (first, *_) = ids(shapes)
    part = index_videos(folder, only=first, **what)
    assert (part.added, part.windows) == (1, 1)
    report = index_videos(folder, only="*", **what)
    assert (report.added, report.unchanged, report.windows) == (7, 1, 8)
    assert not report.failed
    return folder


def batches(shapes):
    data = open_data(shapes / "data")
    return list(eval_batches(data, "test", batch_size=8, num_frames=FRAMES))


def ids(shapes):
    return batches(shapes)[0].clip_ids


def test_clips_are_windows_with_ids_and_captions(made, shapes):
    table, (batch,) = Store.open(made).snapshot().table, batches(shapes)
    assert table["video"].to_pylist() == batch.clip_ids
    assert table["captions"].to_pylist() == [" | ".join(texts) for texts in batch.captions]
    assert all(name.endswith(".mp4") for name in table["file"].to_pylist())
    assert set(table["start"].to_pylist()) == {0.0}
    # Clips of 3 s, of which 2 frames a second are stored.
    assert all(2.5 <= end <= 3.5 for end in table["end"].to_pylist())


def test_the_frames_are_those_of_an_evaluation(made, shapes):
    index, (batch,) = glscl_jax.search.open(made), batches(shapes)
    expected = index.model.encode_video(batch.frames, batch.frame_mask)
    arrays = Store.open(made).snapshot().arrays
    np.testing.assert_array_equal(arrays["features.mask"], expected.mask)
    np.testing.assert_allclose(arrays["features.frames"], expected.frames, atol=1e-5)


def test_it_is_asked(made, shapes):
    index = glscl_jax.search.open(made)
    answer = index.query("a red square", top=3, where="captions like '%red%'")
    assert answer.searched == sum("red" in " ".join(x) for x in batches(shapes)[0].captions)
    assert {hit.video for hit in answer.hits} <= set(ids(shapes))
    assert all("red" in hit.metadata["captions"] for hit in answer.hits)
    assert index.is_prepared


def test_nothing_is_shown_and_the_page_says_so(made):
    testclient = pytest.importorskip("starlette.testclient", reason="serve needs starlette")
    client = testclient.TestClient(server.application(glscl_jax.search.open(made)))
    assert "clips of a prepared data set have no file here" in client.get("/").text
    for address in ("/frame/0?t=0", "/video/0"):
        answer = client.get(address)
        assert answer.status_code == 404
        assert "neither shown nor played" in answer.json()["error"]


def test_nothing_is_read_twice(made, capsys):
    report = index_videos(made)
    assert (report.added, report.unchanged) == (0, 8)
    assert "8 clips are indexed already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"videos": "x"}, r"was made of --data_dir .*: index --videos into another directory"),
        ({"window": 5.0}, "--window says nothing of clips that are prepared"),
        ({"split": "other"}, r"--split other: .* has test, train, val"),
        ({"split": "val"}, r"was made with other things \(split 'test', now 'val'\)"),
        ({"only": "nothing*"}, "--only 'nothing\\*' matches none of 8 clips"),
    ],
)
def test_what_does_not_go_with_it(made, options, told, tmp_path):
    shutil.copytree(made, tmp_path / "index")
    with pytest.raises(UserError, match=told):
        index_videos(tmp_path / "index", **options)
    assert len(Store.open(tmp_path / "index").snapshot().rows) == 8
    # What was refused is not what the index goes on with.
    assert index_videos(tmp_path / "index").unchanged == 8


def test_what_is_of_one_kind_alone(tmp_path, shapes, weights):
    with pytest.raises(UserError, match="give one of --videos and --data_dir"):
        index_videos(tmp_path / "a", videos="x", data_dir=shapes / "data")
    with pytest.raises(UserError, match="--split is of a prepared data set"):
        index_videos(tmp_path / "a", videos=shapes / "videos", split="test")


def test_a_pattern_that_matches_nothing_leaves_nothing(tmp_path, shapes, weights):
    what = {"data_dir": shapes / "data", "checkpoint": weights}
    with pytest.raises(UserError, match=r"--only 'nothing\*' matches none of 8 clips of test"):
        index_videos(tmp_path / "index", only="nothing*", **what)
    assert not (tmp_path / "index").exists()
