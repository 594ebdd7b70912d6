"""CLIP's tokenizer, against transformers' and against byte-pair encoding written out plainly.

Run as a program this file prints what `demo_merges.txt` is to hold (see `train_merges`).
"""

import collections
import csv
import functools
import gzip
import html
import itertools
import json
import os
import re
import subprocess
import sys
import unicodedata

import ftfy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import cleaning, clip_tokenizer, rendered
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, END, START, CLIPTokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from tests.server import REPO

SHARED = REPO.parent / "shared"
OPENAI_MERGES = SHARED / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"

HARD = (
    "",
    "   \t\n ",
    "Crème brûlée, naïve café",
    "e\N{COMBINING ACUTE ACCENT}tude",
    "a 😀 face 👩\N{ZERO WIDTH JOINER}🍳 cooks 🇫🇷",
    "rock &amp; roll &amp;amp; soul &lt;b&gt;",
    "&amp;lt;a&amp;gt; caf&eacute;",
    "it\N{RIGHT SINGLE QUOTATION MARK}s a \N{LEFT DOUBLE QUOTATION MARK}dog"
    "\N{RIGHT DOUBLE QUOTATION MARK}",
    "\N{LATIN SMALL LIGATURE FI}nally \N{LATIN SMALL LIGATURE FL}ying",
    "\N{FULLWIDTH LATIN CAPITAL LETTER A}\N{FULLWIDTH LATIN SMALL LETTER B}c",
    "schÃ¶n",
    "İstanbul ΟΔΟΣ ὈΔΥΣΣΕΎΣ straße ẞ",
    "we're they've I'm he'll she'd DON'T 'Tis rock'n'roll ''s",
    "2023 in 3½ hours x² 一二三 ٣٤",
    "a\N{NO-BREAK SPACE}b\N{IDEOGRAPHIC SPACE}c\N{ZERO WIDTH SPACE}d",
    "!?... (a) [b] {c} #tag @home 50% a_b-c",
    f"a {START} b{END}c",
    f"!!{END} {END}{END} {END.upper()}",
    "ab\x00c\x1b[31md",
    "supercalifragilisticexpialidocious " * 3,
    " ".join(f"word{i}" for i in range(500)),
)


# ---- The oracle ------------------------------------------------------------------------------


def oracle_clean(caption):
    text = html.unescape(html.unescape(ftfy.fix_text(caption)))
    return re.sub(r"\s+", " ", text).strip().lower()


