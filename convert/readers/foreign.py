"""Models that cannot be converted, told from their tensors' names and called what they are."""

import re
from collections.abc import Iterable

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.models.encoders.images import CLIP_MEAN, CLIP_STD

# In this order: of what two have, the one that has more besides comes first.
_TRUNK = r"(.*\.)?visual\.trunk\."
_CONVOLVED = "a MobileCLIP or ViTamin, whose vision tower has convolutions"
_KINDS = {
    r"(.*\.)?visual\.(layer[1-4]\.\d+|attnpool)\..*": "a ResNet CLIP",
    rf"{_TRUNK}(patch_embed\.backbone|stages\.\d+\.blocks\.\d+\.token_mixer)\..*": _CONVOLVED,
    rf"{_TRUNK}(stem|stages)\..*": "a ConvNeXt CLIP",
    rf"{_TRUNK}blocks\.\d+\.(attn\.(q_bias|q_proj\..*|norm\..*)|mlp\.fc1_g\..*)": "an EVA CLIP",
    r"(.*\.)?vision_model\.embeddings\.patch_embedding\.linear\..*": "a SigLIP 2 of NaFlex",
    r"(.*\.)?text\.transformer\.(embeddings|encoder)\..*": "a CLIP with a BERT-like text tower",
    r"(.*\.)?text_decoder\..*": "a CoCa, a CLIP with a text decoder",
    r"(.*\.)?visual\.attn_pool\.(query|ln_[qk]).*": "a CLIP with CoCa's attentional pooler",
    r"(.*\.)?ls_[12]\.gamma": "a CLIP with LayerScale",
    r"(.*\.)?attn\.(ln_[qk]|logit_scale|head_scale)(\..*)?": "a CLIP with an attention of its own",
}
_VISION = r"(.*\.)?(visual\.|vision_model\.|vision_tower\.|conv1\.|patch_embed).*"
_TEXT = r"(.*\.)?(token_embedding|word_embeddings|text_projection|lm_head|embed_tokens)(\..*)?"


def refuse_foreign(names: Iterable[str], source: str) -> None:
    """Raises a `UserError` that calls the model by its name, if it is none that is converted."""
    names = list(names)
    for pattern, kind in _KINDS.items():
        if found := _first(pattern, names):
            raise UserError(_message(source, kind, found))
    text, vision = _first(_TEXT, names), _first(_VISION, names)
    if text and not vision:
        raise UserError(_message(source, "a text model without a vision tower", text))


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
        "such as ViT-B/32, SigLIP-B/16 or PE-Core-B/16"
    )
