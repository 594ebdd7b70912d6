"""Captions to ids, exactly as CLIP's own tokenizer makes them.

The byte pairs are merged by `tokenizers`. Not `transformers.CLIPTokenizer`, which neither mends
broken Unicode (`ftfy`) nor resolves HTML's entities, as OpenAI's and so the reference's does.
"""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from glscl_jax.errors import UserError
from glscl_jax.files import write_text
from glscl_jax.input_pipeline import cleaning, published_tokenizer, tokenizer_json
from glscl_jax.input_pipeline.published_tokenizer import (
    CONFIG_FILE,
    END,
    MERGES_FILE,
    ONE_FILE,
    START,
    VOCABULARY_FILE,
)
from glscl_jax.input_pipeline.tokenizer import Frame, Portable, Tokenizer

PAD_ID = 0

# The demo's own small vocabulary, in which each word of its captions is one token.
DEMO_MERGES = Path(__file__).with_name("demo_merges.txt")

END_OF_WORD = "</w>"
# Of the merges that OpenAI published CLIP uses the first 48,894: with 2 x 256 byte symbols and
# the two special tokens that makes 49,408 entries.
CLIP_MERGES = 48_894

# What is a word, in order of preference: a special token, an English contraction, a run of
# letters, a single digit, a run of anything else that is not space.
_WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)

# Read by transformers alone: which class opens the directory, and how many places a caption has.
_CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "bos_token": START,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
}


