"""What `pip install` gives: programs by name, recipes, types; versions that several files tell."""

import re
import tomllib

import pytest
import yaml

from glscl_jax.version import __version__
from tests.conftest import one_line_error
from tests.server import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
SCRIPTS = PROJECT["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_programs_by_their_names(forks, name):
    told = forks("tests.entry_point", SCRIPTS[name], "--help").stdout
    # absl tells the program's own flags from others by what started it.
    own = {
        "glscl-train": "--workdir",
        "glscl-evaluate": "--checkpoint",
        "glscl-prepare": "--source",
        "glscl-convert": "glscl-convert glscl",
        "glscl-search": "python -m glscl_jax.search query",
    }
    assert own[name] in told


def test_convert_hands_on_to_its_programs(forks):
    assert "--lim_heads" in forks("convert", "glscl", "--help").stdout
    assert "--lim_heads" not in forks("convert", "clip", "--help").stdout
    alone = forks("convert", "clip", "nowhere", check=False)
    assert "OUT is missing: give SOURCE OUT" in one_line_error(alone)


@pytest.mark.parametrize("given", [(), ("export",), ("--verify",)])
def test_convert_without_a_program(forks, given):
    told = one_line_error(forks("convert", *given, check=False))
    assert "give clip, glscl, queries, push or pull first" in told


def test_what_a_wheel_holds_beside_python():
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        folder = REPO / package.replace(".", "/")
        for pattern in patterns:
            assert list(folder.glob(pattern)), (package, pattern)


def test_versions_are_the_same_wherever_they_are_told():
    assert PROJECT["project"]["version"] == __version__
    assert yaml.safe_load((REPO / "CITATION.cff").read_text())["version"] == __version__
    locked = re.search(r"^ruff==(\S+)$", (REPO / "requirements-dev.lock").read_text(), re.MULTILINE)
    hooks = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())
    assert hooks["repos"][0]["rev"] == f"v{locked[1]}"
    workflow = yaml.safe_load((REPO / ".github/workflows/test.yml").read_text())
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]},<3.14"
    assert versions == ["3.11", "3.12", "3.13"]


def test_what_contributing_names_is_there():
    text = (REPO / "CONTRIBUTING.md").read_text()
    named = re.findall(r"[\w./]+/\w+\.(?:py|md|yml)\b", text)
    assert len(named) > 15
    roots = ("", "glscl_jax/models", "glscl_jax/input_pipeline")
    for name in named:
        assert any((REPO / root / name).is_file() for root in roots), name
