"""The names of published checkpoints, each beside its Flax path. Data, applied by `rules`."""

import dataclasses

from convert.naming import sizes
from convert.naming.name_map import Row, Table
from convert.naming.videoprism_names import HUGGING_FACE_VIDEOPRISM, NPZ

_NORM = (("weight", "scale"), ("bias", "bias"))


def _norm(torch: str, flax: str) -> tuple[Row, ...]:
    return tuple(Row(f"{torch}.{theirs}", f"{flax}/{ours}") for theirs, ours in _NORM)


def _linear(torch: str, flax: str, parts: tuple[str, ...] = ()) -> tuple[Row, ...]:
    return (
        Row(f"{torch}.weight", f"{flax}/kernel", "linear", parts),
        Row(f"{torch}.bias", f"{flax}/bias", parts=parts),
    )


def _attention(torch: str, flax: str) -> tuple[Row, ...]:
    """torch.nn.MultiheadAttention, whose three projections are one tensor as here."""
    return (
        Row(f"{torch}.in_proj_weight", f"{flax}/qkv_kernel", "linear"),
        Row(f"{torch}.in_proj_bias", f"{flax}/qkv_bias"),
        *_linear(f"{torch}.out_proj", f"{flax}/out"),
    )


def _blocks(torch: str, flax: str) -> tuple[Row, ...]:
    """OpenAI's stack of residual attention blocks."""
    torch, flax = f"{torch}.resblocks.{{layer}}", f"{flax}/transformer/blocks"
    return (
        *_attention(f"{torch}.attn", f"{flax}/attention"),
        *_norm(f"{torch}.ln_1", f"{flax}/ln_1"),
        *_norm(f"{torch}.ln_2", f"{flax}/ln_2"),
        *_linear(f"{torch}.mlp.c_fc", f"{flax}/mlp_in"),
        *_linear(f"{torch}.mlp.c_proj", f"{flax}/mlp_out"),
    )


def _text_tower(torch: str) -> tuple[Row, ...]:
    return (
        Row(f"{torch}token_embedding.weight", "clip/text/token_embedding"),
        Row(f"{torch}positional_embedding", "clip/text/positional_embedding"),
        *_blocks(f"{torch}transformer", "clip/text"),
        *_norm(f"{torch}ln_final", "clip/text/ln_final"),
        Row(f"{torch}text_projection", "clip/text/projection"),
        *_linear(f"{torch}text_projection", "clip/text/projection"),
    )


def _probe(torch: str, query: str, attention: tuple[Row, ...], norm: str, mlp: str):
    """An attention probe: the names of its query, its attention, its norm and its two layers."""
    flax = "clip/vision/probe"
    return (
        Row(f"{torch}.{query}", f"{flax}/query", "token"),
        *(dataclasses.replace(row, torch=f"{torch}.{row.torch}") for row in attention),
        *_norm(f"{torch}.{norm}", f"{flax}/ln"),
        *_linear(f"{torch}.mlp.{mlp[0]}", f"{flax}/mlp_in"),
        *_linear(f"{torch}.mlp.{mlp[1]}", f"{flax}/mlp_out"),
    )


_PROBE_ATTENTION = "clip/vision/probe/attention"
_LOGITS = (Row("logit_scale", "clip/logit_scale"), Row("logit_bias", "clip/logit_bias"))


_VISION_TOWER = (
    *_LOGITS,
    Row("visual.conv1.weight", "clip/vision/patch_embedding", "convolution"),
    Row("visual.class_embedding", "clip/vision/class_embedding"),
    Row("visual.positional_embedding", "clip/vision/positional_embedding"),
    *_norm("visual.ln_pre", "clip/vision/ln_pre"),
    *_blocks("visual.transformer", "clip/vision"),
    *_norm("visual.ln_post", "clip/vision/ln_post"),
    # The Perception Encoder's own files have OpenAI's names and these.
    *_probe(
        "visual.attn_pool",
        "probe",
        _attention("attn", _PROBE_ATTENTION),
        "layernorm",
        ("c_fc", "c_proj"),
    ),
    Row("visual.proj", "clip/vision/projection"),
)


