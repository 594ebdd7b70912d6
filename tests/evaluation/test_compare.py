"""Two runs side by side: by the paired bootstrap, and only on the same queries."""

import functools

import numpy as np
import pytest

from glscl_jax import compare
from glscl_jax.errors import UserError
from glscl_jax.evaluation import rank_files, run_card
from glscl_jax.files import write_json
from glscl_jax.retrieval import bootstrap, metrics
from glscl_jax.retrieval.rerank import DUAL_SOFTMAX
from tests.builders import split

VIDEOS = 150


def run(folder, noise, seed=0, encoded=None, method="none", **data):
    """A directory of results: random scores in which the right item is better by 1."""
    encoded = encoded or split(VIDEOS, captions=2)
    random = np.random.default_rng(seed)
    scores = random.normal(size=(len(encoded.captions), len(encoded.clip_ids))) * noise
    scores[np.arange(len(scores)), encoded.owner] += 1
    result = metrics.retrieval(scores.astype(np.float32), encoded.owner)
    folder.mkdir(parents=True)
    rank_files.write_ranks(folder, result, encoded)
    facts = {"dataset": "folder", **run_card.split_facts(encoded, "test"), **data}
    card = {
        "checkpoint": {"directory": "run", "step": 4},
        "data": facts,
        "rerank": {"method": method},
    }
    write_json(folder / run_card.RESULTS, card)
    return compare.read_run(folder), result, encoded


def test_figures_are_those_of_the_paired_bootstrap(tmp_path):
    a, result_a, encoded = run(tmp_path / "a", 0.5)
    b, result_b, _ = run(tmp_path / "b", 0.3, seed=1)
    found = compare.compare(a, b)
    assert found["t2v"] == bootstrap.paired(
        result_a.t2v.mean, result_b.t2v.mean, groups=encoded.owner
    )
    assert found["v2t"] == bootstrap.paired(result_a.v2t.mean, result_b.v2t.mean)
    # Captions of a video are drawn together: on their own they give another interval.
    alone = bootstrap.paired(result_a.t2v.mean, result_b.t2v.mean)
    assert found["t2v"]["R@1"].low != alone["R@1"].low


def test_a_better_run_is_told_from_noise(tmp_path):
    a, *_ = run(tmp_path / "a", 0.4)
    same, *_ = run(tmp_path / "same", 0.4, seed=7)
    better, *_ = run(tmp_path / "better", 0.25, seed=8, method="dual_softmax")
    found = compare.compare(a, same)
    assert found["t2v"]["R@1"].within_noise
    lines = compare.table(a, same, found).splitlines()
    assert [line.endswith("within noise") for line in lines if " R@1 " in line] == [True, True]
    found = compare.compare(a, better)
    assert not found["t2v"]["R@1"].within_noise
    told = compare.table(a, better, found)
    # A mean rank is better where it is lower.
    for figure in ("R@1", "MnR"):
        lines = [line for line in told.splitlines() if f" {figure} " in line]
        assert len(lines) == 2
        assert all(line.endswith("B is better") for line in lines)
    assert DUAL_SOFTMAX in told
    back = compare.table(better, a, compare.compare(better, a))
    assert "B is better" not in back
    assert "A is better" in back


def test_a_run_equals_itself(tmp_path):
    a, *_ = run(tmp_path / "a", 0.4)
    for found in compare.compare(a, a).values():
        assert all(x.within_noise and x.difference == x.low == x.high == 0 for x in found.values())


