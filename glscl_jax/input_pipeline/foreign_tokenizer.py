"""Tokenizers as other families publish them, opened by transformers' own class or SentencePiece.

Here is what each family's way with captions is, as far as its files do not say it.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import transformers

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.cleaning import CLEANINGS
from glscl_jax.input_pipeline.family_tokenizer import (
    SIGLIP_TOKENS,
    JSONTokenizer,
    Reading,
    SentencePieceTokenizer,
    open_pieces,
    read_bytes,
)
from glscl_jax.input_pipeline.published_tokenizer import (
    CONFIG_FILE,
    ONE_FILE,
    PIECES_FILE,
    damaged,
    read_settings,
    written,
)
from glscl_jax.input_pipeline.tokenizer import Frame, Tokenizer
from glscl_jax.input_pipeline.wordless import refuse_wordless

_SIGLIP, _SIGLIP_2, _GEMMA = "SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer"
_VIDEOPRISM = "VideoPrismTokenizer"
_KINDS = {
    _SIGLIP: "siglip",
    _SIGLIP_2: "siglip2",
    # The one model here with Gemma's is SigLIP 2, which was trained on lower case.
    _GEMMA: "siglip2",
    "XLMRobertaTokenizer": "xlm_v",
    _VIDEOPRISM: "videoprism",
}
_OF_PIECES = {"siglip": _SIGLIP, "videoprism": _VIDEOPRISM}


def read(directory: Path, name: str, whose: str, options: Mapping[str, object]) -> Tokenizer:
    """Reads a Hugging Face directory.

    Args:
      directory: of the files.
      name: what messages call it.
      whose: the class of transformers that opens it.
      options: of open_clip's tokenizers: "clean" and "strip_sep_token".

    Raises:
      UserError: a file is damaged or missing, or it is used in a way that is not known.
    """
    config, kind = read_settings(directory / CONFIG_FILE), _KINDS.get(whose, "json")
    if kind in _OF_PIECES and (directory / PIECES_FILE).is_file():
        return of_pieces(directory / PIECES_FILE, kind, config, options)
    if whose == _SIGLIP:
        raise UserError(
            f"{name}: its tokenizer is a {whose}, and {PIECES_FILE} is not there: put it beside "
            f"{CONFIG_FILE}"
        )
    files = [path for path in (directory / ONE_FILE, *directory.glob("*.model")) if path.is_file()]
    theirs = _opened(directory, whose, config, files[0] if files else directory)
    backend = getattr(theirs, "backend_tokenizer", None)
    if backend is None or not files:
        raise UserError(f"{name}: its tokenizer is a {whose}, and {ONE_FILE} is not there: add it")
    backend.no_padding()
    backend.no_truncation()
    frame = _frame(theirs, backend)
    if options.get("strip_sep_token") and frame.end == (theirs.sep_token_id,):
        # CLIPA's texts have 0 in the separator's place.
        frame = dataclasses.replace(frame, end=(0,))
    clean = "videoprism" if kind == "videoprism" else _cleaning(options)
    given = {**config, **_said(theirs), "tokenizer_class": _SIGLIP_2 if whose == _GEMMA else whose}
    content = backend.to_str().encode()
    found = JSONTokenizer(content, Reading(kind, frame, clean), given, str(files[0]))
    _refuse_wordless(found, theirs, f"{files[0]}: read by {whose}{_said_by(config)}")
    return found


def _said_by(config: Mapping) -> str:
    """Where it is said which class opens a directory, for a message."""
    return f" (tokenizer_class in {CONFIG_FILE})" if config.get("tokenizer_class") else ""


def _refuse_wordless(tokenizer: JSONTokenizer, theirs, name: str) -> None:
    """Raises a `UserError` where transformers' class found no words in the files."""
    backend = theirs.backend_tokenizer
    added = backend.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    unknown = getattr(backend.model, "unk_token", None)
    ids = {None if unknown is None else backend.token_to_id(unknown), theirs.unk_token_id}
    vocab = backend.get_vocab(with_added_tokens=False)
    refuse_wordless(tokenizer, vocab, special | ids - {None}, name)


