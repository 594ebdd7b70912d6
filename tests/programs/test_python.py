"""What the programs do, called from Python: no flag is defined, parsed or read."""

import ast
import importlib
import json

import pytest
from absl import flags

from glscl_jax.checkpoints.model_dir import steps_on_disk
from glscl_jax.errors import UserError
from glscl_jax.evaluate import evaluate
from glscl_jax.input_pipeline.prepare import check_source, prepare_source
from tests.source_tree import modules

PROGRAMS = (
    "convert.clip",
    "convert.glscl",
    "convert.pull",
    "convert.push",
    "convert.queries",
    "glscl_jax.evaluate",
    "glscl_jax.input_pipeline.prepare",
    "glscl_jax.input_pipeline.rendered",
    "glscl_jax.search.export_program",
    "glscl_jax.search.index_program",
    "glscl_jax.search.query_program",
    "glscl_jax.search.serve_program",
    "glscl_jax.train",
)
# What programs start with, and flags that several of them have.
STARTS = (
    "convert.program_flags",
    "glscl_jax.input_pipeline.preparing.prepare_flags",
    "glscl_jax.paths",
    "glscl_jax.runtime.config_file",
    "glscl_jax.runtime.launch_flags",
    "glscl_jax.runtime.program",
    "glscl_jax.runtime.usage",
)


def test_programs_alone_know_of_flags():
    knowing = set()
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "absl":
                knowing |= {name for one in node.names if one.name == "flags"}
    assert knowing == {*PROGRAMS, *STARTS}


@pytest.mark.parametrize("name", PROGRAMS)
def test_importing_a_program_defines_no_flag(name):
    importlib.import_module(name)
    assert name not in flags.FLAGS.flags_by_module_dict()
    ours = [known for known in flags.FLAGS.flags_by_module_dict() if known in modules()]
    assert not ours


@pytest.fixture(scope="module")
def returned(shapes, forks, tmp_path_factory):
    """What `tests.from_python` made and was given: (the folder, what it printed, the values)."""
    out = tmp_path_factory.mktemp("from_python")
    home = [{"HOME": str(out)}]
    (done,) = forks.together(("tests.from_python", shapes / "videos", out), environments=home)
    *printed, values = done.stdout.splitlines()
    return out, "\n".join(printed), json.loads(values)


def test_no_flag_is_parsed(returned):
    assert not returned[2]["flags parsed"]


def test_data_is_prepared(shapes, returned, capsys):
    out, printed, values = returned
    made = {"splits": {"test": 8, "train": 32, "val": 8}, "failures": [], "damaged": []}
    assert values["report"] == made | {"partial": ""}
    assert "prepared 48 of 48 clips (" in printed
    again = prepare_source(shapes / "videos", str(out / "data"), frame_rate=2.0, image_size=32)
    assert again.splits == made["splits"]
    assert "is prepared already: 48 of 48 clips" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"was made with --frame_rate 2\.0, not 1\.0"):
        prepare_source(shapes / "videos", out / "data", image_size=32)


def test_a_source_is_looked_at_and_left_alone(shapes, capsys):
    before = sorted(shapes.iterdir())
    assert not check_source(shapes / "videos").failures
    assert "unreadable files:  none" in capsys.readouterr().out
    assert sorted(shapes.iterdir()) == before


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"dataset": "other"}, "--dataset is 'other': give one of folder, msrvtt_9k"),
        ({"frame_rate": 0}, "--frame_rate is 0: give a finite number, 0.001 or more"),
        ({"workers": 0}, "--workers is 0: give a whole number, 1 or more"),
        ({"videos": "nowhere"}, "nowhere: no such folder"),
        ({"source": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_prepared_is_refused(shapes, tmp_path, option, told):
    with pytest.raises(UserError, match=told):
        prepare_source(**{"source": shapes / "videos", "data_dir": tmp_path / "new"} | option)
    assert not (tmp_path / "new").exists()


def test_a_recipe_is_trained(returned):
    out, printed, values = returned
    assert values["status"] == [0, 0]
    assert values["config untouched"]
    assert 4 in steps_on_disk(out / "run" / "checkpoints")
    assert printed.count("nothing to train") == 1


def test_an_evaluation_returns_the_run_card(returned):
    out, _, values = returned
    assert values["card"] == json.loads((out / "val" / "results.json").read_text())
    assert values["card"]["data"]["split"] == "val"
    assert {path.name for path in (out / "val").iterdir()} == {
        "ranks.csv",
        "results.json",
        "results.md",
        "top.csv",
    }
    # A path may begin at home.
    assert values["other"] == json.loads((out / "other" / "results.json").read_text())
    assert values["other"]["data"]["split"] == "test"
    assert values["other"]["rerank"] == {"method": "dual_softmax", "temperature": 100.0}
    assert (out / "other" / "report.html").is_file()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"rerank": "dsl"}, "--rerank dsl: take one of none, qbnorm, dual_softmax"),
        ({"qb_k": 0}, "k and theta are at least 1"),
        ({"split": "other"}, "no split 'other' in the prepared data"),
        ({"checkpoint": None}, "--checkpoint is missing"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(returned, option, told):
    with pytest.raises(UserError, match=told):
        evaluate(**{"checkpoint": returned[0] / "run"} | option)


def test_an_option_that_there_is_not_is_an_error(returned):
    with pytest.raises(TypeError, match="splitt"):
        evaluate(returned[0] / "run", splitt="val")
