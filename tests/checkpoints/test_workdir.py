"""What a run was made with: the way out that fits what it trains from."""

import pytest
from ml_collections import ConfigDict

from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.training import run
from tests.recipes import config_with

CLIPS = {"dataset": "folder", "annotations": "0123", "splits": {"train": {"clips": 3}}}
THEIRS = {"train": {"encoder": "theirs"}, "val": {"encoder": "theirs"}}
OTHERS = {"train": {"encoder": "others"}, "val": {"encoder": "others"}}
A_CHECKPOINT_S = {"train": {"checkpoint": "0123", "frames": 3}}


def begun(folder, data):
    """A work directory whose run trains from what `data` tells."""
    workdir = Workdir(folder / "run")
    workdir.begin(ConfigDict({"num_steps": 1, "model": {}}), GLSCLConfig(), data)
    return workdir


def kept(workdir):
    return {path: path.read_bytes() for path in workdir.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("data", "features", "told"),
    [
        (THEIRS, "", r"features: name the directory that holds them \(--features\)"),
        (A_CHECKPOINT_S, "", r"features: name the directory that holds them \(--features\)"),
        (CLIPS, "theirs", r"clips: leave --features theirs out"),
    ],
)
def test_a_run_goes_on_from_features_or_from_clips_as_it_began(tmp_path, data, features, told):
    workdir = begun(tmp_path, data)
    before = kept(workdir)
    # Before all else that would not fit, such as what is frozen, and data that is not there.
    with pytest.raises(UserError, match=told) as refused:
        run.check_asked(config_with("mean"), workdir, run.Options(features=features))
    assert f"--workdir {workdir.path}: by its data.json" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert kept(workdir) == before


@pytest.mark.parametrize(("data", "features"), [(THEIRS, "theirs"), (CLIPS, ""), (None, "theirs")])
def test_what_a_run_began_with_may_lie_anywhere(tmp_path, data, features):
    begun(tmp_path, data).check_features(features)
    Workdir(tmp_path / "none").check_features(features)


@pytest.mark.parametrize(
    ("data", "other", "flag"),
    [
        (THEIRS, OTHERS, "--features"),
        (CLIPS, {**CLIPS, "annotations": "4567"}, "--config.data.dir"),
    ],
)
def test_other_data_is_refused_with_the_flag_that_names_it(tmp_path, data, other, flag):
    workdir = begun(tmp_path, data)
    before = kept(workdir)
    with pytest.raises(UserError, match=rf"on other data \(.*holds its data \({flag}\), or"):
        begun(tmp_path, other)
    assert kept(workdir) == before