def test_other_queries_are_refused(tmp_path):
    a, *_ = run(tmp_path / "a", 0.4)
    refusals = {
        "another split (test and val)": {"split": "val"},
        "another dataset (folder and msvd)": {"dataset": "msvd"},
        "another clip_ids_sha256": {"encoded": split(VIDEOS - 1, captions=2)},
        "another captions_sha256": {"encoded": split(VIDEOS, captions=3)},
    }
    for number, (told, change) in enumerate(refusals.items()):
        b, *_ = run(tmp_path / str(number), 0.4, **change)
        with pytest.raises(UserError) as refused:
            compare.compare(a, b)
        assert told in str(refused.value)
        assert "\n" not in str(refused.value)
    # The hashes do not see the order, and a file can be mixed up by hand.
    path = tmp_path / "a" / rank_files.RANKS
    path.write_text(path.read_text().replace("caption 3", "caption three"), newline="")
    with pytest.raises(UserError, match=r"differ in t2v query 3 \(.*'caption three'"):
        compare.compare(compare.read_run(tmp_path / "a"), a)


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"results\.json is not there"):
        compare.read_run(tmp_path)
    run(tmp_path / "a", 0.4)
    write_json(tmp_path / "a" / run_card.RESULTS, {"checkpoint": "run", "t2v": {}})
    with pytest.raises(UserError, match="of another version"):
        compare.read_run(tmp_path / "a")
    (tmp_path / "a" / run_card.RESULTS).write_text("[")
    with pytest.raises(UserError, match="damaged"):
        compare.read_run(tmp_path / "a")


def group(folder, noises, first_seed):
    """A folder of runs on the same queries, and their results."""
    results = [
        run(folder / f"seed {number}", noise, seed=first_seed + number)[1]
        for number, noise in enumerate(noises)
    ]
    return compare.read_group(folder), results


def test_a_group_s_figures_are_its_runs_means(tmp_path):
    a, of_a = group(tmp_path / "a", [0.4] * 3, 0)
    b, of_b = group(tmp_path / "b", [0.4] * 2, 10)
    found = compare.compare(a, b)
    for name in ("t2v", "v2t"):
        expected = [
            np.mean([metrics.recalls(getattr(x, name).mean).r1 for x in results])
            for results in (of_a, of_b)
        ]
        assert (found[name]["R@1"].a, found[name]["R@1"].b) == pytest.approx(expected)
    told = compare.table(a, b, found)
    assert "a: mean of 3 runs (seed 0, seed 1, seed 2)" in told
    assert "intervals over queries and seeds" in told
    single = compare.read_group(tmp_path / "a" / "seed 0")
    alone = compare.compare(single, compare.read_run(tmp_path / "b" / "seed 0"))
    assert alone == compare.compare(*(x.runs[0] for x in (a, b)))
    assert "seeds" not in compare.table(single, single, alone)


def test_seeds_that_differ_widen_the_interval(tmp_path):
    """Runs of one noise against runs of several: queries are as many."""
    even, _ = group(tmp_path / "even", [0.4] * 4, 0)
    uneven, _ = group(tmp_path / "uneven", [0.25, 0.3, 0.5, 0.6], 0)
    other, _ = group(tmp_path / "other", [0.4] * 4, 20)
    widths = []
    for one in (even, uneven):
        x = compare.compare(one, other)["t2v"]["R@1"]
        widths.append(x.high - x.low)
    assert widths[1] > 1.5 * widths[0]


def test_a_mean_of_drawn_seeds_varies_as_a_mean_of_others_would():
    """Ranks without spread over queries: all that varies is the seed."""
    hits = np.array([10, 20, 40, 50])  # of 100 queries, in each of four runs
    runs = [np.where(np.arange(100) < x, 1.0, 60.0) for x in hits]
    same = np.zeros(100, int)  # One group: every draw has every query as often.
    found = bootstrap.paired_means(runs, [runs[0]], groups=same, samples=20_000)["R@1"]
    error = np.std(hits, ddof=1) / 2
    assert found.a == pytest.approx(30.0)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_groups_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"results\.json is not there"):
        compare.read_group(tmp_path)
    for number in range(2):
        run(tmp_path / "twice" / str(number), 0.4)
        path = tmp_path / "twice" / str(number) / run_card.RESULTS
        card = compare.read_json(path)
        card["checkpoint"]["parameters_sha256"] = "0123"
        write_json(path, card)
    with pytest.raises(UserError, match=r"twice/0 and .*twice/1 are of the same parameters"):
        compare.read_group(tmp_path / "twice")
    mixed = tmp_path / "mixed"
    run(mixed / "one", 0.4)
    run(mixed / "other", 0.4, split="val")
    group_of_two = compare.read_group(mixed)
    with pytest.raises(UserError, match=r"another split \(test and val\)"):
        compare.compare(group_of_two, group_of_two.runs[0])
    with pytest.raises(ValueError, match="a recipe without runs"):
        bootstrap.paired_means([], [np.ones(3)])


