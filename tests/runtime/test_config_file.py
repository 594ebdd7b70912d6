"""Mistakes in a config file, in its name and in what overrides it: one line each."""

import pathlib

import pytest

from glscl_jax.errors import UserError
from glscl_jax.runtime import config_file
from tests.conftest import REPO, one_line_error

DEMO = str(REPO / "configs" / "demo.py")
BASE = (
    "from configs import common\ndef get_config({}):\n    c = common.base()\n    {}\n    return c\n"
)


def message(*argv) -> str:
    with pytest.raises(UserError) as caught:
        config_file.check("config", ["program", *argv])
    text = str(caught.value)
    assert "\n" not in text
    assert "\\" not in text
    assert len(text) < 400
    return text


def test_what_is_right_passes():
    right = [f"--config={DEMO}:tiny", "--config.batch_size=4", "--config.model.scan=false"]
    more = ["--noconfig.model.scan", "--config.model.scan", "--config.data.augment", "--other=1"]
    frozen = ["--config.optim.frozen=('^a$', 'b')", "--config.optim.warmup", "1e-1", "positional"]
    config_file.check("config", ["program", *right, *more, *frozen, "--", "--config.none=1"])
    config_file.check("config", ["program", "--config", DEMO, "--config.num_steps", "3"])
    config_file.check("config", ["program"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "--config is empty"),
        ("nowhere.py", "--config=nowhere.py: there is no such file"),
        ("nowhere", "nor a recipe of that name: there are activitynet, demo"),
        (str(REPO / "configs" / "demo"), f"did you mean {DEMO}?"),
        (str(REPO / "configs"), "a folder; name a file in it, such as"),
        (
            f"{DEMO}:small",
            "no variant 'small' of this config: there is only :lim_alone, :lim_masked and :tiny",
        ),
        (str(REPO / "README.md"), "not Python"),
    ],
)
def test_the_name_of_a_config(given, told):
    assert told in message(f"--config={given}")
    assert told in message("--config", given)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\0", "not Python"),
        ("def get_config(:\n", "not Python, invalid syntax (line 1)"),
        ("x = 1\n", "no function get_config"),
        ("import nothere\n", "No module named 'nothere' (line 1)"),
        ("def get_config():\n    return 5\n", "get_config returns int, not a ConfigDict"),
        ("def get_config():\n    return\n", "get_config returns NoneType"),
        ("def get_config():\n    1 / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        (BASE.format("", "c.batch_sise = 3"), "no setting batch_sise; did you mean batch_size?"),
        (BASE.format("", "c.model.quiries = 3"), "did you mean model.head.queries?"),
        (BASE.format("", "c.batch_size = c.batch_sise"), "batch_sise"),
        (BASE.format("", "c.batch_size = 'many'"), "batch_size"),
        (BASE.format("", "del c['optim']"), "it lacks optim."),
        (BASE.format("variant", ""), "it needs a variant"),
    ],
)
def test_what_is_in_a_config(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text(text)
    error = message(f"--config={path}")
    assert told in error
    assert f"--config={path}" in error


def test_a_config_without_variants(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(BASE.format("", ""))
    assert "has no variants" in message(f"--config={path}:tiny")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("--config.batch_sise=4", "no such setting; did you mean --config.batch_size?"),
        ("--config.learning_rate=1", "did you mean --config.optim.learning_rate?"),
        ("--config.optim.coef_rl=1", "did you mean --config.optim.coef_lr?"),
        ("--config.model.scan.x=1", "--config.model.scan.x: there is no such setting"),
        ("--noconfig.model.skan", "did you mean --config.model.scan?"),
        ("--config.optim=3", "--config.optim has several settings"),
        ("--config.batch_size=many", "--config.batch_size=many: give a whole number"),
        ("--config.batch_size=1.5", "give a whole number"),
        ("--config.batch_size=", "give a whole number"),
        ("--config.optim.warmup=slow", "--config.optim.warmup=slow: give a number"),
        ("--config.model.scan=maybe", "--config.model.scan=maybe: give true or false"),
    ],
)
def test_overrides(override, told):
    assert told in message(f"--config={DEMO}", override)


@pytest.mark.parametrize(
    ("argument", "now"),
    [
        ("--config.model.temperature=5", "--config.model.head.temperature=5"),
        ("-config.model.lim_weight=0", "-config.model.head.lim_weight=0"),
        ("--config.model.queries", "--config.model.head.queries"),
        ("--noconfig.model.share_queries", "--noconfig.model.head.share_queries"),
        ("--config.model.head.queries=3", "--config.model.head.queries=3"),
        ("--config.model.temporal=None", "--config.model.temporal=None"),
        ("--other.model.queries=3", "--other.model.queries=3"),
        ("config.model.queries=3", "config.model.queries=3"),
    ],
)
def test_settings_of_the_head_are_known_by_their_old_places(argument, now):
    assert config_file.in_sections(argument) == now


def test_programs_say_it_in_one_line(forks, tmp_path):
    runs = [
        (f"--config={tmp_path}",),
        (f"--config={DEMO}", "--config.model.scan=maybe"),
        (f"--config={DEMO}", "--report=maybe"),
    ]
    failed = forks.together(
        *(("glscl_jax.train", f"--workdir={tmp_path / 'run'}", *run) for run in runs[:2]),
        ("glscl_jax.evaluate", *runs[2]),
        check=False,
    )
    folder, kind, other = map(one_line_error, failed)
    assert "a folder" in folder
    assert "give true or false" in kind
    # absl's own words, without a tuple's parentheses and quotes.
    assert "--report=maybe: Non-boolean argument to boolean flag (" in other
    assert not list(pathlib.Path(tmp_path).iterdir())


def test_the_project_s_own_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = config_file.locate("config", ["p", "--config=configs/demo.py:tiny", "--other=configs"])
    assert found == ["p", f"--config={DEMO}:tiny", "--other=configs"]
    # A folder of that name comes first, and what is none of ours stays.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.py").touch()
    for own in ("configs/demo.py", "configs/mine.py", "recipes/demo.py"):
        assert config_file.locate("config", ["p", "--config", own]) == ["p", "--config", own]
