"""From files and words to scores: `encode_video_files`, `encode_captions`, and the notebook."""

import io
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import glscl_jax
from convert.checkpoint_output import settings
from glscl_jax.checkpoints.model_dir import save_params
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.input_pipeline.preparing import builder
from glscl_jax.input_pipeline.video_files import pick, read_videos
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.runtime import sharding
from tests.builders import SHAPES_CLIP
from tests.conftest import REPO

# Of the clips of `shapes`, as they are prepared there.
SIZE, RATE, FRAMES = 32, 2.0, 3
MODEL = GLSCLConfig(
    clip=SHAPES_CLIP,
    temporal_layers=1,
    head=GLSCLHead(queries=2, lim_layers=1, lim_feed_forward=8),
)
CAPTIONS = ["a red circle moves", "a blue square", "green"]


def written(path):
    """A converted checkpoint of random weights, which says nothing of how it was trained."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(MODEL), 0))
    params = jax.tree.map(lambda x: random.normal(size=x.shape, scale=0.1).astype(x.dtype), shapes)
    save_params(path, params)
    write_json(path / "model.json", settings(MODEL, tuple(params)))
    CLIPTokenizer.from_merges(DEMO_MERGES).save(path / "tokenizer")
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return written(tmp_path_factory.mktemp("weights") / "glscl")


@pytest.fixture(scope="module")
def model(directory):
    return glscl_jax.load(directory, mesh=sharding.make_mesh(jax.devices()[:2]))


@pytest.fixture(scope="module")
def prepared(shapes):
    """The test split as evaluation reads it: (the videos' files, its one batch)."""
    data = open_data(shapes / "data")
    (batch,) = pipeline.eval_batches(data, "test", batch_size=8, num_frames=FRAMES)
    with data.records("test") as records:
        found = records.read(range(8))
    fields = [data.features.deserialize_example_np(record) for record in found]
    assert [field["clip_id"].decode() for field in fields] == batch.clip_ids
    return [shapes / "videos" / field["video"].decode() for field in fields], batch


@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 12, 64])
def test_frames_are_picked_as_the_pipeline_picks_them(num_frames):
    for count in range(1, 300):
        ours, its = pick(count, num_frames), pipeline.pick_frames(tf.constant(count), num_frames)
        np.testing.assert_array_equal(ours, its, str(count))


def test_frames_are_evaluation_s_but_for_jpeg(prepared):
    files, batch = prepared
    frames, mask = read_videos(files, size=SIZE, rate=RATE, num_frames=FRAMES)
    np.testing.assert_array_equal(mask, batch.frame_mask)

    def stored(image):
        jpeg = io.BytesIO(builder.jpeg(image, 95))
        return np.asarray(Image.open(jpeg))

    # Through the same JPEG they are the same, to the bit.
    for ours, there, its in zip(frames, mask, batch.frames, strict=True):
        for place in np.flatnonzero(there):
            np.testing.assert_array_equal(stored(ours[place]), its[place])
    away = np.abs(frames.astype(int) - batch.frames)
    assert 0 < away.mean() < 2


def test_features_are_evaluation_s_but_for_jpeg(model, prepared):
    files, batch = prepared
    found = model.encode_video_files(files, num_frames=FRAMES, frame_rate=RATE, batch_size=3)
    expected = model.encode_video(batch.frames, batch.frame_mask)
    np.testing.assert_array_equal(found.mask, batch.frame_mask)
    for ours, its in ((found.frames, expected.frames), (found.queries, expected.queries)):
        assert ours.shape == its.shape
        cosine = np.sum(ours * its, -1) / np.linalg.norm(ours, axis=-1)
        cosine /= np.linalg.norm(its, axis=-1)
        real = cosine[batch.frame_mask > 0] if ours is found.frames else cosine
        # JPEG of quality 95 moves a pixel by one or two of 255.
        assert real.min() > 0.999
        # Another video is not as near.
    others = found.frames[0, 0] @ found.frames[1:, 0].T
    assert np.abs(others - np.sum(found.frames[0, 0] ** 2)).min() > 1e-4


