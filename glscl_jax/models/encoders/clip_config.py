"""What a model of two towers is made of: one for images, one for texts.

OpenAI's CLIP, its successors and SigLIP are the same two stacks of blocks; VideoPrism has more of
them for images, which are frames of a video there. They differ in what stands here, and in nothing
else; `variants.py` has those that people use by name.
"""

import dataclasses

from glscl_jax import ranges
from glscl_jax.models.encoders.images import (
    CLIP_MEAN,
    CLIP_STD,
    INTERPOLATIONS,
    RESIZES,
    Preprocessing,
)
from glscl_jax.models.encoders.texts import TOKENIZERS
from glscl_jax.models.encoders.transformer import ACTIVATIONS, LAYER_NORM_EPS, Blocks
from glscl_jax.ranges import EITHER, Each, OneOf, Optional, Real, Whole

# What becomes an image's feature, and which place of a text its sentence is taken from.
VISION_POOLING = ("class", "probe", "mean", "query")
TEXT_POOLING = ("highest", "end", "last", "class")
TEXT_POSITIONS = ("learned", "sinusoidal")
# From a tower's width to the shared one: a matrix, one with a bias, or nothing.
PROJECTIONS = ("matrix", "biased", "none")
# Heads of this width divide the shared one where the text tower's do not.
USUAL_HEAD = 64

