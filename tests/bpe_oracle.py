"""CLIP's byte-pair encoding once more, slow: what the tokenizer's tests compare with."""

import functools
import gzip
import html
import itertools
import re
import unicodedata

import ftfy

from glscl_jax.input_pipeline.clip_tokenizer import END, START
from tests.server import REPO

SHARED = REPO.parent / "shared"
OPENAI_MERGES = SHARED / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
# Captions that are easily cleaned or split in another way.
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