def _timm_tower(torch: str) -> tuple[Row, ...]:
    """timm's VisionTransformer, and its Eva as the Perception Encoder is one."""
    flax, blocks = "clip/vision", "clip/vision/transformer/blocks"
    layer = f"{torch}.blocks.{{layer}}"
    pool = (
        # The query's projection apart from those of keys and values.
        Row("{part}.weight", f"{_PROBE_ATTENTION}/qkv_kernel", "linear", ("q", "kv"), (1, 2)),
        Row("{part}.bias", f"{_PROBE_ATTENTION}/qkv_bias", "same", ("q", "kv"), (1, 2)),
        *_linear("proj", f"{_PROBE_ATTENTION}/out"),
    )
    return (
        Row(f"{torch}.patch_embed.proj.weight", f"{flax}/patch_embedding", "convolution"),
        Row(f"{torch}.patch_embed.proj.bias", f"{flax}/patch_bias"),
        Row(f"{torch}.cls_token", f"{flax}/class_embedding", "token"),
        Row(f"{torch}.pos_embed", f"{flax}/positional_embedding", "positions"),
        *_norm(f"{torch}.norm_pre", f"{flax}/ln_pre"),
        Row(f"{layer}.attn.qkv.weight", f"{blocks}/attention/qkv_kernel", "linear"),
        Row(f"{layer}.attn.qkv.bias", f"{blocks}/attention/qkv_bias"),
        *_linear(f"{layer}.attn.proj", f"{blocks}/attention/out"),
        *_norm(f"{layer}.norm1", f"{blocks}/ln_1"),
        *_norm(f"{layer}.norm2", f"{blocks}/ln_2"),
        *_linear(f"{layer}.mlp.fc1", f"{blocks}/mlp_in"),
        *_linear(f"{layer}.mlp.fc2", f"{blocks}/mlp_out"),
        *_norm(f"{torch}.norm", f"{flax}/ln_post"),
        *_probe(f"{torch}.attn_pool", "latent", pool, "norm", ("fc1", "fc2")),
        *_linear(f"{torch}.head", f"{flax}/projection"),
    )


# OpenAI's own files carry three sizes as entries; nobody else's do.
OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")

# open_clip kept these names.
OPENAI = Table(
    title="OpenAI CLIP",
    rows=(*_VISION_TOWER, *_text_tower("")),
    # Some files copy the causal mask.
    ignored=(*OPENAI_MARKS, "*attn_mask"),
    sizes=sizes.clip_config,
)
OPEN_CLIP = Table(
    title="open_clip with a text tower of its own",
    rows=(*_VISION_TOWER, *_text_tower("text.")),
    ignored=("*attn_mask",),
    sizes=sizes.clip_config,
)


OPEN_CLIP_TIMM = Table(
    title="open_clip over timm",
    rows=(*_LOGITS, *_timm_tower("visual.trunk"), *_text_tower("text.")),
    ignored=("*attn_mask",),
    sizes=sizes.clip_config,
)


# Query, key and value apart, as transformers writes them.
_APART = (
    Row("self_attn.{part}_proj.weight", "attention/qkv_kernel", "linear", ("q", "k", "v")),
    Row("self_attn.{part}_proj.bias", "attention/qkv_bias", parts=("q", "k", "v")),
)
# The three as one tensor, as programs for inference store them.
_FUSED = (
    Row("self_attn.qkv_proj.weight", "attention/qkv_kernel", "linear"),
    Row("self_attn.qkv_proj.bias", "attention/qkv_bias"),
)
_FUSED_AS_TORCH = (
    Row("self_attn.in_proj_weight", "attention/qkv_kernel", "linear"),
    Row("self_attn.in_proj_bias", "attention/qkv_bias"),
)


def _hugging_face_layers(torch: str, flax: str, projections: tuple[Row, ...]) -> tuple[Row, ...]:
    torch, flax = f"{torch}.encoder.layers.{{layer}}", f"{flax}/transformer/blocks"
    return (
        *(
            Row(f"{torch}.{row.torch}", f"{flax}/{row.flax}", row.layout, row.parts)
            for row in projections
        ),
        *_linear(f"{torch}.self_attn.out_proj", f"{flax}/attention/out"),
        *_norm(f"{torch}.layer_norm1", f"{flax}/ln_1"),
        *_norm(f"{torch}.layer_norm2", f"{flax}/ln_2"),
        *_linear(f"{torch}.mlp.fc1", f"{flax}/mlp_in"),
        *_linear(f"{torch}.mlp.fc2", f"{flax}/mlp_out"),
    )


def _hugging_face(title: str, projections: tuple[Row, ...]) -> Table:
    vision, text = "vision_model.embeddings", "text_model.embeddings"
    return Table(
        title=title,
        rows=(
            Row("logit_scale", "clip/logit_scale"),
            Row(f"{vision}.patch_embedding.weight", "clip/vision/patch_embedding", "convolution"),
            Row(f"{vision}.class_embedding", "clip/vision/class_embedding"),
            Row(f"{vision}.position_embedding.weight", "clip/vision/positional_embedding"),
            # Misspelt in transformers.
            *_norm("vision_model.pre_layrnorm", "clip/vision/ln_pre"),
            *_hugging_face_layers("vision_model", "clip/vision", projections),
            *_norm("vision_model.post_layernorm", "clip/vision/ln_post"),
            Row("visual_projection.weight", "clip/vision/projection", "linear"),
            Row(f"{text}.token_embedding.weight", "clip/text/token_embedding"),
            Row(f"{text}.position_embedding.weight", "clip/text/positional_embedding"),
            *_hugging_face_layers("text_model", "clip/text", projections),
            *_norm("text_model.final_layer_norm", "clip/text/ln_final"),
            Row("text_projection.weight", "clip/text/projection", "linear"),
        ),
        # 0, 1, 2 ..., which older versions saved.
        ignored=("*.position_ids",),
        sizes=sizes.clip_config,
    )


