"""QB-Norm and dual softmax against slow loops, the reference's numbers, and guards."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.retrieval import metrics, rerank
from glscl_jax.retrieval.rerank import QBNorm

GOLDEN = {
    "k1_beta70_theta3": QBNorm(),
    "k1_beta50_theta5": QBNorm(beta=50, theta=5),
}


def slow_qb_norm(scores, bank, settings) -> np.ndarray:
    """The formula as it reads, an item and a query at a time."""
    votes = np.zeros(scores.shape[1])
    for row in bank:
        for item, score in enumerate(row):
            votes[item] += sum(other > score for other in row) < settings.k
    result = scores.astype(np.float64)
    for query, row in enumerate(scores):
        best = [item for item, score in enumerate(row) if score == max(row)]
        if any(votes[item] >= settings.theta for item in best):
            for item, score in enumerate(row.tolist()):
                others = sum(np.exp(settings.beta * x) for x in bank[:, item].tolist())
                result[query, item] = np.exp(settings.beta * score) / others
    return result


def made_up_scores(rng, queries, gallery, levels=None) -> np.ndarray:
    """Scores in float32, of a few levels where ties are wanted."""
    if levels:
        return (rng.integers(0, levels, (queries, gallery)) / levels).astype(np.float32)
    return rng.uniform(-1.5, 1.5, (queries, gallery)).astype(np.float32)


@pytest.mark.parametrize("name", GOLDEN)
def test_reference_qb_norm(golden, name):
    values = np.load(golden / "evaluation.npz")
    found = rerank.query_bank_norm(values["sim"], values["bank"], GOLDEN[name])
    expected = values[f"qbnorm/{name}"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # Some queries are changed and some are not, so both cases are compared.
    changed = np.any(expected != values["sim"], axis=1)
    assert 0 < np.sum(changed) < len(changed)
    places = metrics.text_to_video(found, np.arange(len(found)))
    figures = list(metrics.recalls(places.mean).as_dict().values())
    np.testing.assert_allclose(figures, values[f"qbnorm_metrics/{name}"], atol=1e-4)


def test_reference_qb_norm_for_videos(golden):
    # Seen from the videos' side: queries in rows again, so the same numbers as above, reached
    # through the matrix [captions, videos] that a split has.
    values = np.load(golden / "evaluation.npz")
    scores = np.ascontiguousarray(values["sim"].T)
    changed = rerank.query_bank_norm(scores.T, values["bank"], QBNorm())
    places = metrics.video_to_text(changed.T, np.arange(len(scores)))
    figures = list(metrics.recalls(places.mean).as_dict().values())
    np.testing.assert_allclose(figures, values["qbnorm_metrics/k1_beta70_theta3"], atol=1e-4)


def test_an_active_item_by_hand():
    bank = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    scores = np.array([[0.9, 0.8], [0.1, 0.2]])
    found = rerank.query_bank_norm(scores, bank, QBNorm(k=1, beta=1.0, theta=2))
    # Item 0 has two votes and is active, item 1 has one: only the first query is changed.
    sums = [2 * np.e + 1, 2 + np.e]
    np.testing.assert_allclose(found, [np.exp([0.9, 0.8]) / sums, [0.1, 0.2]])
    assert found[0].argmax() == 1


def test_one_active_item_among_equally_best_ones_is_enough():
    # Items 0 and 1 share the first place and only item 1 is active, wherever it stands.
    bank = np.array([[0.0, 1.0, 0.0]] * 3)
    scores = np.array([[0.9, 0.9, 0.1]])
    sums = [3, 3 * np.e, 3]
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        found = rerank.query_bank_norm(scores[:, order], bank[:, order], QBNorm(beta=1.0))
        np.testing.assert_allclose(found, (np.exp(scores) / sums)[:, order])


def test_items_level_with_the_last_of_the_best_have_a_vote():
    bank = np.array([[1.0, 0.5, 0.5, 0.0]])
    # With k 2 the second place is shared: items 0, 1 and 2 are active, item 3 is not.
    changed = rerank.query_bank_norm(np.eye(4), np.repeat(bank, 3, axis=0), QBNorm(k=2))
    assert np.any(changed != np.eye(4), axis=1).tolist() == [True, True, True, False]


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), st.booleans(), st.integers(0, 2**32)
)
def test_qb_norm_agrees_with_a_slow_loop(queries, gallery, banked, ties, seed):
    rng = np.random.default_rng(seed)
    levels = 4 if ties else None
    scores, bank = (made_up_scores(rng, rows, gallery, levels) for rows in (queries, banked))
    k = int(rng.integers(1, gallery + 1))
    settings = QBNorm(k=k, beta=float(rng.uniform(1, 80)), theta=int(rng.integers(1, 4)))
    before = scores.copy(), bank.copy()
    found = rerank.query_bank_norm(scores, bank, settings)
    np.testing.assert_allclose(found, slow_qb_norm(scores, bank, settings), rtol=1e-9)
    # The arguments are the caller's.
    assert np.array_equal(scores, before[0])
    assert np.array_equal(bank, before[1])


def test_qb_norm_does_not_hang_on_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    scores, bank = made_up_scores(rng, 20, 30), made_up_scores(rng, 50, 30)
    whole = rerank.query_bank_norm(scores, bank, QBNorm(k=3, theta=2))
    monkeypatch.setattr(rerank, "BANK_BLOCK", 7)
    parts = rerank.query_bank_norm(scores, bank, QBNorm(k=3, theta=2))
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def slow_dual_softmax(scores, temperature) -> np.ndarray:
    result = np.zeros(scores.shape)
    for item, column in enumerate(scores.T.tolist()):
        shares = [np.exp(temperature * score) for score in column]
        for query, score in enumerate(column):
            result[query, item] = score * shares[query] / sum(shares)
    return result


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.5, 150), st.integers(0, 2**32))
def test_dual_softmax_agrees_with_a_slow_loop(queries, gallery, temperature, seed):
    scores = made_up_scores(np.random.default_rng(seed), queries, gallery)
    found = rerank.dual_softmax(scores, temperature)
    np.testing.assert_allclose(found, slow_dual_softmax(scores, temperature), rtol=1e-9)


def test_dual_softmax_says_that_it_is_transductive():
    assert "transductive" in rerank.DUAL_SOFTMAX
    assert "Transductive" in rerank.dual_softmax.__doc__
    # And it is: a query's row hangs on the other queries.
    scores = np.array([[0.5, 0.4], [0.6, 0.1]])
    assert not np.allclose(rerank.dual_softmax(scores)[:1], rerank.dual_softmax(scores[:1]))


def test_the_query_bank_alone_decides_in_qb_norm():
    # Unlike dual softmax: a query's row does not see the other test queries.
    rng = np.random.default_rng(0)
    scores, bank = made_up_scores(rng, 9, 12), made_up_scores(rng, 40, 12)
    whole = rerank.query_bank_norm(scores, bank, QBNorm(theta=1))
    for query in range(9):
        alone = rerank.query_bank_norm(scores[query : query + 1], bank, QBNorm(theta=1))
        np.testing.assert_allclose(alone[0], whole[query], rtol=1e-12)


# Both, on captions in rows and on videos in rows: (scores, bank) -> changed scores.
METHODS = {
    "QB-Norm": lambda scores, bank: rerank.query_bank_norm(scores, bank, QBNorm()),
    "dual softmax": lambda scores, bank: rerank.dual_softmax(scores),
}


@dataclasses.dataclass(frozen=True)
class Split:
    """A made-up split of 40 videos and 70 captions, with banks for both directions."""

    scores: np.ndarray  # [captions, videos]
    owner: np.ndarray
    text_bank: np.ndarray  # [training captions, videos]
    video_bank: np.ndarray  # [training videos, captions]


def made_up_split(seed: int = 0, videos: int = 40, captions: int = 70) -> Split:
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(videos, 24))
    owner = np.concatenate([np.arange(videos), rng.integers(videos, size=captions - videos)])
    text = video[owner] + rng.normal(size=(captions, 24))
    bank = rng.normal(size=(200, 24))
    cosine = _cosines(text, video)
    return Split(cosine, owner, _cosines(bank, video), _cosines(bank, text))


def _cosines(a, b) -> np.ndarray:
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    # Rounded, as float32: the order of the columns must not show in the last bit.
    return np.round(unit[0] @ unit[1].T, 6).astype(np.float32)


def retrieval_after(method, split: Split) -> metrics.Retrieval:
    t2v = metrics.text_to_video(method(split.scores, split.text_bank), split.owner)
    v2t = metrics.video_to_text(method(split.scores.T, split.video_bank).T, split.owner)
    return metrics.Retrieval(t2v, v2t)


@pytest.mark.parametrize("name", METHODS)
def test_permuting_the_gallery_changes_nothing(name):
    split, rng = made_up_split(), np.random.default_rng(1)
    videos, texts = rng.permutation(40), rng.permutation(70)
    moved = Split(
        split.scores[texts][:, videos],
        np.argsort(videos)[split.owner][texts],
        split.text_bank[:, videos],
        split.video_bank[:, texts],
    )
    before, after = (retrieval_after(METHODS[name], x) for x in (split, moved))
    assert metrics.summary(after) == metrics.summary(before)
    # The figures compared are those of a changed order.
    assert metrics.summary(before) != metrics.summary(metrics.retrieval(split.scores, split.owner))


@pytest.mark.parametrize("name", METHODS)
def test_a_shuffled_pairing_falls_to_chance(name):
    split = made_up_split(videos=300, captions=300)
    assert metrics.recalls(retrieval_after(METHODS[name], split).t2v.mean).r1 > 50
    owner = np.random.default_rng(2).permutation(split.owner)
    result = retrieval_after(METHODS[name], dataclasses.replace(split, owner=owner))
    for places in (result.t2v.mean, result.v2t.mean):
        for k in (1, 10, 50):
            share = k / 300
            assert abs(np.mean(places <= k) - share) < 4 * np.sqrt(share * (1 - share) / 300)


def test_qb_norm_takes_a_hub_its_advantage():
    # Item 0 lies close to everything; every query's own item is second to it.
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 0.2, (30, 30))
    scores[np.arange(30), np.arange(30)] = 0.5
    bank = rng.uniform(0, 0.2, (100, 30))
    scores[:, 0] += 0.6
    bank[:, 0] += 0.6
    plain = metrics.recalls(metrics.text_to_video(scores, np.arange(30)).mean)
    changed = rerank.query_bank_norm(scores, bank, QBNorm())
    assert plain.r1 < 5
    assert metrics.recalls(metrics.text_to_video(changed, np.arange(30)).mean).r1 == 100


def test_settings_that_leave_nothing_are_errors():
    for wrong in ({"k": 0}, {"theta": 0}, {"beta": 0.0}, {"beta": np.inf}, {"beta": np.nan}):
        with pytest.raises(UserError, match="at least 1"):
            QBNorm(**wrong)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(UserError, match="above 0"):
            rerank.dual_softmax(np.eye(2), wrong)
    with pytest.raises(UserError, match="k 3: the gallery has only 2 items"):
        rerank.query_bank_norm(np.eye(2), np.eye(2), QBNorm(k=3))


def test_a_result_beyond_float64_is_an_error_and_not_a_tie():
    with pytest.raises(UserError, match=r"beta 900: .*take a smaller value"):
        rerank.query_bank_norm(np.eye(2), np.eye(2), QBNorm(beta=900.0, theta=1))
    with pytest.raises(UserError, match=r"temperature 900: .*take a smaller value"):
        rerank.dual_softmax(np.eye(2), 900.0)


def test_a_bank_of_another_gallery_is_an_error():
    for bank in (np.zeros((3, 5)), np.zeros((0, 4)), np.zeros(4)):
        with pytest.raises(ValueError, match="for a gallery of 4"):
            rerank.query_bank_norm(np.zeros((2, 4)), bank, QBNorm())


def test_scores_that_are_no_numbers_are_errors():
    broken = np.array([[0.0, np.nan]])
    for call in (
        lambda: rerank.query_bank_norm(broken, np.zeros((1, 2)), QBNorm()),
        lambda: rerank.query_bank_norm(np.zeros((1, 2)), broken, QBNorm()),
        lambda: rerank.dual_softmax(broken),
    ):
        with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
            call()
