"""GLSCL: CLIP's towers, the temporal module and the LIM; texts and videos to features.

Zhang et al., "Text-Video Retrieval with Global-Local Semantic Consistent Learning", 2024.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from glscl_jax import ranges
from glscl_jax.models.encoders import attention, temporal
from glscl_jax.models.encoders.clip import CLIP, VARIANTS, CLIPConfig, normalize, sentence_feature
from glscl_jax.models.encoders.transformer import ACTIVATIONS, REMAT_KINDS
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import Head
from glscl_jax.models.heads.lim import LIM
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.ranges import EITHER, OneOf, Real, Whole

_RANGES = {
    "temporal": OneOf(temporal.KINDS),
    "temporal_layers": Whole(1),
    "queries": Whole(1),
    "lim_layers": Whole(1),
    "lim_heads": Whole(1),
    "lim_feed_forward": Whole(1),
    "lim_dropout": Real(least=0, below=1),
    "share_queries": EITHER,
    "share_decoder": EITHER,
    "temperature": Real(above=0),
    "lim_weight": Real(least=0),
    "dtype": OneOf(("float32", "bfloat16", "float16")),
    "remat": OneOf(REMAT_KINDS),
    "scan": EITHER,
    "attention": OneOf(attention.KINDS),
}
_CLIP_RANGES = {
    field.name: Whole(1) for field in dataclasses.fields(CLIPConfig) if field.name != "activation"
} | {"activation": OneOf(tuple(ACTIVATIONS))}


@dataclasses.dataclass(frozen=True)
class GLSCLConfig:
    """What shapes the model and its score; the defaults are the reference's.

    Attributes:
      clip: sizes of the towers.
      temporal: a name of `temporal.KINDS`.
      temporal_layers: blocks of "seqTransf".
      queries: K, the learnable queries.
      lim_layers, lim_heads, lim_feed_forward: the LIM decoder's sizes.
      lim_dropout: of the LIM decoder, the model's only dropout.
      share_queries, share_decoder: whether texts and videos share them.
      temperature: of the GIM's softmax over frames.
      lim_weight: of the LIM's score beside the GIM's.
      dtype: of the computation: "float32", "bfloat16" or "float16"; parameters are float32.
      remat: what the backward pass recomputes, a name of `transformer.REMAT_KINDS`.
      scan: whether the compiled program loops over layers or has each written out.
      attention: of the towers and of "seqTransf", a name of `attention.KINDS`.
    """

    clip: CLIPConfig = VARIANTS["ViT-B/32"]
    temporal: str = "seqTransf"
    temporal_layers: int = 4
    queries: int = 8
    lim_layers: int = 3
    lim_heads: int = 8
    lim_feed_forward: int = 2048
    lim_dropout: float = 0.1
    share_queries: bool = True
    share_decoder: bool = True
    temperature: float = 3.0
    lim_weight: float = 0.5
    dtype: str = "float32"
    remat: str = "auto"
    scan: bool = True
    attention: str = "auto"

    @property
    def most_frames(self) -> int | None:
        """So many frames have a place in the temporal module; none for as many as you like."""
        return self.clip.context_length if self.temporal == "seqTransf" else None

    @property
    def head(self) -> GLSCLHead:
        """What scores the model's features."""
        return GLSCLHead(self.temperature, self.lim_weight)


class GLSCL(nn.Module):
    """The model. `encode_text` and `encode_video` are its two sides; nothing crosses them."""

    config: GLSCLConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.clip = CLIP(config.clip, dtype, config.remat, config.scan, config.attention)
        if config.temporal == "seqTransf":
            self.temporal = temporal.TemporalTransformer(
                config.temporal_layers,
                config.clip.context_length,
                dtype,
                config.remat,
                config.scan,
                config.attention,
            )
        elif config.temporal == "seqLSTM":
            self.temporal = temporal.TemporalLSTM(dtype)
        self.lim = LIM(
            config.queries,
            config.lim_layers,
            config.clip.embed_dim,
            config.lim_heads,
            config.lim_feed_forward,
            config.lim_dropout,
            config.share_queries,
            config.share_decoder,
            dtype,
            config.scan,
        )

    def encode_text(self, ids, mask, deterministic: bool = True) -> TextFeatures:
        """ids int32 [A,L] and mask int32 [A,L], 1 on real tokens."""
        tokens = self.clip.text(ids, mask)
        return TextFeatures(sentence_feature(tokens, ids), self.lim.text(tokens, deterministic))

    def encode_frames(self, frames, mask) -> jax.Array:
        """Frame features [B,V,D] before the LIM; arguments as `encode_video`'s."""
        batch, count = frames.shape[:2]
        images = normalize(frames, mask)
        features = self.clip.vision(images.reshape(-1, *images.shape[2:]))
        features = features.reshape(batch, count, -1)
        return features if self.config.temporal == "None" else self.temporal(features, mask)

    def encode_video(self, frames, mask, deterministic: bool = True) -> VideoFeatures:
        """frames uint8 [B,V,H,W,3] (or float, already normalised); mask int32 [B,V]."""
        features = self.encode_frames(frames, mask)
        return VideoFeatures(features, mask, self.lim.video(features, deterministic))

    def __call__(self, ids, text_mask, frames, frame_mask, deterministic: bool = True):
        """Both sides of a batch -> (TextFeatures, VideoFeatures, logit scale float32 [])."""
        return (
            self.encode_text(ids, text_mask, deterministic),
            self.encode_video(frames, frame_mask, deterministic),
            self.clip.logit_scale.astype(jnp.float32),
        )


