"""Heads against their formulas, written out a pair at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.evaluation.report import write_report
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.models.heads.told import Part, Told
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.retrieval.score_blocks import score_in_blocks
from glscl_jax.retrieval.split_scores import Scored
from tests.builders import slow_mean

A, B, V, K, D = 7, 9, 4, 3, 8
HEADS = [GLSCLHead(temperature=2.0, lim_weight=0.75), MeanHead()]


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def unit(vectors):
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    mask = (np.arange(V) < rng.integers(1, V + 1, (B, 1))).astype(np.int32)
    assert (mask == 0).any()
    # Padded frames are zero as they are read, and anything once a temporal module mixed them.
    frames = drawn(B, V, D) * np.where(np.arange(B)[:, None, None] % 2, 1, mask[:, :, None])
    text = TextFeatures(drawn(A, D), unit(drawn(A, K, D)))
    return text, VideoFeatures(frames, mask, unit(drawn(B, K, D)))


def test_the_mean_of_real_frames(features):
    text, video = features
    expected = slow_mean(text.sentence, video.frames, video.mask)
    np.testing.assert_allclose(MeanHead().score(text, video), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_block_of_what_is_prepared_has_the_same_scores(head, features):
    text, video = features
    whole = head.score(text, video)
    found = score_in_blocks(text, video, head=head, text_block=3, video_block=8)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_what_a_head_tells_sums_up_to_its_score(head, features):
    text, video = features
    whole = head.score(text, video)
    for a, b in ((0, 0), (3, 5), (A - 1, B - 1)):
        one = (jax.tree.map(lambda x: x[a], text), jax.tree.map(lambda x: x[b], video))  # noqa: B023
        told = head.tell(*one)
        assert told.score == pytest.approx(float(whole[a, b]), abs=1e-5)
        weights = np.asarray(told.weights)
        assert not weights[video.mask[b] == 0].any()
        assert 0 < weights.sum() <= 1 + 1e-6
        assert (told.concepts is None) == (head.name == "mean")
    assert all(term and text for term, text in head.legend)


def test_without_queries_the_glscl_head_is_the_gim_alone(features):
    text, video = features
    text, video = (x.replace(queries=x.queries[:, :0]) for x in (text, video))
    head = HEADS[0]
    told = head.tell(jax.tree.map(lambda x: x[0], text), jax.tree.map(lambda x: x[0], video))
    assert [part.name for part in told.parts] == ["GIM"]
    assert told.score == pytest.approx(float(head.score(text, video)[0, 0]), abs=1e-5)


@dataclasses.dataclass(frozen=True)
class BestFrame:
    """A third head: the cosine of the sentence and the frame that is nearest to it."""

    name = "best frame"
    legend = (("Under each frame: whether it was the nearest", "One frame counts."),)

    def prepare(self, video):
        return video.frames / (jnp.linalg.norm(video.frames, axis=-1, keepdims=True) + 1e-12)

    def score(self, text, video, prepared=None):
        frames = self.prepare(video) if prepared is None else prepared
        sentences = text.sentence / jnp.linalg.norm(text.sentence, axis=-1, keepdims=True)
        cosines = jnp.einsum("AD,BVD->ABV", sentences, frames, precision=jax.lax.Precision.HIGHEST)
        return jnp.max(jnp.where(video.mask > 0, cosines, -jnp.inf), axis=-1)

    def tell(self, text, video):
        one, other = (jax.tree.map(lambda x: x[None], side) for side in (text, video))
        frames = [jax.tree.map(lambda x: x[:, v : v + 1], other) for v in range(len(video.mask))]  # noqa: B023
        each = jnp.stack([self.score(one, frame)[0, 0] for frame in frames])
        best = (jnp.arange(len(each)) == jnp.argmax(each)).astype(jnp.float32)
        return Told((Part("nearest frame", 1.0, float(jnp.max(each))),), best, None)


def test_a_third_head_ranks_and_is_told_of_without_a_word_elsewhere(features, tmp_path):
    text, video = features
    head, owner = BestFrame(), np.arange(A) % B
    every = np.concatenate([owner, np.arange(B)])  # each video has a caption
    text = jax.tree.map(lambda x: np.concatenate([x, x[np.arange(B) % A]]), text)
    whole = np.asarray(head.score(text, video))
    expected = metrics.retrieval(whole, every)
    captions = [f"caption {a}" for a in range(len(every))]
    clips = [f"clip {b}" for b in range(B)]
    encoded = EncodedSplit(text, video, every, captions, clips, int(video.mask.sum()), {})
    scored = Scored(encoded, head)
    found = scored.retrieval()
    for name in ("t2v", "v2t"):
        np.testing.assert_array_equal(getattr(found, name).mean, getattr(expected, name).mean)
    np.testing.assert_array_equal(scored.top(1)["t2v"].items[:, 0], whole.argmax(axis=1))
    black = np.zeros((8, 8, 3), np.uint8)
    page = write_report(
        tmp_path,
        title="a third head",
        retrieval=found,
        encoded=encoded,
        scores_of=scored.row,
        head=head,
        frames_of=lambda clip: [black] * int(video.mask[clips.index(clip)].sum()),
        examples=1,
    ).read_text(encoding="utf-8")
    assert "nearest frame " in page
    assert "One frame counts." in page
