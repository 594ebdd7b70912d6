"""Other families' tokenizers, each trained small here, against transformers' own class for it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import cleaning
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from tests import trained_tokenizers
from tests.trained_tokenizers import ODD

transformers = trained_tokenizers.transformers

LENGTH = 16
# What opens each family's directory in transformers, and the kind that it is here.
FAMILIES = {
    "siglip": ("SiglipTokenizer", "siglip"),
    "siglip_2": ("Siglip2Tokenizer", "siglip2"),
    "xlm": ("XLMRobertaTokenizer", "xlm_v"),
    "bert": ("AutoTokenizer", "json"),
}
FRAMES = {
    "siglip": ((), (1,), 1),
    "siglip_2": ((), (1,), 0),
    "xlm": ((0,), (2,), 1),
    "bert": ((2,), (3,), 0),
}


def theirs(tokenizer, captions) -> list[list[int]]:
    return tokenizer(list(captions), padding="max_length", truncation=True, max_length=LENGTH)[
        "input_ids"
    ]


def line(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- The same ids --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_the_family_s_own(directory, family, tmp_path):
    ours = read_tokenizer(directory(family))
    library, kind = FAMILIES[family]
    own = getattr(transformers, library).from_pretrained(directory(family))
    assert ours.kind == kind
    assert (ours.frame.start, ours.frame.end, ours.frame.pad_id) == FRAMES[family]
    found = ours(ODD, LENGTH)
    for caption, ids, expected in zip(ODD, found.ids.tolist(), theirs(own, ODD), strict=True):
        assert ids == expected, caption
    assert ours.vocab_size == len(own)
    # And so do those that are saved, here and in transformers.
    ours.save(tmp_path / "saved", LENGTH)
    again = load_tokenizer(tmp_path / "saved")
    assert again.sha256 == ours.sha256 == read_tokenizer(tmp_path / "saved").sha256
    np.testing.assert_array_equal(again(ODD, LENGTH).ids, found.ids)
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs(back, ODD) == found.ids.tolist()
    assert back.model_max_length == LENGTH


@pytest.mark.parametrize("family", FAMILIES)
def test_any_text(directory, family):
    ours = read_tokenizer(directory(family))
    own = getattr(transformers, FAMILIES[family][0]).from_pretrained(directory(family))

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
    @settings(max_examples=60, deadline=None)
    def check(text):
        assert ours([text], LENGTH).ids.tolist() == theirs(own, [text])

    check()


def test_videoprism_s_words_are_the_pieces_of_clean_text(pieces, tmp_path):
    """By Google's own steps, and by transformers' class, which leaves the cleaning to its user."""
    import sentencepiece

    ours = read_tokenizer(pieces, "videoprism")
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    (tmp_path / "spiece.model").write_bytes(pieces.read_bytes())
    own = transformers.VideoPrismTokenizer.from_pretrained(tmp_path)
    for caption in ODD:
        clean = cleaning.videoprism(caption)
        expected = model.EncodeAsIds(clean)[:LENGTH]
        expected += [0] * (LENGTH - len(expected))
        assert ours([caption], LENGTH).ids[0].tolist() == expected
        assert theirs(own, [clean]) == [expected]
    # As transformers saves it: rules in place of pieces, and T5's tokens for spans.
    own.save_pretrained(tmp_path / "rules")
    rules = read_tokenizer(tmp_path / "rules")
    assert (rules.kind, rules.vocab_size) == ("videoprism", ours.vocab_size)
    np.testing.assert_array_equal(rules(ODD, LENGTH).ids, ours(ODD, LENGTH).ids)


@pytest.mark.parametrize(
    ("caption", "clean"),
    [
        ("Hello, World!", "hello world."),
        ("Hello,World..", "hello world."),
        ("  Hello   WORLD", "hello world."),
        ("", "."),
        ("?!", "."),
        ("don't_a-b", "don t a b."),
    ],
)
def test_videoprism_s_cleaning(caption, clean):
    assert cleaning.videoprism(caption) == clean


def test_open_clip_s_own_ways(directory):
    """Cleaning of its own before the same rules, and CLIPA's texts without the separator."""
    from convert.verification import torch_open_clip

    if torch_open_clip._library() is None:
        pytest.skip("open_clip is not installed: see requirements-twins.txt")
    from open_clip.tokenizer import HFTokenizer

    for family, options in {
        "siglip": {"clean": "canonicalize"},
        "siglip_2": {"clean": "canonicalize"},
        "xlm": {},
        "bert": {"strip_sep_token": True},
    }.items():
        own = HFTokenizer(str(directory(family)), context_length=LENGTH, **options)
        ours = read_tokenizer(directory(family), options={"clean": "whitespace"} | options)
        found = ours(ODD, LENGTH).ids
        np.testing.assert_array_equal(found, own(list(ODD)).numpy(), err_msg=family)


