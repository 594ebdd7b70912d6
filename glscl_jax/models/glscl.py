"""GLSCL: CLIP's towers, the temporal module and the LIM; texts and videos to features.

Zhang et al., "Text-Video Retrieval with Global-Local Semantic Consistent Learning", 2024.
"""

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from glscl_jax import ranges
from glscl_jax.models.encoders import attention, temporal
from glscl_jax.models.encoders.clip import CLIP
from glscl_jax.models.encoders.clip_config import USUAL_HEAD, CLIPConfig
from glscl_jax.models.encoders.transformer import REMAT_KINDS
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.heads import dicosa, gim_alone, wti, x_pool  # noqa: F401 they register
from glscl_jax.models.heads.features import Features
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import Head
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.models.heads.settings import head_of_settings, names_of, settings_of_head
from glscl_jax.ranges import EITHER, OneOf, Whole

_RANGES = {
    "towers": EITHER,
    "temporal": OneOf(temporal.KINDS),
    "temporal_layers": Whole(1),
    "dtype": OneOf(("float32", "bfloat16", "float16")),
    "remat": OneOf(REMAT_KINDS),
    "scan": EITHER,
    "attention": OneOf(attention.KINDS),
}

# Settings that stood beside the others before heads had a section of their own: `model.json` and
# configs of then have them there.
OF_HEAD = tuple(names_of(GLSCLHead))

_DEFAULT_HEAD = GLSCLHead()


@dataclasses.dataclass(frozen=True)
class GLSCLConfig:
    """What shapes the model and its score; the defaults are the reference's.

    Attributes:
      clip: sizes of the towers.
      towers: whether it has encoders of its own. Without, it takes what others' encoders made
        (`from_features`), and of `clip` counts the width, and the context as places of frames.
      temporal: a name of `temporal.KINDS`.
      temporal_layers: blocks of "seqTransf".
      head: what makes features and scores of the encoders' output.
      dtype: of the computation: "float32", "bfloat16" or "float16"; parameters are float32.
      remat: what the backward pass recomputes, a name of `transformer.REMAT_KINDS`.
      scan: whether the compiled program loops over layers or has each written out.
      attention: of the towers and of "seqTransf", a name of `attention.KINDS`.
    """

    clip: CLIPConfig = VARIANTS["ViT-B/32"]
    towers: bool = True
    temporal: str = "seqTransf"
    temporal_layers: int = 4
    head: Head = _DEFAULT_HEAD
    dtype: str = "float32"
    remat: str = "auto"
    scan: bool = True
    attention: str = "auto"

    @property
    def most_frames(self) -> int | None:
        """So many frames have a place in the temporal module; none for as many as you like."""
        return self.clip.context_length if self.temporal == "seqTransf" else None


class GLSCL(nn.Module):
    """The model. `encode_text` and `encode_video` are its two sides; nothing crosses them."""

    config: GLSCLConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.clip = CLIP(config.clip, dtype, config.remat, config.scan, config.attention)
        if config.temporal == "seqTransf":
            self.temporal = temporal.TemporalTransformer(
                temporal.blocks_of(config.clip, config.temporal_layers),
                config.clip.context_length,
                dtype,
                config.remat,
                config.scan,
                config.attention,
            )
        elif config.temporal == "seqLSTM":
            self.temporal = temporal.TemporalLSTM(dtype)
        # Each by its own name: parameters of a head lie beside the encoders'.
        learned = _modules(config)
        for name, module in learned.items():
            setattr(self, name, module)
        self.of_head = tuple(learned)

    def _learned(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in self.of_head}

    def encode_text(self, ids, mask, deterministic: bool = True):
        """ids int32 [A,L] and mask int32 [A,L], 1 on real tokens -> the head's text features."""
        return self._text(*self.text_tower(ids, mask), mask, deterministic)

    def text_tower(self, ids, mask) -> tuple[jax.Array, jax.Array]:
        """What the encoder makes of texts: the sentence [A,D] and all tokens [A,L,D]."""
        return self.clip.texts(ids, mask)

    def frame_tower(self, frames, mask) -> jax.Array:
        """What the encoder makes of each frame, [B,V,D]; arguments as `encode_video`'s."""
        return self.clip.frames(self.config.clip.preprocessing.normalize(frames, mask), mask)

    def encode_frames(self, frames, mask) -> jax.Array:
        """Frame features [B,V,D] before the head; arguments as `encode_video`'s."""
        return self._over_time(self.frame_tower(frames, mask), mask)

    def _over_time(self, features, mask) -> jax.Array:
        return features if self.config.temporal == "None" else self.temporal(features, mask)

    def _text(self, sentence, tokens, mask, deterministic):
        return self.config.head.text(self._learned(), sentence, tokens, mask, deterministic)

    def _video(self, features, mask, deterministic):
        return self.config.head.video(self._learned(), features, mask, deterministic)

    def encode_video(self, frames, mask, deterministic: bool = True):
        """Videos to the head's features.

        Args:
          frames: uint8 [B,V,H,W,3], or float already normalised.
          mask: int32 [B,V], 1 on real frames.
          deterministic: no dropout.
        """
        return self._video(self.encode_frames(frames, mask), mask, deterministic)

    def text_features(self, sentence, text_mask, tokens=None, deterministic: bool = True):
        """As `encode_text`, of what an encoder made: `text_tower`'s, and mask int32 [A,L]."""
        return self._text(self._cast(sentence), self._cast(tokens), text_mask, deterministic)

    def video_features(self, frames, frame_mask, deterministic: bool = True):
        """As `encode_video`, of what an encoder made: `frame_tower`'s, and mask int32 [B,V]."""
        features = self._over_time(self._cast(frames), frame_mask)
        return self._video(features, frame_mask, deterministic)

    def _cast(self, features):
        return None if features is None else features.astype(jnp.dtype(self.config.dtype))

    def from_features(
        self, sentence, text_mask, frames, frame_mask, tokens=None, deterministic: bool = True
    ):
        """As a call, of what encoders made, see `text_features` and `video_features`."""
        return (
            self.text_features(sentence, text_mask, tokens, deterministic),
            self.video_features(frames, frame_mask, deterministic),
            self.clip.logit_scale.astype(jnp.float32),
        )

    def __call__(self, ids, text_mask, frames, frame_mask, deterministic: bool = True):
        """Both sides of a batch -> (text features, video features, logit scale float32 [])."""
        return (
            self.encode_text(ids, text_mask, deterministic),
            self.encode_video(frames, frame_mask, deterministic),
            self.clip.logit_scale.astype(jnp.float32),
        )


