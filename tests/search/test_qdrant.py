"""Neighbours in Qdrant: an index says where they are, and what goes wrong there is a line.

The client's local mode stands for a server: it has the same functions, and no graph.
"""

import shutil

import pytest

import glscl_jax.search
from glscl_jax.errors import UserError
from glscl_jax.search import store
from glscl_jax.search.indexer import index_videos
from glscl_jax.search.qdrant_vectors import QdrantVectors
from glscl_jax.search.store import Store
from tests.search.conftest import index_two, write_video

pytestmark = [
    pytest.mark.usefixtures("lance"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]
ADDRESS = "http://localhost:6333"


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client in its local mode, in the place of one of any server."""
    library = pytest.importorskip("qdrant_client", reason="pip install -r requirements-qdrant.txt")
    local = library.QdrantClient(path=str(tmp_path / "qdrant"))
    monkeypatch.setattr(
        QdrantVectors, "at", lambda *where: QdrantVectors(local, *where), raising=True
    )
    yield local
    local.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory, checkpoint, lance):
    folder = tmp_path_factory.mktemp("two")
    index_two(folder, checkpoint, "b.mp4")
    return folder


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def counts(client):
    return {one.name: client.count(one.name).count for one in client.get_collections().collections}


def test_an_index_s_neighbours_are_there(copy, client, monkeypatch):
    folder = copy / "index"
    how = {"videos": copy / "videos"}
    index_videos(folder, **how, neighbours=True, qdrant=ADDRESS)
    name = Store.open(folder).about["collection"]
    assert counts(client) == {f"{name}_1": 5}
    index = glscl_jax.search.open(folder)
    found = index.query("green", top=1, candidates=2, proof="complete")
    assert found.exact
    assert found.hits[0].row == index.query("green", top=1).hits[0].row
    found = index.query("green", where="year = 2024 and start > 1", candidates=1, top=1)
    assert (found.searched, found.scored) == (2, 1)
    # What comes and goes, without a word of where they are.
    write_video(copy / "videos" / "c.mp4", 3, seconds=1.0)
    (copy / "videos" / "b.mp4").unlink()
    index_videos(folder)
    assert counts(client) == {f"{name}_1": 5}
    assert index.query("green", top=9, candidates=4).searched == 5
    # Another numbering is another collection; the next run takes the old one away.
    monkeypatch.setattr(store, "_HOLES", 1)
    monkeypatch.setattr(store, "_HOLE_SHARE", 0.1)
    (copy / "videos" / "a.mp4").unlink()
    index_videos(folder)
    assert counts(client) == {f"{name}_1": 5, f"{name}_2": 1}
    index_videos(folder)
    assert counts(client) == {f"{name}_2": 1}
    assert not (folder / "2" / "neighbours.lance").exists()
    index_videos(folder, qdrant="")
    assert (folder / "2" / "neighbours.lance").exists()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"qdrant": ADDRESS}, "--qdrant keeps the neighbours of windows: add --neighbours"),
        ({"qdrant": "here", "neighbours": True}, "--qdrant here is no address of a server: give"),
        (
            {"qdrant": "http://127.0.0.1:1", "neighbours": True},
            "--qdrant http://127.0.0.1:1: .*: see that Qdrant runs there",
        ),
    ],
)
def test_what_is_wrong_is_a_line(copy, checkpoint, how, told):
    pytest.importorskip("qdrant_client", reason="pip install -r requirements-qdrant.txt")
    before = len(Store.open(copy / "index").known())
    with pytest.raises(UserError, match=told):
        index_videos(copy / "index", **how)
    assert len(Store.open(copy / "index").known()) == before
    # The address that was wrong is not the one that the index goes on with.
    assert not Store.open(copy / "index").about["qdrant"]
    with pytest.raises(UserError, match=told):
        index_videos(copy / "new", videos=copy / "videos", checkpoint=checkpoint, **how)
    assert not (copy / "new").exists()
