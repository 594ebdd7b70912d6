"""Streamed ranks and best videos against the whole matrix, sorted and counted by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.ranking import ranks_in_blocks, text_ranks_in_blocks, top_k
from glscl_jax.retrieval.score_blocks import score_in_blocks
from glscl_jax.runtime import sharding
from tests.builders import SCORE, cast, features, slow_score

# A new size is a new program to compile: few sizes, many blocks. Groups of captions are cut by
# none, one or several borders.
SIZES = st.sampled_from([(31, 13), (13, 13), (9, 1)])
TEXT_BLOCKS, VIDEO_BLOCKS = st.sampled_from([2, 5, 100]), st.sampled_from([3, 8, 100])
DTYPES, SEEDS = st.sampled_from([np.float32, jnp.bfloat16]), st.integers(0, 2**16)


def split(texts, videos, seed, dtype=np.float32):
    """Features and owner: every video has one caption at least, in no order.

    Some captions and some videos are copies of others, so that scores are equal.
    """
    rng = np.random.default_rng(seed)
    text, video = cast(features(texts, videos, seed=seed), dtype)
    pick_texts, pick_videos = (
        np.where(rng.random(n) < 0.3, rng.integers(n, size=n), np.arange(n))
        for n in (texts, videos)
    )
    text = jax.tree.map(lambda x: x[pick_texts], text)
    video = jax.tree.map(lambda x: x[pick_videos], video)
    owner = np.concatenate([np.arange(videos), rng.integers(videos, size=texts - videos)])
    return text, video, rng.permutation(owner)


def whole(text, video, owner, **blocking) -> metrics.Retrieval:
    """The ranks of the whole matrix, made by the blocks that the stream has: equal bits."""
    order = np.argsort(owner, kind="stable")
    scores = score_in_blocks(jax.tree.map(lambda x: x[order], text), video, **blocking)
    return metrics.retrieval(scores[np.argsort(order)], owner)


def assert_same(found: metrics.Ranks, expected: metrics.Ranks):
    np.testing.assert_array_equal(found.optimistic, expected.optimistic)
    np.testing.assert_array_equal(found.pessimistic, expected.pessimistic)


@settings(max_examples=8, deadline=None)
@given(SIZES, TEXT_BLOCKS, VIDEO_BLOCKS, st.sampled_from([1.0, 3.0]), DTYPES, SEEDS)
def test_ranks_are_those_of_the_whole_matrix(sizes, texts, videos, temperature, dtype, seed):
    text, video, owner = split(*sizes, seed, dtype)
    blocking = {"text_block": texts, "video_block": videos}
    blocking |= {"head": GLSCLHead(temperature, 0.5)}
    found = ranks_in_blocks(text, video, owner, **blocking)
    expected = whole(text, video, owner, **blocking)
    assert_same(found.t2v, expected.t2v)
    assert_same(found.v2t, expected.v2t)
    assert_same(text_ranks_in_blocks(text, video, owner, **blocking), expected.t2v)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_those_of_the_formula(seed, devices):
    text, video, owner = split(31, 13, seed)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    found = ranks_in_blocks(text, video, owner, mesh=mesh, text_block=5, video_block=8, **SCORE)
    scores = slow_score(text, video, **SCORE)
    groups = np.stack([scores[owner == b].max(axis=0) for b in range(13)])
    for ranks, matrix, right in ((found.t2v, scores, owner), (found.v2t, groups.T, np.arange(13))):
        own = matrix[np.arange(len(right)), right][:, None]
        # Equal in float32 is within rounding of each other in float64, and nothing else here is.
        surely_before = np.sum(matrix > own + 3e-6, axis=1)
        np.testing.assert_array_less(surely_before, ranks.optimistic)
        assert (ranks.pessimistic <= np.sum(matrix >= own - 3e-6, axis=1)).all()
        assert (ranks.optimistic <= ranks.pessimistic).all()


ORDERS = {
    "rising": [0, 0, 1, 2, 2, 2, 3, 4],
    "falling": [4, 3, 2, 2, 2, 1, 0, 0],
    "one out of place at the end": [0, 1, 2, 2, 2, 3, 4, 0],
    "one out of place at the start": [2, 0, 0, 1, 2, 2, 3, 4],
    "falling, each video's together": [3, 4, 2, 2, 2, 0, 0, 1],
    "mixed": [2, 4, 0, 2, 3, 0, 1, 2],
}


@pytest.mark.parametrize("owner", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("text_block", [3, 8])
def test_captions_are_ranked_in_whatever_order_they_stand(owner, text_block):
    """Each caption's rank stands in the caption's own place, none in another's."""
    (text, video), owner = features(8, 5, seed=3), np.array(owner)
    blocking = {"text_block": text_block, "video_block": 8, "mesh": one_device(), **SCORE}
    scores = slow_score(text, video, **SCORE)
    # Far apart: the order is the same in float32.
    assert np.diff(np.sort(scores, axis=None)).min() > 1e-5
    best = np.stack([scores[owner == video].max(axis=0) for video in range(5)])
    found = ranks_in_blocks(text, video, owner, **blocking)
    of_texts = 1 + np.sum(scores > scores[np.arange(8), owner][:, None], axis=1)
    of_videos = 1 + np.sum(best > np.diag(best), axis=0)
    assert_same(found.t2v, metrics.Ranks(of_texts, of_texts))
    assert_same(found.v2t, metrics.Ranks(of_videos, of_videos))
    assert_same(text_ranks_in_blocks(text, video, owner, **blocking), found.t2v)


