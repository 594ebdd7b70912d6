"""Other families' tokenizers, each trained small here, against transformers' own class for it."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import cleaning
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from tests import trained_tokenizers
from tests.server import REPO

transformers = trained_tokenizers.transformers

LENGTH = 16
ODD = (
    "",
    "  \t\n ",
    "A man, plays the GUITAR!",
    "...!? -- _",
    "😀 a face 👩\N{ZERO WIDTH JOINER}🍳 cooks",
    "İstanbul ΟΔΟΣ ὈΔΥΣΣΕΎΣ straße ẞ",
    "don't_it's a-b",
    "日本 word ½ ﬁ e\N{COMBINING ACUTE ACCENT}",
    "</s> a dog</s>  cat <unk>",
    "</s>",
    "<eos> a <s> b <pad> <mask>",
    "a\n b\t c\N{NO-BREAK SPACE}d\N{ZERO WIDTH SPACE}e\x00f\x1b[31m",
    "▁a▁b ▁",
    "rock &amp; roll",
    "a man " * 100,
    "supercalifragilisticexpialidocious" * 4,
)
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


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A family's directory, trained once."""
    folder = tmp_path_factory.mktemp("families")
    return functools.cache(lambda family: getattr(trained_tokenizers, family)(folder / family))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """VideoPrism's model of SentencePiece."""
    return trained_tokenizers.videoprism(tmp_path_factory.mktemp("pieces") / "any.model")


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


# ---- What is not there, or another's -------------------------------------------------------------


def test_files_that_do_not_say_whose_they_are(directory, pieces, tmp_path):
    rules = directory("siglip_2") / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(rules.read_bytes())
    found = read_tokenizer(tmp_path, "siglip2")
    assert (found.kind, found.frame.end) == ("siglip2", (1,))
    np.testing.assert_array_equal(
        found(ODD, 9).ids, read_tokenizer(directory("siglip_2"))(ODD, 9).ids
    )
    assert read_tokenizer(pieces, "siglip").frame.end == (1,)
    assert "this model takes another tokenizer (clip)" in line(read_tokenizer, pieces)
    rules = directory("xlm") / "tokenizer.json"
    assert "name its directory" in line(read_tokenizer, rules)
    # The model beside it says the family.
    (tmp_path / "config.json").write_text('{"model_type": "metaclip_2"}')
    (tmp_path / "tokenizer.json").write_bytes(rules.read_bytes())
    assert read_tokenizer(tmp_path).kind == "xlm_v"


def test_a_directory_without_its_tokenizer_s_file(directory, tmp_path):
    for family, wanted in {"siglip": "spiece.model", "xlm": "tokenizer.json"}.items():
        folder = tmp_path / family
        folder.mkdir()
        said = (directory(family) / "tokenizer_config.json").read_text()
        (folder / "tokenizer_config.json").write_text(said)
        message = line(read_tokenizer, folder)
        assert f"{wanted} is not there" in message
        assert str(folder) in message
    ours = read_tokenizer(directory("xlm"))
    for missing, told in {"captions": "lacks captions.json", "tokenizer": "lacks its"}.items():
        ours.save(tmp_path / "saved")
        (tmp_path / "saved" / f"{missing}.json").unlink()
        assert told in line(load_tokenizer, tmp_path / "saved")


@pytest.mark.parametrize("family", ["siglip", "siglip_2", "xlm"])
def test_damaged_files(directory, family, tmp_path):
    ours = read_tokenizer(directory(family))
    ours.save(tmp_path)
    name = ours.file
    whole = (tmp_path / name).read_bytes()
    for content in (b"", b"{", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        assert f"{name}: cannot be read as a tokenizer's file" in line(load_tokenizer, tmp_path)
    published = tmp_path / "published"
    published.mkdir()
    for file in directory(family).iterdir():
        (published / file.name).write_bytes(file.read_bytes())
    (published / name).write_bytes(whole[: len(whole) // 2])
    assert f"{name}: cannot be read as a tokenizer's file" in line(read_tokenizer, published)
    (tmp_path / name).write_bytes(whole)
    for change in (
        {"kind": "other"},
        {"end": [-1]},
        {"end": "a"},
        {"cleaning": "none "},
        {"more": 1},
    ):
        ours.save(tmp_path)
        said = json.loads((tmp_path / "captions.json").read_text())
        (tmp_path / "captions.json").write_text(json.dumps(said | change))
        assert "captions.json is damaged" in line(load_tokenizer, tmp_path)
    (tmp_path / "captions.json").write_text("[")
    assert "captions.json is damaged" in line(load_tokenizer, tmp_path)


@pytest.mark.parametrize("kind", ["its own code", "beside a class of transformers"])
def test_code_in_a_directory_is_not_run(directory, kind, tmp_path, monkeypatch):
    # Nor is anybody asked whether it may be.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for file in directory("bert").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    path = tmp_path / "tokenizer_config.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    told["auto_map"] = {"AutoTokenizer": ["own.Own", "own.Own"]}
    told["tokenizer_class"] = "Own" if kind == "its own code" else "BertTokenizer"
    path.write_text(json.dumps(told))
    if kind == "its own code":
        assert "cannot be read as a tokenizer's file" in line(read_tokenizer, tmp_path)
    else:
        read_tokenizer(tmp_path)
    assert not ran.exists()


def test_siglip_s_files_of_another_tokenizer(tmp_path):
    path = trained_tokenizers.siglip(tmp_path / "a", pad_token="<pad>")
    assert read_tokenizer(path).frame.pad_id == 0
    path = trained_tokenizers.siglip(tmp_path / "b", eos_token="<end>")
    assert "has no piece '<end>', its eos_token" in line(read_tokenizer, path)
    path = trained_tokenizers.siglip(tmp_path / "c", do_lower_case=False)
    assert "do_lower_case is false" in line(read_tokenizer, path)
    path = trained_tokenizers.siglip(tmp_path / "d", additional_special_tokens=["<cat>"])
    assert "tokens of its own beside the pieces ('<cat>')" in line(read_tokenizer, path)


def test_sentencepiece_is_asked_for_where_it_is_needed(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert "takes sentencepiece, which is not installed" in line(
        read_tokenizer, directory("siglip") / "spiece.model", "siglip"
    )


def test_ids_from_what_is_saved_need_no_heavy_import(directory, tmp_path):
    for family in ("siglip", "xlm"):
        read_tokenizer(directory(family)).save(tmp_path / family)
    program = f"""
import sys
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer
assert not {{"sentencepiece", "transformers"}} & set(sys.modules)
for family in ("siglip", "xlm"):
    load_tokenizer({str(tmp_path)!r} + "/" + family)(["a man"], 8)
print(sorted({{"transformers", "tensorflow", "torch", "jax"}} & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