def _modules(config: GLSCLConfig) -> dict[str, nn.Module]:
    return config.head.modules(config.clip.embed_dim, jnp.dtype(config.dtype), config.scan)


def learned_parts(config: GLSCLConfig) -> tuple[str, ...]:
    """The parts of the parameters that are of the head: "lim", or none."""
    return tuple(_modules(config))


def config_of(config: GLSCLConfig, params: Mapping) -> GLSCLConfig:
    """The config of the model whose parameters these are: `config` without what they lack.

    Without what a head has learned the mean of the frames scores; a converted CLIP is that.
    """
    if "temporal" not in params:
        config = dataclasses.replace(config, temporal="None")
    if set(learned_parts(config)) - params.keys():
        config = dataclasses.replace(config, head=MeanHead())
    return config


def model_config(settings: dict) -> GLSCLConfig:
    """A `GLSCLConfig` from plain values, as JSON or a config file hold them.

    Args:
      settings: `clip` is a dict of `CLIPConfig` fields, of which `variant` names a row of
        `VARIANTS` that the others change, where they are not None; `head` is a dict of a head's
        `name` and its settings; the rest are fields of `GLSCLConfig`, or of `OF_HEAD`.

    Raises:
      ValueError: naming the unknown key, variant or kind, or sizes that do not fit together.
    """
    settings = dict(settings)
    clip = dict(settings.pop("clip"))
    variant = clip.pop("variant", None) or "ViT-B/32"
    # JSON has no tuples.
    clip = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in clip.items()
        if value is not None
    }
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: there are {', '.join(VARIANTS)}")
    settings = in_sections(settings)
    head = {"name": GLSCLHead.name, **settings.pop("head", {})}
    config = GLSCLConfig(clip=_replace(VARIANTS[variant], clip, "clip"))
    config = _replace(config, settings, "model")
    try:
        config = dataclasses.replace(config, head=head_of_settings(head))
    except ValueError as error:
        raise ValueError(f"head.{error}") from error
    _check(config)
    return config


def in_sections(settings: Mapping) -> dict:
    """A model's plain settings with those of `OF_HEAD` in its head's section."""
    settings = dict(settings)
    if beside := {name: settings.pop(name) for name in OF_HEAD if name in settings}:
        settings["head"] = {"name": GLSCLHead.name, **settings.get("head", {}), **beside}
    return settings


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
    clip.check()
    ranges.check(vars(config), _RANGES)
    if config.attention == "fused" and not clip.can_fuse:
        raise ValueError(
            "attention fused: no kernel caps logits (clip.attention_cap) or hides padding before a "
            "class token (clip.text_pooling class): take auto or plain"
        )
    if config.temporal == "seqTransf" and clip.embed_dim % clip.frame_head_width:
        raise ValueError(
            f"embed_dim {clip.embed_dim} is no multiple of {clip.text_head_width}, a head's width "
            f"(text_head_width, which the temporal module's are, too), nor of {USUAL_HEAD}"
        )
    config.head.check(clip.embed_dim)


def model_settings(config: GLSCLConfig) -> dict:
    """The plain values that `model_config` turns back into `config`."""
    plain = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        **plain,
        "clip": dataclasses.asdict(config.clip),
        "head": settings_of_head(config.head),
    }


def init_params(model: GLSCL, seed: int) -> dict:
    """Fresh parameters, a pure function of `seed`."""
    return _drawn(model, jax.random.key(seed))


# Traced once a process, however often shapes or parameters are asked for.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _drawn(model: GLSCL, key: jax.Array) -> dict:
    clip = model.config.clip
    if not model.config.towers:
        given = jnp.zeros((1, clip.embed_dim)), jnp.ones((1, 1), jnp.int32)
        row = given[0][:, None]
        return model.init(key, *given, row, given[1], row, method="from_features")["params"]
    frames = jnp.zeros((1, 1, clip.image_size, clip.image_size, 3), jnp.uint8)
    ids = jnp.zeros((1, clip.fixed_length or 2), jnp.int32)
    frame_mask = jnp.ones((1, 1), jnp.int32)
    return model.init(key, ids, jnp.ones_like(ids), frames, frame_mask)["params"]


def encode_text(params: dict, ids: jax.Array, mask: jax.Array, *, model: GLSCL) -> Features:
    """Features of A texts: ids and mask int32 [A,L]. No dropout."""
    return model.apply({"params": params}, ids, mask, method="encode_text")


def encode_video(params: dict, frames: jax.Array, mask: jax.Array, *, model: GLSCL) -> Features:
    """Features of B videos: frames uint8 [B,V,H,W,3], mask int32 [B,V]. No dropout."""
    return model.apply({"params": params}, frames, mask, method="encode_video")
