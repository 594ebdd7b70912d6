"""Tokenizers by name: what a file or directory holds, and whose it is.

CLIP's merges are read here; `foreign_tokenizer` opens another family's, once, by that family's own
library. What comes of it is kept in one file, of which `tokenizers` or `sentencepiece` makes ids
from then on (`family_tokenizer`). Whoever has CLIP's alone imports none of it.
"""

from collections.abc import Mapping
from pathlib import Path

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer, not_found
from glscl_jax.input_pipeline.published_tokenizer import (
    CAPTIONS_FILE,
    CONFIG_FILE,
    END,
    FILES,
    MERGES_FILE,
    ONE_FILE,
    PIECES_FILE,
    VOCABULARY_FILE,
    read_object,
    read_settings,
)
from glscl_jax.input_pipeline.tokenizer import Tokenizer

_MODEL_FILE = "config.json"
_PIECES = (".model", ".spm")

# transformers' class for each kind whose files do not say it, and for each kind of model.
_CLASSES = {
    "siglip": "SiglipTokenizer",
    "siglip2": "Siglip2Tokenizer",
    "xlm_v": "XLMRobertaTokenizer",
    "videoprism": "VideoPrismTokenizer",
    "json": "PreTrainedTokenizerFast",
}
_OF_MODELS = {"siglip": "siglip", "metaclip_2": "xlm_v", "videoprism": "videoprism"}
# Classes that open any tokenizer.json.
_ANY = ("PreTrainedTokenizerFast", "TokenizersBackend")


def read_tokenizer(
    name: Path | str, kind: str = "clip", options: Mapping[str, object] | None = None
) -> Tokenizer:
    """Reads a tokenizer by name.

    Args:
      name: a merges file of CLIP's (.txt, .txt.gz), a SentencePiece model (.model), a Hugging Face
        directory, a name on its hub, "demo", or what a `Tokenizer` saved.
      kind: whose it is where its files do not say, a name of `models.encoders.texts.TOKENIZERS`.
      options: of open_clip's tokenizers: "clean" and "strip_sep_token".

    Raises:
      UserError: there is none of that name, it is damaged, or it lacks a file.
    """
    path = DEMO_MERGES if name == paths.DEMO_TOKENIZER else paths.local(name, "the tokenizer")
    if path.suffix in (".txt", ".gz"):
        return CLIPTokenizer.from_merges(path)
    if path.suffix == ".json" and path.is_file():
        raise UserError(f"{name}: name its directory, whose other files say how it is used")
    if path.suffix in _PIECES and not path.is_dir():
        from glscl_jax.input_pipeline import foreign_tokenizer

        return foreign_tokenizer.of_pieces(path, kind, {}, options or {})
    directory = path if path.is_dir() else _from_hub(name)
    if (directory / CAPTIONS_FILE).is_file():
        return load_tokenizer(directory)
    whose = _class_of(directory, kind)
    if whose is None:
        return CLIPTokenizer.from_pretrained(directory, str(name))
    from glscl_jax.input_pipeline import foreign_tokenizer

    return foreign_tokenizer.read(directory, str(name), whose, options or {})


def load_tokenizer(directory: Path | str) -> Tokenizer:
    """Reads what a `Tokenizer` saved.

    Raises:
      UserError: a file is missing or damaged.
    """
    directory = Path(directory)
    rules, pieces, captions = (
        (directory / name).is_file() for name in (ONE_FILE, PIECES_FILE, CAPTIONS_FILE)
    )
    if not captions and not (rules or pieces):
        return CLIPTokenizer.load(directory)
    if not captions:
        raise UserError(
            f"{directory} lacks {CAPTIONS_FILE}, which says how captions are read: convert the "
            "model again with --tokenizer"
        )
    if not (rules or pieces):
        raise UserError(
            f"{directory} lacks its {ONE_FILE} or {PIECES_FILE}: convert the model again with "
            "--tokenizer"
        )
    from glscl_jax.input_pipeline.family_tokenizer import JSONTokenizer, SentencePieceTokenizer

    return (SentencePieceTokenizer if pieces else JSONTokenizer).load(directory)


def _class_of(directory: Path, kind: str) -> str | None:
    """Which class of transformers opens a directory; None for CLIP's, or for no tokenizer."""
    clips = all((directory / name).is_file() for name in (VOCABULARY_FILE, MERGES_FILE))
    rules = (directory / ONE_FILE).is_file()
    whose = read_settings(directory / CONFIG_FILE).get("tokenizer_class")
    if whose is None:
        of_model = _OF_MODELS.get(str(read_object(directory / _MODEL_FILE).get("model_type")))
        if (of_model, kind) == ("siglip", "siglip2"):
            of_model = kind  # Both are called siglip, and only their vocabularies tell them apart.
        whose = None if clips else _CLASSES.get(of_model or "")
    if whose in (None, *_ANY):
        if clips or not rules or _has_clips_end(directory):
            return None
        return _CLASSES.get(kind, _ANY[0])
    whose = whose.removesuffix("Fast")
    # CLIP's files by another class are looked into, and refused for what is other in them.
    return None if whose == "CLIPTokenizer" or (clips and not rules) else whose


def _has_clips_end(directory: Path) -> bool:
    model = read_object(directory / ONE_FILE).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    return isinstance(vocab, dict) and END in vocab


def _from_hub(name: Path | str) -> Path:
    """The hub's files of that name, fetched or (offline) from the cache."""
    import huggingface_hub

    files = [*FILES, PIECES_FILE, CAPTIONS_FILE, _MODEL_FILE, "*.model", "vocab.txt"]
    try:
        return Path(huggingface_hub.snapshot_download(str(name), allow_patterns=files))
    except Exception as error:  # the hub's client has no narrower one
        raise UserError(not_found(name)) from error
