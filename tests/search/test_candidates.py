"""The best of candidates, and when they are proved to be the best of all."""

import jax
import numpy as np
import pytest

from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.search import candidates, lance_vectors, qdrant_vectors
from glscl_jax.search.lance_vectors import LanceVectors
from glscl_jax.search.neighbours import Neighbours
from glscl_jax.search.qdrant_vectors import QdrantVectors
from glscl_jax.search.scan import Scan, to_arrays, windows_of
from tests.builders import features

pytestmark = [
    pytest.mark.usefixtures("lance"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]


@pytest.fixture(params=["lance", "qdrant"])
def near(request, tmp_path):
    """Neighbours in either engine, Qdrant's in its client's local mode."""
    if request.param == "lance":
        return Neighbours(LanceVectors(tmp_path))
    client = pytest.importorskip("qdrant_client", reason="pip install -r requirements-qdrant.txt")
    return Neighbours(QdrantVectors(client.QdrantClient(":memory:"), "memory", "glscl", 1))


def gallery(head, count, seed=0, spread=0.5):
    """Windows whose frames are near each other, as those of a video are."""
    text, video = features(8, count, seed=seed)
    random = np.random.default_rng(seed)
    centres = random.normal(size=(count, 1, 16)).astype(np.float32)
    video = video.replace(frames=centres + spread * video.frames)
    windows = windows_of(head, to_arrays(head, video))
    return text, windows, Scan(windows, head, block=64)


def one(text, number):
    return jax.tree.map(lambda x: x[number : number + 1], text)


@pytest.mark.parametrize("head", [GLSCLHead(), MeanHead()], ids=lambda head: head.name)
def test_proved_candidates_are_the_best(near, head):
    text, windows, scan = gallery(head, 300)
    rows = np.flatnonzero(np.random.default_rng(1).random(300) < 0.8)
    assert near.bring_up_to_date(head, windows, rows[:-20]) == len(rows) - 20
    proved = scored = 0
    for number in range(8):
        asked = one(text, number)
        best = scan.top(asked, 5, rows)
        args = (scan, near, asked, rows, 5, 30)
        found = candidates.best(*args, "check")
        if found.exact:
            np.testing.assert_array_equal(found.rows, best.items[0])
            np.testing.assert_allclose(found.scores, best.scores[0], atol=1e-6)
        proved += found.exact
        # Those without a vector are candidates at any rate.
        assert found.scored == 50
        assert candidates.best(*args, "none").exact is None
        whole = candidates.best(*args, "complete")
        np.testing.assert_array_equal(whole.rows, best.items[0])
        assert whole.exact
        scored += whole.scored
    assert proved > 0
    assert scored < 8 * len(rows)


def test_candidates_that_miss_the_best_are_not_proved(tmp_path):
    head, rows = GLSCLHead(temperature=0.2), np.arange(300)
    # The mean says little of frames that are far from each other.
    text, windows, scan = gallery(head, 300, spread=3.0)
    near = Neighbours(LanceVectors(tmp_path))
    near.bring_up_to_date(head, windows, rows)
    missed = 0
    for number in range(8):
        asked = one(text, number)
        best = scan.top(asked, 5, rows).items[0]
        found = candidates.best(scan, near, asked, rows, 5, 5, "check")
        if set(found.rows) != set(best):
            missed += 1
            assert found.exact is False
        whole = candidates.best(scan, near, asked, rows, 5, 5, "complete")
        np.testing.assert_array_equal(whole.rows, best)
    assert missed > 0


def test_a_head_without_a_bound_says_so(tmp_path):
    head = MeanHead()
    text, windows, _ = gallery(head, 40)
    scan = Scan(windows.replace(outline=None), head, block=64)
    near = Neighbours(LanceVectors(tmp_path))
    near.bring_up_to_date(head, windows, np.arange(40))
    for proof in candidates.PROOFS:
        found = candidates.best(scan, near, one(text, 0), np.arange(40), 3, 10, proof)
        assert (found.exact, found.scored) == (None, 10)


@pytest.mark.parametrize("listed", [0, 20_000], ids=["looked for", "asked by number"])
def test_neighbours_follow_what_comes_and_goes(near, listed, monkeypatch):
    monkeypatch.setattr(qdrant_vectors, "_LISTED", listed)
    head = GLSCLHead()
    text, windows, _ = gallery(head, 30)
    assert not near.there
    near.bring_up_to_date(head, windows, np.arange(10))
    assert near.there
    assert near.bring_up_to_date(head, windows, np.arange(5, 30)) == 20
    vector = np.asarray(head.text_vector(text))[0]
    # Those without a vector are found at any rate.
    assert near.nearest(vector, 99, np.arange(30)).tolist() == list(range(30))
    assert near.nearest(vector, 1, np.arange(6)).tolist() == [0, 1, 2, 3, 4, 5]
    scores = np.asarray(head.video_vector(windows.features)) @ vector
    best = 5 + np.argsort(-scores[5:])[:4]
    assert near.nearest(vector, 4, np.arange(5, 30)).tolist() == sorted(best)
    # A filter does not empty the answer.
    assert near.nearest(vector, 3, np.array([7, 8, 21])).tolist() == [7, 8, 21]


def test_vectors_that_are_sent_in_parts(near, monkeypatch):
    for name in ("_SENT_NUMBERS", "_SCROLLED", "_DELETED"):
        monkeypatch.setattr(qdrant_vectors, name, 7)
    monkeypatch.setattr(lance_vectors, "_DELETED", 7)
    head = GLSCLHead()
    _, windows, _ = gallery(head, 30)
    near.bring_up_to_date(head, windows, np.arange(30))
    assert near.bring_up_to_date(head, windows, np.arange(20, 30)) == 0
    assert sorted(near._vectors.rows()) == list(range(20, 30))


def test_the_index_of_neighbours_finds_them(tmp_path, monkeypatch):
    """Recall of the quantised index against all vectors; by the dot product it was below 0.1."""
    monkeypatch.setattr(lance_vectors, "INDEXED", 1000)
    head = GLSCLHead()
    text, windows, _ = gallery(head, 2000)
    kept = LanceVectors(tmp_path)
    near = Neighbours(kept)
    near.bring_up_to_date(head, windows, np.arange(2000))
    assert kept.indexed
    vectors = np.asarray(head.video_vector(windows.features))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    recalls = []
    for query in np.asarray(head.text_vector(text)):
        true = np.argsort(-vectors @ query)[:10]
        recalls.append(np.isin(true, near.nearest(query, 10, np.arange(2000))).mean())
    assert np.mean(recalls) > 0.85
