"""Features that others wrote: read as they are meant, or refused in a line."""

import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.retrieval import tower_features
from glscl_jax.retrieval.encoded_split import Store
from tests.retrieval.other_features import IDS, written


def test_texts_are_found_by_their_videos(tmp_path):
    arrays = written(tmp_path / "train")
    found = tower_features.read_features(tmp_path, "train", tokens=True)
    assert found.ids == IDS
    assert found.counts.tolist() == [1, 2, 1]
    assert found.owner.tolist() == [0, 1, 1, 2]
    rows = found.texts_of(np.array([1, 0, 1, 2]), np.array([0, 0, 1, 0]))
    given = arrays["text"]["sentence"]
    np.testing.assert_array_equal(found.text_batch(rows)["sentence"], given[[0, 1, 3, 2]])
    tokens = arrays["text"]["tokens"][[0, 1, 3, 2]]
    np.testing.assert_array_equal(found.text_batch(rows)["tokens"], tokens)
    assert found.text_mask.sum(axis=1).tolist() == [2, 5, 4, 3]
    assert found.frame_mask.tolist() == [[1, 1], [1, 0], [1, 1]]
    assert tower_features.read_features(tmp_path, "train", tokens=False).tokens is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({("text", "tokens"): None}, "has no 'tokens', which this head reads"),
        ({("video", "lengths"): None}, "video-00000.npz has no 'lengths', only frames, ids"),
        ({("video", "lengths"): np.array([2, 3, 1])}, "lengths are not whole numbers from 1 to 2"),
        (
            {("text", "ids"): np.array(["b", "a", "d", "b"])},
            "texts of 'd', which is no video there",
        ),
        ({("text", "ids"): np.array(["b", "a", "a", "b"])}, "video 'c' has no text"),
        ({("video", "ids"): np.array(["a", "b", "b"])}, "1 ids stand for two videos"),
        ({("text", "sentence"): np.zeros((3, 4), np.float32)}, "is not of 4 rows in 2 axes"),
        ({("text", "sentence"): np.zeros((4, 5), np.float32)}, "features are 4 and 5 wide"),
        ({("video", "frames"): np.zeros((3, 2, 4), np.int32)}, "frames is int32"),
        (
            {("video", "frames"): np.full((3, 2, 4), np.nan, np.float32)},
            "a value that is not finite",
        ),
        ({("text", "sentense"): np.zeros((4, 4))}, "has an array 'sentense'"),
    ],
)
def test_features_that_are_none_are_refused_in_a_line(tmp_path, changes, told):
    written(tmp_path / "train", changes)
    with pytest.raises(UserError) as refused:
        tower_features.read_features(tmp_path, "train", tokens=True)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


FRAMES, SENTENCE = ("video", "frames"), ("text", "sentence")
BITS = np.zeros((3, 2, 4), np.uint16)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({("video", "frames:bfloat16"): BITS}, "holds 'frames' twice, as 'frames:bfloat16' too"),
        (
            {FRAMES: None, ("video", "frames:bfloat16"): np.zeros((3, 2, 4), np.float32)},
            "'frames:bfloat16' is float32, not bits as uint16",
        ),
        (
            {FRAMES: None, ("video", "frames:bfloat16"): np.zeros((3, 2, 4), np.uint8)},
            "'frames:bfloat16' is uint8, not bits as uint16",
        ),
        (
            {FRAMES: None, ("video", "frames:float32"): np.zeros((3, 2, 4), np.uint32)},
            "'frames:float32' names no type that NumPy has not: call it 'frames'",
        ),
        ({FRAMES: None, ("video", "frames:bf16"): BITS}, "'frames:bf16' names no type"),
        (
            {FRAMES: None, ("video", "frames:float8_e5m2"): BITS.astype(np.uint8)},
            "frames is float8_e5m2: give float16, bfloat16 or float32",
        ),
        ({FRAMES: np.zeros((3, 2, 4))}, "frames is float64: give float16, bfloat16 or float32"),
        ({("video", "ids"): np.array("a")}, "video-00000.npz: ids [] is not in 1 axis"),
        ({("video", "ids"): np.array([b"a", b"b", b"c"])}, "ids is |S1: give text or whole"),
        ({("text", "ids"): np.array([b"b", b"a", b"c", b"b"])}, "text-00000.npz: ids is |S1"),
        ({("text", "ids"): np.array([1.0, 0.0, 2.0, 1.0])}, "ids is float64"),
        ({("text", "captions"): np.array([b"x"] * 4)}, "captions is |S1: give text"),
        ({("text", "captions"): np.arange(4)}, "captions is int64: give text"),
        ({("video", "lengths"): np.ones(3)}, "lengths is float64: give whole numbers"),
        ({("text", "tokens"): np.zeros((4, 0, 4), np.float32)}, "tokens [4, 0, 4] has an axis of"),
        ({FRAMES: np.zeros((3, 0, 4), np.float32)}, "frames [3, 0, 4] has an axis of 0"),
        ({SENTENCE: np.zeros((4, 0), np.float32)}, "sentence [4, 0] has an axis of 0"),
        ({("text", "lengths"): np.array([5, 2, 3, 6])}, "lengths are not whole numbers from 1 to"),
    ],
)
@pytest.mark.parametrize("tokens", [True, False])
def test_arrays_of_other_types_and_shapes_are_refused_in_a_line(tmp_path, changes, told, tokens):
    written(tmp_path / "train", changes)
    with pytest.raises(UserError) as refused:
        tower_features.read_features(tmp_path, "train", tokens=tokens)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_whole_numbers_and_bits_of_bfloat16_are_read(tmp_path):
    numbers = {("video", "ids"): np.arange(3), ("text", "ids"): np.array(["1", "0", "2", "1"])}
    frames = np.ones((3, 2, 4), jnp.bfloat16)
    bits = {FRAMES: None, ("video", "frames:bfloat16"): frames.view(np.uint16)}
    written(tmp_path / "train", {**numbers, **bits})
    found = tower_features.read_features(tmp_path, "train", tokens=False)
    assert found.ids == ["0", "1", "2"]
    assert found.owner.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(found.frames, frames)


