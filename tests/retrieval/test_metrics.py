"""Ranks, ties and recalls against slow counting and the reference's numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.retrieval import metrics


def slow_mean_rank(row, right) -> float:
    """The average place of the right item over all orders of the items tied with it."""
    before = sum(score > row[right] for score in row)
    tied = sum(score == row[right] for score in row)
    return before + np.mean(range(1, tied + 1))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ranks_agree_with_counting(queries, items, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (queries, items)).astype(np.float32)
    right = rng.integers(items, size=queries)
    found = metrics.ranks(scores, right)
    assert found.mean.tolist() == [slow_mean_rank(scores[i], right[i]) for i in range(queries)]
    assert (found.optimistic <= found.mean).all()
    assert (found.mean <= found.pessimistic).all()


def test_ties_are_told_and_do_not_add_rows():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    result = metrics.retrieval(scores, np.arange(3))
    assert len(result.t2v.mean) == 3
    assert result.t2v.mean.tolist() == [1.5, 1, 1]
    assert result.v2t.mean.tolist() == [1, 1.5, 1]
    assert metrics.recalls(result.t2v.optimistic).r1 == 100


def test_table_shows_all_tie_rules_where_they_differ():
    # Only the first caption ties; every video has one best caption.
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    result = metrics.retrieval(scores, np.arange(3))
    rows = [line.split() for line in metrics.table(result).splitlines()]
    assert rows[1:5] == [
        ["text-to-video", "66.7", "100.0", "100.0", "100.0", "1.0", "1.2"],
        ["optimistic", "100.0", "100.0", "100.0", "100.0", "1.0", "1.0"],
        ["pessimistic", "66.7", "100.0", "100.0", "100.0", "1.0", "1.3"],
        ["video-to-text", "100.0", "100.0", "100.0", "100.0", "1.0", "1.0"],
    ]
    assert len(rows) == 6
    warning = " ".join(rows[5])
    assert "1 of 3 text-to-video queries tie" in warning
    assert "between 66.7 and 100.0 (upper row: mean)" in warning
    chosen = metrics.table(result, "pessimistic").splitlines()
    assert chosen[1].split()[1:2] == ["66.7"]
    assert [line.split()[0] for line in chosen[2:4]] == ["mean", "optimistic"]


def test_table_without_ties_has_two_rows_and_no_warning():
    printed = metrics.table(metrics.retrieval(np.eye(2), np.arange(2)))
    assert len(printed.splitlines()) == 3
    assert "warning" not in printed


def test_legacy_metric_counts_every_tied_item():
    # Row 0: the right item ties with one other for places 1 and 2. Row 1: all three tie, places
    # 1 to 3. Row 2: second, no tie. So six rows are scored, of ranks 1 2 1 2 3 2.
    scores = np.array([[5.0, 5.0, 0.0], [1.0, 1.0, 1.0], [9.0, 0.0, 2.0]])
    found = metrics.legacy_recalls(scores, np.arange(3))
    t2v, v2t = (list(found[direction].as_dict().values()) for direction in ("t2v", "v2t"))
    np.testing.assert_allclose(t2v, [100 * 2 / 6, 100, 100, 100, 2, 11 / 6])
    # Columns: 5 against 1 and 9 is second; 1 against 5 and 0 is second; 2 leads.
    np.testing.assert_allclose(v2t, [100 * 1 / 3, 100, 100, 100, 2, 5 / 3])


@given(st.integers(1, 10), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_legacy_metric_agrees_with_sorting(items, levels, seed):
    scores = np.random.default_rng(seed).integers(0, levels, (items, items)).astype(np.float32)
    # The positions, in each sorted row, of every score that equals the right item's.
    rows = [
        place
        for i, row in enumerate(scores)
        for place, score in enumerate(sorted(row, reverse=True), 1)
        if score == row[i]
    ]
    found = metrics.legacy_recalls(scores, np.arange(items))["t2v"]
    assert found == metrics.recalls(np.array(rows, float))


def slow_video_ranks(scores, owner) -> list[float]:
    """For every video, the place of its own group of captions among the groups."""
    captions, videos = scores.shape
    found = []
    for video in range(videos):
        groups = [
            max(scores[caption, video] for caption in range(captions) if owner[caption] == other)
            for other in range(videos)
        ]
        found.append(slow_mean_rank(groups, video))
    return found


@given(st.integers(1, 6), st.integers(0, 10), st.integers(0, 2**32 - 1))
def test_unequal_numbers_of_texts_and_videos(videos, more, seed):
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.concatenate([np.arange(videos), rng.integers(videos, size=more)]))
    scores = rng.integers(0, 5, (len(owner), videos)).astype(np.float32)
    result = metrics.retrieval(scores, owner)
    assert result.v2t.mean.tolist() == slow_video_ranks(scores, owner)
    assert result.t2v.mean.tolist() == [
        slow_mean_rank(row, own) for row, own in zip(scores, owner, strict=True)
    ]


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_permuting_the_gallery_changes_nothing(videos, seed):
    rng = np.random.default_rng(seed)
    # Few levels, so that ties are common: a rule that hung on order would show.
    scores = rng.integers(0, 4, (2 * videos + 1, videos)).astype(np.float32)
    owner = np.concatenate([np.arange(videos)] * 2 + [[0]])
    videos_order, texts_order = rng.permutation(videos), rng.permutation(len(owner))
    moved_owner = np.argsort(videos_order)[owner][texts_order]
    moved = scores[texts_order][:, videos_order]
    assert metrics.summary(metrics.retrieval(moved, moved_owner)) == metrics.summary(
        metrics.retrieval(scores, owner)
    )
    assert metrics.legacy_recalls(moved, moved_owner) == metrics.legacy_recalls(scores, owner)


def test_a_shuffled_pairing_falls_to_chance():
    rng = np.random.default_rng(0)
    videos = 500
    features = rng.normal(size=(videos, 64))
    scores = features @ features.T
    assert metrics.recalls(metrics.retrieval(scores, np.arange(videos)).t2v.mean).r1 > 95
    shuffled = metrics.retrieval(scores, rng.permutation(videos))
    # By chance: hits among the first k follow a binomial of k / videos, ranks are uniform.
    for places in (shuffled.t2v.mean, shuffled.v2t.mean):
        for k in (1, 10, 50):
            share = k / videos
            allowed = 4 * np.sqrt(share * (1 - share) / videos)
            assert abs(np.mean(places <= k) - share) < allowed
        assert abs(places.mean() - (videos + 1) / 2) < 4 * videos / np.sqrt(12 * videos)


def test_a_video_without_a_caption_is_an_error():
    with pytest.raises(ValueError, match="1 of 3 videos have no caption"):
        metrics.retrieval(np.zeros((2, 3)), np.array([0, 1]))


def test_a_score_that_is_no_number_is_an_error():
    scores = np.eye(3)
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 9 scores"):
        metrics.retrieval(scores, np.arange(3))


def test_a_caption_of_no_video_is_an_error():
    with pytest.raises(ValueError, match="not among the 2"):
        metrics.retrieval(np.zeros((3, 2)), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="not among the 2"):
        metrics.video_to_text(np.zeros((3, 2)), np.array([0, 1, 2]))


def test_no_queries_give_no_recall():
    with pytest.raises(ValueError, match="no queries"):
        metrics.recalls(np.zeros(0))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_features_that_are_no_numbers_are_named(dtype):
    features = np.ones((2500, 3, 2), dtype)
    names = [f"clip{number}" for number in range(2500)]
    metrics.check_finite("video features", features, names)
    features[2100, 2, 1], features[2400, 0, 0] = np.nan, -np.inf
    with pytest.raises(UserError, match=r"video features of 'clip2100' .*2 of 2500") as error:
        metrics.check_finite("video features", features, names)
    assert "\n" not in str(error.value)


def test_a_caption_of_several_lines_stays_one_line():
    with pytest.raises(UserError) as error:
        metrics.check_finite("text features", np.array([[np.nan]]), ["one\ntwo " * 40])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_names_must_cover_all_features():
    with pytest.raises(ValueError, match="1 names for 2 items"):
        metrics.check_finite("text features", np.array([[0.0], [np.nan]]), ["a"])


def test_reference_metrics(golden):
    values = np.load(golden / "evaluation.npz")
    square = metrics.retrieval(values["sim"], np.arange(len(values["sim"])))
    several = metrics.retrieval(values["multi/sim"], values["multi/owner"])
    # There the released metric and this one agree: nothing ties.
    legacy = metrics.legacy_recalls(values["multi/sim"], values["multi/owner"])
    assert legacy["v2t"] == metrics.recalls(several.v2t.mean)
    for result, name in ((square, "metrics"), (several, "multi")):
        for direction in ("t2v", "v2t"):
            found = metrics.recalls(getattr(result, direction).mean).as_dict().values()
            np.testing.assert_allclose(list(found), values[f"{name}/{direction}"], atol=1e-4)
