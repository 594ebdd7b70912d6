"""Encoders by name: the models that people use, family by family, and a small one of each.

A name says what a model is, not what it was trained on: "ViT-B/32" is OpenAI's, LAION's and
DataComp's. docs/encoders.md has their parameters and where their weights are.
"""

import dataclasses

from glscl_jax.models.encoders.clip_config import CLIPConfig

_of = dataclasses.replace
# From -1 to 1.
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}

# ---- OpenAI's, and open_clip's of the same build ------------------------------------------------

_LARGE = CLIPConfig(
    patch_size=14,
    vision_width=1024,
    vision_layers=24,
    text_width=768,
    embed_dim=768,
)
_TINY = CLIPConfig(
    image_size=32,
    patch_size=16,
    vision_width=128,
    vision_layers=2,
    text_width=128,
    text_layers=4,
    embed_dim=128,
    context_length=32,
    vocab_size=1024,
)
_OPENAI = {
    "tiny": _TINY,
    "ViT-B/32": CLIPConfig(),
    "ViT-B/16": CLIPConfig(patch_size=16),
    "ViT-L/14": _LARGE,
    "ViT-L/14@336": _of(_LARGE, image_size=336),
}

# Most were trained with the exact GELU; DFN's and MetaCLIP's with the quick one.
_HUGE = _of(
    _LARGE,
    vision_width=1280,
    vision_layers=32,
    vision_head_width=80,
    text_width=1024,
    text_layers=24,
    embed_dim=1024,
    activation="gelu",
)
_BIG = _of(
    _HUGE,
    vision_width=1664,
    vision_layers=48,
    vision_head_width=104,
    vision_mlp_width=8192,
    text_width=1280,
    text_layers=32,
    embed_dim=1280,
)
_OPEN_CLIP = {
    "tiny-bigG": _of(
        _TINY, vision_head_width=32, vision_mlp_width=320, text_head_width=32, activation="gelu"
    ),
    "ViT-H/14": _HUGE,
    "ViT-H/14@378": _of(_HUGE, image_size=378, activation="quick_gelu", resize="squash"),
    "ViT-g/14": _of(
        _HUGE,
        vision_width=1408,
        vision_layers=40,
        vision_head_width=88,
        vision_mlp_width=6144,
    ),
    "ViT-bigG/14": _BIG,
}

# ---- MetaCLIP 2 worldwide: xlm-v's vocabulary, whose end token is not its highest id -------------

_WORLDWIDE = {
    "vocab_size": 901_629,
    "text_pooling": "end",
    "end_id": 2,
    "tokenizer": "xlm_v",
}
_METACLIP_2 = {
    "tiny-MetaCLIP2": _of(
        _TINY,
        vision_head_width=32,
        **_WORLDWIDE | {"vocab_size": 1280},
    ),
    "MetaCLIP2-H/14": _of(_HUGE, activation="quick_gelu", **_WORLDWIDE),
    "MetaCLIP2-H/14@378": _of(_HUGE, image_size=378, resize="squash", **_WORLDWIDE),
    "MetaCLIP2-bigG/14": _of(_BIG, **_WORLDWIDE),
    "MetaCLIP2-bigG/14@378": _of(_BIG, image_size=378, resize="squash", **_WORLDWIDE),
}

# ---- CLIPA: the mean of the patches, and texts in BERT's tokens that see everything --------------

_AVERAGED = {
    "pre_norm": False,
    "vision_pooling": "mean",
    "causal": False,
    "text_pooling": "last",
    # BERT's.
    "tokenizer": "json",
    "activation": "gelu",
    "resize": "squash",
    "interpolation": "bilinear",
    # ImageNet's.
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": (0.229, 0.224, 0.225),
}
_CLIPA_TEXT = {"context_length": 32, "vocab_size": 32_000}
_CLIPA = {
    "tiny-CLIPA": _of(_TINY, **_AVERAGED),
    "CLIPA-L/14": _of(_LARGE, **_AVERAGED, **_CLIPA_TEXT),
    "CLIPA-L/14@336": _of(_LARGE, image_size=336, **_AVERAGED, **_CLIPA_TEXT),
    "CLIPA-H/14": _of(_HUGE, **_AVERAGED, **_CLIPA_TEXT),
    "CLIPA-H/14@336": _of(_HUGE, image_size=336, **_AVERAGED, **_CLIPA_TEXT),
    "CLIPA-bigG/14": _of(_BIG, **_AVERAGED, **_CLIPA_TEXT),
    "CLIPA-bigG/14@336": _of(_BIG, image_size=336, **_AVERAGED, **_CLIPA_TEXT),
}

