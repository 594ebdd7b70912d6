"""Long-CLIP's own file: two tables of positions, of which each place has one row."""

import dataclasses
import json

import numpy as np
import pytest

import glscl_jax
from convert.conversion import Options, convert_clip
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from tests.clip_sources import SMALL, random_tensors, read, refused, save, torch, torch_glscl

LONG = dataclasses.replace(SMALL, context_length=248)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    tensors = random_tensors(config=LONG)
    second = np.random.default_rng(1).normal(size=(248, LONG.text_width), scale=0.2)
    return tensors | {"positional_embedding_res": second.astype(np.float32)}


def sentences(tensors, ids) -> np.ndarray:
    """As Long-CLIP's `encode_text` has them: both tables added up, each times its mask."""
    mask1, mask2 = torch.zeros(248, 1), torch.zeros(248, 1)
    mask1[:20], mask2[20:] = 1, 1
    first, second = (
        torch.from_numpy(tensors[name])
        for name in ("positional_embedding", "positional_embedding_res")
    )
    both = {**tensors, "positional_embedding": (first * mask1 + second * mask2).numpy()}
    model = torch_glscl.load(torch_glscl.CLIP(LONG).eval(), both)
    with torch.no_grad():
        tokens = model.text(torch.from_numpy(ids).long(), torch.ones(ids.shape))
    return tokens.numpy()[np.arange(len(ids)), ids.argmax(axis=1)]


def test_it_converts_exactly(tmp_path, tensors):
    path = save(tmp_path / "longclip.pt", tensors)
    # It is built on OpenAI's code: nothing is asked. Verified at all of its places.
    convert_clip(str(path), str(tmp_path / "out"), Options(True, tokenizer=str(DEMO_MERGES)))
    found = read(tmp_path / "out")
    assert found.config.clip == LONG
    positions = found.params["clip"]["text"]["positional_embedding"]
    np.testing.assert_array_equal(positions[:20], tensors["positional_embedding"][:20])
    np.testing.assert_array_equal(positions[20:], tensors["positional_embedding_res"][20:])
    assert json.loads((tmp_path / "out" / "origin.json").read_text())["unused"] == []
    loaded = glscl_jax.load(tmp_path / "out")
    tokens = loaded.tokenize(["a red circle", "a red circle moves left " * 30])
    assert tokens.mask.sum(axis=1).tolist() == [5, 152]
    ours = loaded.encode_text(tokens.ids, tokens.mask).sentence
    np.testing.assert_allclose(ours, sentences(tensors, tokens.ids), rtol=0, atol=1e-5)


def test_tables_that_do_not_fit(tmp_path, tensors):
    short = tensors | {"positional_embedding_res": tensors["positional_embedding_res"][:77]}
    path = save(tmp_path / "longclip.pt", short)
    message = refused(path, tmp_path, tokenizer=str(DEMO_MERGES))
    assert "are not of one shape, as Long-CLIP's are" in message
