"""Bootstrap intervals against a slow loop, and against what is known of the true value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.retrieval import bootstrap, metrics

SETTINGS = {"samples": 40, "seed": 3, "confidence": 0.9}


def slow_draws(groups, samples, seed):
    """The queries of every draw, one after another."""
    rng = np.random.default_rng(seed)
    names = sorted(set(groups))
    for _ in range(samples):
        drawn = rng.integers(len(names), size=len(names))
        yield np.concatenate([np.flatnonzero(groups == names[number]) for number in drawn])


def figures(ranks) -> list[float]:
    return list(metrics.recalls(ranks).as_dict().values())


def some_ranks(rng, queries) -> np.ndarray:
    # Halves, as the mean rank among ties has them.
    return rng.integers(2, 140, queries) / 2


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_intervals_agree_with_a_slow_loop(queries, each, seed):
    rng = np.random.default_rng(seed)
    ranks = some_ranks(rng, queries)
    groups = rng.permutation(np.arange(queries) // each)
    drawn = [figures(ranks[own]) for own in slow_draws(groups, samples=40, seed=3)]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    found = bootstrap.intervals(ranks, **SETTINGS, groups=groups).values()
    np.testing.assert_allclose([x.low for x in found], low, rtol=1e-9)
    np.testing.assert_allclose([x.high for x in found], high, rtol=1e-9)
    assert [x.value for x in found] == figures(ranks)


def test_pairs_agree_with_a_slow_loop():
    rng = np.random.default_rng(0)
    a, b = some_ranks(rng, 31), some_ranks(rng, 31)
    drawn = [
        np.subtract(figures(b[own]), figures(a[own])) for own in slow_draws(np.arange(31), 40, 3)
    ]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    found = bootstrap.paired(a, b, **SETTINGS).values()
    np.testing.assert_allclose([x.low for x in found], low, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose([x.high for x in found], high, rtol=1e-9, atol=1e-9)
    assert [(x.a, x.b) for x in found] == list(zip(figures(a), figures(b), strict=True))
    assert all(x.difference == x.b - x.a for x in found)


def test_means_of_runs_agree_with_a_slow_loop():
    rng = np.random.default_rng(0)
    runs = [some_ranks(rng, 31) for _ in range(4)]
    seeds = np.random.default_rng([3, 4]).integers(4, size=(40, 3))
    drawn = [
        np.mean([figures(runs[run][own]) for run in taken], axis=0)
        for own, taken in zip(slow_draws(np.arange(31), 40, 3), seeds, strict=True)
    ]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    found = bootstrap.intervals_of_means(runs, **SETTINGS).values()
    np.testing.assert_allclose([x.low for x in found], low, rtol=1e-9)
    np.testing.assert_allclose([x.high for x in found], high, rtol=1e-9)
    expected = np.mean([figures(ranks) for ranks in runs], axis=0)
    np.testing.assert_allclose([x.value for x in found], expected, rtol=1e-12)
    # The mean's difference from a recipe that answers nothing is the mean.
    nothing = np.full(31, 1000.0)
    against = bootstrap.paired_means([nothing], runs, **SETTINGS)["R@1"]
    first = bootstrap.intervals_of_means(runs, **SETTINGS)["R@1"]
    assert against.difference == pytest.approx(first.value)


def test_bounds_do_not_hang_on_the_block(monkeypatch):
    ranks = some_ranks(np.random.default_rng(0), 101)
    whole = bootstrap.intervals(ranks, **SETTINGS)
    # Seven draws at once: the last block is not full.
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * 101)
    assert bootstrap.intervals(ranks, **SETTINGS) == whole


def test_the_seed_decides():
    ranks = some_ranks(np.random.default_rng(0), 200)
    assert bootstrap.intervals(ranks) == bootstrap.intervals(ranks)
    assert bootstrap.intervals(ranks) != bootstrap.intervals(ranks, seed=1)


def test_names_are_those_of_the_table():
    names = list(metrics.recalls(np.ones(1)).as_dict())
    assert list(bootstrap.intervals(np.ones(4))) == names
    assert list(bootstrap.paired(np.ones(4), np.ones(4))) == names


def test_the_true_recall_lies_in_the_interval_as_often_as_promised():
    rng = np.random.default_rng(0)
    worlds, queries, truth = 400, 300, 40.0
    hit = mean = 0
    for _ in range(worlds):
        # A share of 0.4 has rank 1, the others 2 to 9 alike: the true mean rank is 3.7.
        ranks = np.where(rng.random(queries) < truth / 100, 1, rng.integers(2, 10, queries))
        found = bootstrap.intervals(ranks, samples=300)
        hit += found["R@1"].low <= truth <= found["R@1"].high
        mean += found["MnR"].low <= 3.7 <= found["MnR"].high
    # The promise of 95 %, give or take four standard deviations of 400 worlds (1.1 % each).
    assert 0.906 < hit / worlds < 0.994
    assert 0.906 < mean / worlds < 0.994


def test_intervals_have_the_width_of_the_known_error():
    # 1,000 queries with R@1 of 45: the standard error of a share, 1.573, on either side.
    ranks = np.where(np.arange(1000) < 450, 1.0, 7.0)
    found = bootstrap.intervals(ranks)["R@1"]
    assert found.value == 45
    width = 1.96 * 100 * np.sqrt(0.45 * 0.55 / 1000)
    np.testing.assert_allclose([found.low, found.high], [45 - width, 45 + width], atol=0.35)


def test_captions_of_one_video_are_drawn_together():
    # Twenty captions of a video that are all found or all missed tell no more than one does.
    ranks = np.where(np.arange(100) < 40, 1.0, 5.0)
    alone = bootstrap.intervals(ranks)["R@1"]
    together = bootstrap.intervals(np.repeat(ranks, 20), groups=np.repeat(np.arange(100), 20))
    apart = bootstrap.intervals(np.repeat(ranks, 20))["R@1"]
    assert together["R@1"] == alone
    by_name = [f"clip{number:03}" for number in np.repeat(np.arange(100), 20)]
    assert bootstrap.intervals(np.repeat(ranks, 20), groups=by_name) == together
    assert apart.high - apart.low < 0.4 * (alone.high - alone.low)


def test_equal_runs_are_within_noise():
    ranks = some_ranks(np.random.default_rng(0), 300)
    for found in bootstrap.paired(ranks, ranks).values():
        assert found.within_noise
        assert found.low == found.difference == found.high == 0


def test_runs_that_differ_by_chance_are_mostly_within_noise():
    rng = np.random.default_rng(0)
    apart = 0
    for _ in range(200):
        a, b = some_ranks(rng, 200), some_ranks(rng, 200)
        apart += not bootstrap.paired(a, b, samples=300)["MnR"].within_noise
    # 5 % are expected: 10 of 200, give or take four standard deviations of 3.1.
    assert apart <= 22


def test_a_clear_difference_is_not_within_noise():
    rng = np.random.default_rng(0)
    a = rng.integers(2, 60, 500).astype(float)
    b = np.where(rng.random(500) < 0.2, 1, a)
    for name, found in bootstrap.paired(a, b).items():
        better = found.difference > 0 if name.startswith("R@") else found.difference < 0
        # Almost all ranks are under 50, so R@50 may be as good as level.
        assert better or name == "R@50"
        if name != "R@50":
            assert not found.within_noise
            assert found.low * found.high > 0


def test_pairing_sees_what_two_intervals_cannot():
    # Run B finds 15 of 1,000 queries more and loses none: the intervals of the runs overlap
    # widely, and still the difference is certain.
    a = np.where(np.arange(1000) < 450, 1.0, 2.0)
    b = np.where(np.arange(1000) < 465, 1.0, 2.0)
    alone_a, alone_b = (bootstrap.intervals(x)["R@1"] for x in (a, b))
    assert alone_a.high > alone_b.value
    found = bootstrap.paired(a, b)["R@1"]
    assert not found.within_noise
    assert 0.5 < found.low < 1.5 < found.high < 2.5


@pytest.mark.parametrize(
    ("ranks", "options", "message"),
    [
        ([], {}, "one rank a query"),
        ([[1.0]], {}, "one rank a query"),
        ([1.0, np.nan], {}, "a finite number"),
        ([0.0, 1.0], {}, "counted from 1"),
        ([1.0], {"samples": 0}, "0 samples"),
        ([1.0], {"confidence": 95}, "not between 0 and 1"),
        ([1.0, 2.0], {"groups": np.zeros(3)}, "for 2 queries"),
    ],
)
def test_wrong_input_is_an_error(ranks, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap.intervals(np.array(ranks), **options)


def test_runs_on_other_queries_cannot_be_paired():
    with pytest.raises(ValueError, match="3 queries cannot be paired with 2"):
        bootstrap.paired(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="3 queries cannot be paired with 2"):
        bootstrap.intervals_of_means([np.ones(3), np.ones(2)])
    with pytest.raises(ValueError, match="without runs"):
        bootstrap.intervals_of_means([])
