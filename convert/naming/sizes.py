"""A model's sizes read off its arrays, and the arrays off its sizes."""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip import CLIP
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, model_config, model_settings
from glscl_jax.models.heads.glscl import GLSCLHead

Shape = tuple[int, ...]


def clip_config(shapes: Mapping[str, Shape]) -> CLIPConfig:
    """The sizes of a CLIP whose Flax arrays have these shapes, by path from "clip/" on.

    What leaves no trace in the shapes (`HIDDEN`) is OpenAI's here.

    Raises:
      KeyError: with the path of an array that must be there.
      UserError: if the image is not square.
    """
    patch, _, _, vision_width = _shape(shapes, "clip/vision/patch_embedding", 4)
    vocab_size, text_width = _shape(shapes, "clip/text/token_embedding", 2)
    rows = _shape(shapes, "clip/vision/positional_embedding", 2)[0]
    # One that its positions ask for is missing, which is found later.
    class_token = "clip/vision/class_embedding" in shapes or math.isqrt(rows) ** 2 != rows
    patches = rows - class_token
    side = math.isqrt(patches)
    if side**2 != patches:
        raise UserError(
            f"the vision tower has {patches} patches, which make no square; only models of square "
            "images can be converted"
        )
    vision, text = "clip/vision/transformer/blocks", "clip/text/transformer/blocks"
    config = CLIPConfig(
        image_size=side * patch,
        patch_size=patch,
        vision_width=vision_width,
        vision_layers=_shape(shapes, f"{vision}/ln_1/scale", 2)[0],
        vision_mlp_width=_mlp_width(shapes, vision, vision_width),
        text_width=text_width,
        text_layers=_shape(shapes, f"{text}/ln_1/scale", 2)[0],
        text_mlp_width=_mlp_width(shapes, text, text_width),
        embed_dim=_embed_dim(shapes, text_width),
        context_length=_context_length(shapes),
        vocab_size=vocab_size,
        patch_bias="clip/vision/patch_bias" in shapes,
        class_token=class_token,
        pre_norm=any(path.startswith("clip/vision/ln_pre/") for path in shapes),
        vision_projection=_projection(shapes, "clip/vision/projection"),
        text_projection=_projection(shapes, "clip/text/projection"),
        logit_bias="clip/logit_bias" in shapes,
    )
    if "clip/vision/probe/query" in shapes:
        hidden = _shape(shapes, "clip/vision/probe/mlp_in/kernel", 2)[1]
        usual = config.vision_mlp_width or 4 * vision_width
        config = dataclasses.replace(
            config,
            vision_pooling="probe",
            probe_mlp_width=None if hidden == usual else hidden,
        )
    elif _is_of_videos(shapes):
        config = dataclasses.replace(
            config, **_of_videos(shapes), vision_head_width=_head_width(shapes, config)
        )
    elif not class_token:
        config = dataclasses.replace(config, vision_pooling="mean")
    return _checked(config)


# Settings that no array shows; of the pooling, a probe, a pooler of videos and a class token, or
# the lack of one, do show.
HIDDEN = (
    "vision_pooling",
    "activation",
    "text_activation",
    "vision_head_width",
    "text_head_width",
    "probe_heads",
    "layer_norm_epsilon",
    "norm_offset",
    "attention_cap",
    "rotary",
    "causal",
    "text_pooling",
    "end_id",
    "resize",
    "interpolation",
    "image_mean",
    "image_std",
    "tokenizer",
)


# Of a text tower whose positions are computed and in no table: VideoPrism's.
CONTEXT_LENGTH = 64


def _is_of_videos(shapes: Mapping[str, Shape]) -> bool:
    parts = tuple(f"clip/vision/{part}" for part in ("time", "auxiliary/", "pooler/"))
    return any(path.startswith(parts) for path in shapes)


def _context_length(shapes: Mapping[str, Shape]) -> int:
    if _is_of_videos(shapes):
        return CONTEXT_LENGTH
    return _shape(shapes, "clip/text/positional_embedding", 2)[0]


def _of_videos(shapes: Mapping[str, Shape]) -> dict[str, object]:
    """The settings of a tower of videos that arrays show, and of its text tower."""
    auxiliary = "clip/vision/auxiliary/blocks/ln_1/scale"
    return {
        "vision_pooling": "query",
        "time_layers": _shape(shapes, "clip/vision/time/blocks/ln_1/scale", 2)[0],
        "time_positions": _shape(shapes, "clip/vision/time_embedding", 2)[0],
        "auxiliary_layers": _shape(shapes, auxiliary, 2)[0] if auxiliary in shapes else 0,
        "text_positions": "sinusoidal",
        "text_pooling": "class",
    }


