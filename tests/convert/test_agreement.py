"""A source whose config and tensors are of two models, and what is written of neither."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest

from convert.conversion import Options, convert_clip
from convert.naming import rules
from convert.naming.published_names import HUGGING_FACE
from convert.readers.hugging_face import transformers_config, transformers_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.models.encoders.variants import VARIANTS
from tests.clip_sources import (
    SMALL,
    open_clip_directory,
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


def one_line(message: str) -> str:
    assert "\n" not in message
    assert len(message) < 500
    return message


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
        assert "beyond the type that is written, in visual.proj: --allow_nonfinite" in message
        convert_clip(str(path), str(tmp_path / "out"), Options(allow_nonfinite=True, **options))
    origin = json.loads((tmp_path / "out" / "origin.json").read_text())
    assert origin["nonfinite"] == ["visual.proj"]
