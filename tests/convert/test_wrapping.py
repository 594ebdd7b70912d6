"""What stands around a model in a file: words before names, and dictionaries."""

import numpy as np
import pytest

from convert.naming import wrapping
from glscl_jax.errors import UserError

CLIP = ["logit_scale", "visual.proj", "transformer.resblocks.0.ln_1.weight", "text_projection"]
GLSCL = [*(f"clip.{name}" for name in CLIP), "spatial_queries", "weight_fc.0.bias"]
HUGGING_FACE = ["logit_scale", "vision_model.pre_layrnorm.weight", "visual_projection.weight"]


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "model.",
        "clip.",
        "clip_model.",
        "_fsdp_wrapped_module.",
        "module._orig_mod.",
        "_orig_mod.module.model.",
        "model.clip_model._fsdp_wrapped_module.",
        "clip.model._orig_mod.",
        "model.model.",
    ],
)
def test_words_before_every_name(prefix):
    for names in (CLIP, HUGGING_FACE, GLSCL):
        wrapped = [prefix + name for name in names]
        assert list(wrapping.bare_names(wrapped).values()) == names
    said = wrapping.wrappers([prefix + name for name in CLIP])
    assert said == list(dict.fromkeys(prefix.split(".")[:-1]))


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("visual._fsdp_wrapped_module.transformer.resblocks.0.ln_1.weight", "visual.transformer."),
        ("clip.visual._orig_mod.transformer.resblocks.0.ln_1.weight", "visual.transformer."),
        ("clip._fsdp_wrapped_module.visual.module.transformer.resblocks.0.ln_1.weight", "visual."),
        ("visual.transformer.resblocks.0._checkpoint_wrapped_module.ln_1.weight", "visual."),
    ],
)
def test_words_within_names(name, bare):
    expected = "visual.transformer.resblocks.0.ln_1.weight"
    assert expected.startswith(bare)
    assert wrapping.bare_names([name])[name] == expected
    beside = wrapping.bare_names([name, "module.spatial_queries"])
    assert list(beside.values()) == [f"clip.{expected}", "spatial_queries"]


def test_two_tensors_of_one_name():
    tensors = {"model.visual.proj": np.zeros(2), "module.visual.proj": np.ones(2)}
    with pytest.raises(UserError, match=r"two .* of one name, model\.visual\.proj and module\.v"):
        wrapping.unwrap(tensors, "x.pt")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_logit_scale_of_one_element_is_a_scalar(shape):
    found = wrapping.unwrap({"model.logit_scale": np.full(shape, 4.5)}, "x.pt")
    assert found["logit_scale"].shape == ()
    assert found["logit_scale"] == 4.5


# ---- Dictionaries -----------------------------------------------------------------------------


def choose(content, entry=None):
    return wrapping.choose(content, entry, "x.pt", lambda value: isinstance(value, np.ndarray))


def state(value=0.0, prefix="module."):
    return {prefix + name: np.full(2, value) for name in CLIP}


OPTIMIZER = {"state": {0: {"exp_avg": np.zeros(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module", "ema"])
def test_a_model_beside_other_things(key):
    model = state()
    assert choose({"epoch": 3, key: model, "optimizer": OPTIMIZER, "ema_decay": None}) is model
    # And deeper; in itself, too, which a pickle can say.
    content = {"checkpoint": {key: model}, "optimizer": OPTIMIZER}
    content["self"] = content
    assert choose(content) is model


def test_several_models_are_asked_for():
    model, averaged = state(), {"decay": 0.99, "shadow": state(1.0, "")}
    content = {"epoch": 3, "state_dict": model, "ema": averaged, "optimizer": OPTIMIZER}
    with pytest.raises(UserError) as caught:
        choose(content)
    said = "x.pt holds several models, state_dict, ema.shadow: choose one, --entry=state_dict"
    assert str(caught.value) == said
    assert choose(content, "ema.shadow") is averaged["shadow"]
    assert choose(content, "state_dict") is model
    with pytest.raises(UserError, match=r"no --entry=model: it has state_dict, ema\.shadow"):
        choose(content, "model")
    with pytest.raises(UserError, match="no --entry=model: it has none with a model"):
        choose(model, "model")


def test_a_few_names_in_common_make_no_model():
    """Such as a head, or a scale that is logged."""
    model = state()
    assert choose({"state_dict": model, "best": {"logit_scale": np.zeros(())}}) is model
    # Where nothing is known, the largest is what a message shows.
    assert choose({"a": {"x": np.zeros(1)}, "b": {"y": np.zeros(1), "z": np.zeros(1)}}).keys() == {
        "y",
        "z",
    }
