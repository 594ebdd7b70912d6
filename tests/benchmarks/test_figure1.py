"""The figure of R@1 against cost: what is compared, what is read, what is told and drawn."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from absl import flags

from benchmarks.figure1 import __main__ as program
from benchmarks.figure1 import costs, picture, results, tables
from benchmarks.figure1.index_bytes import index_bytes
from benchmarks.figure1.settings import DEMO, NAMES, PAPER, Setting, shapes_of, xla_flops
from benchmarks.heads.head import Sizes
from configs import demo
from glscl_jax.errors import UserError
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval import bootstrap
from glscl_jax.training import recipe

TINY = Setting(
    "tiny",
    "tiny sizes",
    Sizes(texts=8, videos=3, words=5, frames=2, width=16),
    GLSCLHead(queries=2, lim_layers=1, lim_heads=2, lim_feed_forward=8),
)


def result_line(name, protocol="end_to_end", rate=0.6, seeds=3, queries=40, **changes):
    """A line of made-up hits, of which about `rate` are there."""
    rng = np.random.default_rng(len(name))
    drawn = rng.random((seeds, queries)) < rate
    line = {
        "name": name,
        "protocol": protocol,
        "head": name,
        "temporal": "seqTransf",
        "settings": {},
        "seeds": list(range(seeds)),
        "steps": 1116,
        "r1": [float(x) for x in 100 * drawn.mean(axis=1)],
        "hits1": ["".join("01"[int(hit)] for hit in seed) for seed in drawn],
        "seconds": 1.0,
        "device": "a device",
    }
    return line | changes


def written(path, *lines):
    """A file of results."""
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_demo_s_sizes_are_its_recipe_s():
    config = demo.get_config()
    settings = recipe.read(config)
    assert settings.model.head == DEMO.glscl
    sizes = (config.data.num_words, config.data.num_frames, settings.model.clip.embed_dim)
    assert (DEMO.sizes.words, DEMO.sizes.frames, DEMO.sizes.width) == sizes
    assert DEMO.sizes.queries == DEMO.glscl.queries == DEMO.head("dicosa").queries


@pytest.mark.parametrize("name", NAMES)
def test_both_counts_are_of_one_program(name):
    # Of a multiply-add XLA counts two, and what is elementwise comes on top: of DiCoSA's hidden
    # layers an eighth. Its loop counted once would come to 0.6.
    ratio = xla_flops(PAPER, name) / PAPER.pairs(name)
    assert 2.0 < ratio < 2.3
    assert PAPER.items(name) == PAPER.sizes.texts * PAPER.cost(name).text + 1000 * (
        PAPER.cost(name).video + PAPER.cost(name).prepared
    )


def test_an_index_keeps_what_search_measured():
    # docs/search.md, by `python -m benchmarks.search`, of the same sizes.
    assert index_bytes(PAPER, "glscl", "float32") == 41_776
    assert index_bytes(PAPER, "glscl", "bfloat16") == 21_296
    # WTI keeps frames, a mask, weights, and times: no more in float32 than their bytes.
    assert index_bytes(PAPER, "wti", "float32") == 4 * 12 * (512 + 3)


@pytest.mark.parametrize(("on_cpu", "blocks"), [(True, (4, 2)), (False, (1, 1))])
def test_a_head_is_timed(on_cpu, blocks, monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "LONG", 0.0)
    programs = costs.Programs(TINY, "dicosa", gallery=6, on_cpu=on_cpu)
    found = programs.run(programs.compile())
    assert found.blocks == blocks
    assert len(found.all_pairs) == len(found.one_text) == costs.FEWEST
    assert min(found.all_pairs + found.one_text) > 0
    # The whole of it, however it is cut.
    assert found.xla_flops == pytest.approx(xla_flops(TINY, "dicosa"), rel=0.1)
    (tmp_path / "costs.jsonl").write_text(costs.line(found), encoding="utf-8")
    ((key, read),) = costs.read(tmp_path / "costs.jsonl").items()
    assert key == ("tiny", "dicosa")
    assert read.machine == found.machine
    np.testing.assert_allclose(read.one_text, found.one_text, atol=1e-4)
    assert "one text among 6 videos" in costs.told(found)


def test_what_does_not_fit_does_not_take_others_along(monkeypatch, capsys):
    def run(programs, compiled):
        if programs.name == "tiny gim":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand more")
        return programs.name

    monkeypatch.setattr(costs.Programs, "compile", lambda programs: {})
    monkeypatch.setattr(costs.Programs, "run", run)
    monkeypatch.setattr(costs, "NAMES", ("mean", "gim", "wti"))
    assert list(costs.measure([TINY], gallery=6)) == ["tiny mean", "tiny wti"]
    told = capsys.readouterr().err
    assert told == "left out: tiny gim: RESOURCE_EXHAUSTED: Out of memory\n"


def test_what_memory_has_no_room_for_is_not_asked_of_it(monkeypatch, capsys):
    programs = costs.Programs(TINY, "mean", gallery=6, on_cpu=True)
    assert costs.free_memory() > 1e6
    monkeypatch.setattr(costs, "free_memory", lambda: 1.0)
    monkeypatch.setattr(costs, "NAMES", ("mean",))
    monkeypatch.setattr(costs, "Programs", lambda *_: programs)
    assert list(costs.measure([TINY], gallery=6, on_cpu=True)) == []
    told = capsys.readouterr().err
    assert told == "left out: tiny mean: 6 videos take 0.0 GB, 0.0 are free\n"


def test_a_block_of_the_gallery_is_the_videos_over_and_over():
    programs = costs.Programs(TINY, "gim", gallery=6, on_cpu=False)
    _, video, _ = shapes_of(TINY.head("gim"), TINY.sizes)
    drawn = jax.tree.map(lambda x: np.arange(np.prod(x.shape)).reshape(x.shape), video)
    twice = programs._repeated(drawn)
    np.testing.assert_array_equal(twice.frames, np.concatenate([drawn.frames] * 2))


def test_a_recall_is_the_mean_of_the_seeds_with_its_interval(tmp_path):
    lines = [result_line("glscl"), result_line("gim", rate=0.2), result_line("lim_variant")]
    found = results.read(written(tmp_path / "results.jsonl", *lines))
    assert set(found) == {("glscl", "end_to_end"), ("gim", "end_to_end")}
    glscl, gim = found["glscl", "end_to_end"], found["gim", "end_to_end"]
    recall = glscl.recall()
    assert recall.value == pytest.approx(np.mean(lines[0]["r1"]))
    assert recall == bootstrap.intervals_of_means(glscl.ranks)["R@1"]
    assert recall.low < recall.value < recall.high
    # One seed knows nothing of seeds: its interval is another.
    alone = dataclasses.replace(glscl, hits=glscl.hits[:1]).recall()
    assert alone == bootstrap.intervals(glscl.ranks[0])["R@1"]
    assert gim.beside(glscl).high < 0


def test_large_numbers_have_no_powers():
    assert [tables._plain(x) for x in (0.9149, 16.13, 999.4, 17074.4)] == [
        "0.915",
        "16.1",
        "999",
        "17,074",
    ]


def test_features_are_of_the_same_towers(tmp_path):
    ours, theirs = (result_line(name, "from_features", towers=name) for name in ("gim", "glscl"))
    apart = result_line("wti", towers=None)
    assert len(results.read(written(tmp_path / "results.jsonl", ours, apart))) == 2
    with pytest.raises(UserError, match="features of other towers than others: make it anew"):
        results.read(written(tmp_path / "results.jsonl", ours, theirs))


def test_a_seed_that_came_apart_is_left_out_and_told_of(tmp_path):
    line = result_line("wti", seeds=3)
    line["hits1"][1] = None
    whole = result_line("x_pool", hits1=[None, None])
    found = results.read(written(tmp_path / "results.jsonl", line, whole))
    (only,) = found.values()
    assert (only.name, len(only.hits), only.failed) == ("wti", 2, 1)
    assert any("`wti` 1 more came apart" in note for note in tables._notes(found))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["{"], "line 1 is damaged"),
        ([result_line("gim", hits1=["012"])], "hits1 is not of 0 and 1"),
        ([result_line("gim", hits1=["01", "1"])], "line 1 is damaged"),
        ([result_line("gim"), result_line("wti", queries=7)], "7 and 40 queries"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_line(lines, told, tmp_path):
    with pytest.raises(UserError, match=told) as refused:
        results.read(written(tmp_path / "results.jsonl", *lines))
    assert "\n" not in str(refused.value)


def test_damaged_costs_are_a_line(tmp_path):
    with pytest.raises(UserError, match=r"costs.jsonl, line 1 is damaged.*--costs --out"):
        costs.read(written(tmp_path / "costs.jsonl", '{"setting": "demo"}\n'))


@pytest.fixture
def told(monkeypatch):
    """The tables, without what takes compilers."""
    monkeypatch.setattr(tables, "xla_flops", lambda setting, name: 3e9)
    monkeypatch.setattr(tables, "index_bytes", lambda setting, name, dtype: 1234)
    return tables.tables


def test_the_tables(told, tmp_path):
    path = written(
        tmp_path / "results.jsonl", result_line("glscl"), result_line("mean_pooling", rate=0.2)
    )
    timed = costs.Measured(
        "demo", "glscl", 100_000, (1, 1), 2.7e9, (3.0, 1.0, 2.0), (0.25,), "a GPU"
    )
    text = told(results.read(path), {("demo", "glscl"): timed})
    lines = text.splitlines()
    assert {line.count("|") for line in lines if line.startswith("|")} == {11}
    (row,) = [line for line in lines if line.startswith("| `glscl`") and "GLSCL" not in line]
    recall = results.read(path)["glscl", "end_to_end"].recall()
    assert f"| {recall.value:.1f} ({recall.low:.1f} to {recall.high:.1f}) | - |" in row
    assert row.endswith("| 1.83 | 3.00 | 7.12 | 1,234 | 1,234 | 2 | 0.25 |")
    assert "48.1 (GLSCL) | 1.0 | 10.38" in text
    assert "End to end: 3 seeds, 1116 steps, 40 queries, on a device." in text
    assert "R@1 less that of `glscl`: `mean`, `temporal=None` -" in text
    assert "on a GPU: all pairs in one call, one text among 100,000 videos in one call" in text
    assert text.endswith("What was compiled there has 0.90 to 0.90 times the operations by XLA.")
    # Without either file all of it that is known is there.
    empty = told({}, {})
    assert "| `wti` | - | - | 15.36 |" in empty
    assert "Milliseconds" not in empty


def test_the_picture(tmp_path):
    names = list(results.RUNS)
    lines = [result_line(name, protocol) for name in names for protocol in results.PROTOCOLS]
    found = results.read(written(tmp_path / "results.jsonl", *lines))
    pictures = [tmp_path / name for name in ("a.svg", "b.svg")]
    for target in pictures:
        picture.draw(found, target)
    text = pictures[0].read_text(encoding="utf-8")
    assert text == pictures[1].read_text(encoding="utf-8")
    known = [name for name, x in tables.PUBLISHED.items() if x.recall is not None]
    for name in ("no module over time", *NAMES, *known, "end to end", "from features"):
        assert f"{name}<" in text, name


@pytest.fixture
def run(monkeypatch, capsys, told):
    """Runs the program with some flags; its status, and what it wrote."""

    def run(*arguments, **given):
        usual = {"costs": False, "table": False, "out": None, "at": ["demo"], "picture": ""}
        usual |= {"results": None, "measured": None}
        values = {k: types.SimpleNamespace(value=v) for k, v in (usual | given).items()}

        class Values(dict):
            def __getattr__(self, name):
                return self[name].value

        monkeypatch.setattr(flags, "FLAGS", Values(values))
        status = program.main(["", *arguments])
        return status, capsys.readouterr()

    return run


def test_what_nobody_has_run_is_left_out_in_a_line(run, monkeypatch, tmp_path):
    for module in (results, costs):
        monkeypatch.setattr(module, "FILE", tmp_path / "none.jsonl")
    status, output = run(picture=str(tmp_path / "figure.svg"))
    assert not status
    left_out = output.err.splitlines()
    assert [line.startswith("left out: ") for line in left_out] == [True, True]
    assert "benchmarks.lim_study" in left_out[0]
    assert "--costs --out" in left_out[1]
    assert "| `dicosa` | - | - |" in output.out
    assert not (tmp_path / "figure.svg").exists()


def test_a_file_that_was_named_and_is_not_there_is_an_error(run, tmp_path):
    status, output = run(results=str(tmp_path / "none.jsonl"))
    assert status == 2
    assert output.err.startswith("error: ")
    assert "none.jsonl is not there" in output.err
    status, output = run("results.jsonl")
    assert (status, output.out) == (2, "")
    assert output.err == "error: unexpected argument 'results.jsonl' (--help lists the flags)\n"
    status, output = run(costs=True)
    assert (status, output.err) == (
        2,
        "error: --out is missing: name the file that --costs is to write\n",
    )
    status, output = run(costs=True, out=str(tmp_path / "no" / "file"))
    assert status == 2
    assert "cannot be written" in output.err


def test_the_program_draws(run, tmp_path):
    path = written(tmp_path / "results.jsonl", result_line("glscl"))
    target = tmp_path / "figure.svg"
    run(results=str(path), picture=str(target), table=True)
    assert not target.exists()
    _, output = run(results=str(path), picture=str(target))
    assert target.exists()
    assert f"drawn in {target}" in output.err
    assert "drawn" not in output.out