_ACTIVATION = OneOf(tuple(ACTIVATIONS))
_RANGES = {
    "vision_mlp_width": Optional(Whole(1)),
    "text_mlp_width": Optional(Whole(1)),
    "activation": _ACTIVATION,
    "text_activation": Optional(_ACTIVATION),
    "layer_norm_epsilon": Real(above=0),
    "norm_offset": EITHER,
    "attention_cap": Optional(Real(above=0)),
    "patch_bias": EITHER,
    "class_token": EITHER,
    "pre_norm": EITHER,
    "rotary": EITHER,
    "vision_pooling": OneOf(VISION_POOLING),
    "probe_heads": Optional(Whole(1)),
    "probe_mlp_width": Optional(Whole(1)),
    "vision_projection": OneOf(PROJECTIONS),
    "time_layers": Whole(),
    "time_positions": Optional(Whole(1)),
    "auxiliary_layers": Whole(),
    "causal": EITHER,
    "text_pooling": OneOf(TEXT_POOLING),
    "text_positions": OneOf(TEXT_POSITIONS),
    "end_id": Optional(Whole()),
    "text_projection": OneOf(PROJECTIONS),
    "logit_bias": EITHER,
    "tokenizer": OneOf(tuple(TOKENIZERS)),
    "resize": OneOf(RESIZES),
    "interpolation": OneOf(INTERPOLATIONS),
    "image_mean": Each(Real(), 3),
    "image_std": Each(Real(above=0), 3),
}


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """Settings of the towers; the defaults are those of OpenAI's ViT-B/32.

    Attributes:
      image_size: side of a frame in pixels, a multiple of `patch_size`.
      resize, interpolation, image_mean, image_std: how a picture becomes a frame, and what its
        pixels are normalised by (see `images.Preprocessing`).
      patch_size: side of a patch in pixels.
      vision_width, vision_layers: the vision tower's.
      text_width, text_layers: the text tower's.
      embed_dim: D, the width that texts and frames share.
      context_length: rows of the text positional embedding.
      vocab_size: rows of the token embedding.
      activation: of the MLPs, a key of `transformer.ACTIVATIONS`.
      vision_head_width, text_head_width: of attention.
      vision_mlp_width, text_mlp_width: hidden units of a block; None for four times its width.
      text_activation: of the text tower's MLPs; None for the same as the images'.
      layer_norm_epsilon: of both towers' LayerNorms.
      norm_offset: whether their scales are kept less 1 (see `offset_norm.py`).
      attention_cap: that the logits of both towers' blocks do not pass; None for none.
      patch_bias: whether patches are embedded with a bias.
      class_token: whether a learned token stands before the patches.
      pre_norm: whether a LayerNorm stands before the vision tower's blocks.
      rotary: whether the vision tower's queries and keys are turned by their patch's place, beside
        the learned positions (see `rotary.py`).
      vision_pooling: "class": the class token; "probe": what one learned query reads (see
        `probe.py`); "mean": the patches' mean, before the last LayerNorm; "query": as "probe",
        but as `pooler.py` has it.
      probe_heads, probe_mlp_width: the probe's heads and hidden units; None for as many as a block
        of the vision tower has.
      time_layers: blocks in which a patch sees those of its place in the video's other frames
        (see `video_tower.py`); 0: frames are encoded each by itself.
      time_positions: frames that the learned positions in time are of; other numbers of frames
        have them resampled.
      auxiliary_layers: blocks behind those, in which all patches of a video see each other.
      vision_projection, text_projection: to D, a name of `PROJECTIONS`.
      causal: whether a token sees no later one. Where it does, it sees padding as well, so that
        all texts have `context_length` places (`fixed_length`).
      text_pooling: where the sentence is: "highest": at the highest id, where OpenAI's end token
        is; "end": at the first `end_id`; "last": at the last place, which may be padding;
        "class": at a learned token that stands behind every text.
      text_positions: "learned", or "sinusoidal": fixed (see `sinusoids.py`), beside token
        embeddings that are multiplied by the root of their width.
      end_id: the end token's id, for "end".
      logit_bias: whether one is added to scaled similarities, as SigLIP's loss has it.
      tokenizer: whose ids texts are in, a name of `texts.TOKENIZERS`: so a tokenizer's files are
        read that do not say it themselves.
    """

    image_size: int = 224
    patch_size: int = 32
    vision_width: int = 768
    vision_layers: int = 12
    text_width: int = 512
    text_layers: int = 12
    embed_dim: int = 512
    context_length: int = 77
    vocab_size: int = 49408
    activation: str = "quick_gelu"
    vision_head_width: int = 64  # OpenAI's, whatever the width.
    text_head_width: int = 64
    vision_mlp_width: int | None = None
    text_mlp_width: int | None = None
    text_activation: str | None = None
    layer_norm_epsilon: float = LAYER_NORM_EPS
    norm_offset: bool = False
    attention_cap: float | None = None
    patch_bias: bool = False
    class_token: bool = True
    pre_norm: bool = True
    rotary: bool = False
    vision_pooling: str = "class"
    probe_heads: int | None = None
    probe_mlp_width: int | None = None
    vision_projection: str = "matrix"
    time_layers: int = 0
    time_positions: int | None = None
    auxiliary_layers: int = 0
    causal: bool = True
    text_pooling: str = "highest"
    end_id: int | None = None
    text_positions: str = "learned"
    text_projection: str = "matrix"
    logit_bias: bool = False
    tokenizer: str = "clip"
    resize: str = "crop"
    interpolation: str = "bicubic"
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    def check(self) -> None:
        """Raises a `ValueError` for settings out of range, or that do not fit together."""
        sizes = {field.name: Whole(1) for field in dataclasses.fields(self)}
        ranges.check(vars(self), sizes | _RANGES)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch {self.patch_size}"
            )
        for name in ("vision", "text"):
            width, head = getattr(self, f"{name}_width"), getattr(self, f"{name}_head_width")
            _check_heads(f"{name}_width {width}", width, head, f"{name}_head_width")
            if getattr(self, f"{name}_projection") == "none" and width != self.embed_dim:
                raise ValueError(
                    f"{name}_projection none leaves {name}_width {width}, which is not embed_dim "
                    f"{self.embed_dim}"
                )
        if self.vision_pooling == "probe":
            heads = self.probe_heads or self.vision_blocks.heads
            if self.vision_width % heads:
                raise ValueError(
                    f"vision_width {self.vision_width} does not make {heads} heads (probe_heads)"
                )
        if self.vision_pooling == "class" and not self.class_token:
            raise ValueError("vision_pooling class takes a class token, and class_token is False")
        if self.rotary and self.vision_head_width % 4:
            raise ValueError(
                f"vision_head_width {self.vision_head_width} is no multiple of 4: rotary positions "
                "turn pairs of numbers, half of them by x and half by y"
            )
        if self.text_pooling == "end":
            if self.end_id is None:
                raise ValueError("text_pooling end takes the end token's id: give end_id")
            if self.end_id >= self.vocab_size:
                raise ValueError(
                    f"end_id {self.end_id} is none of the {self.vocab_size} ids of vocab_size: "
                    "no caption would have an end"
                )
        if self.text_positions == "sinusoidal" and self.text_width % 2:
            raise ValueError(f"text_width {self.text_width} is odd: sinusoids come in pairs")
        _check_video(self)

    @property
    def is_video(self) -> bool:
        """Whether the frames of a video are encoded together."""
        return self.time_layers > 0

    @property
    def can_fuse(self) -> bool:
        """Whether the one kernel of attention computes what the blocks do."""
        return self.attention_cap is None and self.text_pooling != "class"

    @property
    def vision_blocks(self) -> Blocks:
        """Those of the vision tower."""
        return Blocks(
            self.vision_width,
            self.vision_layers,
            self.vision_head_width,
            self.vision_mlp_width or 4 * self.vision_width,
            self.activation,
            self.layer_norm_epsilon,
            self.attention_cap,
            self.norm_offset,
        )

    @property
    def text_blocks(self) -> Blocks:
        """Those of the text tower."""
        return Blocks(
            self.text_width,
            self.text_layers,
            self.text_head_width,
            self.text_mlp_width or 4 * self.text_width,
            self.text_activation or self.activation,
            self.layer_norm_epsilon,
            self.attention_cap,
            self.norm_offset,
        )

    @property
    def probe(self) -> Blocks:
        """What the probe is built as: a block without attention to itself."""
        blocks = self.vision_blocks
        return dataclasses.replace(
            blocks,
            layers=1,
            head_width=blocks.width // (self.probe_heads or blocks.heads),
            mlp_width=self.probe_mlp_width or blocks.mlp_width,
        )

    @property
    def begins_temporal(self) -> bool:
        """Whether the temporal module can start from the text tower's blocks and positions."""
        as_wide = self.text_width == self.embed_dim
        plain = self.attention_cap is None and not self.norm_offset
        return as_wide and plain and self.text_positions == "learned"

    @property
    def frame_head_width(self) -> int:
        """Of the temporal module, which starts from the text tower's blocks where they fit."""
        fits = self.embed_dim % self.text_head_width == 0
        return self.text_head_width if fits else USUAL_HEAD

    @property
    def frame_mlp_width(self) -> int:
        """Likewise."""
        is_text = self.text_width == self.embed_dim
        return self.text_blocks.mlp_width if is_text else 4 * self.embed_dim

    @property
    def side(self) -> int:
        """Patches along an image's side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """How many an image is cut into."""
        return self.side**2

    @property
    def image_tokens(self) -> int:
        """Rows of the vision tower's positional embedding."""
        return self.class_token + self.patches

    @property
    def sees_padding(self) -> bool:
        """Whether features depend on the padding behind a text."""
        return self.text_pooling == "last" or not (self.causal or self.text_pooling == "class")

    @property
    def fixed_length(self) -> int | None:
        """The places that every text must have; None where padding changes no feature."""
        return self.context_length if self.sees_padding else None

    def fitting_length(self, words: int) -> int:
        """As many places as texts must have or, of `words`, can."""
        return self.fixed_length or min(words, self.context_length)

    def check_length(self, words: int) -> None:
        """Raises a `ValueError` if texts of so many places cannot be read."""
        if words > self.context_length:
            raise ValueError(
                f"{words} is more than the model's {self.context_length} text positions"
            )
        if self.fixed_length not in (None, words):
            raise ValueError(
                f"{words} is not {self.fixed_length}, which all texts of this model have, padding "
                "among them: its text tower sees its padding"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """What images are to look like."""
        return Preprocessing(
            self.image_size, self.resize, self.interpolation, self.image_mean, self.image_std
        )

    def video_multiply_adds(self, frames: int) -> int:
        """Of the matrix products of a video's V frames."""
        found = frames * self.vision_multiply_adds()
        if not self.is_video:
            return found
        blocks, places = self.vision_blocks, self.patches
        found += self.time_layers * places * blocks.multiply_adds(frames)
        found += self.auxiliary_layers * blocks.multiply_adds(frames * places)
        return found + frames * blocks.pooler_multiply_adds(places)

    def vision_multiply_adds(self) -> int:
        """Of an image's matrix products, of a video's frame those of its own."""
        width, blocks = self.vision_width, self.vision_blocks
        found = self.patches * 3 * self.patch_size**2 * width
        found += blocks.layers * blocks.multiply_adds(self.image_tokens)
        if self.vision_pooling == "probe":
            found += self.probe.probe_multiply_adds(self.image_tokens)
        # Only what is pooled is projected.
        return found + (width * self.embed_dim if self.vision_projection != "none" else 0)

    def text_multiply_adds(self, words: int) -> int:
        """Of a text's matrix products."""
        blocks, places = self.text_blocks, words + (self.text_pooling == "class")
        found = blocks.layers * blocks.multiply_adds(places)
        projected = self.text_projection != "none"
        return found + (words * self.text_width * self.embed_dim if projected else 0)


def _check_video(config: CLIPConfig) -> None:
    """Raises a `ValueError` for settings of a tower of videos that go with none here."""
    if not config.is_video:
        for name in ("time_positions", "auxiliary_layers", "norm_offset"):
            if getattr(config, name):
                raise ValueError(f"{name} takes a tower of videos, and time_layers is 0")
        if config.vision_pooling == "query":
            raise ValueError("vision_pooling query takes a tower of videos: give time_layers")
        return
    if config.time_positions is None:
        raise ValueError(f"time_layers {config.time_layers} take positions: give time_positions")
    needed = {
        "vision_pooling": "query",
        "vision_projection": "none",
        "class_token": False,
        "pre_norm": False,
        "rotary": False,
    }
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"time_layers {config.time_layers}: a tower of videos has {name} {value}, not "
                f"{getattr(config, name)}"
            )
    blocks = config.vision_blocks
    if blocks.mlp_width % blocks.heads:
        raise ValueError(
            f"vision_mlp_width {blocks.mlp_width} does not make {blocks.heads} heads, which the "
            "pooler's are"
        )


def _check_heads(what: str, width: int, head: int, name: str) -> None:
    if width % head:
        raise ValueError(f"{what} is no multiple of {head}, a head's width ({name})")
