"""An open_clip config of another model than its tensors, and one whose settings are none."""

import json

import pytest

from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from tests.clip_sources import one_line, open_clip_directory, refused


def test_a_pooling_that_tensors_show_is_held_against_the_config(tmp_path):
    """open_clip's names are one format's, whatever its towers pool by."""
    named = {"timm_model_name": "vit_base_patch8_siglip_16", "timm_pool": "map"}
    vision = named | {"timm_proj": "none"}
    path = open_clip_directory(
        tmp_path / "clip", {}, vision=vision, text={"norm_kwargs": {"eps": 1e-6}}
    )
    message = one_line(refused(path, tmp_path))
    assert "config.json: by its config vision_pooling is 'probe', by its tensors 'class'" in message
    assert "they are of two models" in message


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("vision_cfg.layers", 3, "vision_layers is 3, by its tensors 2"),
        ("vision_cfg.width", 128, "vision_width is 128, by its tensors 64"),
        ("vision_cfg.image_size", 32, "image_size is 32, by its tensors 16"),
        ("vision_cfg.patch_size", 4, "patch_size is 4, by its tensors 8"),
        ("embed_dim", 128, "embed_dim is 128, by its tensors 64"),
        ("text_cfg.width", 256, "text_width is 256, by its tensors 128"),
        ("text_cfg.layers", 2, "text_layers is 2, by its tensors 1"),
        ("text_cfg.vocab_size", 601, "vocab_size is 601, by its tensors 600"),
        ("text_cfg.context_length", 77, "context_length is 77, by its tensors 20"),
        ("text_cfg.context_length", None, "context_length is 77, by its tensors 20"),
        ("text_cfg.mlp_ratio", 2.0, "text_mlp_width is 256, by its tensors 512"),
        ("init_logit_bias", -10, "logit_bias is True, by its tensors False"),
    ],
)
def test_sizes_of_open_clips_config_are_the_tensors(tmp_path, key, value, name):
    path = open_clip_source(tmp_path, key, value)
    message = one_line(refused(path, tmp_path, tokenizer=str(DEMO_MERGES)))
    assert f"{path / 'open_clip_config.json'}: by its config {name}" in message
    assert f"({key}): they are of two models" in message


def open_clip_source(tmp_path, key, value):
    """A small directory of open_clip with one setting of `model_cfg` changed, None to leave out."""
    path = open_clip_directory(tmp_path / "theirs", {})
    content = json.loads((path / "open_clip_config.json").read_text())
    *section, last = key.split(".")
    settings = content["model_cfg"]
    for name in section:
        settings = settings[name]
    settings[last] = value
    if value is None:
        del settings[last]
    (path / "open_clip_config.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vision_cfg", [1], "vision_cfg is [1], not a section"),
        ("text_cfg", 5, "text_cfg is 5, not a section"),
        ("vision_cfg.timm_model_name", 5, "timm's 5"),
        ("vision_cfg.width", "64", "vision_cfg.width is '64', not a whole number above 0"),
        ("vision_cfg.head_width", 0, "vision_cfg.head_width is 0, not a whole number above 0"),
        ("vision_cfg.image_size", [], "vision_cfg.image_size is [], not a size in pixels"),
        ("vision_cfg.mlp_ratio", "4" * 64, "4 ..., not a number above 0"),
        ("vision_cfg.no_ln_pre", "false", "vision_cfg.no_ln_pre is 'false', not true or false"),
        ("text_cfg.heads", 0, "text_cfg.heads is 0, not a whole number above 0"),
        ("text_cfg.heads", "2", "text_cfg.heads is '2', not a whole number above 0"),
        ("text_cfg.pool_type", [1], "text_cfg.pool_type is [1], not a name"),
        ("text_cfg.norm_kwargs", [1], "text_cfg.norm_kwargs is [1], not a section"),
        ("text_cfg.norm_kwargs", {"eps": "1"}, "text_cfg.norm_kwargs.eps is '1', not a number"),
        ("text_cfg.no_causal_mask", "false", "no_causal_mask is 'false', not true or false"),
        ("quick_gelu", "false", "quick_gelu is 'false', not true or false"),
    ],
)
def test_settings_of_open_clip_that_are_none(tmp_path, key, value, said):
    path = open_clip_source(tmp_path, key, value)
    message = one_line(refused(path, tmp_path, tokenizer=str(DEMO_MERGES)))
    assert said in message
    assert str(path / "open_clip_config.json") in message


def test_null_is_no_width(tmp_path):
    path = open_clip_directory(tmp_path / "theirs", {}, vision={"head_width": None})
    assert "vision_cfg.head_width is None, not a whole" in one_line(refused(path, tmp_path))
