"""A source whose config and tensors are of two models, and what is written of neither."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest

from convert import agreement
from convert.conversion import Options, convert_clip
from convert.naming import rules
from convert.naming.published_names import HUGGING_FACE
from convert.readers import hugging_face_sizes
from convert.readers.hugging_face import transformers_config, transformers_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.models.encoders.variants import VARIANTS
from tests.clip_sources import (
    SMALL,
    one_line,
    random_tensors,
    refused,
    safetensors,
    save,
    torch_glscl,
)

KINDS = {
    "clip": "tiny",
    "metaclip_2": "tiny-MetaCLIP2",
    "siglip": "tiny-SigLIP",
    "videoprism": "tiny-VideoPrism",
}
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A small directory of transformers of each kind, by its `model_type`."""
    found = {}
    for kind, variant in KINDS.items():
        changes = {"text_layers": 1, "vocab_size": 700}
        changes |= {"end_id": 2} if kind == "metaclip_2" else {}
        settings = transformers_config(dataclasses.replace(VARIANTS[variant], **changes))
        found[kind] = tmp_path_factory.mktemp("theirs") / kind
        model = torch_glscl.randomise(transformers_model(settings)(settings), seed=0)
        model.save_pretrained(found[kind])
    return found


@pytest.fixture
def source(sources, tmp_path):
    """Copies one of `sources`, with other settings and tensors."""

    def make(kind, settings=(), tensors=(), name="theirs"):
        path = shutil.copytree(sources[kind], tmp_path / name)
        said = json.loads((path / "config.json").read_text())
        for key, value in dict(settings).items():
            *sections, last = key.split(".")
            section = said
            for inner in sections:
                section = section[inner]
            section[last] = value
        (path / "config.json").write_text(json.dumps(said))
        held = safetensors.load_file(path / WEIGHTS)
        held = {name: x for name, x in (held | dict(tensors)).items() if x is not None}
        safetensors.save_file(held, path / WEIGHTS)
        return path

    return make


# ---- Of one kind --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "other"),
    [("siglip", "clip"), ("clip", "siglip"), ("metaclip_2", "videoprism"), ("videoprism", "clip")],
)
def test_a_config_of_one_kind_and_tensors_of_another(sources, source, tmp_path, kind, other):
    path = source(kind)
    shutil.copy(sources[other] / WEIGHTS, path / WEIGHTS)
    message = one_line(refused(path, tmp_path))
    assert f"{path / 'config.json'} is of a " in message
    assert f"(model_type {kind!r})" in message
    assert "the tensors have the names of Hugging Face" in message
    assert "put the config there that these weights were saved with" in message


def test_no_array_is_left_as_it_was_in_memory():
    tensors = random_tensors(HUGGING_FACE)
    probed = dataclasses.replace(SMALL, vision_pooling="probe")
    with pytest.raises(UserError, match=r"a\.bin .*clip/vision/probe/attention/.*has no name for"):
        rules.from_torch_names(tensors, HUGGING_FACE, probed, source="a.bin")


def test_more_positions_than_the_format_has_tokens_for(source, tmp_path):
    name = "vision_model.embeddings.position_embedding.weight"
    path = source("siglip", tensors={name: np.ones((5, 128), np.float32)})
    assert "class" in one_line(refused(path, tmp_path))


# ---- Beyond a type ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 1e300), ("bfloat16", 3.4e38)])
def test_weights_beyond_the_type_that_is_written(tmp_path, dtype, largest):
    tensors = {name: x.astype(np.float64) for name, x in random_tensors().items()}
    tensors["visual.proj"][3, 4] = largest
    path = save(tmp_path / "model.pt", tensors)
    options = {"activation": "gelu", "tokenizer": str(DEMO_MERGES), "dtype": dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        message = one_line(refused(path, tmp_path, **options))
        assert "weights in visual.proj, or such as are beyond the type that is written" in message
        convert_clip(str(path), str(tmp_path / "out"), Options(allow_nonfinite=True, **options))
    origin = json.loads((tmp_path / "out" / "origin.json").read_text())
    assert origin["nonfinite"] == ["visual.proj"]


# ---- Sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "value", "name"),
    [
        ("clip", "vision_config.image_size", 64, "image_size is 64, by its tensors 32"),
        ("clip", "vision_config.num_hidden_layers", 3, "vision_layers is 3, by its tensors 2"),
        ("clip", "vision_config.num_hidden_layers", 1, "vision_layers is 1, by its tensors 2"),
        ("clip", "vision_config.patch_size", 8, "patch_size is 8, by its tensors 16"),
        ("clip", "vision_config.intermediate_size", 256, "vision_mlp_width is 256, by its tensors"),
        ("clip", "vision_config.hidden_size", 256, "vision_width is 256, by its tensors 128"),
        ("clip", "text_config.hidden_size", 256, "text_width is 256, by its tensors 128"),
        ("clip", "text_config.intermediate_size", 256, "text_mlp_width is 256, by its tensors 512"),
        ("clip", "text_config.vocab_size", 701, "vocab_size is 701, by its tensors 700"),
        ("clip", "text_config.max_position_embeddings", 16, "context_length is 16, by its tensors"),
        ("clip", "projection_dim", 64, "embed_dim is 64, by its tensors 128"),
        ("metaclip_2", "text_config.num_hidden_layers", 2, "text_layers is 2, by its tensors 1"),
        ("siglip", "text_config.projection_size", 64, "embed_dim is 64, by its tensors 128"),
        ("videoprism", "vision_config.image_size", 64, "image_size is 64, by its tensors 32"),
        ("videoprism", "vision_config.num_spatial_layers", 1, "vision_layers is 1, by its tensors"),
        (
            "videoprism",
            "vision_config.num_temporal_layers",
            1,
            "time_layers is 1, by its tensors",
        ),
        ("videoprism", "vision_config.num_auxiliary_layers", 0, "auxiliary_layers is 0, by its"),
        ("videoprism", "vision_config.num_frames", 8, "time_positions is 8, by its tensors 4"),
        ("videoprism", "vision_config.tubelet_size", [1, 8, 8], "patch_size is 8, by its tensors"),
    ],
)
def test_sizes_of_a_config_are_the_tensors(source, tmp_path, kind, key, value, name):
    path = source(kind, {key: value})
    # Before anything is compared in transformers, which would not build this model.
    message = one_line(refused(path, tmp_path, verify=kind == "clip"))
    assert f"{path / 'config.json'}: by its config {name}" in message
    assert f"({key}): they are of two models" in message


