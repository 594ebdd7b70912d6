"""The same small CLIP in every kind of file and directory that models are published in."""

import json
import re

import jax
import numpy as np
import pytest
from flax import serialization, traverse_util

from convert.conversion import Options, convert_clip
from convert.naming import rules
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer
from tests.clip_sources import (
    VOCABULARY,
    assert_same_params,
    open_clip_directory,
    random_model,
    random_tensors,
    read,
    refused,
    safetensors,
    save,
    torch,
)

GIVEN = {"tokenizer": str(DEMO_MERGES), "activation": "gelu"}


@pytest.fixture(scope="module")
def state() -> dict:
    """Of transformers' model, in float16."""
    return {n: t.detach().half().contiguous() for n, t in random_model().state_dict().items()}


def directory(path):
    """A Hugging Face directory without weights."""
    path.mkdir(exist_ok=True)
    random_model().config.save_pretrained(path)
    VOCABULARY.save(path)
    return path


def assert_converts(path, out, state, verify=False, **options):
    convert_clip(str(path), str(out), Options(verify=verify, **options))
    expected = rules.from_torch_names({name: tensor.numpy() for name, tensor in state.items()})
    assert_same_params(read(out).params, expected.params)
    return json.loads((out / "origin.json").read_text())


def halves(state) -> tuple[dict, dict]:
    names = sorted(state)
    return tuple({name: state[name] for name in part} for part in (names[::2], names[1::2]))


def write(path, tensors):
    if path.suffix == ".safetensors":
        safetensors.save_file({name: tensor.numpy() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)


@pytest.mark.parametrize(
    "index",
    [
        "pytorch_model.bin.index.json",
        "model.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "pytorch_model.bin.index.fp16.json",
    ],
)
def test_weights_in_several_files(tmp_path, state, index):
    path, weight_map = directory(tmp_path / "clip"), {}
    base, kind, _, *variant = index.removesuffix(".json").split(".")
    for number, part in enumerate(halves(state), start=1):
        name = f"{'.'.join([base, *variant])}-0000{number}-of-00002.{kind}"
        write(path / name, part)
        weight_map |= dict.fromkeys(part, name)
    (path / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    verify = index == "pytorch_model.bin.index.json"
    origin = assert_converts(path, tmp_path / "out", state, verify)
    assert len(origin["sha256"]) == 4
    next(path.glob("*-00002-*")).unlink()
    assert "00002-of-00002" in refused(path, tmp_path)


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "pytorch_model.non-ema.bin"])
def test_weights_of_another_precision(tmp_path, state, name):
    path = directory(tmp_path / "clip")
    write(path / name, state)
    origin = assert_converts(path, tmp_path / "out", state, verify="fp16" in name)
    assert list(origin["sha256"]) == ["config.json", name]
    write(path / "model.bf16.safetensors", state)
    assert f"model.bf16.safetensors and {name}" in refused(path, tmp_path)
    # The one without a name counts.
    write(path / "model.safetensors", state)
    assert "model.safetensors" in assert_converts(path, tmp_path / "usual", state)["sha256"]


def as_flax(state) -> dict:
    """As transformers' FlaxCLIPModel names and lays out its parameters."""
    found = {}
    for name, tensor in state.items():
        array = tensor.numpy()
        if re.search(r"(proj|fc\d|projection)\.weight$", name):
            name, array = name.replace(".weight", ".kernel"), array.T
        elif "patch_embedding" in name:
            name, array = name.replace(".weight", ".kernel"), array.transpose(2, 3, 1, 0)
        elif "norm" in name:
            name = name.replace(".weight", ".scale")
        else:
            name = name.replace("embedding.weight", "embedding.embedding")
        found[name] = np.ascontiguousarray(array)
    return traverse_util.unflatten_dict(found, sep=".")


@pytest.mark.parametrize("nested", [False, True])
def test_flax_weights(tmp_path, state, nested):
    path, tree = directory(tmp_path / "clip"), as_flax(state)
    content = serialization.msgpack_serialize({"params": tree} if nested else tree)
    (path / "flax_model.msgpack").write_bytes(content)
    origin = assert_converts(path, tmp_path / "out", state, verify=nested)
    assert origin["format"] == "Hugging Face directory, names of Hugging Face CLIP"
    (path / "flax_model.msgpack").write_bytes(content[:-100])
    assert "no complete Flax file" in refused(path, tmp_path)
    # Alone it does not say its activation.
    (tmp_path / "file").write_bytes(content)
    assert "--activation" in refused(tmp_path / "file", tmp_path, tokenizer=str(DEMO_MERGES))


def test_bfloat16_flax_weights(tmp_path, state):
    path = directory(tmp_path / "clip")
    rounded = {name: tensor.bfloat16().float() for name, tensor in state.items()}
    tree = jax.tree.map(lambda x: jax.numpy.asarray(x, "bfloat16"), as_flax(rounded))
    (path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(jax.device_get(tree)))
    assert_converts(path, tmp_path / "out", rounded)


def test_wrappers_and_dictionaries(tmp_path):
    plain = {name: torch.from_numpy(x) for name, x in random_tensors().items()}
    wrapped = {f"_orig_mod.module.model.{name}": tensor for name, tensor in plain.items()}
    wrapped["_orig_mod.module.model.logit_scale"] = plain["logit_scale"].reshape(1)
    averaged = {f"module.{name}": tensor + 1 for name, tensor in plain.items()}
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 1, "model": wrapped, "optimizer": {}, "ema": {"module": averaged}}, path)
    assert "several models, model, ema.module: choose" in refused(path, tmp_path, **GIVEN)
    origin = assert_converts(path, tmp_path / "out", plain, True, entry="model", **GIVEN)
    assert origin["wrappers"] == ["_orig_mod", "module", "model"]
    plus_one = {name: tensor + 1 for name, tensor in plain.items()}
    assert_converts(path, tmp_path / "ema", plus_one, entry="ema.module", **GIVEN)
    flat = save(tmp_path / "flat.pt", plain)
    assert "no --entry=model" in refused(flat, tmp_path, entry="model", **GIVEN)
    write(tmp_path / "flat.safetensors", plain)
    assert "no --entry=model" in refused(tmp_path / "flat.safetensors", tmp_path, entry="model")


def test_a_damaged_name_is_called_as_the_file_calls_it(tmp_path):
    tensors = {f"module.{name}": x for name, x in random_tensors().items()}
    tensors["module.visual.proj"] = np.full_like(tensors["module.visual.proj"], np.nan)
    path = save(tmp_path / "x.pt", tensors)
    assert "weights in module.visual.proj" in refused(path, tmp_path, **GIVEN)


def test_an_open_clip_directory_has_its_own_tokenizer(tmp_path):
    path = open_clip_directory(tmp_path / "clip", {})
    VOCABULARY.save(path)
    convert_clip(str(path), str(tmp_path / "out"))
    assert load_tokenizer(tmp_path / "out" / "tokenizer").vocab_size == VOCABULARY.vocab_size
