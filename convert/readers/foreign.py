"""Models that cannot be converted, told from their tensors' names and called what they are."""

import re
from collections.abc import Iterable

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.images import CLIP_MEAN, CLIP_STD

# In this order: a SigLIP may have a timm tower, too.
_KINDS = {
    r"(.*\.)?logit_bias|vision_model\.head\.probe": "a SigLIP model",
    r"(.*\.)?visual\.(layer[1-4]\.\d+|attnpool)\..*": "a ResNet CLIP",
    r"(.*\.)?visual\.trunk\..*": "a CLIP whose vision tower is a timm model",
    r"(.*\.)?text\.transformer\.(embeddings|encoder)\..*": "a CLIP with a BERT-like text tower",
    r"(.*\.)?text_decoder\..*": "a CoCa, a CLIP with a text decoder",
    r"(.*\.)?visual\.attn_pool\..*": "a CLIP with an attentional pooler",
    r"(.*\.)?ls_[12]\.gamma": "a CLIP with LayerScale",
    r"(.*\.)?attn\.(ln_[qk]|logit_scale|head_scale)(\..*)?": "a CLIP with an attention of its own",
}
_VISION = r"(.*\.)?(visual\.|vision_model\.|vision_tower\.|conv1\.|patch_embed).*"
_TEXT = r"(.*\.)?(token_embedding|word_embeddings|text_projection|lm_head|embed_tokens)(\..*)?"

# open_clip's larger models, by the width of their vision tower: the names do not show the heads,
# whose width is another there.
_WIDE_HEADS = {
    1280: ("ViT-H", 80),
    1408: ("ViT-g", 88),
    1664: ("ViT-bigG", 104),
    1792: ("ViT-e", 112),
}
# Models with OpenAI's names that take a sentence from elsewhere than the highest id, by the rows of
# their token embedding.
_VOCABULARIES = {
    901_629: "a MetaCLIP 2 worldwide",
    250_100: "a MetaCLIP 2 worldwide",
    32_000: "a CLIPA",
}


def refuse_foreign(names: Iterable[str], source: str) -> None:
    """Raises a `UserError` that calls the model by its name, if it is none that is converted."""
    names = list(names)
    for pattern, kind in _KINDS.items():
        if found := _first(pattern, names):
            raise UserError(_message(source, kind, found))
    text, vision = _first(_TEXT, names), _first(_VISION, names)
    if text and not vision:
        raise UserError(_message(source, "a text model without a vision tower", text))


def refuse_wide_heads(config: CLIPConfig, source: str) -> None:
    """Raises a `UserError` for sizes at which open_clip's heads are of another width."""
    if config.vision_width in _WIDE_HEADS:
        name, width = _WIDE_HEADS[config.vision_width]
        raise UserError(
            f"{source} is an open_clip {name} (vision width {config.vision_width}), whose heads "
            f"are {width} wide, which the file does not say: convert the directory with its "
            "open_clip_config.json"
        )


def refuse_vocabulary(config: CLIPConfig, source: str) -> None:
    """Raises a `UserError` for a vocabulary with which sentences are taken from another place."""
    if kind := _VOCABULARIES.get(config.vocab_size):
        raise UserError(
            f"{source} is {kind} ({config.vocab_size:,} token ids), which does not take a sentence "
            "from the highest id, as the model here does: it cannot be converted"
        )


def refuse_statistics(mean, std, source: str) -> None:
    """Raises a `UserError` if images are normalised by others than CLIP's mean and deviation."""
    for found, expected in ((mean, CLIP_MEAN), (std, CLIP_STD)):
        if found is not None and not _are_close(found, expected):
            raise UserError(
                f"{source}: its images are normalised by {found}, here by CLIP's {list(expected)}: "
                "such a model cannot be converted"
            )


def _are_close(found, expected: tuple[float, ...]) -> bool:
    try:
        return np.shape(found) == (3,) and np.allclose(found, expected, rtol=0, atol=1e-4)
    except (TypeError, ValueError):
        return False


def _first(pattern: str, names: list[str]) -> str | None:
    return next((name for name in names if re.fullmatch(pattern, name)), None)


def _message(source: str, kind: str, name: str) -> str:
    return (
        f"{source} is {kind} (it has {name}): what can be converted is a CLIP of two transformers, "
        "such as ViT-B/32"
    )