def edit(folder, **changes):
    """Changes a card by its keys; None takes one out."""
    path = folder / run_card.RESULTS
    card = compare.read_json(path)
    for key, value in changes.items():
        *outer, name = key.split("__")
        part = functools.reduce(dict.get, outer, card)
        if value is None:
            del part[name]
        else:
            part[name] = value
    write_json(path, card)


WTI = {"head": "wti", "frames": 3, "batch_size": 8}


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("settings.head", {"settings": {**WTI, "head": "gim"}}),
        ("settings.mask_padding", {"settings": {**WTI, "mask_padding": True}}),
        ("settings.frames", {"settings": {"head": "wti", "batch_size": 8}}),
        ("rerank.method", {"rerank__method": "dual_softmax"}),
        ("rerank.temperature", {"rerank__temperature": 30.0}),
        ("single_vector", {"single_vector": {"t2v": {}}}),
        ("checkpoint.step", {"checkpoint__step": 2}),
    ],
)
def test_a_group_is_of_one_recipe(tmp_path, key, change):
    group(tmp_path, [0.4] * 2, 0)
    seeds = [tmp_path / f"seed {number}" for number in range(2)]
    for folder in seeds:
        edit(folder, settings=WTI)
    compare.read_group(tmp_path)
    edit(seeds[1], **change)
    with pytest.raises(UserError, match=rf"seed 0 and .*seed 1 .*another {key} \(") as refused:
        compare.read_group(tmp_path)
    assert "\n" not in str(refused.value)


def test_seeds_have_best_steps_of_their_own(tmp_path):
    group(tmp_path, [0.4] * 2, 0)
    for number in range(2):
        seed = {"checkpoint__origin": {"seed": number}, "checkpoint__step": 4 + number}
        edit(tmp_path / f"seed {number}", **seed, settings={**WTI, "batch_size": 8 + number})
    assert len(compare.read_group(tmp_path).runs) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rerank__method": "dual_softmax"}, DUAL_SOFTMAX),
        ({"single_vector": {"t2v": {}}}, "by single vectors"),
    ],
)
def test_a_group_s_label_says_what_else_ranked(tmp_path, change, told):
    group(tmp_path, [0.4] * 2, 0)
    for number in range(2):
        edit(tmp_path / f"seed {number}", **change)
    found = compare.read_group(tmp_path)
    assert found.label.endswith(f"mean of 2 runs (seed 0, seed 1), {told}")
    assert told in compare.table(found, found, compare.compare(found, found))


@pytest.mark.parametrize("name", [rank_files.RANKS, "config.json", "checkpoints"])
def test_a_run_without_results_is_not_left_out(tmp_path, name):
    group(tmp_path, [0.4] * 2, 0)
    (tmp_path / "notes").mkdir()
    compare.read_group(tmp_path)
    (tmp_path / "seed 2" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"seed 2 has {name}, but no results\.json: evaluate it"):
        compare.read_group(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.texts", None),
        ("data.videos", "many"),
        ("data.split", ["test"]),
        ("data", []),
        ("checkpoint.parameters_sha256", ["0123"]),
        ("checkpoint.step", "last"),
        ("checkpoint.origin", "a run"),
        ("checkpoint", "run"),
        ("rerank.method", "magic"),
        ("rerank", None),
        ("settings", "wti"),
    ],
)
def test_a_damaged_card_is_named(tmp_path, key, value):
    run(tmp_path / "a", 0.4)
    edit(tmp_path / "a", **{key.replace(".", "__"): value})
    with pytest.raises(UserError, match=rf"a/results\.json .*\({key}.* is .*evaluate again"):
        compare.read_run(tmp_path / "a")