# MetaCLIP 2 has the same.
HUGGING_FACE = _hugging_face("Hugging Face CLIP", _APART)
HUGGING_FACE_FUSED = (
    _hugging_face("Hugging Face CLIP, fused attention", _FUSED),
    _hugging_face("Hugging Face CLIP, fused attention as in torch.nn", _FUSED_AS_TORCH),
)


_VISION, _TEXT = "vision_model.embeddings", "text_model.embeddings"
SIGLIP = Table(
    title="Hugging Face SigLIP",
    rows=(
        *_LOGITS,
        Row(f"{_VISION}.patch_embedding.weight", "clip/vision/patch_embedding", "convolution"),
        Row(f"{_VISION}.patch_embedding.bias", "clip/vision/patch_bias"),
        Row(f"{_VISION}.position_embedding.weight", "clip/vision/positional_embedding"),
        *_hugging_face_layers("vision_model", "clip/vision", _APART),
        *_norm("vision_model.post_layernorm", "clip/vision/ln_post"),
        *_probe(
            "vision_model.head",
            "probe",
            _attention("attention", _PROBE_ATTENTION),
            "layernorm",
            ("fc1", "fc2"),
        ),
        Row(f"{_TEXT}.token_embedding.weight", "clip/text/token_embedding"),
        Row(f"{_TEXT}.position_embedding.weight", "clip/text/positional_embedding"),
        *_hugging_face_layers("text_model", "clip/text", _APART),
        *_norm("text_model.final_layer_norm", "clip/text/ln_final"),
        *_linear("text_model.head", "clip/text/projection"),
    ),
    ignored=("*.position_ids",),
    sizes=sizes.clip_config,
)


def is_hugging_face(table: Table) -> bool:
    """Whether the names are transformers' own, fused or not."""
    return table is SIGLIP or table.row("visual_projection.weight") is not None


def _decoder(torch: str, flax: str) -> tuple[Row, ...]:
    """torch.nn.TransformerDecoder."""
    torch = f"{torch}.layers.{{layer}}"
    return (
        *_attention(f"{torch}.self_attn", f"{flax}/self_attention"),
        *_attention(f"{torch}.multihead_attn", f"{flax}/cross_attention"),
        *_linear(f"{torch}.linear1", f"{flax}/linear_1"),
        *_linear(f"{torch}.linear2", f"{flax}/linear_2"),
        *_norm(f"{torch}.norm1", f"{flax}/norm_1"),
        *_norm(f"{torch}.norm2", f"{flax}/norm_2"),
        *_norm(f"{torch}.norm3", f"{flax}/norm_3"),
    )


# The first of many text-video models that name their temporal module so.
CLIP4CLIP = Table(
    title="CLIP4Clip",
    rows=(
        *(dataclasses.replace(row, torch=f"clip.{row.torch}") for row in OPENAI.rows),
        Row("frame_position_embeddings.weight", "temporal/positional_embedding"),
        *_blocks("transformerClip", "temporal"),
        Row("lstm_visual.weight_ih_l0", "temporal/input_kernel", "linear"),
        Row("lstm_visual.weight_hh_l0", "temporal/recurrent_kernel", "linear"),
        Row("lstm_visual.bias_ih_l0", "temporal/input_bias"),
        Row("lstm_visual.bias_hh_l0", "temporal/recurrent_bias"),
    ),
    # Saved with the LSTM too, which has no use for it.
    ignored=("frame_position_embeddings.weight",),
    sizes=sizes.clip4clip_config,
    parts=("clip", "temporal"),
)
GLSCL = Table(
    title="GLSCL",
    rows=(
        *CLIP4CLIP.rows,
        Row("spatial_queries", "lim/queries"),
        Row("noun_queries", "lim/text_queries"),
        *_decoder("transformer_decoder_noun", "lim/decoder"),
        *_decoder("transformer_decoder_spatial", "lim/video_decoder"),
    ),
    ignored=(
        *CLIP4CLIP.ignored,
        # Never used.
        "weight_fc.*",
        "decoder_layer_noun.*",
        "decoder_layer_spatial.*",
        # Saved always, used only where sharing is off.
        "noun_queries",
        "transformer_decoder_spatial.*",
    ),
    sizes=sizes.glscl_config,
    parts=("clip", "temporal", "lim"),
)

# In this order: of two tables that know as many names, the first is the narrower.
FORMATS = (
    OPENAI,
    OPEN_CLIP,
    OPEN_CLIP_TIMM,
    HUGGING_FACE,
    SIGLIP,
    *HUGGING_FACE_FUSED,
    HUGGING_FACE_VIDEOPRISM,
    NPZ,
    CLIP4CLIP,
    GLSCL,
)
