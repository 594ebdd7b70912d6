"""Kept features: the same bits again, and only of what they are of."""

import jax
import ml_dtypes
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval.encoded_split import (
    Gathering,
    Store,
    load_features,
    text_arrays,
    video_arrays,
)
from tests.retrieval.random_features import CAPTIONS, CLIP_IDS, IDENTITY, random_features

HEAD = GLSCLHead()


def kept(directory, dtype=np.float32):
    text, video = random_features(dtype)
    store = Store.open(directory, identity=IDENTITY)
    for number, cut in enumerate((slice(0, 2), slice(2, 3))):
        part = jax.tree.map(lambda x, cut=cut: x[cut], video)
        store.put("video", number, video_arrays(part, CLIP_IDS[cut], CAPTIONS[cut]))
    store.put("text", 0, text_arrays(text))
    return store


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_same_bits_again(tmp_path, dtype):
    store = kept(tmp_path / "deep" / "er", dtype)
    assert not store.complete
    store.finish()
    again = load_features(tmp_path / "deep" / "er")
    text, video = random_features(dtype)
    found = jax.tree.leaves([again.text, again.video])
    for one, other in zip(found, jax.tree.leaves([text, video]), strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert again.captions == [caption for own in CAPTIONS for caption in own]
    assert again.clip_ids == CLIP_IDS
    assert again.owner.tolist() == [0, 0, 1, 2, 2, 2]
    assert again.frames_decoded == 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"checkpoint": "def" * 20}, "another checkpoint (abcabcabcabc..., now defdefdefdef...)"),
        ({"words": 20}, "another words (12, now 20)"),
        ({"dtype": "bfloat16"}, "another dtype (None, now bfloat16)"),
    ],
)
def test_features_of_something_else_are_refused(tmp_path, change, told):
    kept(tmp_path)
    with pytest.raises(UserError) as refused:
        Store.open(tmp_path, identity=IDENTITY | change)
    assert told in str(refused.value)
    assert Store.open(tmp_path, identity=dict(IDENTITY)).done == 2


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        Store.open(tmp_path, identity=IDENTITY)
    with pytest.raises(UserError, match="thesis"):
        Store.open(tmp_path / "thesis.txt", identity=IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_only_whole_files_count(tmp_path):
    store = kept(tmp_path)
    with pytest.raises(UserError, match="no complete features"):
        load_features(tmp_path)
    # What a killed process leaves: the second file has not got its name.
    (tmp_path / "video-00001.npz").rename(tmp_path / "video-00001.npz.part")
    assert store.done == 1
    store.put("video", 2, {"x": np.zeros(1)})
    assert store.done == 1


def test_a_damaged_file_is_named(tmp_path):
    store = kept(tmp_path)
    store.finish()
    path = tmp_path / "video-00001.npz"
    whole = path.read_bytes()
    # Cut short; a bit in the middle changed; gone.
    for content in (whole[:-40], whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], None):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match=r"video-00001\.npz is gone or damaged"):
            load_features(tmp_path)


def test_pickles_are_not_read(tmp_path):
    store = kept(tmp_path)
    np.savez(tmp_path / "text-00000.npz", sentence=np.array([{}], object))
    with pytest.raises(UserError, match="text-00000"):
        store.get("text", 0)


def test_what_does_not_fit_together_is_refused():
    text, video = random_features()
    gathering = Gathering(HEAD)
    gathering.add_videos(video_arrays(video, CLIP_IDS, CAPTIONS))
    gathering.add_texts(text_arrays(jax.tree.map(lambda x: x[:5], text)))
    with pytest.raises(UserError, match="features of 5 captions and 3 videos"):
        gathering.encoded({})
    with pytest.raises(UserError, match="no captions"):
        Gathering(HEAD).encoded({})


@pytest.mark.parametrize("name", ["sentence", "frames"])
def test_an_item_that_is_not_finite_is_named(name):
    text, video = random_features()
    array = text.sentence if name == "sentence" else video.frames
    array[1] = np.nan
    gathering = Gathering(HEAD)

    def add():
        gathering.add_videos(video_arrays(video, CLIP_IDS, CAPTIONS))
        gathering.add_texts(text_arrays(text))

    with pytest.raises(UserError) as refused:
        add()
    assert repr(CLIP_IDS[1] if name == "frames" else CAPTIONS[0][1]) in str(refused.value)
