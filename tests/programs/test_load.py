"""`glscl_jax.load`: any checkpoint directory in a few lines of Python."""

import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
import tomllib
import warnings

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import glscl_jax
from convert.checkpoint_output import settings
from glscl_jax.checkpoints.model_dir import save_params
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.models.encoders.clip import sentence_feature
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.models.heads.gim import gim_similarity
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.runtime import sharding
from tests import loading
from tests.builders import SMALL, slow_mean
from tests.conftest import REPO

WEIGHTED = dataclasses.replace(
    SMALL, head=dataclasses.replace(SMALL.head, temperature=2.0, lim_weight=0.75)
)
MODEL = GLSCL(WEIGHTED)
CAPTIONS = ["a red circle moves", "a blue square", "green"]


@pytest.fixture(scope="module")
def params():
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(MODEL, 0))
    return jax.tree.map(lambda x: random.normal(size=x.shape, scale=0.1).astype(x.dtype), shapes)


def written(path, params, config=WEIGHTED, tokenizer=True):
    """A directory as conversion writes it."""
    save_params(path, params)
    write_json(path / "model.json", settings(config, tuple(params)))
    if tokenizer:
        CLIPTokenizer.from_merges(DEMO_MERGES).save(path / "tokenizer")
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory, params):
    return written(tmp_path_factory.mktemp("weights") / "glscl", params)


@pytest.fixture(scope="module")
def loaded(directory):
    return glscl_jax.load(directory)


def some_videos(count=3):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (count, 2, 8, 8, 3)).astype(np.uint8)
    mask = np.ones((count, 2), np.int32)
    mask[-1, 1] = 0
    return frames, mask


def test_it_encodes_and_scores_as_the_model_does(loaded, params):
    # On eight devices, which share no batch of three equally.
    assert jax.tree.leaves(loaded.params)[0].sharding.num_devices == 8
    assert loaded.config == WEIGHTED
    assert loaded.step is None
    tokens = loaded.tokenize(CAPTIONS)
    assert tokens.ids.shape == (3, 24)
    text = loaded.encode_text(tokens.ids, tokens.mask)
    frames, mask = some_videos()
    video = loaded.encode_video(frames, mask)
    scores = loaded.score(text, video)

    plain_text, plain_video, _ = jax.jit(MODEL.apply)(
        {"params": params}, tokens.ids, tokens.mask, frames, mask
    )
    for ours, plain in ((text, plain_text), (video, plain_video)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), ours, plain)
    expected = WEIGHTED.head.score(plain_text, plain_video)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_pixels_and_normalised_frames_are_the_same(loaded):
    frames, mask = some_videos()
    floats = np.asarray(
        SMALL.clip.preprocessing.normalize(jax.numpy.asarray(frames), jax.numpy.asarray(mask))
    )
    one, other = loaded.encode_video(frames, mask), loaded.encode_video(floats, mask)
    np.testing.assert_allclose(one.frames, other.frames, rtol=0, atol=1e-5)


def test_it_compiles_once_a_shape(loaded):
    tokens = loaded.tokenize(CAPTIONS)
    loaded.encode_text(tokens.ids, tokens.mask)
    before = loaded._encoder._text._cache_size()
    for count in (1, 2, 3):  # Eight devices: all of them are filled up to eight rows.
        text = loaded.encode_text(tokens.ids[:count], tokens.mask[:count])
        assert text.sentence.shape == (count, 64)
    assert loaded._encoder._text._cache_size() == before


def test_on_one_device(directory, loaded):
    alone = glscl_jax.load(directory, mesh=sharding.make_mesh(jax.devices()[:1]))
    frames, mask = some_videos()
    np.testing.assert_allclose(
        alone.encode_video(frames, mask).queries,
        loaded.encode_video(frames, mask).queries,
        rtol=0,
        atol=1e-5,
    )