class CLIPTokenizer(Tokenizer):
    """CLIP's lower-cased byte-pair tokenizer.

    The end token has the highest id, because the text tower takes the sentence feature from the row
    of the highest.
    """

    kind = "clip"

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], source: str):
        """Prefer `from_merges`, `load` and `from_pretrained`.

        Args:
          vocab: symbol to id, 0 to the vocabulary's size - 1.
          merges: pairs of symbols, the first to be merged first.
          source: where they were read, named in errors.

        Raises:
          UserError: the vocabulary is not one of CLIP's kind.
        """
        _check(vocab, source)
        self.vocab_size = len(vocab)
        self.frame = Frame((vocab[START],), (vocab[END],), PAD_ID)
        self._vocab, self._merges = vocab, list(merges)
        try:
            bpe = models.BPE(vocab=vocab, merges=self._merges, end_of_word_suffix=END_OF_WORD)
        except Exception as error:  # tokenizers raises nothing narrower
            raise UserError(f"{source}: merges do not fit the vocabulary ({error})") from error
        self._backend = tokenizers.Tokenizer(bpe)
        self._backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(_WORD), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    @classmethod
    def from_merges(cls, path: Path | str) -> "CLIPTokenizer":
        """Reads a merges file (.txt or .txt.gz), such as OpenAI's `bpe_simple_vocab_16e6.txt.gz`.

        Its first line is a header, each further one a merge: two symbols and a space between.
        The vocabulary is the 256 byte symbols, the same at the end of a word, the merges, and
        the two special tokens.

        Raises:
          UserError: the file cannot be read, or a line is not a merge.
        """
        merges = _read_merges(Path(path))
        symbols = [byte + suffix for suffix in ("", END_OF_WORD) for byte in byte_symbols()]
        symbols += [left + right for left, right in merges] + [START, END]
        vocab = {symbol: index for index, symbol in enumerate(symbols)}
        if len(vocab) != len(symbols):
            twice = next(s for index, s in enumerate(symbols) if vocab[s] != index)
            raise UserError(f"{path}: {twice!r} is made twice; remove one of the two merges")
        return cls(vocab, merges, str(path))

    @classmethod
    def from_pretrained(cls, directory: Path, source: str) -> "CLIPTokenizer":
        """Reads a Hugging Face directory; `source` is what messages call it.

        Raises:
          UserError: it holds no tokenizer, or one that is not CLIP's.
        """
        found = published_tokenizer.read(directory, source, _read_merges)
        if found is None:
            raise UserError(not_found(source))
        tokenizer = cls(found.vocab, found.merges, source)
        found.check(tokenizer._encode_whole, source)
        return tokenizer

    @classmethod
    def load(cls, directory: Path | str) -> "CLIPTokenizer":
        """Reads what `save` wrote.

        Raises:
          UserError: a file is missing or damaged.
        """
        path = Path(directory) / VOCABULARY_FILE
        try:
            vocab = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(_unreadable(path, error)) from error
        return cls(vocab, _read_merges(Path(directory) / MERGES_FILE), str(directory))

    @property
    def sha256(self) -> str:
        """Of vocabulary and merges: the same wherever they were read, and in whatever layout."""
        told = json.dumps([sorted(self._vocab.items()), [list(pair) for pair in self._merges]])
        return hashlib.sha256(told.encode()).hexdigest()

    def save(self, directory: Path | str, max_length: int | None = None) -> None:
        """Writes the tokenizer in Hugging Face's layout, readable there as a CLIPTokenizer."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        merges = ["#version: 0.2", *(f"{left} {right}" for left, right in self._merges)]
        config = _CONFIG | {"model_max_length": max_length or 77}
        files = {
            VOCABULARY_FILE: json.dumps(self._vocab, ensure_ascii=False),
            MERGES_FILE: "\n".join(merges) + "\n",
            CONFIG_FILE: json.dumps(config, indent=2) + "\n",
        }
        for name, text in files.items():
            write_text(directory / name, text)

    def portable(self, length: int) -> Portable:
        """A `tokenizer.json`; a special token that is spelled out is words to it, as any other."""
        rules = tokenizers.Tokenizer.from_str(self._backend.to_str())
        # Most of the cleaning, for whoever passes it over.
        space = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
        rules.normalizer = normalizers.Sequence(
            [space, normalizers.Strip(), normalizers.Lowercase()]
        )
        content = tokenizer_json.framed(rules, self.frame, length)
        return Portable("tokenizers", ONE_FILE, content, "lower")

    def words(self, captions: list[str]) -> list[list[int]]:
        """The ids of captions, each whole and without start and end."""
        return self._encode([cleaning.clip(caption) for caption in captions])

    def _encode_whole(self, caption: str) -> list[int]:
        return [self.start_id, *self.words([caption])[0], self.end_id]

    def _encode(self, captions: list[str]) -> list[list[int]]:
        encoded = [found.ids for found in self._backend.encode_batch_fast(captions)]
        for row, caption in enumerate(captions):
            if START in caption or END in caption:
                encoded[row] = self._encode_with_special_tokens(caption)
        return encoded

    def _encode_with_special_tokens(self, caption: str) -> list[int]:
        """For a caption that spells a special token out.

        CLIP takes it for one where it stands as a word of its own ("!!<|endoftext|>" is three
        others); registered with `tokenizers` it would be cut out of any word.
        """
        ids = []
        for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(caption):
            if word in (START, END):
                ids.append(self._vocab[word])
            else:
                ids += [token.id for token in self._backend.model.tokenize(word)]
        return ids


def byte_symbols() -> list[str]:
    """The 256 printable characters that stand for bytes, in the order of their ids."""
    # Sorted by code point: visible Latin-1 characters stand for themselves and come first, the
    # others were moved to 256 and up.
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _check(vocab: dict[str, int], source: str) -> None:
    # Without all bytes rare characters would vanish from captions without a word.
    needed = [byte + suffix for suffix in ("", END_OF_WORD) for byte in byte_symbols()]
    missing = [symbol for symbol in [*needed, START, END] if symbol not in vocab]
    if missing:
        raise UserError(f"{source}: not a CLIP vocabulary, it lacks {missing[0]!r}")
    if set(vocab.values()) != set(range(len(vocab))):
        raise UserError(f"{source}: the vocabulary's ids are not 0 to {len(vocab) - 1}, each once")
    if vocab[END] != len(vocab) - 1:
        raise UserError(f"{source}: the end token {END} must have the highest id of the vocabulary")


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        # As text both ways: lines may end as Windows ends them.
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except (OSError, EOFError, ValueError, gzip.zlib.error) as error:
        raise UserError(_unreadable(path, error)) from error
    lines = text.split("\n")[1 : 1 + CLIP_MERGES]
    while lines and not lines[-1]:
        lines.pop()
    merges = [tuple(line.split(" ")) for line in lines]
    for number, merge in enumerate(merges, start=2):
        if len(merge) != 2 or not all(merge):
            raise UserError(f"{path}:{number}: a merge is two symbols and a space, not this line")
    return merges


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such file; a tokenizer needs it"
    return f"{path}: cannot be read as a tokenizer's file ({error})"


def not_found(name: Path | str) -> str:
    """A line on a name that has no tokenizer."""
    return (
        f"{name}: no tokenizer found; name a directory with {VOCABULARY_FILE} and {MERGES_FILE}, "
        f"{ONE_FILE} or spiece.model, or a Hugging Face model (offline: one in its cache)"
    )
