"""What is read of a source, and what each bad one is told."""

import json
import os
import pathlib
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from convert.conversion import Options, convert_clip
from convert.export import convert_back
from convert.naming import rules
from convert.naming.published_names import HUGGING_FACE
from convert.readers import safetensors_file
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
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


def test_bfloat16_safetensors_are_read_one_at_a_time(tmp_path):
    values = {name: np.full((256, 1024), 1.5, ml_dtypes.bfloat16) for name in "abcdefgh"}
    safetensors.save_file(values, tmp_path / "file")
    tensors = safetensors_file.read(tmp_path / "file")
    assert np.asarray(tensors["a"]).dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.asarray(tensors["a"]), values["a"])
    assert np.asarray(tensors["a"], np.float32).dtype == np.float32
    # Neither mapped nor kept.
    maps = pathlib.Path("/proc/self/maps")
    assert not maps.exists() or str(tmp_path) not in maps.read_text()
    tracemalloc.start()
    for tensor in tensors.values():
        np.asarray(tensor)
    assert tracemalloc.get_traced_memory()[1] < 2.5 * values["a"].nbytes
    tracemalloc.stop()


def header(text: str) -> bytes:
    """A safetensors file with this header."""
    return len(text).to_bytes(8, "little") + text.encode() + bytes(4)


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
        (whole + bytes(8), "damaged safetensors"),
        (header('{"a":' * 100_000), "damaged safetensors"),
        (header(entry(dtype="F\\n" + "9" * 1000)), "damaged safetensors"),
        (header(entry(shape="[1e999]", offsets="[0, 4]")), "damaged safetensors"),
        (header(entry(shape="[1.0]", offsets="[0.0, 4.0]")), "damaged safetensors"),
        (header(entry(dtype="F8_E4M3", shape="[4]")), "of type F8_E4M3 cannot be read"),
        (b"\x81\xa1a" + b"\x81\xa1a" * 5_000, "no complete Flax file"),
    ):
        path.write_bytes(content)
        said = refused(path, tmp_path)
        assert any(x in said for x in message.split("|")), content[:9]
        assert str(path) in said
        assert len(said.splitlines()) == 1
        assert len(said) < 500


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


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "weight_map has '', which is no file"),
        (".", "weight_map has '.', which is no file"),
        ("..", "weight_map has '..', which is no file"),
        ("a\0b", "which is no file"),
        ("a/b.safetensors", "a file in another directory, 'a/b.safetensors'"),
        ("model.safetensors.index.json", "weight_map has an index in it"),
        ("gone.safetensors", "names gone.safetensors, which is not beside it"),
        (5, "cannot be read as an index"),
    ],
)
def test_an_index_that_names_no_file(directory, tmp_path, name, told):
    path = copied(directory, tmp_path / "theirs")
    (path / "model.safetensors").rename(path / "model-00001-of-00001.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"logit_scale": name}}))
    message = refused(path, tmp_path)
    assert told in message
    assert index.name in message
    assert "\n" not in message


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
        ("visual.trunk.stem.0.weight", "a ConvNeXt CLIP"),
        ("text.transformer.embeddings.word_embeddings.weight", "a BERT-like text tower"),
        ("text_decoder.ln_final.weight", "a CoCa"),
        ("visual.attn_pool.query", "CoCa's attentional pooler"),
        ("visual.transformer.resblocks.0.ls_1.gamma", "LayerScale"),
        ("transformer.resblocks.0.attn.ln_q.weight", "an attention of its own"),
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
    transformers.Siglip2Config().save_pretrained(path)
    assert "a SigLIP 2 of NaFlex" in refused(path, tmp_path)
    (path / "config.json").write_text('{"model_type": "bert"}')
    assert "'bert'" in refused(path, tmp_path)
    for damaged in ("{", '{"a":' * 100_000):
        (path / "config.json").write_text(damaged)
        assert "config.json is damaged" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ({"layer_norm_eps": 1e-6}, "its towers have different layer_norm_eps"),
        (
            {"num_attention_heads": 3},
            "(128) is not a multiple of the number of attention heads (3)",
        ),
    ],
)
def test_settings_that_the_model_does_not_have(directory, tmp_path, changes, message):
    config = json.loads((directory / "config.json").read_text())
    config["text_config"] |= changes
    assert message in refused(copied(directory, tmp_path / "clip", config=config), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "modeling_eva.EvaCLIPModel"}}, "code of its own (auto_map)"),
        ({"architectures": ["EvaCLIPModel"]}, "is of a EvaCLIPModel; only CLIPModel is read"),
        ({"quantization_config": {"load_in_8bit": True}}, "the weights are quantized"),
    ],
)
def test_models_that_transformers_does_not_compute_alone(directory, tmp_path, changes, message):
    config = json.loads((directory / "config.json").read_text()) | changes
    assert message in refused(copied(directory, tmp_path / "clip", config=config), tmp_path)


@pytest.mark.parametrize(
    ("end", "given", "message"),
    [
        (599, True, None),
        (2, True, None),
        (49407, True, "takes a sentence from token 49407 (text_config.eos_token_id) and its tok"),
        (5, True, "its tokenizer ends captions with 599"),
        ([2, 599], True, "eos_token_id is [2, 599], not one token"),
        (599, False, None),
        (598, False, "takes a sentence from token 598 (text_config.eos_token_id) and it has no"),
    ],
)
def test_the_token_that_a_sentence_is_taken_from(directory, tmp_path, end, given, message):
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["eos_token_id"] = end
    path = copied(directory, tmp_path / "clip", config=config)
    options = {"tokenizer": str(DEMO_MERGES)} if given else {}
    if message:
        assert message in refused(path, tmp_path, **options)
    else:
        convert_clip(str(path), str(tmp_path / "out"), Options(**options))


