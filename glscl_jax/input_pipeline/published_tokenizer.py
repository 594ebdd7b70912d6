"""Tokenizers of Hugging Face directories, as far as they are CLIP's: anything else is refused."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers

from glscl_jax.errors import UserError

# Vocabulary and merges, or both in one file with how they are applied.
VOCABULARY_FILE, MERGES_FILE, ONE_FILE = "vocab.json", "merges.txt", "tokenizer.json"
# Which class opens the directory and what its special tokens are, in three places.
CONFIG_FILE = "tokenizer_config.json"
ADDED_FILE, SPECIAL_FILE = "added_tokens.json", "special_tokens_map.json"
# Other families': SentencePiece's model, and how captions are read, which a `Tokenizer` saves.
PIECES_FILE, CAPTIONS_FILE = "spiece.model", "captions.json"
FILES = (VOCABULARY_FILE, MERGES_FILE, ONE_FILE, CONFIG_FILE, ADDED_FILE, SPECIAL_FILE)

START, END = "<|startoftext|>", "<|endoftext|>"
# The last two apply whatever tokenizer.json says, which is looked into here.
_CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
# Each would be cut into other tokens by other rules for case, digits, contractions, accents, space
# or the ends of words.
_PROBES = (
    "A Man's DOG, 42 cats & a CAFÉ!",
    "it'll   run-run (they'd say) ... naïve?!",
    "日本 🙂 x2.5% #tag @you snake_case",
)


@dataclasses.dataclass(frozen=True)
class Published:
    """What a directory's files say.

    Attributes:
      vocab: symbol to id.
      merges: pairs of symbols, the first to be merged first.
      one_file: tokenizer.json, if it is there.
    """

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    one_file: Path | None

    def check(self, encode: Callable[[str], list[int]], source: str) -> None:
        """Raises a `UserError` if its own rules cut text otherwise than `encode`.

        Args:
          encode: a caption to ids, with start and end.
          source: named in the error.
        """
        if self.one_file is None:
            return
        try:
            theirs = tokenizers.Tokenizer.from_file(str(self.one_file))
        except Exception as error:  # tokenizers raises nothing narrower
            raise UserError(damaged(self.one_file, error)) from error
        theirs.no_padding()
        theirs.no_truncation()
        for probe in _PROBES:
            if (found := theirs.encode(probe).ids) != (expected := encode(probe)):
                raise UserError(
                    f"{source}: its {ONE_FILE} cuts text otherwise than CLIP's tokenizer and is "
                    f"not read: {probe!r} into {_shown(found)}, not {_shown(expected)}"
                )


def read(directory: Path, source: str, read_merges: Callable[[Path], list]) -> Published | None:
    """Reads a directory; None if it has no tokenizer.

    Args:
      directory: of the files.
      source: what to call it in a message.
      read_merges: reads a merges file.

    Raises:
      UserError: a file is damaged, or it is a tokenizer of another kind than CLIP's.
    """
    try:
        return _read(directory, source, read_merges)
    except (AttributeError, TypeError, ValueError) as error:
        # Lists where dictionaries should be, and the like.
        raise UserError(f"{source}: its tokenizer's files are damaged ({error})") from error


def _read(directory: Path, source: str, read_merges: Callable[[Path], list]) -> Published | None:
    one_file = directory / ONE_FILE
    config, content = read_settings(directory / CONFIG_FILE), read_object(directory / ONE_FILE)
    if (kind := config.get("tokenizer_class") or _CLASSES[0]) not in _CLASSES:
        raise UserError(f"{source}: its tokenizer is a {kind}, not CLIP's")
    model = content.get("model")
    if isinstance(model, dict) and model.get("merges"):
        vocab = model.get("vocab")
        # Older files keep a merge as one string.
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    elif (directory / VOCABULARY_FILE).is_file() and (directory / MERGES_FILE).is_file():
        vocab, merges = (
            read_object(directory / VOCABULARY_FILE),
            read_merges(directory / MERGES_FILE),
        )
    else:
        return None
    if not isinstance(vocab, dict) or not all(type(x) is int for x in vocab.values()):
        raise UserError(f"{source}: its vocabulary is damaged")
    added = dict(_added(directory, config, content))
    # The two special tokens are often kept apart from the others.
    vocab = {t: added[t] for t in (START, END) if added.get(t) is not None} | vocab
    _refuse_others(config, added, vocab, source)
    return Published(vocab, merges, one_file if content else None)


def _refuse_others(config: dict, added: dict, vocab: dict, source: str) -> None:
    """Raises a `UserError` for tokens beside the byte pairs, or special tokens that are others."""
    way_out = "give a tokenizer without, such as CLIP's"
    if others := [token for token in added if token not in (START, END)]:
        listed = ", ".join(repr(token) for token in others[:5])
        raise UserError(
            f"{source}: its tokenizer has {len(others)} tokens of its own beside CLIP's byte pairs "
            f"({listed}), which are not read: {way_out}"
        )
    for token in (START, END):
        if added.get(token) not in (None, vocab.get(token)):
            raise UserError(f"{source}: {token} has two ids, {vocab[token]} and {added[token]}")
    for name, expected in (("bos_token", START), ("eos_token", END)):
        if (token := written(config.get(name))) not in (None, expected):
            raise UserError(f"{source}: its {name} is {token!r}, not {expected!r}: {way_out}")


def _added(directory: Path, config: dict, content: dict) -> Iterator[tuple[str, int | None]]:
    """Every token that is said to stand outside the byte pairs, and its id where that is said."""
    yield from read_object(directory / ADDED_FILE).items()
    for place in (config, read_settings(directory / SPECIAL_FILE)):
        for token in place.get("additional_special_tokens") or ():
            yield written(token), None
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        yield written(token), int(number)
    for token in content.get("added_tokens") or ():
        yield written(token), token.get("id")


def written(token) -> str | None:
    """A token as it is written: text, or a dictionary that has it as its content."""
    return token.get("content") if isinstance(token, dict) else token


def read_object(path: Path) -> dict:
    """The file's object; of a file that is not there none.

    Raises:
      UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(damaged(path, error)) from error
    if not isinstance(content, dict):
        raise UserError(damaged(path, "no JSON object"))
    return content