def test_copies_of_the_right_item_are_ties():
    # All videos are one video: every place is as good as the others.
    text, video = features(6, 6)
    video = jax.tree.map(lambda x: np.repeat(x[:1], 6, axis=0), video)
    found = ranks_in_blocks(text, video, np.arange(6), mesh=one_device(), video_block=3, **SCORE)
    assert found.t2v.optimistic.tolist() == [1] * 6
    assert found.t2v.pessimistic.tolist() == [6] * 6
    # The captions stand in one order before every video, and each has another for its own.
    assert sorted(found.v2t.mean) == [1, 2, 3, 4, 5, 6]


def one_device():
    return sharding.make_mesh(jax.devices()[:1])


def test_eight_devices_find_the_best_scores_as_one_does():
    text, video, _ = split(40, 21, seed=1)
    blocking = {"text_block": 9, "video_block": 16, **SCORE}
    many, few = (
        top_k(text, video, 5, mesh=mesh, **blocking)
        for mesh in (sharding.make_mesh(), one_device())
    )
    np.testing.assert_allclose(many.scores, few.scores, rtol=0, atol=1e-6)


def test_a_gallery_may_hold_videos_that_no_caption_describes():
    (text, video), owner = features(9, 40), np.arange(9) * 4
    blocking = {"text_block": 4, "video_block": 16, **SCORE}
    found = text_ranks_in_blocks(text, video, owner, **blocking)
    assert_same(found, metrics.ranks(score_in_blocks(text, video, **blocking), owner))
    with pytest.raises(ValueError, match="31 of 40 videos have no caption"):
        ranks_in_blocks(text, video, owner, **blocking)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 4, 13]), TEXT_BLOCKS, VIDEO_BLOCKS, DTYPES, SEEDS)
def test_top_k_is_the_sorted_matrix_s_head(k, texts, videos, dtype, seed):
    text, video, _ = split(31, 13, seed, dtype)
    blocking = {"text_block": texts, "video_block": videos, **SCORE}
    found = top_k(text, video, k, **blocking)
    scores = score_in_blocks(text, video, **blocking)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.items, expected)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, expected, axis=1))
    assert (found.items.dtype, found.scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("k", [0, 14])
def test_k_beyond_the_gallery_is_a_user_s_mistake(k):
    with pytest.raises(UserError, match=f"k is {k} in a gallery of 13 videos"):
        top_k(*features(3, 13), k, **SCORE)


@pytest.mark.parametrize("where", [0, 12])
def test_a_score_that_is_no_number_is_never_ranked(where):
    text, video, owner = split(31, 13, seed=0)
    video.frames[where] = np.nan
    # 2 of 13 videos are filling in the last block: it is not counted.
    blocking = {"text_block": 7, "video_block": 5, **SCORE}
    message = "31 of 403 scores are not finite"
    for rank in (ranks_in_blocks, text_ranks_in_blocks):
        with pytest.raises(ValueError, match=message):
            rank(text, video, owner, **blocking)
    with pytest.raises(ValueError, match=message):
        top_k(text, video, 3, **blocking)


@pytest.mark.parametrize("owner", [[0, 1, 3], [0, 1, -1]])
def test_a_caption_of_no_video_here_is_an_error(owner):
    with pytest.raises(ValueError, match="not among the 3 videos"):
        text_ranks_in_blocks(*features(3, 3), np.array(owner), **SCORE)


@pytest.mark.parametrize("rank", [ranks_in_blocks, text_ranks_in_blocks])
def test_the_matrix_is_never_there(rank):
    # The largest array made on the devices is a block's, however many videos there are.
    def largest(videos):
        text, video, owner = split(videos, videos, seed=0)
        earlier = jax.live_arrays()
        known, sizes = {id(x) for x in earlier}, []

        class Watched(np.ndarray):
            def __getitem__(self, rows):
                sizes.extend(x.size for x in jax.live_arrays() if id(x) not in known)
                return super().__getitem__(rows)

        watched = video.replace(mask=video.mask.view(Watched))
        rank(text, watched, owner, text_block=16, video_block=16, **SCORE)
        return max(sizes)

    assert largest(160) == largest(32)
