"""What goes back to Hugging Face computes there what it computes here, captions and all."""

import dataclasses
import json

import numpy as np
import pytest
from flax import traverse_util

import glscl_jax
from convert import checkpoint_output
from convert.export import convert_back
from convert.naming import sizes
from tests.clip_sources import SMALL, VOCABULARY, torch, transformers

CAPTIONS = ["a red circle moves left", "a blue square", "green", ""]
# As many words as no context here has places for.
LONG = "a red circle moves left " * 30


def exported(path, tokenizer, **changes):
    """A CLIP of random weights as a checkpoint directory, and that as a Hugging Face directory."""
    config, random = dataclasses.replace(SMALL, **changes), np.random.default_rng(0)
    arrays = {
        name: random.normal(size=shape, scale=0.2).astype(np.float32)
        for name, shape in sizes.parameter_shapes(config).items()
    }
    params = traverse_util.unflatten_dict(arrays, sep="/")
    checkpoint_output.write_checkpoint(path / "weights", params, config, tokenizer, {})
    convert_back(str(path / "weights"), str(path / "clip"), "huggingface", whole=False)
    return path / "weights", path / "clip"


@pytest.mark.parametrize("rows", [VOCABULARY.vocab_size, 1024], ids=["as many", "padded"])
def test_captions_have_the_same_embeddings_in_transformers(tmp_path, rows):
    ours, theirs = exported(tmp_path, VOCABULARY, vocab_size=rows)
    loaded = glscl_jax.load(ours)
    tokens = loaded.tokenize([*CAPTIONS, LONG])
    sentences = loaded.encode_text(tokens.ids, tokens.mask).sentence
    processor = transformers.CLIPProcessor.from_pretrained(theirs)
    model = transformers.CLIPModel.from_pretrained(theirs).eval()
    inputs = processor(text=[*CAPTIONS, LONG], padding=True, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (5, SMALL.context_length)
    with torch.no_grad():
        found = model.text_projection(model.text_model(**inputs).pooler_output).numpy()
    np.testing.assert_allclose(found, sentences, rtol=0, atol=1e-5)
    # Different captions, different embeddings.
    distances = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert distances[~np.eye(5, dtype=bool)].min() > 1e-2


def test_what_the_directory_says_of_its_tokens(tmp_path):
    _, path = exported(tmp_path, VOCABULARY, vocab_size=1024, context_length=24)
    text = transformers.CLIPConfig.from_pretrained(path).text_config
    assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (598, 599, 599)
    said = json.loads((path / "tokenizer_config.json").read_text())
    assert said["model_max_length"] == 24
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        598,
        599,
        599,
    )
    assert tokenizer.model_max_length == 24


def test_without_a_tokenizer_the_sentence_is_at_the_highest_id(tmp_path):
    ours, theirs = exported(tmp_path, None, vocab_size=1024)
    ids = np.array([[598, 7, 599, 0], [598, 8, 9, 599]], np.int32)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
    sentences = glscl_jax.load(ours).encode_text(ids, mask).sentence
    model = transformers.CLIPModel.from_pretrained(theirs).eval()
    with torch.no_grad():
        pooled = model.text_model(torch.from_numpy(ids), torch.from_numpy(mask)).pooler_output
        found = model.text_projection(pooled).numpy()
    np.testing.assert_allclose(found, sentences, rtol=0, atol=1e-5)