def _head_width(shapes: Mapping[str, Shape], config: CLIPConfig) -> int:
    """That of a tower of videos, whose pooler has as many heads, with a number a dimension."""
    (pooled,) = _shape(shapes, "clip/vision/pooler/attention/dimension_scale", 1)
    heads = config.vision_blocks.mlp_width // max(pooled, 1)
    return config.vision_width // heads if heads else config.vision_head_width


def _mlp_width(shapes: Mapping[str, Shape], blocks: str, width: int) -> int | None:
    """Hidden units, None for the usual number of them, or where they are missing."""
    hidden = shapes.get(f"{blocks}/mlp_in/kernel", (4 * width,))[-1]
    return None if hidden == 4 * width else hidden


def _projection(shapes: Mapping[str, Shape], path: str) -> str:
    """A name of `PROJECTIONS`."""
    if f"{path}/kernel" in shapes:
        return "biased"
    # Of a model with a matrix for its texts one for its images cannot be left out, but missing.
    return "matrix" if path in shapes or "clip/text/projection" in shapes else "none"


def _embed_dim(shapes: Mapping[str, Shape], text_width: int) -> int:
    kernel = "clip/text/projection/kernel"
    # SigLIP's without a projection (i18n) has a probe; to another model it belongs.
    if _is_of_videos(shapes):
        return text_width
    if kernel not in shapes and "clip/vision/probe/query" not in shapes:
        return _shape(shapes, "clip/text/projection", 2)[1]
    found = shapes.get(kernel) or shapes.get("clip/text/projection")
    return found[-1] if found else text_width


def clip4clip_config(shapes: Mapping[str, Shape]) -> GLSCLConfig:
    """The sizes of a CLIP and a temporal module; the LIM's are the defaults.

    Raises:
      KeyError, UserError: see `clip_config`.
    """
    blocks = "temporal/transformer/blocks/ln_1/scale"
    if blocks in shapes:
        temporal = {"temporal": "seqTransf", "temporal_layers": _shape(shapes, blocks, 2)[0]}
    else:
        temporal = {"temporal": "seqLSTM" if "temporal/input_kernel" in shapes else "None"}
    return _checked(GLSCLConfig(clip=clip_config(shapes), **temporal))


def glscl_config(shapes: Mapping[str, Shape]) -> GLSCLConfig:
    """The sizes of a GLSCL whose Flax arrays have these shapes.

    What leaves no trace in the shapes has its default: the LIM's number of heads, the
    temperature, the LIM's weight.

    Raises:
      KeyError, UserError: see `clip_config`.
    """
    lim_layers, _, feed_forward = _shape(shapes, "lim/decoder/linear_1/kernel", 3)
    head = GLSCLHead(
        queries=_shape(shapes, "lim/queries", 2)[0],
        lim_layers=lim_layers,
        lim_feed_forward=feed_forward,
        share_queries="lim/text_queries" not in shapes,
        share_decoder="lim/video_decoder/linear_1/kernel" not in shapes,
    )
    return _checked(dataclasses.replace(clip4clip_config(shapes), head=head))


def clip_of(config: CLIPConfig | GLSCLConfig) -> CLIPConfig:
    """The CLIP of a model."""
    return config if isinstance(config, CLIPConfig) else config.clip


def parameter_shapes(
    config: CLIPConfig | GLSCLConfig, parts: tuple[str, ...] = ("clip", "temporal", "lim")
) -> dict[str, Shape]:
    """Path -> shape of every Flax array of a model, or of these parts of it.

    A `CLIPConfig` stands for a CLIP alone; its paths begin with "clip/" too.
    """
    shapes = _every_shape(config)
    return {path: shape for path, shape in shapes.items() if path.split("/")[0] in parts}


# Traced, never run; half a second, and a conversion asks three times.
@functools.lru_cache(maxsize=32)
def _every_shape(config: CLIPConfig | GLSCLConfig) -> Mapping[str, Shape]:
    """The shapes of all parts, not to be changed."""
    clip = clip_of(config)
    ids = jnp.zeros((1, clip.fixed_length or 1), jnp.int32)
    image = jnp.zeros((1, clip.image_size, clip.image_size, 3))
    if isinstance(config, CLIPConfig):
        model, inputs, root = CLIP(clip), (image, ids, ids), ("clip",)
    else:
        model, inputs, root = GLSCL(config), (ids, ids, image[None], ids), ()
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    leaves = {
        "/".join([*root, jax.tree_util.keystr(path, simple=True, separator="/")]): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    }
    return types.MappingProxyType(leaves)


def _shape(shapes: Mapping[str, Shape], path: str, rank: int) -> Shape:
    if len(shapes.get(path, ())) != rank:
        raise KeyError(path)
    return shapes[path]


def _checked(config):
    """`config`, once its sizes are found to fit together."""
    alone = isinstance(config, CLIPConfig)
    try:
        model_config({"clip": dataclasses.asdict(config)} if alone else model_settings(config))
    except ValueError as error:
        raise UserError(f"sizes that no model here has: {error}") from error
    return config
