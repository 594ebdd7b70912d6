"""What is read of a source, and what each bad one is told."""

import json
import os

import numpy as np
import pytest

from convert import rules, safetensors_file
from convert.tables import HUGGING_FACE
from glscl_jax.input_pipeline.tokenizer import DEMO_MERGES
from tests.clip_sources import (
    copied,
    hugging_face_directory,
    open_clip_directory,
    random_model,
    random_tensors,
    refused,
    safetensors,
    save,
    torch,
    transformers,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return hugging_face_directory(tmp_path_factory.mktemp("hub") / "clip")


def test_safetensors_are_read_as_the_library_reads_them(directory):
    theirs = safetensors.load_file(directory / "model.safetensors")
    ours = safetensors_file.read(directory / "model.safetensors")
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape
        np.testing.assert_array_equal(np.asarray(tensor), theirs[name])
    assert rules.detect(ours) is HUGGING_FACE


def header(text: str) -> bytes:
    """A safetensors file with this header."""
    return len(text).to_bytes(8, "little") + text.encode() + bytes(8)


def entry(dtype="F32", shape="[1]", offsets="[0, 4]") -> str:
    return f'{{"visual.proj": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}'


def test_broken_files(directory, tmp_path):
    path = tmp_path / "file"
    assert "no such file" in refused(path, tmp_path)
    whole = (directory / "model.safetensors").read_bytes()
    state = save(tmp_path / "state.pt", random_tensors()).read_bytes()
    for content, message in (
        (b"", "is empty"),
        (b"weights", "no PyTorch file"),
        (state[: len(state) // 2], "no complete PyTorch file|no PyTorch file"),
        (whole[:-100], "cut short"),
        (whole[:500], "damaged safetensors"),
        (whole[:8] + b"{" + b"x" * 600, "damaged safetensors"),
        (header('{"a":' * 100_000), "damaged safetensors"),
        (header(entry(shape="[1e999]", offsets="[0, 4]")), "damaged safetensors"),
        (header(entry(shape="[1.0]", offsets="[0.0, 4.0]")), "damaged safetensors"),
        (header(entry(dtype="F8_E4M3", offsets="[0, 1]")), "of type F8_E4M3 cannot be read"),
        (b"\x81\xa1a" + b"\x81\xa1a" * 5_000, "no complete Flax file"),
    ):
        path.write_bytes(content)
        assert any(x in refused(path, tmp_path) for x in message.split("|")), content[:9]


def test_broken_directories(directory, tmp_path):
    assert "neither a Hugging Face directory" in refused(tmp_path, tmp_path / "out")
    random_model().save_pretrained(tmp_path / "clip", max_shard_size="300KB")
    shard = next((tmp_path / "clip").glob("model-00002*"))
    shard.rename(tmp_path / shard.name)
    assert shard.name in refused(tmp_path / "clip", tmp_path)
    index = tmp_path / "clip" / "model.safetensors.index.json"
    # Nothing outside the directory is read.
    index.write_text(index.read_text().replace(shard.name, f"../{shard.name}"))
    assert "another directory" in refused(tmp_path / "clip", tmp_path)
    index.write_text("[]")
    assert "an index of files" in refused(tmp_path / "clip", tmp_path)


class Command:
    """Pickled, it is a call of os.system: what a hostile file would hold."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_pickle_runs_nothing(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"visual.proj": Command(f"touch {trace}")}, tmp_path / "clip.pt")
    assert "could run code" in refused(tmp_path / "clip.pt", tmp_path)
    folder = tmp_path / "clip"
    random_model().config.save_pretrained(folder)
    (tmp_path / "clip.pt").rename(folder / "pytorch_model.bin")
    assert "could run code" in refused(folder, tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("visual.layer1.0.conv1.weight", "a ResNet CLIP"),
        ("visual.attnpool.positional_embedding", "a ResNet CLIP"),
        ("vision_model.head.probe", "a SigLIP model"),
        ("logit_bias", "a SigLIP model"),
        ("visual.trunk.patch_embed.proj.weight", "a timm model"),
        ("text.transformer.embeddings.word_embeddings.weight", "a BERT-like text tower"),
        ("text_decoder.ln_final.weight", "a CoCa"),
    ],
)
def test_other_models_are_called_by_their_names(tmp_path, name, kind):
    tensors = random_tensors() | {name: np.zeros(3, np.float32)}
    message = refused(save(tmp_path / "model.pt", tensors), tmp_path, activation="gelu")
    assert kind in message
    assert name in message


def test_half_models_are_called_by_their_names(tmp_path):
    text = {n: x for n, x in random_tensors().items() if not n.startswith("visual.")}
    assert "a text model without" in refused(save(tmp_path / "text.pt", text), tmp_path)
    transformers.CLIPTextModel(random_model().config.text_config).save_pretrained(tmp_path / "text")
    assert "a text model without" in refused(tmp_path / "text", tmp_path)
    config = random_model().config.vision_config
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "vision")
    assert "a vision model without" in refused(tmp_path / "vision", tmp_path)


def test_siglip_and_bert_directories_are_called_by_their_names(directory, tmp_path):
    path = copied(directory, tmp_path / "model")
    transformers.SiglipConfig().save_pretrained(path)
    assert "a SigLIP model" in refused(path, tmp_path)
    (path / "config.json").write_text('{"model_type": "bert"}')
    assert "'bert'" in refused(path, tmp_path)
    for damaged in ("{", '{"a":' * 100_000):
        (path / "config.json").write_text(damaged)
        assert "config.json is damaged" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06 is not 1e-05"),
        ({"num_attention_heads": 4}, "4 heads of width 128 are not 64 wide"),
    ],
)
def test_settings_that_the_model_does_not_have(directory, tmp_path, changes, message):
    config = json.loads((directory / "config.json").read_text())
    config["text_config"] |= changes
    assert message in refused(copied(directory, tmp_path / "clip", config=config), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"changes": {"custom": 1}}, "custom 1"),
        ({"changes": {}, "vision": {"no_ln_pre": True}}, "vision_cfg.no_ln_pre True"),
        ({"changes": {}, "vision": {"head_width": 80}}, "vision_cfg.head_width 80"),
        ({"changes": {}, "vision": {"layers": [3, 4]}}, "no ViT"),
        ({"changes": {}, "images": {"mean": [0.5, 0.5, 0.5]}}, "normalised by [0.5, 0.5, 0.5]"),
    ],
)
def test_open_clip_settings_that_the_model_does_not_have(tmp_path, settings, message):
    assert message in refused(open_clip_directory(tmp_path / "clip", **settings), tmp_path)


def test_images_normalised_otherwise(directory, tmp_path):
    images = {"image_mean": [0.5, 0.5, 0.5]}
    path = copied(directory, tmp_path / "clip", preprocessor_config=images)
    assert "normalised by [0.5, 0.5, 0.5]" in refused(path, tmp_path)


@pytest.mark.parametrize(("width", "name"), [(1280, "ViT-H"), (1408, "ViT-g"), (1664, "ViT-bigG")])
def test_heads_of_another_width(tmp_path, width, name):
    # Nothing but what the sizes are read from.
    tensors = {
        "visual.conv1.weight": np.zeros((width, 3, 1, 1), np.float16),
        "visual.positional_embedding": np.zeros((2, width), np.float16),
        "visual.transformer.resblocks.0.ln_1.weight": np.zeros(width, np.float16),
        "transformer.resblocks.0.ln_1.weight": np.zeros(64, np.float16),
        "token_embedding.weight": np.zeros((3, 64), np.float16),
        "positional_embedding": np.zeros((2, 64), np.float16),
        "text_projection": np.zeros((64, 64), np.float16),
    }
    path = save(tmp_path / "model.pt", tensors)
    assert name in refused(path, tmp_path, activation="gelu")


def test_widths_that_no_head_fits(tmp_path):
    tensors = random_tensors() | {"text_projection": np.zeros((128, 63), np.float32)}
    message = refused(save(tmp_path / "model.pt", tensors), tmp_path, activation="gelu")
    assert "embed_dim 63 is no multiple of 64" in message


def test_names_that_do_not_fit_are_listed(tmp_path):
    tensors = random_tensors()
    tensors["visual.ln_pre.wieght"] = tensors.pop("visual.ln_pre.weight")
    options = {"activation": "gelu", "tokenizer": str(DEMO_MERGES)}
    message = refused(save(tmp_path / "model.pt", tensors), tmp_path, **options)
    assert "unexpected: visual.ln_pre.wieght (nearest expected: visual.ln_pre.weight)" in message
