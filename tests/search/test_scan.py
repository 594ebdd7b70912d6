"""The exact scan is brute force, whatever is asked of whatever is there."""

import os

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.retrieval.score_blocks import score_in_blocks
from glscl_jax.search.feature_files import FeatureFiles
from glscl_jax.search.scan import Scan, to_arrays, windows_of
from tests.builders import features, mesh_of

HEADS = [GLSCLHead(), MeanHead()]


def expected(scores, rows, k):
    """Rows and scores of the k best, of equal scores the lower row first."""
    order = np.lexsort((np.broadcast_to(rows, scores.shape), -scores), axis=1)[:, :k]
    return rows[order], np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
@hypothesis.given(
    seed=st.integers(0, 99),
    texts=st.sampled_from([1, 3]),
    taken_out=st.sampled_from([0, 0.2, 0.7, 0.95]),
    k=st.sampled_from([1, 5, 12]),
    doubles=st.booleans(),
    threads=st.sampled_from([1, 3]),
)
@hypothesis.settings(max_examples=16)
def test_the_best_are_those_of_brute_force(head, seed, texts, taken_out, k, doubles, threads):
    random = np.random.default_rng(seed)
    text, video = features(texts, 45, seed=seed)
    if doubles:  # ties, over the border of two blocks
        video = jax.tree.map(lambda x: x[random.integers(0, 20, 45)], video)
    rows = np.flatnonzero(random.random(45) >= taken_out)
    windows, mesh = (
        windows_of(head, to_arrays(head, video)),
        mesh_of({"data": 2 if threads == 1 else 1}),
    )
    scan = Scan(windows, head, block=16, mesh=mesh, threads=threads)
    found = scan.top(text, k, rows)
    scores = scan.scores(text, rows)
    items, values = expected(scores, rows, k)
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_array_equal(found.scores, values)
    # And they are the evaluation's.
    whole = score_in_blocks(text, video, head=head)[:, rows]
    np.testing.assert_allclose(scores, whole, atol=2e-6)


def test_blocks_are_shared_by_threads_where_one_cpu_is_all():
    head, (_, video) = MeanHead(), features(1, 20)
    windows = windows_of(head, to_arrays(head, video))
    assert Scan(windows, head, mesh=mesh_of({"data": 2})).threads == 1
    alone = Scan(windows, head, mesh=mesh_of({"data": 1}))
    assert alone.threads == min(16, len(os.sched_getaffinity(0)))


def test_what_fails_in_a_thread_is_told():
    head, (text, video) = MeanHead(), features(1, 20)
    windows = windows_of(head, to_arrays(head, video))
    scan = Scan(windows, head, block=4, mesh=mesh_of({"data": 1}), threads=2)
    scan.blocks.windows = None
    with pytest.raises((AttributeError, TypeError)):
        scan.top(text, 3, np.arange(20))


def test_more_queries_than_are_scored_at_once():
    text, video = features(70, 20)
    head = MeanHead()
    scan, rows = Scan(windows_of(head, to_arrays(head, video)), head, block=8), np.arange(20)
    items, values = expected(scan.scores(text, rows), rows, 4)
    found = scan.top(text, 4, rows)
    np.testing.assert_array_equal(found.items, items)
    np.testing.assert_array_equal(found.scores, values)


def test_features_are_mapped_and_types_come_back(tmp_path):
    head = GLSCLHead()
    text, video = features(2, 30)
    arrays = to_arrays(head, video, "bfloat16")
    files = FeatureFiles(tmp_path / "features")
    for start in range(0, 30, 7):
        files.put(start, {name: x[start : start + 7] for name, x in arrays.items()})
    again = FeatureFiles(tmp_path / "features").maps(30)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name].view(np.uint8), array.view(np.uint8))
    found = Scan(windows_of(head, again), head, block=8).top(text, 3, np.arange(30))
    kept = Scan(windows_of(head, arrays), head, block=8).top(text, 3, np.arange(30))
    np.testing.assert_array_equal(found.items, kept.items)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_scored_as_the_numbers_it_is(dtype):
    head = GLSCLHead()
    text, video = features(3, 30)
    half = windows_of(head, to_arrays(head, video, dtype))
    wide = half.replace(features=jax.tree.map(lambda x: x.astype(np.float32), half.features))
    rows = np.arange(30)
    found = Scan(half, head, block=8).scores(text, rows)
    # Another program: how it rounds in float32 is the processor's affair. In half precision they
    # would be a thousand times as far apart.
    same = Scan(wide, head, block=8).scores(text, rows)
    np.testing.assert_allclose(found, same, rtol=0, atol=2e-6)


def test_what_was_left_behind_the_last_row_is_written_over(tmp_path):
    files = FeatureFiles(tmp_path / "features")
    files.put(0, {"x": np.arange(6, dtype=np.float32).reshape(3, 2)})
    files.put(1, {"x": np.full((1, 2), 9, np.float32)})
    np.testing.assert_array_equal(files.maps(2)["x"], [[0, 1], [9, 9]])
    with pytest.raises(Exception, match="2 rows of 3"):
        files.maps(3)


def test_nothing_to_search():
    head = MeanHead()
    text, video = features(2, 5)
    scan = Scan(windows_of(head, to_arrays(head, video)), head)
    assert scan.top(text, 3, np.zeros(0, np.int64)).items.shape == (2, 0)
