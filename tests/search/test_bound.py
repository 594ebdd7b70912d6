"""No score is above its bound, and the bound is near."""

import hypothesis
import hypothesis.extra.numpy as st_numpy
import hypothesis.strategies as st
import numpy as np
import pytest

from glscl_jax.models.heads import gim_bound
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.gim_alone import GIMHead
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.mean import MeanHead
from tests.builders import cast, features

HEADS = (
    GLSCLHead(),
    GLSCLHead(temperature=0.1),
    GLSCLHead(gim_weight=2.0, lim_weight=0.3),
    GLSCLHead(gim_weight=0.0),
    GIMHead(),
    MeanHead(),
)


@pytest.mark.parametrize("head", HEADS)
@hypothesis.given(
    seed=st.integers(0, 9999), offset=st.floats(0, 3), half=st.sampled_from([None, "bfloat16"])
)
@hypothesis.settings(max_examples=20)
def test_no_score_is_above_its_bound(head, seed, offset, half):
    text, video = features(6, 8, seed=seed)
    # From frames that point anywhere, of which nothing is bounded, to such as lie in a narrow cone.
    shift = np.random.default_rng(seed).normal(size=16).astype(np.float32)
    video = video.replace(frames=video.frames + offset * shift)
    if half:
        video = cast(video, half)
    scores, bounds = head.score(text, video), head.bound(text, video, head.outline(video))
    assert np.all(np.isfinite(bounds))
    assert np.all(np.asarray(scores) <= np.asarray(bounds))


@pytest.mark.parametrize(("offset", "temperature"), [(3, 3.0), (0, 0.01)])
def test_the_bound_is_near(offset, temperature):
    """Where frames are alike, by the nearest point; where one alone is looked at, along it."""
    head = GLSCLHead(temperature=temperature)
    text, video = features(20, 50, seed=1)
    shift = np.random.default_rng(1).normal(size=16).astype(np.float32)
    video = video.replace(frames=video.frames + offset * shift)
    away = np.asarray(head.bound(text, video, head.outline(video)) - head.score(text, video))
    assert away.mean() < 0.05


def test_padding_is_no_part_of_it():
    head = GLSCLHead()
    _, video = features(3, 8, seed=2)
    other = video.replace(frames=np.where(video.mask[:, :, None] > 0, video.frames, 1e3))
    for one, two in zip(head.outline(video).values(), head.outline(other).values(), strict=True):
        np.testing.assert_array_equal(one, two)


@hypothesis.given(
    st_numpy.arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(1, 6)),
        elements=st.floats(-10, 10, width=16),
    ),
    st.floats(0, 20),
)
def test_the_nearest_point_of_a_hull(points, away):
    points = points + away * np.eye(points.shape[1])[0]
    gram = points @ points.T
    weights = gim_bound.nearest_point(gram)
    assert weights.min() >= 0
    assert abs(weights.sum() - 1) < 1e-9
    nearest = weights @ points
    # The condition of the optimum: no point of the hull lies behind the plane through it.
    scale = max(np.max(np.diag(gram)), 1e-9)
    assert (points @ nearest).min() >= nearest @ nearest - 1e-8 * scale


def test_by_hand():
    # A segment from (1, 1) to (1, -1), and a point behind it: the nearest is (1, 0).
    points = np.array([[1.0, 1], [1, -1], [3, 0]])
    np.testing.assert_allclose(
        gim_bound.nearest_point(points @ points.T), [0.5, 0.5, 0], atol=1e-12
    )
    frames = np.zeros((1, 4, 2), np.float32)
    frames[0, :3] = points
    found = gim_bound.outline(frames, np.array([[1, 1, 1, 0]]))
    np.testing.assert_allclose(found["heights"], [[1, 1, 3, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["lengths"], [[2**0.5, 2**0.5, 3, 0]], rtol=1e-6)
    np.testing.assert_allclose(found["least"], [[0, 0, 1, 0]], atol=1e-6)


def test_frames_around_the_origin_bound_nothing():
    frames = np.array([[[1, 0], [-1, 0.0]]], np.float32)
    mask = np.ones((1, 2), np.int32)
    found = gim_bound.outline(frames, mask)
    assert not found["heights"].any()
    head = GLSCLHead()
    text = TextFeatures(np.array([[1, 0.0]], np.float32), np.zeros((1, 0, 2), np.float32))
    video = VideoFeatures(frames, mask, np.zeros((1, 0, 2), np.float32))
    assert head.bound(text, video, found) == pytest.approx(1, abs=1e-4)
