"""Tokenizers of other families than CLIP: a `tokenizer.json`, or a model of SentencePiece.

What either's rules do not say (how captions are cleaned, what stands around them) lies beside them
in `CAPTIONS_FILE`. The rest of the directory is Hugging Face's layout, which transformers reads.
"""

import abc
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import tokenizers

from glscl_jax.errors import UserError
from glscl_jax.files import read_json, write_json, write_text
from glscl_jax.input_pipeline import cleaning, tokenizer_json
from glscl_jax.input_pipeline.published_tokenizer import (
    CAPTIONS_FILE,
    CONFIG_FILE,
    ONE_FILE,
    PIECES_FILE,
    damaged,
)
from glscl_jax.input_pipeline.tokenizer import Frame, Portable, Tokenizer
from glscl_jax.models.encoders.texts import TOKENIZERS

# That transformers registers with every SentencePiece tokenizer of SigLIP.
SIGLIP_TOKENS = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}


@dataclasses.dataclass(frozen=True)
class Reading:
    """How captions are read.

    Attributes:
      kind: whose tokenizer it is, a name of `models.encoders.texts.TOKENIZERS`.
      frame: what it puts around a caption.
      cleaning: before all else, a name of `cleaning.CLEANINGS`.
    """

    kind: str
    frame: Frame
    cleaning: str = "none"

    def as_json(self) -> dict:
        """What `CAPTIONS_FILE` holds."""
        return {"kind": self.kind, "cleaning": self.cleaning, **dataclasses.asdict(self.frame)}

    @classmethod
    def from_json(cls, content: Mapping, path: Path) -> "Reading":
        """What `as_json` made; raises a `UserError` if it did not."""
        rest = dict(content)
        kind, clean = rest.pop("kind", None), rest.pop("cleaning", None)
        ids = [*rest.get("start", ()), *rest.get("end", ()), rest.get("pad_id")]
        names = {field.name for field in dataclasses.fields(Frame)}
        if (
            kind not in TOKENIZERS
            or clean not in cleaning.CLEANINGS
            or rest.keys() != names
            or not all(type(x) is int and x >= 0 for x in ids)
        ):
            raise UserError(f"{path} is damaged: {json.dumps(dict(content))[:200]} is no reading")
        frame = Frame(
            tuple(rest["start"]), tuple(rest["end"]), rest["pad_id"], bool(rest["pad_left"])
        )
        return cls(kind, frame, clean)