def of_none(arrays):
    """Files of no rows, with the types that such arrays come out with."""
    return {
        (kind, name): np.array([]) if array.ndim == 1 else array[:0]
        for kind, content in arrays.items()
        for name, array in content.items()
    }


def test_a_split_of_no_videos_is_refused_and_an_empty_file_is_not(tmp_path):
    arrays = written(tmp_path / "train")
    written(tmp_path / "val", of_none(arrays))
    with pytest.raises(UserError, match="val holds no video: have one written, or name another"):
        tower_features.read_features(tmp_path, "val", tokens=True)
    store = Store(tmp_path / "train")
    store.put("video", 1, {name: of_none(arrays)["video", name] for name in arrays["video"]})
    store.finish()
    assert tower_features.read_features(tmp_path, "train", tokens=True).ids == IDS


@pytest.mark.parametrize(
    ("identity", "advice"),
    [
        ({"encoder": "theirs"}, "have it written again"),
        ({"checkpoint": "0123"}, "remove {folder} and have it written again"),
    ],
)
def test_a_damaged_file_of_one_s_own_is_not_to_be_removed(tmp_path, identity, advice):
    folder = tmp_path / "train"
    written(folder, identity=identity)
    (folder / "text-00000.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError) as refused:
        tower_features.read_features(tmp_path, "train", tokens=True)
    assert str(refused.value).startswith(f"{folder / 'text-00000.npz'} is gone or damaged (")
    assert str(refused.value).endswith(f"): {advice.format(folder=folder)}")


def pickled(path):
    path.write_bytes(pickle.dumps({"ids": IDS}))


def as_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def of_objects(path):
    np.savez(path, ids=np.array(IDS, object))


def with_a_text(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids", "a b c")


def deflated_and_damaged(path):
    np.savez_compressed(path, ids=np.array(IDS))
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)


def a_folder(path):
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (pickled, "it is no .npz file"),
        (as_npy, "it is no .npz file"),
        (of_objects, "'ids' holds Python objects, not text or numbers"),
        (with_a_text, "'ids' is no array"),
        (deflated_and_damaged, ""),
        (a_folder, "Is a directory"),
    ],
)
def test_files_of_something_else_are_named(tmp_path, make, told):
    written(tmp_path / "train")
    path = tmp_path / "train" / "video-00000.npz"
    path.unlink()
    make(path)
    with pytest.raises(UserError, match=r"video-00000\.npz is gone or damaged") as refused:
        tower_features.read_features(tmp_path, "train", tokens=True)
    assert told in str(refused.value)
    assert "pickle" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("count", ["1", True, None, 1.0, -1])
def test_counts_that_are_none_are_shown(tmp_path, count):
    written(tmp_path / "train", video=count)
    with pytest.raises(UserError) as refused:
        tower_features.read_features(tmp_path, "train", tokens=True)
    assert f"complete.json: 'video' is {count!r}, which is no number" in str(refused.value)


@pytest.mark.parametrize("name", ["complete.json", "identity.json"])
def test_a_folder_in_place_of_a_file_is_named(tmp_path, name):
    written(tmp_path / "train")
    path = tmp_path / "train" / name
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=f"{name} cannot be read: Is a directory"):
        tower_features.read_features(tmp_path, "train", tokens=True)


def test_other_counts_splits_and_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no features \(no SPLIT/identity.json\)"):
        tower_features.read_features(tmp_path, "train", tokens=True)
    written(tmp_path / "train", text=2)
    with pytest.raises(UserError, match="should have 2 text files and has 1"):
        tower_features.read_features(tmp_path, "train", tokens=True)
    with pytest.raises(UserError, match="no split 'val', only train"):
        tower_features.read_features(tmp_path, "val", tokens=True)
    (tmp_path / "train" / "complete.json").unlink()
    with pytest.raises(UserError, match="is not complete"):
        tower_features.read_features(tmp_path, "train", tokens=True)
