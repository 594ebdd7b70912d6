"""Tokenizers of Hugging Face directories: read as they are, or refused by what is other in them."""

import json

import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer

transformers = pytest.importorskip("transformers")

DEMO = CLIPTokenizer.from_merges(DEMO_MERGES)
CAPTIONS = ["A red circle moves LEFT", "it's 42", ""]


@pytest.fixture
def saved(tmp_path):
    """The demo's, as this project writes it: a vocabulary and merges."""
    DEMO.save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def theirs(saved, tmp_path):
    """The same as transformers writes it: one file."""
    transformers.CLIPTokenizer.from_pretrained(saved).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def change(path, **values):
    content = json.loads(path.read_text()) if path.exists() else {}
    for name, value in values.items():
        content[name] = value(content.get(name)) if callable(value) else value
    path.write_text(json.dumps(content))


def refused(directory) -> str:
    with pytest.raises(UserError) as caught:
        read_tokenizer(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)
    return str(caught.value)


def test_both_layouts_are_read(saved, theirs):
    # Of before merges were pairs; and what is said of whole batches does not count.
    change(
        theirs / "tokenizer.json", model=lambda m: m | {"merges": list(map(" ".join, m["merges"]))}
    )
    one = transformers.PreTrainedTokenizerFast(tokenizer_file=str(theirs / "tokenizer.json"))
    one.backend_tokenizer.enable_padding(length=30)
    one.backend_tokenizer.enable_truncation(4)
    one.backend_tokenizer.save(str(theirs / "tokenizer.json"))
    for directory in (saved, theirs):
        np.testing.assert_array_equal(
            read_tokenizer(directory)(CAPTIONS, 9).ids, DEMO(CAPTIONS, 9).ids
        )


def test_special_tokens_that_are_kept_apart(saved):
    vocabulary = json.loads((saved / "vocab.json").read_text())
    apart = {token: vocabulary.pop(token) for token in ("<|startoftext|>", "<|endoftext|>")}
    (saved / "vocab.json").write_text(json.dumps(vocabulary))
    (saved / "added_tokens.json").write_text(json.dumps(apart))
    np.testing.assert_array_equal(read_tokenizer(saved)(CAPTIONS, 9).ids, DEMO(CAPTIONS, 9).ids)
    change(saved / "added_tokens.json", **{"<|endoftext|>": 601})
    assert "ids are not 0 to 599" in refused(saved)


@pytest.mark.parametrize("place", ["library", "added", "decoder", "special", "padding"])
def test_tokens_beside_the_byte_pairs(saved, theirs, place):
    """They would be cut out of captions before the byte pairs are made."""
    directory, token = saved, "<cat>"
    if place == "library":
        directory, tokenizer = theirs, transformers.CLIPTokenizer.from_pretrained(theirs)
        tokenizer.add_tokens([token])
        tokenizer.save_pretrained(directory)
    elif place == "added":
        change(saved / "added_tokens.json", **{token: 600})
    elif place == "decoder":
        change(saved / "tokenizer_config.json", added_tokens_decoder={"600": {"content": token}})
    elif place == "special":
        change(saved / "special_tokens_map.json", additional_special_tokens=[{"content": token}])
    else:
        # In the vocabulary, but no longer what follows a word.
        token = "!"
        change(saved / "tokenizer_config.json", added_tokens_decoder={"0": {"content": token}})
    message = refused(directory)
    assert f"1 tokens of its own beside CLIP's byte pairs ({token!r})" in message


def test_other_kinds_of_tokenizers(saved, theirs):
    change(theirs / "tokenizer.json", normalizer=None)
    assert "cuts text otherwise than CLIP's tokenizer" in refused(theirs)
    change(theirs / "tokenizer.json", post_processor=None)
    assert "cuts text otherwise" in refused(theirs)
    change(saved / "tokenizer_config.json", eos_token={"content": "!"})
    assert "its eos_token is '!', not '<|endoftext|>'" in refused(saved)
    change(saved / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    assert "its tokenizer is a BertTokenizer, not CLIP's" in refused(saved)


def test_damaged_files(saved, theirs):
    for content in ("{", "[]", '{"a":' * 100_000):
        (saved / "tokenizer_config.json").write_text(content)
        assert "tokenizer_config.json: cannot be read" in refused(saved)
    (saved / "tokenizer_config.json").write_text('{"added_tokens_decoder": [1]}')
    assert "added_tokens_decoder is [1], not tokens by their ids" in refused(saved)
    change(saved / "tokenizer_config.json", added_tokens_decoder={"one": "a"})
    assert "added_tokens_decoder is {'one': 'a'}, not tokens" in refused(saved)
    (saved / "tokenizer_config.json").write_text("{}")
    (saved / "special_tokens_map.json").write_text('{"additional_special_tokens": 5}')
    assert "special_tokens_map.json: additional_special_tokens is 5, not a list" in refused(saved)
    (saved / "special_tokens_map.json").write_text("{}")
    (saved / "tokenizer.json").write_text('{"added_tokens": 5}')
    assert "its tokenizer's files are damaged" in refused(saved)
    whole = (theirs / "tokenizer.json").read_text()
    change(theirs / "tokenizer.json", pre_tokenizer={"type": "Unknown"})
    assert "tokenizer.json: cannot be read" in refused(theirs)
    (theirs / "tokenizer.json").write_text(whole)
    change(theirs / "tokenizer.json", model=lambda model: model | {"vocab": {"a": "b"}})
    assert "its vocabulary is damaged" in refused(theirs)