class FamilyTokenizer(Tokenizer):
    """What the kinds below have in common."""

    file: str

    def __init__(self, content: bytes, reading: Reading, config: Mapping, vocab_size: int):
        """See there.

        Args:
          content: of the file that has vocabulary and rules.
          reading: beside it.
          config: `tokenizer_config.json`, which transformers alone reads.
          vocab_size: the highest id, and one.
        """
        self.kind, self.frame, self.vocab_size = reading.kind, reading.frame, vocab_size
        self._content, self._reading, self._config = content, reading, dict(config)
        self._clean = cleaning.CLEANINGS[reading.cleaning]

    @classmethod
    def load(cls, directory: Path | str) -> "FamilyTokenizer":
        """Reads what `save` wrote.

        Raises:
          UserError: a file is missing or damaged.
        """
        directory = Path(directory)
        path = directory / CAPTIONS_FILE
        try:
            reading = Reading.from_json(read_json(path), path)
            config = read_json(directory / CONFIG_FILE)
        except (TypeError, ValueError) as error:
            raise UserError(damaged(path, error)) from error
        return cls(read_bytes(directory / cls.file), reading, config, str(directory / cls.file))

    @functools.cached_property
    def sha256(self) -> str:
        """Of all that makes ids: the same wherever it was read."""
        told = json.dumps(self._reading.as_json(), sort_keys=True)
        return hashlib.sha256(told.encode() + self._content).hexdigest()

    def save(self, directory: Path | str, max_length: int | None = None) -> None:
        """Writes it in Hugging Face's layout, and how captions are read beside it."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / self.file).write_bytes(self._content)
        config = self._config | ({"model_max_length": max_length} if max_length else {})
        write_text(directory / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
        write_json(directory / CAPTIONS_FILE, self._reading.as_json())

    def words(self, captions: list[str]) -> list[list[int]]:
        """The ids of captions, each whole and without start and end."""
        # Half of a pair, as JSON can hold it, is no text to either library.
        texts = [text.encode("utf-8", "replace").decode() for text in captions]
        return self._words([self._clean(text) for text in texts])

    @abc.abstractmethod
    def _words(self, texts: list[str]) -> list[list[int]]:
        """The ids of clean captions."""


class JSONTokenizer(FamilyTokenizer):
    """Rules of a `tokenizer.json`, followed by `tokenizers`."""

    file = ONE_FILE

    def __init__(self, content: bytes, reading: Reading, config: Mapping, source: str):
        """See `FamilyTokenizer`; `source` is named in errors.

        Raises:
          UserError: the file is damaged.
        """
        try:
            self._backend = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # tokenizers raises nothing narrower
            raise UserError(damaged(source, error)) from error
        self._backend.no_padding()
        self._backend.no_truncation()
        vocab = self._backend.get_vocab(with_added_tokens=True)
        # transformers gives VideoPrism's and T5's 100 tokens for spans, which have no rows;
        # where cleaning takes "<" away none can be spelled out.
        spelled = reading.cleaning not in ("videoprism", "canonicalize")
        ids = [number for token, number in vocab.items() if spelled or not _is_span(token)]
        super().__init__(content, reading, config, max(ids, default=-1) + 1)

    def portable(self, length: int) -> Portable:
        """Its `tokenizer.json`, with what stands around captions."""
        rules = tokenizers.Tokenizer.from_str(self._backend.to_str())
        content = tokenizer_json.framed(rules, self.frame, length)
        return Portable("tokenizers", self.file, content, self._reading.cleaning)

    def _words(self, texts: list[str]) -> list[list[int]]:
        found = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [each.ids for each in found]


class SentencePieceTokenizer(FamilyTokenizer):
    """A model of SentencePiece's own library: SigLIP's and VideoPrism's."""

    file = PIECES_FILE

    def __init__(self, content: bytes, reading: Reading, config: Mapping, source: str):
        """See `FamilyTokenizer`; `source` is named in errors.

        Raises:
          UserError: the file is damaged, or the library is missing.
        """
        self._pieces = open_pieces(content, source)
        super().__init__(content, reading, config, self._pieces.get_piece_size())
        if reading.kind == "siglip":
            tokens = [config.get(name, token) for name, token in SIGLIP_TOKENS.items()]
            self._tokens = {token: self._pieces.piece_to_id(token) for token in tokens}
            # The longest first, as where one begins with another.
            known = "|".join(map(re.escape, sorted(self._tokens, key=len, reverse=True)))
            self._split = re.compile(rf"({known})")
            self._unknown = config.get("unk_token", SIGLIP_TOKENS["unk_token"])

    def portable(self, length: int) -> Portable:
        """Its model; of SigLIP's, a token that is spelled out is pieces to it, as any other."""
        del length
        clean, before = self._reading.cleaning, ""
        if self.kind == "siglip":
            clean, before = "siglip", self._unknown
        return Portable("sentencepiece", self.file, self._content, clean, before)

    def _words(self, texts: list[str]) -> list[list[int]]:
        if self.kind != "siglip":
            return self._pieces.encode(texts)
        # As `transformers.SiglipTokenizer` does it: behind the unknown token's spelling, so that
        # the text's first boundary stays; a token that is spelled out is that token.
        parts = [self._parts(text) for text in texts]
        plain = [part for row in parts for part in row if part not in self._tokens]
        behind = [self._unknown + cleaning.siglip(part) for part in plain]
        skipped = len(self._pieces.encode(self._unknown))
        found = iter(self._pieces.encode(behind))
        boundary = self._pieces.piece_to_id(cleaning.BOUNDARY)
        rows = []
        for row in parts:
            ids = []
            for part in row:
                if part in self._tokens:
                    # A boundary alone before it is none of the text's.
                    ids = [] if ids == [boundary] else ids
                    ids.append(self._tokens[part])
                else:
                    ids += _without(next(found), skipped)
            rows.append(ids)
        return rows

    def _parts(self, text: str) -> list[str]:
        """Texts and, by themselves, tokens that are spelled out; none of them empty."""
        text = cleaning.BOUNDARY + text.replace(cleaning.BOUNDARY, " ")
        return [part for part in self._split.split(text) if part]


def _is_span(token: str) -> bool:
    return token.startswith("<extra_id_")


def _without(ids: list[int], skipped: int) -> list[int]:
    return ids[skipped:] if len(ids) >= skipped else ids


def open_pieces(content: bytes, source: str):
    """The library's processor of a model.

    Raises:
      UserError: the file is damaged, or the library is missing.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise UserError(
            f"{source} takes sentencepiece, which is not installed: pip install -r requirements.txt"
        ) from error
    try:
        # Of an empty one the library says so on stderr alone.
        return sentencepiece.SentencePieceProcessor(model_proto=content or b"nothing")
    except Exception as error:  # It raises a bare RuntimeError, and others by release.
        raise UserError(damaged(source, "no SentencePiece model")) from error


def read_bytes(path: Path) -> bytes:
    """Of a tokenizer's file; raises a `UserError` if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; a tokenizer needs it") from error
    except OSError as error:
        raise UserError(damaged(path, error.strerror)) from error
