"""CLIP's tokenizer, against transformers' and against byte-pair encoding written out plainly."""

import csv
import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import cleaning
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from tests.bpe_oracle import HARD, OPENAI_MERGES, SHARED, Oracle, oracle_clean


def unpadded(batch):
    return [ids[: mask.sum()].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]


@pytest.fixture(scope="module")
def oracle(clip):
    return Oracle(OPENAI_MERGES)


# ---- Ids -------------------------------------------------------------------------------------


def test_ids_that_openai_shows(clip):
    # From the README of OpenAI's CLIP and from its vocabulary's layout.
    batch = clip(["a photo of a cat", "a diagram", ""], 9)
    assert batch.ids.tolist() == [
        [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0],
        [49406, 320, 22697, 49407, 0, 0, 0, 0, 0],
        [49406, 49407, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch.mask.tolist() == [[1] * 7 + [0] * 2, [1] * 4 + [0] * 5, [1] * 2 + [0] * 7]
    assert batch.ids.dtype == batch.mask.dtype == np.int32
    assert clip.vocab_size == 49_408
    assert clip(["!"], 3).ids[0, 1] == 256  # the first symbol that ends a word


def test_lengths_are_those_of_uncut_captions(clip):
    whole = clip(HARD, 2000).mask.sum(1)
    assert clip.lengths(HARD).tolist() == whole.tolist()
    assert clip.lengths("a photo of a cat").tolist() == [7]
    with pytest.raises(TypeError, match="give strings"):
        clip.lengths([1])


def test_msrvtt_captions(clip, oracle, hugging_face):
    with (SHARED / "annotations/msrvtt/MSRVTT_JSFUSION_test.csv").open(encoding="utf-8") as file:
        captions = [row["sentence"] for row in csv.DictReader(file)]
    assert len(captions) == 1000
    assert_same_on(captions, clip, oracle, hugging_face)


# All of them, and one in eight.
@pytest.mark.parametrize("part", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_msvd_captions(part, clip, oracle, hugging_face):
    path = SHARED / "annotations/msvd/captions_msvd.json"
    by_video = json.loads(path.read_text(encoding="utf-8"))
    captions = sorted({caption for each in by_video.values() for caption in each})
    assert len(captions) == 61_846
    assert_same_on(captions[::part], clip, oracle, hugging_face)


def assert_same_on(captions, clip, oracle, hugging_face):
    ids = unpadded(clip(captions, 200))
    assert ids == hugging_face(captions)["input_ids"]
    assert [each[1:-1] for each in ids] == [oracle(caption) for caption in captions]


@pytest.mark.parametrize("caption", HARD, ids=range(len(HARD)))
def test_hard_strings(caption, clip, oracle):
    ids = unpadded(clip([caption], 4000))[0]
    assert ids == [49406, *oracle(caption), 49407]


def test_hard_strings_mean_what_they_show(clip):
    same = {
        "caf&eacute;": "café",
        "rock &amp;amp; roll": "rock & roll",
        "it\N{RIGHT SINGLE QUOTATION MARK}s": "it's",
        "\N{LATIN SMALL LIGATURE FI}nally": "finally",
        "\N{FULLWIDTH LATIN CAPITAL LETTER A}\N{FULLWIDTH LATIN CAPITAL LETTER B}": "ab",
        "schÃ¶n": "schön",
        " A\t DOG\n": "a dog",
    }
    assert unpadded(clip(list(same), 16)) == unpadded(clip(list(same.values()), 16))


# Unassigned characters are of a kind that depends on the Unicode version.
@given(st.text(st.characters(exclude_categories=["Cn", "Cs", "Co"])))
@settings(max_examples=150, deadline=None)
def test_any_text(text):
    demo, oracle = demo_pair()
    assert [each[1:-1] for each in unpadded(demo([text], 2000))] == [oracle(text)]


@given(st.text(st.characters(max_codepoint=0x7F), max_size=80))
@settings(max_examples=500, deadline=None)
def test_plain_text_is_cleaned_as_any_other(text):
    assert cleaning.clip(text) == oracle_clean(text)


@functools.cache
def demo_pair():
    return CLIPTokenizer.from_merges(DEMO_MERGES), Oracle(DEMO_MERGES)


# ---- Lengths ---------------------------------------------------------------------------------


def test_long_captions_are_cut_before_the_end_token(clip):
    caption = HARD[-1]
    whole = unpadded(clip([caption], 4000))[0]
    for length in (2, 3, 32, 77):
        batch = clip([caption], length)
        assert batch.ids.tolist() == [[*whole[: length - 1], 49407]]
        assert batch.mask.all()


def test_captions_are_independent_of_their_batch(clip):
    alone = np.concatenate([clip([caption], 40).ids for caption in HARD])
    np.testing.assert_array_equal(clip(HARD, 40).ids, alone)


def test_no_captions(demo):
    assert demo([], 5).ids.shape == demo([], 5).mask.shape == (0, 5)


def test_too_few_places(demo):
    with pytest.raises(UserError, match="2 words at least"):
        demo(["a"], 1)
