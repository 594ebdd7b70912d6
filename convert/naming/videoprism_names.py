"""The names of VideoPrism's video-text models, in its authors' npz files and in transformers.

The authors' arrays (google-deepmind/videoprism) have their layers stacked, as they are here; their
heads have an axis of their own, which `convert.readers.videoprism` folds and unfolds.
"""

import math

from convert.naming import sizes
from convert.naming.name_map import Row, Table

_TEXT, _VISION = "clip/text", "clip/vision"
# Trained without a temperature in its files: what a CLIP begins with.
_FRESH = {"clip/logit_scale": math.log(1 / 0.07)}


def _stack(theirs: str, ours: str) -> tuple[Row, ...]:
    theirs, ours = f"params/{theirs}/x_layers", f"{ours}/blocks"
    layers = {"layer_norm": "ln_1", "ff_layer/layer_norm": "ln_2"}
    mlps = {"ffn_layer1": "mlp_in", "ffn_layer2": "mlp_out"}
    return (
        *_attention(f"{theirs}/self_attention", f"{ours}/attention", "stacked_linear"),
        *(row for name, here in layers.items() for row in _norm(f"{theirs}/{name}", here, ours)),
        *(
            Row(f"{theirs}/ff_layer/{name}/linear/{what}", f"{ours}/{here}/{what}")
            for name, here in mlps.items()
            for what in ("kernel", "bias")
        ),
    )


def _attention(theirs: str, ours: str, out: str) -> tuple[Row, ...]:
    parts = ("query", "key", "value")
    return (
        Row(f"{theirs}/{{part}}/w", f"{ours}/qkv_kernel", parts=parts),
        Row(f"{theirs}/{{part}}/b", f"{ours}/qkv_bias", parts=parts),
        Row(f"{theirs}/post/w", f"{ours}/out/kernel", out),
        Row(f"{theirs}/post/b", f"{ours}/out/bias"),
    )


def _norm(theirs: str, name: str, ours: str) -> tuple[Row, ...]:
    return tuple(Row(f"{theirs}/{what}", f"{ours}/{name}/{what}") for what in ("scale", "bias"))


_POOLER = "params/contrastive_vision_pooler"
NPZ = Table(
    title="VideoPrism's npz",
    rows=(
        Row("params/vision_encoder/patch_projection/linear/kernel", f"{_VISION}/patch_embedding"),
        Row("params/vision_encoder/patch_projection/linear/bias", f"{_VISION}/patch_bias"),
        Row("params/vision_encoder/spatial_pos_emb/emb_var", f"{_VISION}/positional_embedding"),
        *_stack("vision_encoder/spatial_encoder/transformers_stack", f"{_VISION}/transformer"),
        *_norm("params/vision_encoder/spatial_ln", "ln_space", _VISION),
        Row("params/vision_encoder/temporal_pos_emb/emb_var", f"{_VISION}/time_embedding"),
        *_stack("vision_encoder/temporal_encoder/transformers_stack", f"{_VISION}/time"),
        *_norm("params/vision_encoder/temporal_ln", "ln_time", _VISION),
        *_stack("auxiliary_encoder/transformers_stack", f"{_VISION}/auxiliary"),
        Row(f"{_POOLER}/pooling_attention_query", f"{_VISION}/pooler/query", "row"),
        *_attention(f"{_POOLER}/pooling_attention", f"{_VISION}/pooler/attention", "linear"),
        Row(
            f"{_POOLER}/pooling_attention/per_dim_scale/per_dim_scale",
            f"{_VISION}/pooler/attention/dimension_scale",
        ),
        *_norm(f"{_POOLER}/pooling_attention_layer_norm", "ln", f"{_VISION}/pooler"),
        Row("params/text_encoder/token_emb/emb_var", f"{_TEXT}/token_embedding"),
        Row("params/text_encoder/cls_emb", f"{_TEXT}/class_embedding", "token"),
        *_stack("text_encoder/unimodal_transformer", f"{_TEXT}/transformer"),
        *_norm("params/text_encoder/unimodal_ln", "ln_final", _TEXT),
    ),
    ignored=(),
    sizes=sizes.clip_config,
    fresh=_FRESH,
)


