"""Tokenizers that know no word, which files that do not go together make without an error.

A class of transformers that finds no vocabulary in a directory opens it with special tokens alone.
Every caption would be the same ids then, and every score the same.
"""

from collections.abc import Mapping

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer

PROBE = "a dog runs on the beach"
# A hieroglyph, which is of no vocabulary: what it becomes is the unknown token, or boundaries and
# bytes that no word above has.
_UNHEARD_OF = "\N{EGYPTIAN HIEROGLYPH A001}"
# How vocabularies write where a word begins, goes on or ends.
_MARKS = ("\u2581", "\u0120", "##", "</w>")
# How many of a vocabulary's own symbols are tried, spread over it.
_TRIED = 500


def refuse_wordless(
    tokenizer: Tokenizer, vocab: Mapping[str, int], special: set[int], name: str
) -> None:
    """Raises a `UserError` if all captions are unknown, special or empty.

    Args:
      tokenizer: that makes ids of captions.
      vocab: symbol to id. Where it knows no word of a plain English caption, as one of another
        script may, its own symbols are tried as captions.
      special: ids that are no word's: the unknown token's, the end's, ...
      name: what the message calls it, with who reads it.
    """
    no_words = special | set(tokenizer.words([_UNHEARD_OF])[0])
    if _has_word(tokenizer, [PROBE], no_words):
        return
    own = [_plain(symbol) for symbol, number in vocab.items() if number not in special]
    # Letters alone, as "<0x61>" and a language's "en_XX" are no words.
    own = [text for text in own if text.isalpha()]
    if own and _has_word(tokenizer, own[:: 1 + len(own) // _TRIED], no_words):
        return
    raise UserError(
        f"{name}, it knows no word: {PROBE!r} becomes {tokenizer.words([PROBE])[0]}, of "
        f"{len(vocab):,} symbols in all; put the tokenizer's own files there, or give another"
    )


def _has_word(tokenizer: Tokenizer, texts: list[str], no_words: set[int]) -> bool:
    return any(set(ids) - no_words for ids in tokenizer.words(texts))


def _plain(symbol: str) -> str:
    for mark in _MARKS:
        symbol = symbol.replace(mark, "")
    return symbol