def test_of_two_processes_each_encodes_rows_of_its_own(directory, loaded, forks):
    """As many as it likes, whatever the other does; with the scores of one that is alone."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    runs = [("tests.loading", directory, where, 2, number) for number in range(2)]
    for number, run in enumerate(forks.together(*runs, devices=2)):
        told = json.loads(run.stdout.splitlines()[-1])
        assert told["devices"] == 4
        if number == 0:
            assert "the mesh has devices of process 1, this is 0" in told["refused"]
        expected = loading.scores(loaded, number + 2)
        np.testing.assert_allclose(told["scores"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("parts", [("clip",), ("clip", "temporal")])
def test_clip_alone_scores_by_the_mean_frame(tmp_path, params, parts):
    path = written(tmp_path / "clip", {part: params[part] for part in parts})
    loaded = glscl_jax.load(path)
    tokens, (frames, mask) = loaded.tokenize(CAPTIONS), some_videos()
    text = loaded.encode_text(tokens.ids, tokens.mask)
    video = loaded.encode_video(frames, mask)
    assert text.queries.shape == (3, 0, 64)
    assert video.queries.shape == (3, 0, 64)

    def plain(model):
        temporal = model.encode_frames(frames, mask)
        images = SMALL.clip.preprocessing.normalize(jax.numpy.asarray(frames), mask).reshape(
            -1, 8, 8, 3
        )
        features = model.clip.vision(images).reshape(3, 2, 64)
        sentence = sentence_feature(
            model.clip.text(tokens.ids, tokens.mask), tokens.ids, model.config.clip
        )
        return sentence, features if parts == ("clip",) else temporal

    sentence, features = jax.jit(lambda: MODEL.apply({"params": params}, method=plain))()
    np.testing.assert_allclose(video.frames, features, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        loaded.score(text, video), slow_mean(sentence, features, mask), rtol=0, atol=1e-5
    )
    # Another head in its place.
    loaded.head = GLSCLHead(temperature=3.0, lim_weight=0.5)
    expected = gim_similarity(sentence, features, mask, 3.0)
    np.testing.assert_allclose(loaded.score(text, video), expected, rtol=0, atol=1e-5)


def test_bfloat16_parameters(tmp_path, params, loaded):
    stored = jax.tree.map(lambda x: x.astype("bfloat16"), params)
    half = glscl_jax.load(written(tmp_path / "half", stored))
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {np.dtype("bfloat16")}
    frames, mask = some_videos()
    ours, theirs = half.encode_video(frames, mask), loaded.encode_video(frames, mask)
    assert ours.frames.dtype == np.float32
    np.testing.assert_allclose(ours.queries, theirs.queries, rtol=0, atol=0.02)


def test_a_work_directory_says_its_number_of_words(tmp_path, params):
    config = ConfigDict({"data": {"num_words": 7}})
    workdir = Workdir(written(tmp_path / "run", params))
    workdir.begin(config, WEIGHTED)
    assert glscl_jax.load(tmp_path / "run").tokenize(CAPTIONS).ids.shape == (3, 7)


def test_clip_alone_has_the_words_of_its_context(tmp_path, params):
    longer = dataclasses.replace(WEIGHTED.clip, context_length=40)
    config = dataclasses.replace(WEIGHTED, clip=longer)
    whole = glscl_jax.load(written(tmp_path / "whole", params, config))
    assert whole.tokenize(CAPTIONS).ids.shape == (3, 32)
    alone = written(tmp_path / "alone", {"clip": params["clip"]}, longer)
    assert glscl_jax.load(alone).tokenize(CAPTIONS).ids.shape == (3, 40)


def test_cut_captions_are_warned_of(loaded):
    # As many tokens as there are places, with start and end, and one more.
    fits, cut = ("red " * count for count in (22, 23))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.tokenize([fits, "green"])
    with pytest.warns(UserWarning, match="1 of 3 captions are cut: they have more than 24 tokens"):
        loaded.tokenize([fits, cut, "green"])


def test_without_a_tokenizer(tmp_path, params):
    loaded = glscl_jax.load(written(tmp_path / "bare", params, tokenizer=False))
    with pytest.raises(UserError, match="has no tokenizer"):
        loaded.tokenize(CAPTIONS)


def test_inputs_that_do_not_fit_are_refused(loaded):
    tokens, (frames, mask) = loaded.tokenize(CAPTIONS), some_videos()
    with pytest.raises(ValueError, match=r"not both \[A,L\] with L up to 24"):
        loaded.encode_text(np.ones((1, 25)), np.ones((1, 25)))
    with pytest.raises(ValueError, match=r"not both"):
        loaded.encode_text(tokens.ids, tokens.mask[:2])
    most = loaded.config.most_frames
    many = np.ones((1, most + 1), np.int32)
    with pytest.raises(ValueError, match=f"{most + 1} frames are more than .* {most} positions"):
        loaded.encode_video(np.zeros((*many.shape, 8, 8, 3), np.uint8), many)
    with pytest.raises(ValueError, match=r"are not \[B,V,8,8,3\]"):
        loaded.encode_video(frames[:, :, :4], mask)
    with pytest.raises(ValueError, match="a video without a frame"):
        loaded.encode_video(frames, mask * 0)


def test_other_integers_masks_and_floats_that_fit_give_the_same(loaded):
    tokens, (frames, mask) = loaded.tokenize(CAPTIONS), some_videos()
    text = loaded.encode_text(tokens.ids, tokens.mask)
    for ids, of in ((tokens.ids.astype(np.uint16), bool), (tokens.ids.tolist(), np.float32)):
        again = loaded.encode_text(ids, tokens.mask.astype(of))
        np.testing.assert_allclose(again.sentence, text.sentence, rtol=0, atol=1e-6)
    floats = np.array(
        SMALL.clip.preprocessing.normalize(jax.numpy.asarray(frames), jax.numpy.asarray(mask)),
        np.float64,
    )
    # What stands where there is no frame is nobody's business.
    floats[-1, 1] = np.nan
    video, again = (loaded.encode_video(x, mask > 0) for x in (frames, floats))
    np.testing.assert_allclose(again.frames, video.frames, rtol=0, atol=1e-5)
    assert np.isfinite(again.queries).all()


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda ids: changed(ids, (1, 2), WEIGHTED.clip.vocab_size),
            "id 600 is no token: .* 0 to 599",
        ),
        (lambda ids: changed(ids, (1, 2), -1), "id -1 is no token"),
        # These would come out right after a cast to int32.
        (lambda ids: ids.astype(np.int64) + 2**32, f"id {2**32 + 1}|id 4294967"),
        (lambda ids: ids.astype(np.float32), "ids are float32"),
        (lambda ids: ids > 0, "ids are bool"),
        (lambda ids: ids.astype(str), "ids are <U"),
    ],
)
def test_ids_that_are_no_tokens_are_refused(loaded, change, told):
    tokens = loaded.tokenize(CAPTIONS)
    with pytest.raises(ValueError, match=told):
        loaded.encode_text(change(tokens.ids), tokens.mask)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda frames: frames.astype(np.int64), "frames are int64: give uint8"),
        (lambda frames: frames.astype(np.int8), "frames are int8"),
        (lambda frames: frames.astype(np.uint16), "frames are uint16"),
        (lambda frames: frames > 0, "frames are bool"),
        (lambda frames: frames.astype(complex), "frames are complex128"),
        (lambda frames: frames.astype(object), "frames are object"),
        (lambda frames: frames.astype(np.float32), "frames are float32 and hold .*normalised"),
        (lambda frames: changed(frames * 0.0, (0, 0, 0, 0, 0), np.nan), "hold nan"),
        (lambda frames: changed(frames * 0.0, (2, 0, 7, 7, 2), -np.inf), "hold -inf"),
        (lambda frames: changed(frames * np.float16(0), (0, 1, 0, 0, 0), 4), "float16 and hold 4"),
    ],
)
def test_frames_that_are_no_pixels_are_refused(loaded, change, told):
    frames, mask = some_videos()
    with pytest.raises(ValueError, match=told):
        loaded.encode_video(change(frames), mask)


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
def test_masks_of_something_else_are_refused(loaded, value):
    tokens, (frames, mask) = loaded.tokenize(CAPTIONS), some_videos()
    with pytest.raises(ValueError, match="something else than 0 and 1"):
        loaded.encode_text(tokens.ids, changed(tokens.mask.astype(float), (0, 0), value))
    with pytest.raises(ValueError, match="something else than 0 and 1"):
        loaded.encode_video(frames, changed(mask.astype(float), (0, 0), value))
    with pytest.raises(ValueError, match="a text without a token"):
        loaded.encode_text(tokens.ids, tokens.mask * 0)


def test_a_string_is_one_caption(loaded):
    one, list_of_one = loaded.tokenize(CAPTIONS[0]), loaded.tokenize(CAPTIONS[:1])
    assert one.ids.shape == (1, 24)
    np.testing.assert_array_equal(one.ids, list_of_one.ids)
    np.testing.assert_array_equal(one.mask, list_of_one.mask)
    for wrong in (None, b"a cat", 3):
        with pytest.raises(TypeError, match="is no caption: give strings"):
            loaded.tokenize(["a cat", wrong])


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint directory"):
        glscl_jax.load(tmp_path / "nothing")


def test_importing_is_light():
    # In a fresh process: TensorFlow never, JAX only once something is loaded.
    code = (
        "import sys, glscl_jax\n"
        "assert not {'jax', 'numpy', 'tensorflow'} & sys.modules.keys()\n"
        "import glscl_jax.input_pipeline.tokenizer\n"
        "assert 'tensorflow' not in sys.modules\n"
        "glscl_jax.load\n"
        "assert not {'torch', 'transformers', 'tensorflow'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = glscl_jax.nothing


def test_the_version_is_the_packages():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert glscl_jax.__version__ == project["version"]
