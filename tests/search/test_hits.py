"""What a head says of hits beside their score: weights of frames, and vectors to find them by."""

import jax
import numpy as np
import pytest

from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import Head
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.search import query_program
from glscl_jax.search.hit import Answer, Hit
from tests.builders import features

HEADS = [GLSCLHead(temperature=0.5), GLSCLHead(gim_weight=2.0), MeanHead()]


def nth(tree, number):
    return jax.tree.map(lambda x: x[number], tree)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_frame_importance_of_many_videos_is_the_explanation_of_each(head):
    text, video = features(1, 6)
    found = head.frame_importance(nth(text, 0), video)
    each = [head.explain(nth(text, 0), nth(video, number)).weights for number in range(6)]
    np.testing.assert_allclose(found, each, atol=1e-6)
    np.testing.assert_allclose(Head.frame_importance(head, nth(text, 0), video), each, atol=1e-6)
    assert not found[video.mask == 0].any()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_of_single_frames_the_vectors_order_as_the_score(head):
    """There no pooling is left to approximate."""
    text, video = features(3, 20, frames=1)
    scores = np.asarray(head.score(text, video))
    near = np.asarray(head.text_vector(text)) @ np.asarray(head.video_vector(video)).T
    factor = 1
    if isinstance(head, GLSCLHead):
        factor = np.sqrt(head.gim_weight**2 + head.lim_weight**2 / 3)
    np.testing.assert_allclose(factor * near, scores, atol=1e-5)


def test_a_video_stands_for_itself():
    head = GLSCLHead()
    _, video = features(1, 12, seed=3)
    scores = np.asarray(head.score(head.as_text(video), video))
    assert (scores.argmax(axis=1) == np.arange(12)).mean() > 0.9
    # Padded frames are no part of the mean.
    padded = video.replace(frames=np.where(video.mask[:, :, None] > 0, video.frames, 1e6))
    np.testing.assert_allclose(head.as_text(padded).sentence, head.as_text(video).sentence)


def test_a_hit_s_time_is_of_a_real_frame():
    record = {"row": 3, "video": "a", "start": 0.0, "end": 2.0, "year": None, "size": 1}
    hit = Hit.of(1, 0.5, record, [0.5, 1.5, np.nan], [0.2, 0.8, 0.0])
    assert (hit.time, hit.times, hit.metadata) == (1.5, [0.5, 1.5], {"year": None})
    answer = Answer("x", [hit], 9, None, 4)
    assert answer.told == "the best of 4 scored windows of 9: not proved"
    assert Answer("x", [hit], 9, True, 4).told.endswith(": proved")
    assert Answer("x", [hit], 9, True, 9).told.endswith("all of them scored")


@pytest.mark.parametrize(
    ("weights", "printed"), [([0.3, 0.7], ", most at 1.5 s"), ([0.5, 0.5], "")]
)
def test_no_frame_is_named_where_all_count_alike(weights, printed):
    record = {"row": 0, "video": "a.mp4", "start": 0.0, "end": 2.0}
    hit = Hit.of(1, 0.5, record, [0.5, 1.5], weights)
    (_, line) = query_program._table(Answer("a dog", [hit], 1, True, 1)).splitlines()
    assert line == f"   1   0.5000  a.mp4  0.0 to 2.0 s{printed}"
