"""The table of compilers' counts, with a step that stands for minutes of compiling."""

import dataclasses
import json
import pathlib
import re
import subprocess
import types

import pytest
from absl import flags

from benchmarks.compiled import __main__ as program
from benchmarks.compiled import counts
from benchmarks.compiled.families import DEVICES, FAMILIES, MODELS
from benchmarks.compiled.rows import FEW, MANY, OLD, ROWS
from benchmarks.compiled.summary import line, summary
from configs import msrvtt
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.profiling import topologies
from glscl_jax.training import recipe
from glscl_jax.training.compile_for import with_settings

ROW = ROWS[0]
ENCODERS = pathlib.Path(__file__).parents[2] / "docs" / "encoders.md"


def report(seconds=0.2, fits=True, **changes):
    """What `train --compile_for` writes, as far as it is read."""
    estimate = {"computing": 0.9 * seconds, "seconds": seconds}
    return {
        "mesh": {"data": 4, "fsdp": 1, "tensor": 1},
        "remat": "full",
        "microbatch": 0,
        "fits": fits,
        "arguments": 2**31,
        "results": 0,
        "temporary": 2**30,
        "flops": 5e12,
        "bytes_moved": 4e11,
        "sent": [{"bytes": 2e8}, {"bytes": 1e8}],
        "estimate": estimate,
        "utilisation_at_most": 0.2,
    } | changes


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the program on one row, of which the compiler says `report`."""
    monkeypatch.setattr(program, "check_compiler", lambda *package: None)
    monkeypatch.setattr(counts, "FILE", tmp_path / "counts.json")
    monkeypatch.setattr(counts.read, "__defaults__", (tmp_path / "counts.json",))
    monkeypatch.setattr(counts.keep, "__defaults__", (tmp_path / "counts.json",))
    (tmp_path / "counts.json").write_text(json.dumps({OLD: {}, counts.LAST: {}}))

    def run(kept, keep=False, only=ROW.name):
        def compile_for(command):
            folder = next(x for x in command if x.startswith("--workdir=")).partition("=")[2]
            (pathlib.Path(folder) / "compiled-v5e-2x2.json").write_text(json.dumps(kept))
            return types.SimpleNamespace(returncode=0)

        monkeypatch.setattr(subprocess, "run", compile_for)
        values = types.SimpleNamespace(only=[only], keep=keep, of="steps", kept=False)
        monkeypatch.setattr(flags, "FLAGS", values)
        program.main([])
        return json.loads((tmp_path / "counts.json").read_text())

    return run


def test_a_row_is_told_and_kept(run, capsys):
    kept = run({"asked": report()}, keep=True)
    assert kept[counts.LAST][ROW.name]["sent"] == 3e8
    told = capsys.readouterr().out
    assert f"python -m glscl_jax.train {' '.join(ROW.arguments)}" in told
    assert "| data 4, remat full | 2.00 + 1.00 | 5.0 | 400.0 | 0.3 | 180 ms | 200 ms |" in told
    # A second one is beside the first, and no worse.
    run({"asked": report()})
    assert "clips, last |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("worse", "told"),
    [
        ({"seconds": 0.21}, "189.00 ms of computing where 180.00 were kept"),
        ({"temporary": 2**31}, "4.00 GiB where 3.00 were kept"),
        ({"sent": [{"bytes": 4e8}]}, "400.00 MB sent where 300.00 were kept"),
    ],
)
def test_more_than_the_last_time_is_an_error(run, worse, told):
    run({"asked": report()}, keep=True)
    with pytest.raises(UserError, match=told):
        run({"asked": report(**worse)})
    run({"asked": report(seconds=0.203)})  # Within what compilers make of the same.


def test_the_layout_that_fits_is_the_one_that_counts(run, capsys):
    asked = {"mesh": {"data": 4}, "remat": "full", "fits": False}
    asked |= {"used": 17 * 2**30}
    fitting = report(microbatch=32) | {"flags": "--config.microbatch=32"}
    run({"asked": asked, "fits": fitting}, keep=True)
    told = capsys.readouterr().out
    assert "data 4, remat full, 32 at once" in told
    assert "fits with --config.microbatch=32" in told
    (told,) = summary([ROW], counts.read()[counts.LAST])[2:]
    assert "32 at once (`--config.microbatch=32`)" in told
    assert "**17.00 does not fit**; 2.00 + 1.00 of 15.75" in told


def test_a_gpu_that_does_not_hold_it_is_known_by_its_parts():
    # Its compiler does not mind; it is compared with the card.
    asked = report(fits=False) | {"temporary": 2**36}
    found = counts.of_report({"asked": asked, "fits": report() | {"flags": "--config.x=1"}})
    assert found.asked == 2**36 + 2**31
    assert counts.of_report({"asked": report()}).asked is None


def test_families_are_rows_of_their_own_and_are_told_as_kept(run, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command: pytest.fail("nothing is compiled"))
    counts.keep({FAMILIES[0].name: counts.of_report({"asked": report()})})
    values = types.SimpleNamespace(only=["ViT-B/16"], keep=False, of="families", kept=True)
    monkeypatch.setattr(flags, "FLAGS", values)
    program.main([])
    told = capsys.readouterr().out
    assert "| `ViT-B/16` | v5e:4x4, 256 | data 4, remat full | 2.00 + 1.00 of 15.75 |" in told
    assert "Not counted: v5p:2x2x1 ViT-B/16 128, h100x1 ViT-B/16 128." in told


def test_the_docs_have_what_is_kept():
    kept = counts.read()[counts.LAST]
    (section,) = re.findall(
        r"## What fits where\n.*?(?=\n## |\Z)", ENCODERS.read_text(encoding="utf-8"), re.DOTALL
    )
    table = [told for told in section.splitlines() if told.startswith("| `")]
    assert table == [line(row, kept[row.name]) for row in FAMILIES if row.name in kept]


def test_there_is_a_row_of_each_family_on_each_device():
    assert len(FAMILIES) == len(DEVICES) * len(MODELS)
    rows = {row.name: row for row in (*ROWS, *FAMILIES)}
    # One name, one step: counts are kept by it.
    assert all(rows[row.name] == row for row in (*ROWS, *FAMILIES))
    assert all(row.variant in VARIANTS for row in FAMILIES)


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.name)
def test_a_family_row_is_what_train_takes(row):
    """Words and micro-batches suit the model and the devices."""
    settings = dict(argument[2:].split("=", 1) for argument in row.arguments)
    _, _, variant = settings["config"].partition(":")
    given = {
        name.removeprefix("config."): int(value) if value.isdigit() else value
        for name, value in settings.items()
        if name.startswith("config.") and value != "False"
    }
    config = with_settings(msrvtt.get_config(variant or None), given)
    recipe.check_words(config, recipe.read(config).model.clip)
    chips = topologies.parse(row.topology).size
    at_once = config.microbatch or config.batch_size
    assert at_once % chips == config.batch_size % at_once == 0


def test_without_its_compiler_a_row_is_left_out(monkeypatch, run, capsys):
    def missing(package, extra):
        raise UserError(f"{package} is not installed")

    monkeypatch.setattr(program, "check_compiler", missing)
    kept = run({"asked": report()})
    assert f"{ROW.name}: left out: libtpu is not installed" in capsys.readouterr().out
    assert kept == {OLD: {}, counts.LAST: {}}


def test_an_unknown_row_is_refused(run):
    with pytest.raises(UserError, match="--only=v9: there are v5e:2x2"):
        run({}, only="v9")


def test_aims():
    one = counts.of_report({"asked": report(seconds=1.0)})
    few = {FEW.name: one, MANY.name: dataclasses.replace(one, seconds=1.1)}
    (aim,) = MANY.aims
    assert counts.aim_result(MANY, aim, few, {}).startswith(
        "met: seconds 1.1 of v5e:2x2 ViT-B/32 64's"
    )
    few[MANY.name] = dataclasses.replace(one, seconds=1.2)
    assert counts.aim_result(MANY, aim, few, {}).startswith("MISSED")
    assert "was not counted" in counts.aim_result(MANY, aim, {MANY.name: one}, {})
    old = {ROW.name: dataclasses.replace(one, computing=1.3)}
    assert counts.aim_result(ROW, ROW.aims[0], {ROW.name: one}, old).startswith("met: cycles 0.692")


def test_what_the_repository_keeps_can_be_read():
    kept, names = counts.read(), {row.name for row in (*ROWS, *FAMILIES)}
    assert set(kept) == {OLD, counts.LAST}
    for state in kept.values():
        assert state.keys() <= names
    told = program.table(list(ROWS), kept[counts.LAST], kept)
    assert len(told) > 2
    # Of old ones something may be unknown, of the last ones nothing is.
    for found in kept[counts.LAST].values():
        assert None not in (found.flops, found.computing, found.arguments)