def of_pieces(
    path: Path, kind: str, config: Mapping, options: Mapping[str, object]
) -> SentencePieceTokenizer:
    """Reads a SentencePiece model.

    Args:
      path: of the file.
      kind: whose it is: "siglip" or "videoprism".
      config: `tokenizer_config.json`; {} without one.
      options: as `read` takes them.

    Raises:
      UserError: the file is damaged, or it is used in a way that is not known.
    """
    if kind not in _OF_PIECES:
        raise UserError(
            f"{path}: a SentencePiece model is SigLIP's or VideoPrism's, and this model takes "
            f"another tokenizer ({kind}): name a directory that has {ONE_FILE}"
        )
    content = read_bytes(path)
    pieces = open_pieces(content, str(path))
    given = {"tokenizer_class": _OF_PIECES[kind], **config}
    if kind == "videoprism":
        # Neither start nor end: its text tower has a class token of its own.
        reading = Reading(kind, Frame(pad_id=max(pieces.pad_id(), 0)), "videoprism")
        return _with_words(SentencePieceTokenizer(content, reading, given, str(path)), pieces, path)
    if config.get("do_lower_case") is False:
        raise UserError(f"{path}: do_lower_case is false beside it; SigLIP's captions are lower")
    tokens = {name: written(config.get(name)) or usual for name, usual in SIGLIP_TOKENS.items()}
    ids = {name: pieces.piece_to_id(token) for name, token in tokens.items()}
    for name, token in tokens.items():
        if pieces.id_to_piece(ids[name]) != token:
            raise UserError(f"{path} has no piece {token!r}, its {name}: it is another tokenizer's")
    _refuse_others(config, set(tokens.values()), path)
    left = config.get("padding_side") == "left"
    frame = Frame(end=(ids["eos_token"],), pad_id=ids["pad_token"], pad_left=left)
    reading = Reading(kind, frame, _cleaning(options))
    found = SentencePieceTokenizer(content, reading, given | tokens, str(path))
    return _with_words(found, pieces, path)


def _with_words(tokenizer: SentencePieceTokenizer, pieces, path: Path) -> SentencePieceTokenizer:
    """The tokenizer; raises a `UserError` if its model has no words."""
    numbers = range(pieces.get_piece_size())
    special = {each for each in numbers if pieces.is_control(each) or pieces.is_unknown(each)}
    vocab = {pieces.id_to_piece(each): each for each in numbers}
    refuse_wordless(tokenizer, vocab, special, f"{path}: read by SentencePiece")
    return tokenizer


def _cleaning(options: Mapping[str, object]) -> str:
    clean = str(options.get("clean", "none"))
    if clean not in CLEANINGS:
        raise UserError(f"its captions are cleaned by {clean!r}, not {', '.join(CLEANINGS)}")
    return clean


def _refuse_others(config: Mapping, known: set[str], path: Path) -> None:
    """Raises a `UserError` for tokens beside the pieces."""
    added = (config.get("added_tokens_decoder") or {}).values()
    added = [*map(written, (*added, *(config.get("additional_special_tokens") or ())))]
    if others := [token for token in added if token not in known]:
        raise UserError(
            f"{path}: {CONFIG_FILE} has tokens of its own beside the pieces "
            f"({', '.join(map(repr, others[:5]))}), which are not read"
        )


def _opened(directory: Path, whose: str, config: Mapping, file: Path):
    """transformers' own tokenizer of a directory."""
    opener, options = getattr(transformers, whose, None), {}
    if whose == _GEMMA:
        # A Gemma reads on from its start token; SigLIP 2's files say the same of theirs.
        opener, options = transformers.Siglip2Tokenizer, {"add_bos_token": False}
        options["add_eos_token"] = True
    if whose in (_GEMMA, _SIGLIP_2) and not config.get("add_eos_token"):
        # The classes' own side is that of a model that writes on.
        options["padding_side"] = config.get("padding_side", "right")
    if whose not in _KINDS:
        # Left open, it asks at the terminal whether to run what lies in the directory.
        opener, options = transformers.AutoTokenizer, {"trust_remote_code": False}
    with _quiet():
        try:
            found = opener.from_pretrained(str(directory), local_files_only=True, **options)
        except Exception as error:  # Each class raises its own.
            raise UserError(damaged(file, error)) from error
    if whose == _SIGLIP_2 and not _frame(found, found.backend_tokenizer).end:
        found.add_eos_token = True
    return found


@contextlib.contextmanager
def _quiet():
    """Without what transformers logs of a class that is not the one that saved the files."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _frame(theirs, backend) -> Frame:
    """What its rules put around a text."""
    whole = backend.encode("a", add_special_tokens=True)
    special = whole.special_tokens_mask
    first = special.index(0) if 0 in special else len(special)
    last = len(special) - special[::-1].index(0) if 0 in special else len(special)
    start, end = tuple(whole.ids[:first]), tuple(whole.ids[last:])
    pad = theirs.pad_token_id
    if pad is None:
        pad = end[-1] if end else 0
    return Frame(start, end, pad, theirs.padding_side == "left")


def _said(theirs) -> dict:
    """What transformers is to be told, to make the same of the rules that are kept."""
    said = {"padding_side": theirs.padding_side}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = getattr(theirs, name, None)
        said |= {} if token is None else {name: str(token)}
    if isinstance(theirs, transformers.Siglip2Tokenizer):
        said |= {name: bool(getattr(theirs, name)) for name in ("add_bos_token", "add_eos_token")}
    return said