def oracle_words(text):
    """Splits as CLIP's pattern does, by Unicode categories instead of a regular expression."""

    def kind(character):
        if character == " ":
            return " "
        category = unicodedata.category(character)[0]
        return category if category in "LN" else "other"

    words, place = [], 0
    while place < len(text):
        rest = text[place:]
        whole = [START, END, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
        found = next((word for word in whole if rest.startswith(word)), None)
        if found is None:
            of_kind = kind(rest[0])
            found = "".join(itertools.takewhile(lambda c, k=of_kind: kind(c) == k, rest))
            # A digit stands alone.
            found = found[0] if of_kind == "N" else found
        if found[0] != " ":
            words.append(found)
        place += len(found)
    return words


def oracle_symbols():
    """Printable stand-ins of the bytes 0 to 255."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    stand_ins = {byte: chr(byte) for byte in visible}
    return stand_ins | {byte: chr(256 + number) for number, byte in enumerate(hidden)}


class Oracle:
    """Byte-pair encoding as published: merge the best-ranked pair everywhere, and again."""

    def __init__(self, path):
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
        merges = [tuple(line.split()) for line in text.split("\n")[1 : 49_152 - 256 - 2 + 1]]
        merges = [merge for merge in merges if merge]
        self.byte_symbols = oracle_symbols()
        symbols = list(self.byte_symbols.values())
        symbols += [symbol + "</w>" for symbol in symbols]
        symbols += ["".join(merge) for merge in merges] + [START, END]
        self.vocab = {symbol: number for number, symbol in enumerate(symbols)}
        self.ranks = {merge: rank for rank, merge in enumerate(merges)}
        self.chunk_ids = functools.cache(self.chunk_ids)

    def __call__(self, caption):
        return [i for chunk in oracle_clean(caption).split(" ") for i in self.chunk_ids(chunk)]

    def chunk_ids(self, chunk):
        return [i for word in oracle_words(chunk) for i in self.word_ids(word)]

    def word_ids(self, word):
        if word in (START, END):
            return [self.vocab[word]]
        symbols = [self.byte_symbols[byte] for byte in word.encode("utf-8")]
        symbols[-1] += "</w>"
        while ranked := [pair for pair in itertools.pairwise(symbols) if pair in self.ranks]:
            symbols = merged(symbols, min(ranked, key=self.ranks.get))
        return [self.vocab[symbol] for symbol in symbols]


def merged(symbols, pair):
    """`symbols` with every occurrence of the pair made one, from the left."""
    out, place = [], 0
    while place < len(symbols):
        found = tuple(symbols[place : place + 2]) == pair
        out.append("".join(pair) if found else symbols[place])
        place += 2 if found else 1
    return out


def unpadded(batch):
    return [ids[: mask.sum()].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]


@pytest.fixture(scope="module")
def clip():
    if not OPENAI_MERGES.exists():
        pytest.skip("OpenAI's merges file is not beside the repository")
    return CLIPTokenizer.from_merges(OPENAI_MERGES)


@pytest.fixture(scope="module")
def oracle(clip):
    return Oracle(OPENAI_MERGES)


@pytest.fixture(scope="module")
def saved(clip, tmp_path_factory):
    directory = tmp_path_factory.mktemp("clip_tokenizer")
    clip.save(directory)
    return directory


@pytest.fixture(scope="module")
def hugging_face(saved):
    import transformers

    return transformers.CLIPTokenizer.from_pretrained(saved, local_files_only=True)


@pytest.fixture(scope="module")
def demo():
    return CLIPTokenizer.from_merges(DEMO_MERGES)


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


# ---- Files -----------------------------------------------------------------------------------


def test_any_name_opens(clip, saved, hugging_face, tmp_path):
    hugging_face.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name in (OPENAI_MERGES, str(saved), tmp_path):
        np.testing.assert_array_equal(read_tokenizer(name)(HARD, 77).ids, clip(HARD, 77).ids)
    (tmp_path / "tokenizer.json").unlink()
    for name in (tmp_path, tmp_path / "none.txt.gz", "no/such/directory"):
        with pytest.raises(UserError, match=r"no tokenizer found|no such file"):
            read_tokenizer(name)


def test_what_is_saved_stands_alone(clip, saved):
    loaded = load_tokenizer(saved)
    assert loaded.vocab_size == clip.vocab_size
    np.testing.assert_array_equal(loaded(HARD, 77).ids, clip(HARD, 77).ids)


def test_hugging_face_directories(clip, saved, hugging_face, tmp_path):
    hugging_face.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    for directory in (saved, tmp_path):
        found = read_tokenizer(directory)
        np.testing.assert_array_equal(found(HARD, 77).ids, clip(HARD, 77).ids)


def test_a_hub_name_comes_from_the_cache_when_offline(demo, tmp_path):
    commit = "0" * 40
    repository = tmp_path / "models--someone--clip"
    demo.save(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    program = """
        from glscl_jax.errors import UserError
        from glscl_jax.input_pipeline.clip_tokenizer import CLIPTokenizer
        from glscl_jax.input_pipeline.tokenizer import Tokenizer
        from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
        print(read_tokenizer("someone/clip")(["a red circle"], 6).ids.tolist())
        try:
            read_tokenizer("someone/else")
        except UserError as error:
            print(error)
    """
    out = run(program, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1").splitlines()
    assert out[0] == str(demo(["a red circle"], 6).ids.tolist())
    assert out[1].startswith("someone/else: no tokenizer found; name a directory")
    assert len(out) == 2


def run(program, **environment):
    lines = [line.removeprefix(" " * 8) for line in program.splitlines()]
    command = [sys.executable, "-c", "\n".join(lines)]
    env = os.environ | environment
    done = subprocess.run(
        command, cwd=REPO, env=env, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_captions_need_no_heavy_import():
    heavy = run("""
        import sys
        import glscl_jax.input_pipeline.tokenizer_files
        print(sorted({"transformers", "tensorflow", "torch", "jax"} & set(sys.modules)))
    """)
    assert heavy.strip() == "[]"


@pytest.mark.parametrize("name", ["", "no/such/directory"])
def test_pretrained_is_not_there(name, tmp_path):
    # An empty directory makes transformers build an empty tokenizer without an error.
    with pytest.raises(UserError, match="no tokenizer found"):
        read_tokenizer(tmp_path / name)


@pytest.mark.parametrize("name", ["merges.txt", "merges.txt.gz"])
def test_lines_that_end_as_windows_ends_them(demo, tmp_path, name):
    content = DEMO_MERGES.read_bytes().replace(b"\n", b"\r\n")
    assert content.count(b"\r\n") > 80
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    captions = ["a red circle moves left", "é 42"]
    expected = demo(captions, 20).ids
    np.testing.assert_array_equal(CLIPTokenizer.from_merges(path)(captions, 20).ids, expected)


def test_bad_merges_files(tmp_path):
    def error_of(text, name="merges.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(UserError) as caught:
            CLIPTokenizer.from_merges(path)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(str(path), "FILE")

    assert error_of("header\na b\na b c\n").startswith("FILE:3: a merge is two symbols")
    assert error_of("header\na b\n\nc d\n").startswith("FILE:3: a merge is two symbols")
    assert error_of("header\na b\nb c\na bc\nab c\n") == (
        "FILE: 'abc' is made twice; remove one of the two merges"
    )
    assert error_of("header\nab c\n").startswith("FILE: merges do not fit the vocabulary")
    assert error_of(b"\xff\xfe\x00").startswith("FILE: cannot be read")
    assert error_of(b"not gzip", "merges.gz").startswith("FILE: cannot be read")
    whole = gzip.compress(b"header\na b\n")
    assert error_of(whole[:-9], "merges.gz").startswith("FILE: cannot be read")
    with pytest.raises(UserError, match=r"none\.txt: no such file"):
        CLIPTokenizer.from_merges(tmp_path / "none.txt")


def test_damaged_directories(demo, tmp_path):
    def error_after(change):
        demo.save(tmp_path)
        path = tmp_path / "vocab.json"
        vocab = json.loads(path.read_text(encoding="utf-8"))
        change(vocab)
        path.write_text(json.dumps(vocab), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load_tokenizer(tmp_path)
        return str(caught.value)

    last = demo.vocab_size - 1
    assert "it lacks 'é</w>'" in error_after(lambda vocab: vocab.pop("é</w>"))
    assert "each once" in error_after(lambda vocab: vocab.update({"a": 1}))
    # The text tower looks for the end token by the highest id.
    assert "highest id" in error_after(lambda vocab: vocab.update({END: 0, "!": last}))
    demo.save(tmp_path)
    (tmp_path / "vocab.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    demo.save(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges\.txt: no such file"):
        load_tokenizer(tmp_path)


# ---- The demo's vocabulary -------------------------------------------------------------------


def demo_words():
    text = " ".join(scene.caption for scene in rendered.scenes())
    return {word for chunk in set(text.split(" ")) for word in oracle_words(chunk)}


def train_merges(words):
    """Byte-pair merges that make each of the words one token, in a fixed order.

    The most frequent pair is merged first, of equals the alphabetically first, until no pair is
    left. `demo_merges.txt` is what this makes of the demo's captions; after a change of their
    wording remake it with

        python -m tests.input_pipeline.test_tokenizer > glscl_jax/input_pipeline/demo_merges.txt
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in sorted(words)]
    merges = []
    while pairs := collections.Counter(p for word in spelled for p in itertools.pairwise(word)):
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        spelled = [merged(word, merges[-1]) for word in spelled]
    return merges


