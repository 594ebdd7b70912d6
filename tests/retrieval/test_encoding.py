"""A split encoded once, also where it was interrupted; and features that cannot be scored."""

import functools
import json

import jax
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.pipeline import VideoBatch
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval import encoded_split, encoding
from glscl_jax.retrieval.encoded_split import (
    Store,
    load_features,
)
from glscl_jax.runtime import sharding
from tests.builders import TINY
from tests.retrieval.random_features import CLIP_IDS, IDENTITY, random_features

HEAD = GLSCLHead()


def batches(count=7, size=3):
    """Videos in batches of 3, the last filled up; each with one to three captions."""
    random = np.random.default_rng(1)
    side = TINY.clip.image_size
    frames = random.integers(0, 255, (count, 2, side, side, 3), np.uint8)
    mask = np.array([[1, n % 2] for n in range(count)], np.int32)
    made = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        real = range(start, min(start + size, count))
        captions = [["red circle", "a blue square moves up", "green"][: 1 + n % 3] for n in real]
        made.append(VideoBatch(frames[rows], mask[rows], [f"{n}.mp4" for n in real], captions))
    return made


@pytest.fixture(scope="module")
def encode():
    """`encode_split` of a small random model: (batches, store) -> EncodedSplit."""
    model = GLSCL(TINY)
    encoder = encoding.Encoder(model, sharding.make_mesh(jax.devices()[:1]))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(model, 0))
    params = jax.tree.map(lambda x: random.normal(size=x.shape, scale=0.1).astype(x.dtype), shapes)
    tokenizer = functools.partial(CLIPTokenizer.from_merges(DEMO_MERGES), length=8)

    def tokenize(captions):
        tokens = tokenizer(captions)
        assert len(tokens.ids) == 3  # One shape, whatever the number of captions.
        return tokens

    def run(given, keep=None):
        return encoding.encode_split(
            encoder, params, given, tokenize, batch_size=3, total=7, show=False, keep=keep
        )

    run.encoder, run.params = encoder, params
    return run


def assert_same(one, other):
    arrays = (jax.tree.leaves([x.text, x.video]) for x in (one, other))
    for x, y in zip(*arrays, strict=True):
        np.testing.assert_array_equal(x, y)
    assert (one.captions, one.clip_ids) == (other.captions, other.clip_ids)
    assert one.owner.tolist() == other.owner.tolist()
    assert one.frames_decoded == other.frames_decoded


def test_padding_is_left_out_and_every_item_is_encoded_once(encode):
    encoded = encode(batches())
    assert encoded.clip_ids == [f"{n}.mp4" for n in range(7)]
    assert encoded.owner.tolist() == [0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5, 6]
    assert encoded.frames_decoded == 7 + 3
    assert set(encoded.seconds) == {"video", "text"}
    # Slow oracle: each video alone in its batch.
    for place, video in enumerate(batches(size=1)):
        rows = np.zeros(3, int)
        found = encode.encoder.video(encode.params, video.frames[rows], video.frame_mask[rows])
        np.testing.assert_allclose(encoded.video.frames[place], found.frames[0], atol=1e-5)


def test_an_interrupted_encode_goes_on(encode, tmp_path):
    whole = encode(batches())

    def interrupted(stop):
        yield from batches()[:stop]
        raise KeyboardInterrupt

    store = Store.open(tmp_path, identity=IDENTITY)
    with pytest.raises(KeyboardInterrupt):
        encode(interrupted(2), store)
    # The second was under way.
    assert store.done == 1
    again = encode(batches()[store.done :], Store.open(tmp_path, identity=IDENTITY))
    assert_same(again, whole)
    assert_same(load_features(tmp_path), whole)
    # All is there: nothing is asked of the batches, nor of the encoder for the captions.
    (tmp_path / "complete.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert_same(encode((), Store.open(tmp_path, identity=IDENTITY)), whole)
    (tmp_path / "complete.json").unlink()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_interrupted_between_videos_and_captions(encode, tmp_path):
    whole = encode(batches(), Store.open(tmp_path, identity=IDENTITY))
    for name in ("complete.json", "text-00003.npz", "text-00004.npz"):
        (tmp_path / name).unlink()
    assert_same(encode((), Store.open(tmp_path, identity=IDENTITY)), whole)
    assert json.loads((tmp_path / "complete.json").read_text()) == {"video": 3, "text": 5}


def test_a_full_disk_is_told_and_leaves_whole_files(encode, tmp_path, monkeypatch):
    store = Store.open(tmp_path, identity=IDENTITY)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoded_split.np, "savez", full)
    with pytest.raises(UserError, match=r"No space left on device\): make room"):
        store.put("video", 0, {"x": np.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["identity.json"]


def test_the_next_batch_is_started_before_the_last_is_fetched():
    told = []

    def start(number):
        told.append(f"start {number}")
        return np.array(number)

    def fetch(number):
        told.append(f"fetch {number}")
        return int(number)

    assert list(encoding._one_ahead(start, fetch, range(3))) == [(0, 0), (1, 1), (2, 2)]
    assert told == ["start 0", "start 1", "fetch 0", "start 2", "fetch 1", "fetch 2"]


@pytest.mark.parametrize(
    ("owner", "told"),
    [
        ([0, 1, 7], "'third' describes a video that is not among the 3"),
        ([0, 1, 1], "clip 'three.mp4' has no caption"),
    ],
)
def test_captions_and_videos_that_do_not_meet_are_named(owner, told):
    text, video = random_features()
    text = jax.tree.map(lambda x: x[:3], text)
    names = ["first", "second", "third"]
    encoded = encoded_split.EncodedSplit(text, video, np.array(owner), names, CLIP_IDS, 6, {})
    with pytest.raises(UserError) as refused:
        encoding.check_encoded(encoded, HEAD)
    assert told in str(refused.value)


def small_split() -> encoded_split.EncodedSplit:
    """Three captions, each of a video of its own; padded frames are zero, as they may be."""
    text, video = random_features()
    text, frames = jax.tree.map(lambda x: x[:3].copy(), text), video.frames * video.mask[..., None]
    names = ["first", "second", "third"]
    video = video.replace(frames=frames, mask=video.mask.copy())
    return encoded_split.EncodedSplit(text, video, np.arange(3), names, CLIP_IDS, 6, {})


@pytest.mark.parametrize("length", [0, 1e-30, 1e30])
def test_an_item_without_a_direction_is_named(length):
    encoding.check_encoded(small_split(), HEAD)
    told = "'second' have a length of 0, or one beyond float32 (1 of 3 such items)"
    encoded = small_split()
    encoded.text.sentence[1] *= length
    with pytest.raises(UserError) as refused:
        encoding.check_encoded(encoded, HEAD)
    assert f"the text features of {told}" in str(refused.value)
    # Of one real frame alone the softmax may make all there is.
    encoded = small_split()
    encoded.video.frames[2, 1] *= length
    encoded.video.frames[0, 0] *= length
    with pytest.raises(UserError, match=rf"video features of '{CLIP_IDS[0][:3]}.*\(2 of 3"):
        encoding.check_encoded(encoded, HEAD)


def test_a_video_without_a_frame_is_named():
    encoded = small_split()
    encoded.video.mask[1] = 0
    with pytest.raises(UserError, match=r"video features of 'zwei .*\(1 of 3"):
        encoding.check_encoded(encoded, HEAD)
