"""The project's recipes by the names that the documents print, from any folder."""

import shutil

import pytest

from glscl_jax.runtime import config_file
from tests.server import REPO


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--config=configs/demo.py"], ["--config={}/configs/demo.py"]),
        (["--config", "configs/demo.py:tiny"], ["--config", "{}/configs/demo.py:tiny"]),
        (["-config=./configs/demo.py"], ["-config={}/configs/demo.py"]),
        (["--config=configs/none.py"], ["--config=configs/none.py"]),
        (["--config=demo.py"], ["--config={}/configs/demo.py"]),
        (["--config=demo:tiny"], ["--config={}/configs/demo.py:tiny"]),
        (["--config", "configs/folder"], ["--config", "{}/configs/folder.py"]),
        # A folder of a recipe's name is none.
        (["--config=msvd"], ["--config={}/configs/msvd.py"]),
        (["--config=common"], ["--config=common"]),
        (["--config="], ["--config="]),
        (["--config=demo.yml"], ["--config=demo.yml"]),
        (["--config=recipes/demo.py"], ["--config=recipes/demo.py"]),
        (["--config=configs/own.py"], ["--config=configs/own.py"]),
        (["--config"], ["--config"]),
        (["--config.x=configs/demo.py"], ["--config.x=configs/demo.py"]),
        (["--", "--config=configs/demo.py"], ["--", "--config=configs/demo.py"]),
    ],
    ids=str,
)
def test_the_projects_recipes_are_found(tmp_path, monkeypatch, given, meant):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "own.py").touch()
    (tmp_path / "msvd").mkdir()
    monkeypatch.chdir(tmp_path)
    assert config_file.locate("config", given) == [x.format(REPO) for x in meant]


def test_a_recipe_of_the_same_name_in_this_folder_is_meant(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    shutil.copy(REPO / "configs" / "demo.py", tmp_path / "configs")
    (tmp_path / "folder.py").touch()
    monkeypatch.chdir(tmp_path)
    assert config_file.locate("config", ["--config=folder.py"]) == ["--config=folder.py"]
    assert config_file.locate("config", ["--config=configs/demo.py"]) == [
        "--config=configs/demo.py"
    ]