@pytest.mark.parametrize(
    ("tower", "settings", "message"),
    [
        ("vision", {"pool_type": "avg"}, "vision_cfg.pool_type 'avg'"),
        ("vision", {"attentional_pool": True}, "vision_cfg.attentional_pool True"),
        ("vision", {"ls_init_value": 1e-4}, "vision_cfg.ls_init_value 0.0001"),
        (
            "vision",
            {"mlp_ratio": 4.3},
            "vision_mlp_width is 275, by its tensors 256",
        ),
        ("vision", {"pos_embed_type": "sin_cos_2d"}, "vision_cfg.pos_embed_type 'sin_cos_2d'"),
        ("vision", {"norm_kwargs": {"eps": 1e-6}}, "vision_cfg.norm_kwargs {'eps': 1e-06}"),
        ("vision", {"qk_norm": True}, "vision_cfg.qk_norm True"),
        ("vision", {"image_size": [16, 64]}, "image_size [16, 64] is not square"),
        ("vision", {"something_new": 3}, "vision_cfg.something_new 3"),
        ("vision", {"something_new": False}, "vision_cfg.something_new False"),
        ("text", {"pool_type": "tok"}, "text_cfg.pool_type 'tok'"),
        ("text", {"embed_cls": True}, "text_cfg.embed_cls True"),
        ("text", {"act_kwargs": {"approximate": "erf"}}, "text_cfg.act_kwargs"),
        ("text", {"proj_type": "none"}, "text_projection is 'none', by its tensors 'matrix'"),
        ("text", {"proj_type": "mlp"}, "text_cfg.proj_type 'mlp'"),
        ("text", {"norm_kwargs": {"eps": 1e-6}}, "of one tower alone"),
        ("text", {"heads": 3}, "text_cfg.heads 3"),
        ("text", {"hf_model_name": "roberta-base"}, "text_cfg.hf_model_name 'roberta-base'"),
        ("text", {"hf_tokenizer_name": "bert-base"}, "its tokenizer, bert-base, is not beside it"),
        ("text", {"tokenizer_kwargs": {"clean": "lower"}}, "{'tokenizer_kwargs': {'clean'"),
        # As they are by default, or of no account.
        ("vision", {"pool_type": "tok", "patch_dropout": 0.5, "no_ln_pre": False}, None),
        ("vision", {"norm_kwargs": {}, "timm_pool": "", "attn_pooler_heads": 8}, None),
        ("text", {"pool_type": "argmax", "no_causal_mask": False, "eos_id": 2}, None),
        ("text", {"hf_proj_type": "mlp", "block_type": "default", "hf_model_name": None}, None),
    ],
)
def test_open_clips_towers(tmp_path, tower, settings, message):
    path = open_clip_directory(tmp_path / "clip", {}, **{tower: settings})
    options = {"tokenizer": str(DEMO_MERGES)}
    if message:
        assert message in refused(path, tmp_path, **options)
    else:
        convert_clip(str(path), str(tmp_path / "out"), Options(**options))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"changes": {"custom": 1}}, "custom 1"),
        ({"changes": {}, "vision": {"no_ln_pre": True}}, "by its config pre_norm is False"),
        ({"changes": {}, "vision": {"layers": [3, 4]}}, "no ViT"),
        ({"changes": {}, "images": {"mean": [0.5, 0.5]}}, "mean is [0.5, 0.5], not three numbers"),
    ],
)
def test_open_clip_settings_that_the_model_does_not_have(tmp_path, settings, message):
    assert message in refused(open_clip_directory(tmp_path / "clip", **settings), tmp_path)


def test_heads_of_another_width_are_taken_as_a_directory_says(directory, tmp_path):
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = 4
    config["vision_config"]["num_attention_heads"] = 8
    theirs = copied(directory, tmp_path / "hugging face", config=config)
    # Verified in transformers itself, and what is exported has as many heads again.
    convert_clip(str(theirs), str(tmp_path / "one"), Options(verify=True))
    convert_back(str(tmp_path / "one"), str(tmp_path / "back"), "huggingface", whole=False)
    again = json.loads((tmp_path / "back" / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        heads = again[tower]["num_attention_heads"]
        assert heads == config[tower]["num_attention_heads"]
    with pytest.raises(UserError, match="vision_head_width is 8, and a state dict does not"):
        convert_back(str(tmp_path / "one"), str(tmp_path / "back.pt"), "pytorch", whole=False)
    theirs = open_clip_directory(
        tmp_path / "open_clip", {}, vision={"head_width": 16}, text={"heads": 4}
    )
    given = Options(verify=True, tokenizer=str(DEMO_MERGES))
    convert_clip(str(theirs), str(tmp_path / "two"), given)
    model = json.loads((tmp_path / "two" / "model.json").read_text())["clip"]
    assert (model["vision_head_width"], model["text_head_width"]) == (16, 32)


@pytest.mark.parametrize(
    ("width", "name"), [(1280, "ViT-H"), (1408, "ViT-g"), (1664, "ViT-bigG"), (1792, "ViT-e")]
)
def test_heads_of_another_width_that_a_file_does_not_show(tmp_path, width, name):
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


def test_vocabularies_of_models_that_pool_elsewhere(tmp_path):
    tensors = random_tensors() | {"token_embedding.weight": np.zeros((250_100, 128), np.float16)}
    path = save(tmp_path / "model.pt", tensors)
    message = refused(path, tmp_path, activation="gelu")
    assert "is a MetaCLIP 2 worldwide (250,100 token ids)" in message


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