def _linear(torch: str, flax: str) -> tuple[Row, ...]:
    return (
        Row(f"{torch}.weight", f"{flax}/kernel", "linear"),
        Row(f"{torch}.bias", f"{flax}/bias"),
    )


def _torch_norm(torch: str, flax: str) -> tuple[Row, ...]:
    return (Row(f"{torch}.weight", f"{flax}/scale"), Row(f"{torch}.bias", f"{flax}/bias"))


def _torch_attention(torch: str, flax: str) -> tuple[Row, ...]:
    parts = ("q", "k", "v")
    return (
        Row(f"{torch}.{{part}}_proj.weight", f"{flax}/qkv_kernel", "linear", parts),
        Row(f"{torch}.{{part}}_proj.bias", f"{flax}/qkv_bias", parts=parts),
        *_linear(f"{torch}.o_proj", f"{flax}/out"),
    )


def _torch_layers(torch: str, flax: str) -> tuple[Row, ...]:
    torch, flax = f"{torch}.{{layer}}", f"{flax}/blocks"
    return (
        *_torch_attention(f"{torch}.attention", f"{flax}/attention"),
        *_torch_norm(f"{torch}.layernorm_before", f"{flax}/ln_1"),
        *_torch_norm(f"{torch}.layernorm_after", f"{flax}/ln_2"),
        *_linear(f"{torch}.mlp.fc1", f"{flax}/mlp_in"),
        *_linear(f"{torch}.mlp.fc2", f"{flax}/mlp_out"),
    )


# How no other family's names begin.
MARK = "video_model."
_TOWER = f"{MARK}vision_model"
_PATCHES = f"{_TOWER}.spatial_embeddings.patch_embeddings.projection"
# The sinusoids, which are no parameters.
POSITIONS = "text_model.embeddings.position_embedding"
HUGGING_FACE_VIDEOPRISM = Table(
    title="Hugging Face VideoPrism",
    rows=(
        Row(f"{_PATCHES}.weight", f"{_VISION}/patch_embedding", "tubelets"),
        Row(f"{_PATCHES}.bias", f"{_VISION}/patch_bias"),
        Row(
            f"{_TOWER}.spatial_embeddings.position_embeddings",
            f"{_VISION}/positional_embedding",
            "positions",
        ),
        *_torch_layers(f"{_TOWER}.spatial_layers", f"{_VISION}/transformer"),
        *_torch_norm(f"{_TOWER}.layernorm1", f"{_VISION}/ln_space"),
        Row(
            f"{_TOWER}.temporal_embeddings.position_embeddings",
            f"{_VISION}/time_embedding",
            "positions",
        ),
        *_torch_layers(f"{_TOWER}.temporal_layers", f"{_VISION}/time"),
        *_torch_norm(f"{_TOWER}.layernorm2", f"{_VISION}/ln_time"),
        *_torch_layers("video_model.auxiliary_layers", f"{_VISION}/auxiliary"),
        Row("video_model.head.pooling_attention_query", f"{_VISION}/pooler/query", "token"),
        *_torch_attention("video_model.head", f"{_VISION}/pooler/attention"),
        Row("video_model.head.per_dim_scale", f"{_VISION}/pooler/attention/dimension_scale"),
        *_torch_norm("video_model.head_layernorm", f"{_VISION}/pooler/ln"),
        Row("text_model.embeddings.token_embedding.weight", f"{_TEXT}/token_embedding"),
        Row("text_model.embeddings.cls_emb", f"{_TEXT}/class_embedding", "token"),
        *_torch_layers("text_model.layers", f"{_TEXT}/transformer"),
        *_torch_norm("text_model.layernorm", f"{_TEXT}/ln_final"),
    ),
    ignored=(POSITIONS, "text_model.embeddings.position_ids"),
    sizes=sizes.clip_config,
    fresh=_FRESH,
)