def read_settings(path: Path) -> dict:
    """What `tokenizer_config.json` says, or `special_tokens_map.json`; {} without the file.

    Raises:
      UserError: it is damaged, or something that is read here is of a type that it cannot be.
    """
    config = read_object(path)
    # null is what is left to the class.
    for name, value in config.items():
        called, is_that = _TYPES.get(name, _ANYTHING)
        if value is not None and not is_that(value):
            raise UserError(
                f"{path}: {name} is {_shortened(value)}, not {called}: mend it, or download the "
                "file again"
            )
    return config


def _is_token(value) -> bool:
    return isinstance(written(value), str)


def _are_tokens(values) -> bool:
    return isinstance(values, list) and all(map(_is_token, values))


def _are_numbered(values) -> bool:
    is_map = isinstance(values, dict) and all(number.isdecimal() for number in values)
    return is_map and all(map(_is_token, values.values()))


_ANYTHING = ("anything", lambda _: True)
_NAME = ("a name", lambda value: isinstance(value, str))
_TOKEN = ("a token", _is_token)
_FLAG = ("true or false", lambda value: isinstance(value, bool))
# What is read here: what to call what it must be, and whether it is that.
_TYPES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "tokenizer_class": _NAME,
    "additional_special_tokens": ("a list of tokens", _are_tokens),
    "added_tokens_decoder": ("tokens by their ids", _are_numbered),
    "padding_side": ("right or left", ("right", "left").__contains__),
    **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), _TOKEN),
    **dict.fromkeys(("add_bos_token", "add_eos_token", "do_lower_case"), _FLAG),
}


def _shortened(value) -> str:
    return text if len(text := repr(value)) <= 80 else f"{text[:77]}..."


def damaged(path: Path | str, reason) -> str:
    """A line on a file that cannot be read."""
    reason = re.sub(r"\s+", " ", str(reason))
    return f"{path}: cannot be read as a tokenizer's file ({reason})"


def _shown(ids: list[int]) -> str:
    return " ".join(map(str, ids[:12])) + (" ..." if len(ids) > 12 else "")
