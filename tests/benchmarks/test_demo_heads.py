"""Figure 1's runs end to end: what is run, in what order, and the line that comes of it."""

import json
import sys

import pytest

from benchmarks import demo_heads
from benchmarks.demo_heads import Run
from benchmarks.figure1 import results
from configs import demo
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.training import recipe

HEAD_FIGURES = {"lim/concept_cosine/text": 0.9, "lim/effective_concepts/text": 1.5}


def done(run, ranks, head=None):
    """What `evaluate` writes of text-to-video ranks."""
    run.workdir.mkdir(parents=True)
    rows = ["direction,query,clip_id,caption,optimistic,pessimistic"]
    for direction, words in (("t2v", "words"), ("v2t", "")):
        rows += [f"{direction},{i},clip{i},{words},{r},{r}" for i, r in enumerate(ranks)]
    (run.workdir / "ranks.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    right = 100 * sum(rank == 1 for rank in ranks) / len(ranks)
    figures = {"R@1": right, "R@5": 100.0, "R@10": 100.0, "MdR": 1.0}
    card = {"checkpoint": {"step": 1116}, "head": head, "t2v": {"mean": figures}}
    write_json(run.workdir / "results.json", card)
    return run


def test_a_line_is_what_the_figure_reads(tmp_path):
    runs = [Run("glscl", seed, tmp_path / "data", tmp_path / "runs") for seed in (1, 2)]
    for run, ranks in zip(runs, ([1, 2, 1], [3, 1, 1]), strict=True):
        assert not run.is_done
        assert done(run, ranks, {"figures": HEAD_FIGURES, "remarks": []}).is_done
    line = demo_heads.line(runs)
    assert line["hits1"] == ["101", "011"]
    assert line["concept_cosine_text"] == [0.9, 0.9]
    assert line["concept_cosine_video"] == [None, None]
    out = tmp_path / "results.jsonl"
    demo_heads.keep(out, [line])
    found = results.read(out)["glscl", "end_to_end"]
    assert found.hits.tolist() == [[True, False, True], [False, True, True]]
    assert (found.steps, found.towers) == (1116, None)
    assert found.recall().value == pytest.approx(200 / 3)


def test_a_line_takes_the_place_of_its_own_kind_alone(tmp_path):
    out = tmp_path / "results.jsonl"
    there = [
        {"name": "gim", "protocol": "from_features"},
        {"name": "gim", "protocol": "end_to_end", "old": True},
        {"name": "wti", "protocol": "end_to_end"},
    ]
    out.write_text("".join(json.dumps(line) + "\n" for line in there), encoding="utf-8")
    demo_heads.keep(out, [{"name": "gim", "protocol": "end_to_end"}])
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert found == [there[0], there[2], {"name": "gim", "protocol": "end_to_end"}]


@pytest.mark.parametrize("name", demo_heads.HEADS)
def test_runs_are_the_demo_s_recipe_but_for_head_and_temporal_module(name, tmp_path):
    train, evaluate = Run(name, 7, tmp_path, tmp_path).commands()
    variant = name if name in demo_heads.VARIANTS else None
    file = f"--config=configs/demo.py{f':{variant}' if variant else ''}"
    assert train[2:4] == ["glscl_jax.train", file]
    assert evaluate[2] == "glscl_jax.evaluate"
    assert file in evaluate
    changed = dict(
        flag.removeprefix("--config.").split("=")
        for flag in train
        if flag.startswith("--config.") and not flag.startswith("--config.data.dir=")
    )
    assert changed.pop("seed") == "7"
    assert changed.pop("model.head.name") == demo_heads.HEADS[name]
    assert changed == ({"model.temporal": "None"} if name == "mean_pooling" else {})
    config = demo.get_config(variant)
    for setting, value in changed.items():
        config.update_from_flattened_dict({setting: value})
    recipe.read(config)


def test_cores_are_shared_out():
    one, other = demo_heads._shares(2)
    assert one
    assert other
    assert one | other <= demo_heads._shares(1)[0]


class Printing(Run):
    """Its two commands are a word each, and an end with an error of seed 1."""

    def commands(self):
        python = [sys.executable, "-c"]
        ended = f"raise SystemExit({3 * (self.seed == 1)})"
        return [[*python, "print('trained')"], [*python, f"print('evaluated'); {ended}"]]


def test_one_that_fails_is_named_and_stops_no_other(tmp_path):
    runs = [Printing("mean", seed, tmp_path, tmp_path) for seed in (1, 2)]
    with pytest.raises(UserError) as caught:
        demo_heads.run_all(runs, at_once=1)
    assert str(caught.value) == f"mean-1 ended with status 3: see {tmp_path / 'mean-1.log'}"
    for run in runs:
        log = run.workdir.with_suffix(".log").read_text(encoding="utf-8")
        assert log.split() == ["trained", "evaluated"]


@pytest.mark.slow
def test_a_real_run_goes_through_and_is_not_run_again(shapes, tmp_path, capfd):
    run = Run("mean_pooling", 1, shapes / "data", tmp_path, "configs/demo.py:tiny")
    demo_heads.run_all([run], at_once=1)
    assert "glscl_jax.evaluate" in capfd.readouterr().out
    line = demo_heads.line([run])
    assert set(line["hits1"][0]) <= {"0", "1"}
    demo_heads.run_all([run], at_once=1)
    assert not capfd.readouterr().out