class WithoutLIM(GLSCL):
    """CLIP's towers and, where there is one, the temporal module; features have no queries."""

    def encode_text(self, ids, mask, deterministic: bool = True) -> TextFeatures:
        sentence = sentence_feature(self.clip.text(ids, mask), ids)
        return TextFeatures(sentence, _no_queries(sentence))

    def encode_video(self, frames, mask, deterministic: bool = True) -> VideoFeatures:
        features = self.encode_frames(frames, mask)
        return VideoFeatures(features, mask, _no_queries(features[:, 0]))


def _no_queries(features: jax.Array) -> jax.Array:
    """float32 [A,0,D] for features [A,D]."""
    return jnp.zeros((features.shape[0], 0, features.shape[1]), jnp.float32)


def model_of(config: GLSCLConfig, params: Mapping) -> GLSCL:
    """The model whose parameters these are; `config` has defaults for parts that they lack."""
    if "temporal" not in params:
        config = dataclasses.replace(config, temporal="None")
    return GLSCL(config) if "lim" in params else WithoutLIM(config)


def head_of(config: GLSCLConfig, params: Mapping) -> Head:
    """What scores the features of `model_of`: without a LIM the mean of the frames."""
    return config.head if "lim" in params else MeanHead()


def model_config(settings: dict) -> GLSCLConfig:
    """A `GLSCLConfig` from plain values, as JSON or a config file hold them.

    Args:
      settings: `clip` is a dict of `CLIPConfig` fields, of which `variant` names a row of
        `VARIANTS` that the others change, where they are not None; the rest are fields of
        `GLSCLConfig`.

    Raises:
      ValueError: naming the unknown key, variant or kind, or sizes that do not fit together.
    """
    settings = dict(settings)
    clip = dict(settings.pop("clip"))
    variant = clip.pop("variant", None) or "ViT-B/32"
    clip = {name: value for name, value in clip.items() if value is not None}
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: there are {', '.join(VARIANTS)}")
    config = GLSCLConfig(
        clip=_replace(VARIANTS[variant], clip, "clip"),
    )
    config = _replace(config, settings, "model")
    _check(config)
    return config


def _replace(config, changes: dict, where: str):
    known = {field.name for field in dataclasses.fields(config)}
    for key in changes:
        if key not in known:
            raise ValueError(
                f"{where} has no setting {key!r}: there are {', '.join(sorted(known))}"
            )
    return dataclasses.replace(config, **changes)


def _check(config: GLSCLConfig) -> None:
    clip = config.clip
    ranges.check(vars(clip), _CLIP_RANGES)
    ranges.check(vars(config), _RANGES)
    if clip.image_size % clip.patch_size:
        raise ValueError(f"image_size {clip.image_size} is no multiple of patch {clip.patch_size}")
    for name in ("vision_width", "text_width", "embed_dim"):
        if getattr(clip, name) % 64:
            raise ValueError(f"{name} {getattr(clip, name)} is no multiple of 64, a head's width")
    if clip.embed_dim % config.lim_heads:
        raise ValueError(f"embed_dim {clip.embed_dim} is no multiple of {config.lim_heads} heads")


def model_settings(config: GLSCLConfig) -> dict:
    """The plain values that `model_config` turns back into `config`."""
    return dataclasses.asdict(config)


def init_params(model: GLSCL, seed: int) -> dict:
    """Fresh parameters, a pure function of `seed`."""
    clip = model.config.clip
    frames = jnp.zeros((1, 1, clip.image_size, clip.image_size, 3), jnp.uint8)
    ids = jnp.zeros((1, 2), jnp.int32)
    variables = model.init(
        jax.random.key(seed), ids, jnp.ones_like(ids), frames, jnp.ones((1, 1), jnp.int32)
    )
    return variables["params"]


def encode_text(params: dict, ids: jax.Array, mask: jax.Array, *, model: GLSCL) -> TextFeatures:
    """Features of A texts: ids and mask int32 [A,L]. No dropout."""
    return model.apply({"params": params}, ids, mask, method="encode_text")


def encode_video(
    params: dict, frames: jax.Array, mask: jax.Array, *, model: GLSCL
) -> VideoFeatures:
    """Features of B videos: frames uint8 [B,V,H,W,3], mask int32 [B,V]. No dropout."""
    return model.apply({"params": params}, frames, mask, method="encode_video")
