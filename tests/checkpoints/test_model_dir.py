"""A model directory says the same whenever it was written, and of what it lacks that it is not."""

import dataclasses
import json

import pytest

from glscl_jax.checkpoints import model_dir
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.models import model_file
from glscl_jax.models.glscl import model_settings
from tests.builders import SMALL

# As versions wrote it that knew one head.
OLD_MODEL = {"temporal": "None", "queries": 3, "temperature": 5.0, "lim_weight": 0.25}


def test_a_run_of_an_earlier_version_is_the_same_run(tmp_path):
    clip = dataclasses.asdict(SMALL.clip)
    write_json(tmp_path / "model.json", {"clip": clip, **OLD_MODEL})
    write_json(tmp_path / "config.json", {"seed": 1, "model": {"clip": clip, **OLD_MODEL}})
    found = model_file.read_model_config(tmp_path)
    told = found.temporal, found.head.queries, found.head.temperature, found.head.lim_weight
    assert told == ("None", 3, 5.0, 0.25)
    config = Workdir(tmp_path).config()
    assert config.model.head.to_dict() == {
        "name": "glscl",
        "queries": 3,
        "temperature": 5.0,
        "lim_weight": 0.25,
    }
    assert "temperature" not in config.model
    # What was written is left as it is.
    assert json.loads((tmp_path / "config.json").read_text())["model"]["queries"] == 3


def test_what_is_not_there(tmp_path):
    assert model_dir.read_run_config(tmp_path) is None
    assert model_dir.read_origin(tmp_path) is None
    assert model_dir.tokenizer_folder(tmp_path) is None
    with pytest.raises(UserError, match="no checkpoint directory"):
        model_file.read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        model_dir.read_run_config(tmp_path)


def test_an_unknown_head_is_named(tmp_path):
    settings = model_settings(SMALL)
    write_json(tmp_path / "model.json", {**settings, "head": {"name": "xpool"}})
    with pytest.raises(UserError, match=r"head\.name is 'xpool': give one of .*glscl"):
        model_file.read_model_config(tmp_path)
