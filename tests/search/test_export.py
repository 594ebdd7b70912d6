"""An index's features as files of other engines: the same windows, vectors and numbers."""

import functools
import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open

import glscl_jax.search
from glscl_jax.errors import UserError
from glscl_jax.files import read_json, write_json
from glscl_jax.search.exported_features import export_features
from glscl_jax.search.indexer import index_videos
from glscl_jax.search.store import Store
from tests.search.conftest import CUT, index_two, write_video

pytestmark = pytest.mark.usefixtures("lance")


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory, lance):
    """Two videos, of which one was read again: its rows' numbers have a hole behind them."""
    folder = tmp_path_factory.mktemp("export")
    index_two(folder, checkpoint, "b.mp4")
    write_video(folder / "videos" / "a.mp4", 3, seconds=3.0)
    index_videos(folder / "index", **CUT)
    return folder


def expected(folder):
    """Rows, and their features by name, of the index itself."""
    snapshot = Store.open(folder).snapshot()
    assert snapshot.count > len(snapshot.rows)
    taken = {name: x[snapshot.rows] for name, x in snapshot.arrays.items()}
    head = glscl_jax.search.open(folder).model.head
    names = ("frames", "mask", "queries")
    features = {name: np.asarray(taken[f"features.{name}"]) for name in names}
    vector = np.asarray(head.video_vector(head.video_features(**features)))
    return snapshot, features | {"vector": vector, "times": taken["times"]}


def test_parquet(made, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert export_features(made / "index", made / "f.parquet") == 3
    assert "3 windows; vector [192], frames [4, 64]" in capsys.readouterr().out
    table, (snapshot, features) = parquet.read_table(made / "f.parquet"), expected(made / "index")
    assert table["row"].to_pylist() == snapshot.rows.tolist()
    assert table["video"].to_pylist() == snapshot.table["video"].to_pylist()
    assert table["end"].to_pylist() == snapshot.table["end"].to_pylist()
    assert set(table["year"].to_pylist()) == {2024, None}
    for name, array in features.items():
        np.testing.assert_array_equal(np.array(table[name].to_pylist(), array.dtype), array, name)


def test_safetensors(made, capsys):
    assert export_features(made / "index", made / "f.safetensors") == 3
    snapshot, features = expected(made / "index")
    with safe_open(made / "f.safetensors", "np") as file:
        assert set(file.keys()) == {"row", "video", "start", "end", *features}
        videos = json.loads(file.metadata()["videos"])
        named = [videos[number] for number in file.get_tensor("video")]
        assert named == snapshot.table["video"].to_pylist()
        np.testing.assert_array_equal(file.get_tensor("start"), snapshot.table["start"])
        np.testing.assert_array_equal(file.get_tensor("row"), snapshot.rows)
        for name, array in features.items():
            np.testing.assert_array_equal(file.get_tensor(name), array, name)


def test_blocks_and_half_precision(made, checkpoint, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("glscl_jax.search.exported_features._BLOCK", 2)
    half = {"videos": made / "videos", "checkpoint": checkpoint, "dtype": "bfloat16"}
    index_videos(made / "half", **half, **CUT)
    for name in ("h.parquet", "h.safetensors"):
        assert export_features(made / "half", made / name) == 3
    with safe_open(made / "h.safetensors", "np") as file:
        frames = file.get_tensor("frames")
        vector = file.get_tensor("vector")
    assert frames.dtype.name == "bfloat16"
    table = parquet.read_table(made / "h.parquet")
    found = np.array(table["frames"].to_pylist(), np.float32)
    np.testing.assert_array_equal(found, frames.astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("index", "out", "told"),
    [
        ("index", "f.csv", "f.csv: name a file that ends in .parquet or .safetensors"),
        ("index", "index.parquet", "index.parquet is there already"),
        ("nowhere", "g.parquet", "nowhere: no such folder"),
        ("index", "no/such/f.parquet", "no/such is no folder: make it"),
        ("index/index.json", "g.parquet", "index.json: a file, and no folder"),
    ],
)
def test_what_cannot_be_exported(made, index, out, told):
    (made / "index.parquet").touch()
    with pytest.raises(UserError, match=told):
        export_features(made / index, made / out)


@pytest.mark.parametrize("lost", ["model", "model.clip"])
def test_an_index_that_does_not_say_its_model(made, lost, tmp_path):
    shutil.copytree(made / "index", tmp_path / "index")
    path = tmp_path / "index" / "index.json"
    told = read_json(path)
    section, _, name = f"made_of.{lost}".rpartition(".")
    del functools.reduce(lambda x, key: x[key], section.split("."), told)[name]
    write_json(path, told)
    with pytest.raises(UserError, match=r"index.json is damaged .*: index into another directory"):
        export_features(tmp_path / "index", tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()