def test_a_videoprism_without_the_biases_that_it_has(source, tmp_path):
    path = source("videoprism", {"vision_config.qkv_bias": False})
    assert "vision_config.qkv_bias is False" in one_line(refused(path, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_config_leaves_out_is_transformers_own(source, tmp_path, kind):
    path = source(kind)
    said = json.loads((path / "config.json").read_text())
    layers = "num_spatial_layers" if kind == "videoprism" else "num_hidden_layers"
    del said["vision_config"][layers]
    (path / "config.json").write_text(json.dumps(said))
    assert "vision_layers is 12, by its tensors 2" in one_line(refused(path, tmp_path))


def test_an_image_size_that_patches_do_not_fill(sources, source, tmp_path):
    """As the SigLIP for 384 pixels is published, whose patches of 14 cover 378."""
    path = source("siglip", {"vision_config.image_size": 40})
    convert_clip(str(path), str(tmp_path / "out"), Options())
    said = json.loads((tmp_path / "out" / "model.json").read_text())["clip"]
    assert said["image_size"] == 32


@pytest.mark.parametrize(
    ("kind", "name", "setting"),
    [
        ("siglip", "logit_bias", "logit_bias is True"),
        ("siglip", "vision_model.embeddings.patch_embedding.bias", "patch_bias is True"),
    ],
)
def test_a_tensor_that_a_kind_has_and_the_file_has_not(source, tmp_path, kind, name, setting):
    message = one_line(refused(source(kind, tensors={name: None}), tmp_path))
    assert f"by its config {setting}, by its tensors False ({name}): they are of two" in message


def test_a_tensor_that_an_index_leaves_out(source, tmp_path):
    path = source("siglip")
    held = safetensors.load_file(path / WEIGHTS)
    index = {"weight_map": dict.fromkeys(held.keys() - {"logit_bias"}, "model-1.safetensors")}
    (path / WEIGHTS).rename(path / "model-1.safetensors")
    (path / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    assert "by its tensors False (logit_bias)" in one_line(refused(path, tmp_path))


# ---- Damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "value", "said"),
    [
        ("clip", "model_type", ["clip"], "of the kind ['clip']"),
        ("clip", "architectures", 5, "architectures is 5, not a list"),
        ("clip", "architectures", "CLIPModels", "architectures is 'CLIPModels', not a list"),
        ("clip", "vision_config.num_attention_heads", 0, "config.json: "),
        ("siglip", "text_config.num_attention_heads", -2, "text_config.num_attention_heads is -2"),
        ("clip", "vision_config.hidden_size", 0, "config.json: "),
        ("clip", "vision_config.image_size", [], "vision_config.image_size is []"),
        ("clip", "vision_config.patch_size", 0, "vision_config.patch_size is 0, not a whole"),
        ("clip", "vision_config.patch_size", [16, 8], "patch_size [16, 8] is not square"),
        ("clip", "projection_dim", None, "projection_dim is None, not a whole number"),
        ("clip", "text_config", [1], "config.json: "),
        ("clip", "vision_config.layer_norm_eps", float("nan"), "layer_norm_eps is nan, not a num"),
        ("siglip", "text_config.layer_norm_eps", -1.0, "text_config.layer_norm_eps is -1.0"),
        ("videoprism", "vision_config.tubelet_size", [], "tubelet_size [] is no square patch"),
        ("videoprism", "text_config.attn_logit_softcapping", float("inf"), "softcapping is inf"),
    ],
)
def test_settings_of_transformers_that_are_none(source, tmp_path, kind, key, value, said):
    path = source(kind, {key: value})
    message = one_line(refused(path, tmp_path))
    assert said in message
    assert str(path) in message


# ---- Its own code -------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 1}, {"image_size": 64}])
def test_a_twin_of_other_sizes_is_one_line(source, tmp_path, monkeypatch, changes):
    """Were the config not held against the tensors."""
    monkeypatch.setattr(agreement, "_check_settings", lambda *_: None)
    monkeypatch.setattr(hugging_face_sizes, "read", lambda *_: hugging_face_sizes.Sizes({}, {}, 32))
    path = source("clip", {f"vision_config.{name}": value for name, value in changes.items()})
    message = one_line(refused(path, tmp_path, verify=True))
    assert f"{path}: its own code makes no model of it that could be compared" in message
    assert "nothing was written" in message
