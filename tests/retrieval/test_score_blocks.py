"""The fast scores against the formulas as the paper writes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval.score_blocks import Blocks, score_in_blocks
from glscl_jax.runtime import sharding
from tests.builders import SCORE, cast, features, slow_score

whole_score = jax.jit(GLSCLHead.score, static_argnums=0)


# A new size, and a new temperature, is a new program to compile: few of them, many numbers.
@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(1, 1, 1, 3.0), (7, 2, 5, 1.0), (3, 7, 4, 10.0)]), st.integers(0, 2**16))
def test_score_is_the_paper_s(setting, seed):
    *sizes, temperature = setting
    text, video = features(*sizes, seed=seed)
    head = GLSCLHead(temperature, 0.5)
    found = whole_score(head, text, video)
    expected = slow_score(text, video, head)
    np.testing.assert_allclose(found, expected, atol=2e-6)


SIZES = st.sampled_from([(1, 1), (7, 5), (13, 17)])


@settings(max_examples=6, deadline=None)
@given(
    SIZES,
    st.sampled_from([1, 2, 5, 7, 100]),
    st.sampled_from([1, 3, 8, 9, 100]),
    st.sampled_from([1.0, 3.0, 10.0]),
    st.sampled_from([np.float32, jnp.bfloat16]),
    st.integers(0, 2**16),
)
def test_blocks_of_any_size_give_the_whole(
    sizes, text_block, video_block, temperature, dtype, seed
):
    text, video = cast(features(*sizes, seed=seed), dtype)
    found = score_in_blocks(
        text,
        video,
        head=GLSCLHead(temperature, 0.5),
        text_block=text_block,
        video_block=video_block,
    )
    assert found.dtype == np.float32
    # Half precision is in the features alone: their products are summed in float32.
    np.testing.assert_allclose(
        found, slow_score(text, video, GLSCLHead(temperature, 0.5)), atol=2e-6
    )


def test_eight_devices_score_as_one_does():
    text, video = features(30, 45)
    one = sharding.make_mesh(jax.devices()[:1])
    for blocks in ({}, {"text_block": 7, "video_block": 11}):
        alone = score_in_blocks(text, video, mesh=one, **blocks, **SCORE)
        shared = score_in_blocks(text, video, mesh=sharding.make_mesh(), **blocks, **SCORE)
        np.testing.assert_allclose(shared, alone, rtol=0, atol=1e-6)


def test_every_device_holds_its_share_of_the_videos():
    blocks = Blocks(*features(6, 40), mesh=sharding.make_mesh(), **SCORE)
    (videos,) = blocks.video_parts()
    scores = blocks.score(blocks.text_parts[0], videos)
    assert {shard.data.shape for shard in scores.addressable_shards} == {(6, 5)}
    for leaf in jax.tree.leaves((videos.features, videos.prepared)):
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {5}


def test_what_fills_a_block_up_scores_below_everything():
    one = sharding.make_mesh(jax.devices()[:1])
    blocks = Blocks(*features(5, 7), mesh=one, text_block=3, video_block=4, **SCORE)
    assert (blocks.text_block, blocks.video_block) == (3, 4)
    assert [part.real for part in blocks.text_parts] == [3, 2]
    *_, last = blocks.video_parts()
    scores = np.asarray(blocks.score(blocks.text_parts[0], last))
    assert np.isneginf(scores[:, 3:]).all()
    assert np.isfinite(scores[:, :3]).all()


def test_blocks_are_equal_so_that_little_is_filled_up():
    blocks = Blocks(*features(9, 33), text_block=8, video_block=32, **SCORE)
    # 2 x 5 texts, not 2 x 8; 2 x 24 videos on 8 devices, not 2 x 32.
    assert (blocks.text_block, blocks.video_block) == (5, 24)
    with pytest.raises(ValueError, match="a block of 0 items"):
        Blocks(*features(2, 2), text_block=0, **SCORE)


def test_one_program_scores_all_blocks():
    before = score_block_programs()
    score_in_blocks(*features(23, 41, width=24), text_block=6, video_block=9, **SCORE)
    assert score_block_programs() == before + 1


def score_block_programs() -> int:
    from glscl_jax.retrieval.score_blocks import _score_block

    return _score_block._cache_size()


def test_a_real_frame_far_behind_a_padded_one_still_counts():
    # exp((1 - 1000) / 3) is 0 in float32, and so would be every weight; the cosine is 1.
    text = TextFeatures(np.ones((1, 1), np.float32), np.zeros((1, 0, 1), np.float32))
    frames = np.array([[[1.0], [1000.0]]], np.float32)
    video = VideoFeatures(frames, np.array([[1, 0]]), np.zeros((1, 0, 1), np.float32))
    scores, gradient = jax.value_and_grad(
        lambda frames: SCORE["head"].score(text, video.replace(frames=frames))[0, 0]
    )(frames)
    np.testing.assert_allclose(scores, 1, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_without_queries_the_score_is_the_gim_s():
    text, video = features(4, 3)
    bare = [side.replace(queries=side.queries[:, :0]) for side in (text, video)]
    expected = slow_score(text, video, GLSCLHead(3.0, 0.0))
    np.testing.assert_allclose(score_in_blocks(*bare, **SCORE), expected, atol=2e-6)


def test_features_may_lie_in_a_file(tmp_path):
    text, video = features(5, 20)
    np.save(tmp_path / "frames.npy", video.frames)
    mapped = video.replace(frames=np.load(tmp_path / "frames.npy", mmap_mode="r"))
    found = score_in_blocks(text, mapped, video_block=8, **SCORE)
    expected = score_in_blocks(text, video, video_block=8, **SCORE)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (32, 128)])
def test_no_temporary_grows_with_the_width(shape):
    def temporaries(width):
        text, video = features(*shape, frames=4, width=width)
        compiled = jax.jit(SCORE["head"].score)
        return compiled.lower(text, video).compile().memory_analysis().temp_size_in_bytes

    # [A,B,D] at D = 512 would be 8 MiB.
    assert temporaries(512) < 64 * 64 * 512 * 4 / 4
