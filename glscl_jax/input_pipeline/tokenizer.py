"""What turns captions into ids; `tokenizer_files` says which kinds there are and opens them."""

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glscl_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenBatch:
    """Captions as ids.

    Attributes:
      ids: int32 [A, L], what `Frame` puts around a caption's words, and the words.
      mask: int32 [A, L], 1 on tokens and 0 on padding (whose id is a token's id, too).
    """

    ids: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Frame:
    """What stands around a caption's words.

    Attributes:
      start, end: ids of the tokens before and after them, none or more.
      pad_id: what fills the places that are left.
      pad_left: whether those are before the caption.
    """

    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pad_id: int = 0
    pad_left: bool = False


@dataclasses.dataclass(frozen=True)
class Portable:
    """A tokenizer for whoever has not this library.

    Attributes:
      package: what runs it: "tokenizers" or "sentencepiece".
      file: the name of its file.
      content: of that. A `tokenizer.json` frames captions, cuts and fills them up by itself.
      cleaning: what is done to a caption before, a name of `cleaning.CLEANINGS`.
      before: what is put before a caption for sentencepiece alone, whose ids are taken away again.
    """

    package: str
    file: str
    content: bytes
    cleaning: str
    before: str = ""


class Tokenizer(abc.ABC):
    """Captions to ids.

    Attributes:
      kind: whose it is, a name of `models.encoders.texts.TOKENIZERS`.
      vocab_size: the highest id, and one.
      frame: what it puts around a caption.
    """

    kind: str
    vocab_size: int
    frame: Frame

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Of all that makes ids: the same wherever it was read."""

    @abc.abstractmethod
    def save(self, directory: Path | str, max_length: int | None = None) -> None:
        """Writes what `tokenizer_files.load_tokenizer` reads, and transformers.

        Args:
          directory: made if it is not there.
          max_length: the places that transformers cuts a caption to, when asked to cut; as the
            tokenizer has them by itself if nothing is said.
        """

    @abc.abstractmethod
    def portable(self, length: int) -> Portable:
        """The same for whoever has not this library, of captions of L = `length` places."""

    @abc.abstractmethod
    def words(self, captions: list[str]) -> list[list[int]]:
        """The ids of captions, each whole and without start and end."""

    @property
    def start_id(self) -> int | None:
        """The id that captions start with; None if there is none."""
        return self.frame.start[0] if self.frame.start else None

    @property
    def end_id(self) -> int | None:
        """The id that captions end with; None if there is none."""
        return self.frame.end[-1] if self.frame.end else None

    def __call__(self, captions: str | Sequence[str], length: int) -> TokenBatch:
        """Tokenizes captions.

        Args:
          captions: A captions; an empty one is the start and the end token. A plain string is one
            caption, A = 1.
          length: L, the places of a caption. Its words are cut so that start and end have places.

        Raises:
          UserError: `length` leaves no place for the start and the end token.
          TypeError: something that is no string stands for a caption.
        """
        captions, frame = _strings(captions), self.frame
        around = len(frame.start) + len(frame.end)
        if length < max(1, around):
            names = [name for name in ("start", "end") if getattr(frame, name)]
            told = f" ({' and '.join(names)})" if names else ""
            raise UserError(f"a caption needs {max(1, around)} words at least{told}, not {length}")
        ids = np.full((len(captions), length), frame.pad_id, np.int32)
        mask = np.zeros_like(ids)
        for row, words in enumerate(self.words(captions)):
            tokens = [*frame.start, *words[: length - around], *frame.end]
            # A text without a token has no features: of an empty one, padding is looked at.
            tokens = tokens or [frame.pad_id]
            places = slice(-len(tokens), None) if frame.pad_left else slice(len(tokens))
            ids[row, places] = tokens
            mask[row, places] = 1
        return TokenBatch(ids, mask)

    def lengths(self, captions: str | Sequence[str]) -> np.ndarray:
        """The places that A captions take uncut, start and end token among them: int64 [A].

        Raises:
          TypeError: something that is no string stands for a caption.
        """
        around = len(self.frame.start) + len(self.frame.end)
        return np.array([len(ids) + around for ids in self.words(_strings(captions))], np.int64)


def _strings(captions: str | Sequence[str]) -> list[str]:
    captions = [captions] if isinstance(captions, str) else list(captions)
    for caption in captions:
        if not isinstance(caption, str):
            raise TypeError(f"{caption!r} is no caption: give strings")
    return captions
