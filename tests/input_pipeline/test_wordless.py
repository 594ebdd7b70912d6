"""Tokenizers that know no word are refused; those of few words or another script are not."""

import json
import shutil

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer
from tests import trained_tokenizers


def refused(path, kind) -> str:
    with pytest.raises(UserError) as caught:
        read_tokenizer(path, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "whose",
    ["GPT2Tokenizer", "LlamaTokenizer", "BertTokenizer", "MBartTokenizer", "GemmaTokenizer"],
)
def test_a_class_that_finds_no_vocabulary_in_a_model_of_pieces(directory, whose, tmp_path):
    shutil.copytree(directory("siglip"), tmp_path / "a")
    said = json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())
    told = json.dumps(said | {"tokenizer_class": whose})
    (tmp_path / "a" / "tokenizer_config.json").write_text(told)
    message = refused(tmp_path / "a", "siglip")
    assert f"spiece.model: read by {whose} (tokenizer_class in tokenizer_config.json)" in message
    assert "it knows no word: 'a dog runs on the beach' becomes [" in message


def test_pieces_alone_beside_a_model_that_takes_a_tokenizer_json(pieces, tmp_path):
    shutil.copy(pieces, tmp_path / "spiece.model")
    (tmp_path / "config.json").write_text('{"model_type": "metaclip_2"}')
    message = refused(tmp_path, "xlm_v")
    assert "spiece.model: read by XLMRobertaTokenizer, it knows no word" in message


@pytest.mark.parametrize("kind", ["siglip", "videoprism"])
def test_pieces_of_another_script_are_words(kind, tmp_path, monkeypatch):
    lines = ["犬 が 浜辺 を 走る", "собака бежит по пляжу", "猫 と 人"] * 40
    monkeypatch.setattr(trained_tokenizers, "corpus", lambda: lines)
    path = trained_tokenizers.pieces(tmp_path / "spiece.model", 60)
    assert read_tokenizer(path, kind).words(["собака"])[0]


@pytest.mark.parametrize("kind", ["siglip", "videoprism"])
def test_pieces_without_a_letter_are_no_words(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(trained_tokenizers, "corpus", lambda: ["... !!! ???", ", ; :"] * 40)
    path = trained_tokenizers.pieces(tmp_path / "any.model", 20)
    assert "any.model: read by SentencePiece, it knows no word" in refused(path, kind)


@pytest.mark.parametrize("words", [["犬", "走る"], ["собака"], []])
def test_few_words_are_words_and_none_are_not(words, tmp_path):
    vocab = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "▁", *words])}
    rules = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.add_special_tokens(["[PAD]", "[UNK]"])
    rules.save(str(tmp_path / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    if words:
        assert read_tokenizer(tmp_path, "json").words([words[-1]]) == [[2 + len(words)]]
    else:
        assert "it knows no word" in refused(tmp_path, "json")