# ---- SigLIP and SigLIP 2 of fixed size ----------------------------------------------------------

_SIGMOID = {
    "activation": "gelu_tanh",
    "layer_norm_epsilon": 1e-6,
    "patch_bias": True,
    "class_token": False,
    "pre_norm": False,
    "vision_pooling": "probe",
    "vision_projection": "none",
    "causal": False,
    "text_pooling": "last",
    "text_projection": "biased",
    "logit_bias": True,
    "tokenizer": "siglip",
    "resize": "squash",
    **_HALF,
}
_SIGLIP_B = CLIPConfig(
    patch_size=16,
    text_width=768,
    embed_dim=768,
    context_length=64,
    vocab_size=32_000,
    **_SIGMOID,
)
_SIGLIP_L = _of(
    _SIGLIP_B,
    image_size=256,
    vision_width=1024,
    vision_layers=24,
    text_width=1024,
    text_layers=24,
    embed_dim=1024,
)
# Shape-optimised, of 400 million parameters (Alabdulmohsin et al., 2023).
_SIGLIP_SO = _of(
    _SIGLIP_B,
    patch_size=14,
    vision_width=1152,
    vision_layers=27,
    vision_head_width=72,
    vision_mlp_width=4304,
    text_width=1152,
    text_layers=27,
    text_head_width=72,
    text_mlp_width=4304,
    embed_dim=1152,
)
_GEMMA = {"vocab_size": 256_000, "tokenizer": "siglip2"}
_SIGLIP = {
    "tiny-SigLIP": _of(
        _TINY,
        vision_head_width=32,
        vision_mlp_width=320,
        text_mlp_width=320,
        context_length=16,
        **_SIGMOID,
    ),
    "SigLIP-B/16": _SIGLIP_B,
    "SigLIP-B/16@384": _of(_SIGLIP_B, image_size=384),
    "SigLIP-L/16@256": _SIGLIP_L,
    "SigLIP-L/16@384": _of(_SIGLIP_L, image_size=384),
    "SigLIP-SO400M/14": _of(_SIGLIP_SO, context_length=16),
    "SigLIP-SO400M/14@378": _of(_SIGLIP_SO, image_size=378),
    "SigLIP2-B/32@256": _of(_SIGLIP_B, patch_size=32, image_size=256, **_GEMMA),
    "SigLIP2-B/16": _of(_SIGLIP_B, **_GEMMA),
    "SigLIP2-B/16@384": _of(_SIGLIP_B, image_size=384, **_GEMMA),
    "SigLIP2-L/16@256": _of(_SIGLIP_L, **_GEMMA),
    "SigLIP2-L/16@384": _of(_SIGLIP_L, image_size=384, **_GEMMA),
    "SigLIP2-SO400M/14": _of(_SIGLIP_SO, **_GEMMA),
    "SigLIP2-SO400M/16@256": _of(_SIGLIP_SO, patch_size=16, image_size=256, **_GEMMA),
    "SigLIP2-SO400M/16@384": _of(_SIGLIP_SO, patch_size=16, image_size=384, **_GEMMA),
    "SigLIP2-g/16@256": _of(
        _SIGLIP_SO,
        patch_size=16,
        image_size=256,
        vision_width=1536,
        vision_layers=40,
        vision_head_width=96,
        vision_mlp_width=None,
        embed_dim=1536,
        **_GEMMA,
    ),
}

# ---- The Perception Encoder's core models -------------------------------------------------------

