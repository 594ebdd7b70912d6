"""Whose tokens a text tower reads: what `CLIPConfig.tokenizer` may name."""

# A name, and what to call it in a message.
TOKENIZERS = {
    "clip": "CLIP's byte pairs",
    "siglip": "SigLIP's pieces (spiece.model)",
    "siglip2": "Gemma's tokenizer in lower case, as SigLIP 2 has it",
    "xlm_v": "XLM-V's tokenizer, as MetaCLIP 2 has it",
    "videoprism": "VideoPrism's pieces (a SentencePiece model)",
    # Of which nothing more is known: BERT's of CLIPA, mT5's, T5's of open_clip's SigLIP.
    "json": "a tokenizer.json by its own rules",
}


def may_be(kind: str, taken: str) -> bool:
    """Whether a tokenizer of a kind may be that of a model which takes the ids of `taken`."""
    if "json" in (kind, taken):
        return kind != "clip"  # Of a tokenizer.json it is not known whose it is.
    # Of a small vocabulary it is not said which of the two.
    return kind == taken or (kind, taken) == ("siglip2", "siglip")
