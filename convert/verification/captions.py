"""Captions in a source's own library and here: the same ids, or a line on which differ."""

from convert.readers import open_clip
from convert.readers.source import Source
from convert.verification.verify import LONG_CAPTION
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer

CAPTIONS = (
    "a man plays the guitar",
    "A Woman, cooking in 3 steps!",
    "two dogs - one café; it's 50% rain",
    "",
    LONG_CAPTION * 50,
)


def compare(origin: Source, tokenizer: Tokenizer | None, length: int) -> str:
    """Holds a directory's tokenizer against what its library makes of the same files.

    Args:
      origin: the source.
      tokenizer: that was read.
      length: places of a caption.

    Returns:
      In which library; "" where there is no tokenizer beside the weights, or nothing to read it.

    Raises:
      UserError: naming the first caption whose ids differ.
    """
    if tokenizer is None or origin.tokenizer is None or tokenizer.kind == "videoprism":
        # VideoPrism's cleaning is not in transformers.
        return ""
    found = _open_clips(origin, length) if origin.tokenizer_options else _transformers(origin)
    if found is None:
        return ""
    title, encode = found
    for caption in CAPTIONS:
        ours, theirs = tokenizer([caption], length), encode(caption, length)
        real = ours.ids[0][ours.mask[0] > 0].tolist()
        # CLIP's are padded with their end in transformers, and with 0 by OpenAI and here.
        same = theirs[: len(real)] if tokenizer.kind == "clip" else theirs
        if same != (real if tokenizer.kind == "clip" else ours.ids[0].tolist()):
            raise UserError(
                f"{origin.path}: {title} makes other ids of {caption[:40]!r}: {theirs[:12]}, here "
                f"{real[:12]}; nothing was written"
            )
    return title


def _transformers(origin: Source):
    import transformers

    config = transformers.models.auto.tokenization_auto.get_tokenizer_config(origin.tokenizer)
    # Gemma's of SigLIP 2, which is to be in lower case, says so itself in newer files alone.
    gemmas = str(config.get("tokenizer_class")).removesuffix("Fast") == "GemmaTokenizer"
    opener = transformers.Siglip2Tokenizer if gemmas else transformers.AutoTokenizer
    options = {"local_files_only": True}
    if opener is transformers.AutoTokenizer:
        # Nothing that lies in the directory is run, and nobody is asked.
        options["trust_remote_code"] = False
    own = opener.from_pretrained(str(origin.tokenizer), **options)

    def encode(caption: str, length: int) -> list[int]:
        found = own([caption], padding="max_length", truncation=True, max_length=length)
        return found["input_ids"][0]

    return f"transformers.{type(own).__name__}", encode


def _open_clips(origin: Source, length: int):
    from convert.verification import torch_open_clip

    if torch_open_clip._library() is None:
        return None
    from open_clip.tokenizer import HFTokenizer

    text = open_clip.model_settings(origin.path).get("text_cfg", {})
    options = text.get("tokenizer_kwargs") or {}
    own = HFTokenizer(str(origin.tokenizer), context_length=length, **options)
    return "open_clip.HFTokenizer", lambda caption, _: own([caption])[0].tolist()