_PERCEPTION = {
    "activation": "gelu",
    "rotary": True,
    "vision_pooling": "probe",
    "probe_heads": 8,
    "resize": "squash",
    "interpolation": "bilinear",
    **_HALF,
}
_PE_B = CLIPConfig(
    patch_size=16,
    text_width=1024,
    text_layers=24,
    embed_dim=1024,
    context_length=32,
    **_PERCEPTION,
)
# T and S are of other widths of text than the three of the paper.
_PE_S = _of(_PE_B, image_size=384, text_width=512, text_layers=12, embed_dim=512)
_PE = {
    "tiny-PE": _of(_TINY, vision_head_width=32, **_PERCEPTION),
    "tiny-PE-G": _of(
        _TINY,
        vision_mlp_width=320,
        class_token=False,
        probe_mlp_width=256,
        **_PERCEPTION,
    ),
    "PE-Core-T/16@384": _of(_PE_S, vision_width=192),
    "PE-Core-S/16@384": _of(_PE_S, vision_width=384),
    "PE-Core-B/16": _PE_B,
    "PE-Core-L/14@336": _of(
        _PE_B,
        image_size=336,
        patch_size=14,
        vision_width=1024,
        vision_layers=24,
    ),
    "PE-Core-G/14@448": _of(
        _PE_B,
        image_size=448,
        patch_size=14,
        vision_width=1536,
        vision_layers=50,
        vision_head_width=96,
        vision_mlp_width=8960,
        class_token=False,
        probe_mlp_width=6144,
        text_width=1280,
        embed_dim=1280,
        context_length=72,
    ),
}

# ---- VideoPrism's video-text models: frames that see each other ---------------------------------

_PRISM = {
    "activation": "gelu",
    "text_activation": "relu",
    "layer_norm_epsilon": 1e-6,
    "norm_offset": True,
    "attention_cap": 50.0,
    "patch_bias": True,
    "class_token": False,
    "pre_norm": False,
    "vision_pooling": "query",
    "vision_projection": "none",
    "text_pooling": "class",
    "tokenizer": "videoprism",
    "text_positions": "sinusoidal",
    "text_projection": "none",
    "resize": "squash",
    # Between 0 and 1.
    "image_mean": (0.0, 0.0, 0.0),
    "image_std": (1.0, 1.0, 1.0),
}
_PRISM_B = CLIPConfig(
    image_size=288,
    patch_size=18,
    text_width=768,
    embed_dim=768,
    context_length=64,
    vocab_size=32_000,
    time_layers=4,
    time_positions=16,
    auxiliary_layers=2,
    **_PRISM,
)
_VIDEOPRISM = {
    "tiny-VideoPrism": _of(
        _TINY,
        vision_head_width=32,
        context_length=64,
        time_layers=2,
        time_positions=4,
        auxiliary_layers=1,
        **_PRISM,
    ),
    "VideoPrism-B/18@288": _PRISM_B,
    "VideoPrism-L/18@288": _of(
        _PRISM_B,
        vision_width=1024,
        vision_layers=24,
        text_width=1024,
        embed_dim=1024,
        time_positions=8,
    ),
}

VARIANTS: dict[str, CLIPConfig] = {
    **_OPENAI,
    **_OPEN_CLIP,
    **_METACLIP_2,
    **_CLIPA,
    **_SIGLIP,
    **_PE,
    **_VIDEOPRISM,
}

# In which models of one name may differ.
_OWN = (
    "vocab_size",
    "tokenizer",
    "activation",
    "text_activation",
    "context_length",
    "resize",
    "interpolation",
    "image_mean",
    "image_std",
)


def variant_of(clip: CLIPConfig) -> str | None:
    """The name of a model's towers, whatever its vocabulary, activations, text positions and
    pictures.

    Where several have that name but for those, the one that has them, too.
    """
    alike = [
        name
        for name, config in VARIANTS.items()
        if dataclasses.replace(clip, **{key: getattr(config, key) for key in _OWN}) == config
    ]
    exact = (name for name in alike if VARIANTS[name] == clip)
    return next(exact, alike[0] if alike else None)