# ---- What stands around words --------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_captions_keep_start_and_end_and_are_counted(directory, family):
    ours = read_tokenizer(directory(family))
    long, short = "a man plays the guitar on the red beach", "a"
    whole = ours.lengths([long, short])
    batch = ours([long, short], int(whole[0]) - 1)
    assert batch.mask.sum(axis=1).tolist() == [whole[0] - 1, whole[1]]
    assert batch.ids[0, -1] == ours.end_id
    uncut = ours([long], int(whole[0])).ids[0]
    np.testing.assert_array_equal(batch.ids[0, :-1], uncut[:-2])
    assert Cut.of([long, short], ours, int(whole[0])).cut == 0
    found = Cut.of([long, short], ours, int(whole[0]) - 1)
    assert (found.cut, found.longest) == (1, whole[0])
    assert (batch.ids[1, whole[1] :] == ours.frame.pad_id).all()
    assert "a caption needs" in line(ours, [long], len(ours.frame.start + ours.frame.end) - 1)


def test_padding_may_stand_before_a_caption(tmp_path):
    path = trained_tokenizers.siglip_2(tmp_path / "left", padding_side="left")
    ours = read_tokenizer(path)
    own = transformers.Siglip2Tokenizer.from_pretrained(path)
    batch = ours(["a dog", "a man " * 30], LENGTH)
    assert batch.ids.tolist() == theirs(own, ["a dog", "a man " * 30])
    assert batch.mask[0].tolist() == sorted(batch.mask[0])
    assert batch.ids[0, -1] == ours.end_id
    ours.save(tmp_path / "saved")
    np.testing.assert_array_equal(
        load_tokenizer(tmp_path / "saved")(["a"], 5).ids, ours(["a"], 5).ids
    )


def test_a_text_without_a_token_is_one_of_padding(directory, tmp_path):
    content = json.loads((directory("bert") / "tokenizer.json").read_text())
    content["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    found = read_tokenizer(tmp_path)(["", "a"], 3)
    assert found.mask.tolist() == [[1, 0, 0], [1, 0, 0]]


def test_a_gemma_s_own_files_are_read_as_siglip_2_s(directory, tmp_path):
    """It would begin with a token and not end; SigLIP 2 ends, and has texts in lower case."""
    path = trained_tokenizers.siglip_2(tmp_path / "gemma")
    content = json.loads((path / "tokenizer.json").read_text())
    content["post_processor"]["single"] = [
        {"SpecialToken": {"id": "<bos>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    content["post_processor"]["special_tokens"] = {
        "<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}
    }
    (path / "tokenizer.json").write_text(json.dumps(content))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>"})
    )
    expected = read_tokenizer(directory("siglip_2"))
    np.testing.assert_array_equal(read_tokenizer(path)(ODD, 9).ids, expected(ODD, 9).ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_captions(directory, family):
    ours = read_tokenizer(directory(family))
    assert ours([], 5).ids.shape == ours([], 5).mask.shape == (0, 5)
    assert ours.lengths([]).shape == (0,)


def test_half_a_pair_is_no_text(directory):
    ours = read_tokenizer(directory("xlm"))
    np.testing.assert_array_equal(ours(["a \ud800 b"], 8).ids, ours(["a ? b"], 8).ids)