def test_a_batch_is_no_part_of_the_features(model, prepared):
    files, _ = prepared
    whole = model.encode_video_files(files[:5], num_frames=FRAMES, frame_rate=RATE)
    parts = model.encode_video_files(files[:5], num_frames=FRAMES, frame_rate=RATE, batch_size=2)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), whole, parts)
    one = model.encode_video_files(files[4], num_frames=FRAMES, frame_rate=RATE)
    np.testing.assert_allclose(one.queries, whole.queries[4:], rtol=0, atol=1e-5)


def test_captions_are_tokenized_and_encoded(model):
    tokens = model.tokenize(CAPTIONS)
    expected = model.encode_text(tokens.ids, tokens.mask)
    for size in (16, 2):
        found = model.encode_captions(CAPTIONS, batch_size=size)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), found, expected
        )
    assert model.encode_captions("green").sentence.shape == (1, 64)


def test_frames_are_read_as_the_run_read_them(model, tmp_path):
    assert (model.num_frames, model.frame_rate) == (12, 1.0)
    run = written(tmp_path / "run")
    data = {"num_words": 16, "num_frames": 5, "frame_rate": 4.0}
    write_json(run / "config.json", {"data": data})
    loaded = glscl_jax.load(run)
    assert (loaded.num_words, loaded.num_frames, loaded.frame_rate) == (16, 5, 4.0)


def test_a_file_that_cannot_be_read_is_named(model, prepared, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"bad\.mp4: "):
        model.encode_video_files([prepared[0][0], bad])
    with pytest.raises(UserError, match=r"missing\.mp4: no such file"):
        model.encode_video_files(tmp_path / "missing.mp4")
    with pytest.raises(UserError, match="gs:// is not supported here"):
        model.encode_video_files("gs://bucket/one.mp4")


def test_a_damaged_file_gives_its_good_frames_and_a_warning(model, prepared, tmp_path):
    whole = prepared[0][0].read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole)
    with cut.open("r+b") as file:
        at = whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) // 2
        file.seek(at)
        file.write(bytes(200))
    with pytest.warns(UserWarning, match=r"cut\.mp4: damaged: "):
        found = model.encode_video_files(cut, num_frames=FRAMES, frame_rate=RATE)
    assert found.mask.any()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"num_frames": 0}, "num_frames is 0: give a whole number, 1 or more"),
        ({"num_frames": 25}, "25 frames are more than the temporal module's 24 positions"),
        ({"frame_rate": 0}, "frame_rate is 0: give a finite number, above 0"),
        ({"batch_size": 0}, "batch_size is 0: give a whole number, 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(model, prepared, wrong, told):
    with pytest.raises(ValueError, match=told):
        model.encode_video_files(prepared[0][:1], **wrong)


def test_nothing_to_encode(model):
    with pytest.raises(ValueError, match="there is no video file to encode"):
        model.encode_video_files([])
    with pytest.raises(ValueError, match="there is no caption to encode"):
        model.encode_captions([])


def test_tensorflow_is_not_needed(directory, prepared):
    code = (
        "import sys\n"
        "sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
        "import glscl_jax\n"
        f"model = glscl_jax.load({str(directory)!r})\n"
        f"video = model.encode_video_files({str(prepared[0][0])!r})\n"
        "print(model.score(model.encode_captions('green'), video).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(1, 1)\n"), done.stderr


def cells(name) -> list[str]:
    """The code of a notebook of examples/, cell by cell."""
    notebook = json.loads((REPO / "examples" / name).read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)
    return ["".join(cell["source"]) for cell in code]


def test_the_notebook_runs(directory, shapes, tmp_path, monkeypatch, capsys):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "glscl").symlink_to(directory)
    (tmp_path / "videos").mkdir()
    clips = sorted((shapes / "videos" / "videos").glob("*.mp4"))[:3]
    for number, clip in enumerate(clips):
        (tmp_path / "videos" / f"{number}.mp4").symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in cells("search_your_videos.ipynb"):
        exec(compile(cell, "cell", "exec"), names)
    assert names["scores"].shape == (len(names["captions"]), 3)
    best = names["scores"].argmax(axis=1)
    printed = capsys.readouterr().out
    for caption, place in zip(names["captions"], best, strict=True):
        lines = printed[printed.index(caption) :].splitlines()
        assert str(names["files"][place]) in lines[1]
