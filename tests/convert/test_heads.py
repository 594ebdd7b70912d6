"""What becomes of a model's head on its way out and back."""

import dataclasses

import jax
import numpy as np
import pytest

from convert import checkpoint_output, glscl
from convert.checkpoint_output import settings
from convert.conversion import Options, convert_glscl
from convert.export import _BY_FLAG, convert_back
from glscl_jax.checkpoints.model_dir import load_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.models.glscl import GLSCL, config_of, init_params, learned_parts, model_config
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import HEADS
from tests.builders import SMALL

# Every head but GLSCL's, and GLSCL's with what is not usual.
OTHERS = {name: kind() for name, kind in HEADS.items() if name != GLSCLHead.name}
OTHERS["gim"] = dataclasses.replace(OTHERS["gim"], temperature=2.0)


def drawn(head):
    """A small model with a head, and parameters of its shapes."""
    config = dataclasses.replace(SMALL, head=head)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(config), 0))
    random = np.random.default_rng(0)
    return config, jax.tree.map(
        lambda x: random.normal(size=x.shape, scale=0.1).astype(np.float32), shapes
    )


def written(path, head):
    config, params = drawn(head)
    checkpoint_output.write_checkpoint(path, params, config, None, {})
    return path


def read(path):
    return load_model(path, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


@pytest.mark.parametrize("head", [*OTHERS.values(), SMALL.head], ids=lambda head: head.name)
def test_a_head_that_is_there_is_said(head):
    config, params = drawn(head)
    assert model_config(settings(config, tuple(params))).head == head
    if lacking := learned_parts(config):
        # Without one of its parts another stands in, and a run may choose any.
        parts = {name: params[name] for name in params.keys() - {lacking[0]}}
        told = settings(config, tuple(parts))
        assert "head" not in told
        assert config_of(model_config(told), parts).head.name == "mean"


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is missing: see requirements-torch.txt")


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_a_state_dict_has_no_place_for_is_told(tmp_path, capsys, name):
    path, out = written(tmp_path / "ours", OTHERS[name]), tmp_path / "back.bin"
    if learned_parts(read(path).config):
        with pytest.raises(UserError, match=rf"has the head {name}, .* python -m convert\.clip"):
            convert_back(str(path), str(out), "pytorch", whole=True)
        assert not out.exists()
        convert_back(str(path), str(out), "pytorch", whole=False)
    else:
        convert_back(str(path), str(out), "pytorch", whole=True)
    told = f"the head {name}, in the place of which the mean frame scores"
    assert (told in capsys.readouterr().out) == (name != "mean")


@pytest.mark.usefixtures("torch")
def test_settings_that_no_tensor_shows_are_told(tmp_path, capsys):
    head = dataclasses.replace(SMALL.head, temperature=2.0, lim_weight=0.25)
    path, out = written(tmp_path / "ours", head), tmp_path / "back.bin"
    convert_back(str(path), str(out), "pytorch", whole=True)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "a state dict does not say its settings: to convert it again give --temperature=2.0"
        " --lim_weight=0.25"
    )
    given = Options(tokenizer=DEMO_MERGES, head={"temperature": 2.0, "lim_weight": 0.25})
    convert_glscl(str(out), str(tmp_path / "again"), given)
    assert read(tmp_path / "again").config.head == head
    for changes in ({"gim_weight": 0.0}, {"normalised": True}, {"mask_padding": True}):
        (name,) = changes
        path = written(tmp_path / name, dataclasses.replace(SMALL.head, **changes))
        with pytest.raises(UserError, match=rf"head\.{name} is .* python -m convert\.clip"):
            convert_back(str(path), str(tmp_path / "no.bin"), "pytorch", whole=True)


def test_what_is_told_has_a_flag():
    # A setting that is new is one of `_SHOWN` or `_OWN`, or has a flag there, too.
    assert {*_BY_FLAG} <= {*glscl.SETTINGS}