def written(merges):
    return "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]) + "\n"


def test_every_word_of_the_demo_is_one_token(demo):
    words = sorted(demo_words())
    assert len(words) > 20
    batch = demo(words, 8)
    assert (batch.mask.sum(1) == 3).all()
    assert len(set(batch.ids[:, 1].tolist())) == len(words)


def test_demo_captions_fit(demo):
    captions = [scene.caption for scene in rendered.scenes()]
    longest = max(len(oracle_words(caption)) for caption in captions)
    assert demo(captions, longest + 2).mask.sum(1).max() == longest + 2


def test_the_demo_has_no_merge_it_does_not_need(tmp_path):
    words = sorted(demo_words())
    lines = DEMO_MERGES.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    path = tmp_path / "fewer.txt"
    for number in range(1, len(lines)):
        # Dropping a merge drops what is built on it, too.
        made, kept = set(clip_tokenizer.byte_symbols()), lines[:1]
        made |= {symbol + "</w>" for symbol in made}
        for line in lines[1:number] + lines[number + 1 :]:
            if set(line.split()) <= made:
                made.add(line.replace(" ", ""))
                kept.append(line)
        path.write_text("\n".join(kept) + "\n", encoding="utf-8")
        assert CLIPTokenizer.from_merges(path)(words, 20).mask.sum(1).max() > 3, lines[number]


def test_demo_merges_can_be_remade():
    assert DEMO_MERGES.read_text(encoding="utf-8") == written(train_merges(demo_words()))


if __name__ == "__main__":
    sys.stdout.write(written(train_merges(demo_words())))
