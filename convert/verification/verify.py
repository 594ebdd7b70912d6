"""Whether converted weights compute what the source does, stage by stage.

The source runs in PyTorch (`torch_stages`), the conversion in the library's own modules, both on
the same seeded frames and texts.
"""

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.attention import Seen
from glscl_jax.models.encoders.clip import CLIP
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.rotary import Turns, turns_of
from glscl_jax.models.encoders.transformer import Blocks, ResidualBlock
from glscl_jax.models.glscl import GLSCL, GLSCLConfig

# In float32; 1e-5 is what to expect. Values beyond 1 are rounded in proportion to their size, and
# CLIP has activations of 30 and more: there it is this share of the stage's largest value.
TOLERANCE = 1e-4
# Often enough it fills any context.
LONG_CAPTION = "Two people are talking about a red car, and a dog runs on the beach. "
# Of each video that is compared.
FRAMES = 2
# Stacks that a tower of videos has besides.
_OTHERS = ("time", "auxiliary")
# What goes into the first block of a tower.
_FIRST = {"vision": "patch embedding", "text": "token embedding"}

Stages = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What both sides are given.

    Attributes:
      frames: float32 [B,V,H,W,3], normalised; zero where there is no frame.
      frame_mask: int32 [B,V].
      ids, mask: int32 [A,L], the end token last.
    """

    frames: np.ndarray
    frame_mask: np.ndarray
    ids: np.ndarray
    mask: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """All frames [B*V,H,W,3]."""
        return self.frames.reshape(-1, *self.frames.shape[2:])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One stage.

    Attributes:
      stage: its name.
      difference: the largest, over all values.
      largest: the source's largest value, without its sign.
    """

    stage: str
    difference: float
    largest: float

    @property
    def fits(self) -> bool:
        """NaN never does."""
        return self.difference <= TOLERANCE * max(1.0, self.largest)


def make_inputs(clip: CLIPConfig, tokenizer: Tokenizer | None = None, seed: int = 0) -> Inputs:
    """Two videos, the second with one frame of two, and three texts of different lengths.

    The first text fills all places of the context. With a tokenizer the first and the last are
    captions, and the one between is of any words; without one all are, and the last two ids of the
    vocabulary start and end them.
    """
    random = np.random.default_rng(seed)
    start, end = clip.vocab_size - 2, clip.vocab_size - 1
    if tokenizer:
        start, end = tokenizer.start_id, tokenizer.end_id
    last = tokenizer.vocab_size if tokenizer else clip.vocab_size
    words = 1, last
    if clip.text_pooling == "highest" or tokenizer is None:
        words = 1, min(x for x in (start, end) if x is not None)
    if clip.text_pooling == "end":
        # Which any words may follow and be higher than.
        end = clip.end_id
        words = end + 1, last - 2
    length = clip.context_length
    mask = (np.arange(length) < np.array([[length], [length // 2], [2]])).astype(np.int32)
    ids = random.integers(*words, mask.shape, dtype=np.int32) * mask
    if start is not None:
        ids[:, 0] = start
    if end is not None:
        ids[np.arange(3), mask.sum(axis=1) - 1] = end
    if tokenizer:
        captions = tokenizer([LONG_CAPTION * length, ""], length)
        ids[[0, 2]], mask[[0, 2]] = captions.ids, captions.mask
        ids[1] = np.where(mask[1] > 0, ids[1], tokenizer.frame.pad_id)
    # Of a tower of videos a twin has no mask for frames.
    frame_mask = np.array([[1, 1], [1, int(clip.is_video)]], np.int32)
    frames = random.normal(size=(2, FRAMES, clip.image_size, clip.image_size, 3))
    frames = (frames * frame_mask[:, :, None, None, None]).astype(np.float32)
    return Inputs(frames, frame_mask, ids, mask)


def first_stage(name: str) -> str:
    """The name of the stage before the first block of a tower, or of a stack of it."""
    return f"{name}: {_FIRST.get(name, 'embedding')}"


def compare_stages(source: Stages, ours: Stages) -> list[Comparison]:
    """Every stage of the source beside the same of ours.

    Raises:
      ValueError: the two have other stages or shapes.
    """
    if source.keys() != ours.keys():
        raise ValueError(f"stages {list(source)} against {list(ours)}")
    found = []
    for stage, values in source.items():
        if values.shape != ours[stage].shape:
            raise ValueError(f"{stage}: {values.shape} against {ours[stage].shape}")
        difference = np.abs(values.astype(np.float64) - ours[stage])
        found.append(Comparison(stage, float(difference.max()), float(np.abs(values).max())))
    return found


def check(comparisons: list[Comparison], source: str) -> None:
    """Raises a `UserError` that names the first stage which does not fit, if one does not."""
    for comparison in comparisons:
        if not comparison.fits:
            raise UserError(
                f"{source}: the conversion does not compute the same, it differs by "
                f"{comparison.difference:.1e} at {comparison.stage!r} (allowed: {TOLERANCE:.0e}); "
                "nothing was written"
            )


def table(comparisons: list[Comparison]) -> str:
    """One line a stage."""
    width = max(len(comparison.stage) for comparison in comparisons)
    lines = [f"{'stage':<{width}}  largest difference  largest value"]
    lines += [f"{x.stage:<{width}}  {x.difference:18.1e}  {x.largest:13.3g}" for x in comparisons]
    return "\n".join(lines)


def stages(params: Mapping, config: CLIPConfig | GLSCLConfig, inputs: Inputs) -> Stages:
    """Every stage of the library's model, as far as the parameters have its parts.

    Args:
      params: of a GLSCL, or its "clip" (and "temporal") alone.
      config: of the same.
      inputs: see there.
    """
    if isinstance(config, CLIPConfig):
        config = GLSCLConfig(clip=config)
    if "temporal" not in params:
        config = dataclasses.replace(config, temporal="None")
    # On accelerators the default would round to 10 bits.
    with jax.default_matmul_precision("highest"):
        ends, first = _ends(params, config, inputs)
        clip, mask = params["clip"], None if config.clip.fixed_length else inputs.mask
        if config.clip.text_pooling == "class":
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        scale = {"logit scale": np.asarray(clip["logit_scale"], np.float32)}
        others = {}
        for name in set(_OTHERS) & first.keys():
            others |= _blocks(name, clip["vision"], config.clip, first[name], None)
        return {
            **({} if config.clip.is_video else scale),
            **_blocks("vision", clip["vision"], config.clip, first["vision"], None),
            **others,
            "image embedding": ends["image embedding"],
            **_blocks("text", clip["text"], config.clip, first["text"], mask),
            **{name: value for name, value in ends.items() if name != "image embedding"},
        }


def _ends(params: Mapping, config: GLSCLConfig, inputs: Inputs) -> tuple[Stages, dict]:
    """What comes out of the towers and after them, and what goes into their first blocks."""
    arrays = inputs.ids, inputs.mask, inputs.frames, inputs.frame_mask
    return jax.device_get(_whole(params, config, *arrays))


@functools.partial(jax.jit, static_argnums=1)
def _whole(params, config: GLSCLConfig, *arrays) -> tuple[dict, dict]:
    """As `_ends`: one program for all weights of a config."""
    first = {}

    def watch(call, args, kwargs, context):
        *tower, name = context.module.path or ("",)
        if name == "transformer" and tower[-1] in ("vision", "text"):
            first[tower[-1]] = args[0]
        if name in _OTHERS and tower[-1:] == ["vision"]:
            first[name] = args[0]
        return call(*args, **kwargs)

    def forward(model: GLSCL, ids, mask, frames, frame_mask):
        image = model.clip.frames(frames, frame_mask).reshape(-1, config.clip.embed_dim)
        if "lim" not in params:
            found = {
                "image embedding": image,
                "text embedding": model.clip.texts(ids, mask)[0],
            }
            if "temporal" in params:
                found["frame features"] = model.encode_frames(frames, frame_mask)
            return found
        text = model.encode_text(ids, mask)
        video = model.encode_video(frames, frame_mask)
        return {
            "image embedding": image,
            "text embedding": text.sentence,
            "frame features": video.frames,
            "text queries": text.queries,
            "video queries": video.queries,
            "score": config.head.score(text, video),
        }

    with nn.intercept_methods(watch):
        return GLSCL(config).apply({"params": params}, *arrays, method=forward), first


def directions(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """What features are multiplied with, to be a scalar whose gradient is compared."""
    random = np.random.default_rng(1)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def gradients(params: Mapping, config: CLIPConfig, inputs: Inputs) -> dict:
    """The gradient of that scalar of images and sentences by a CLIP's parameters.

    Args:
      params: {"clip": ...}.
      config: of the same.
      inputs: see there.
    """

    def scalar(params):
        bound = CLIP(config).bind({"params": params["clip"]})
        image = bound.frames(jnp.asarray(inputs.frames), jnp.asarray(inputs.frame_mask))
        image = image.reshape(-1, config.embed_dim)
        sentence, _ = bound.texts(jnp.asarray(inputs.ids), jnp.asarray(inputs.mask))
        one, two = directions(image.shape, sentence.shape)
        return (image * one).sum() + (sentence * two).sum()

    with jax.default_matmul_precision("highest"):
        return jax.device_get(jax.jit(jax.grad(scalar))(params))


def compare_gradients(source: Stages, ours: Stages) -> list[Comparison]:
    """Of each tower, and of what belongs to neither, the largest difference of its parameters.

    Raises:
      ValueError: the two have gradients of other parameters.
    """
    found = {}
    for each in compare_stages(
        source, {name: ours[name].reshape(x.shape) for name, x in source.items()}
    ):
        words = each.stage.split(".")
        tower = "images" if words[0].startswith("vi") else "texts"
        tower = "logits" if words[-1].startswith("logit_") else tower
        found.setdefault(f"gradient of {tower}", []).append(each)
    return [
        Comparison(name, max(x.difference for x in each), max(x.largest for x in each))
        for name, each in found.items()
    ]


def _blocks(name: str, tower: Mapping, config: CLIPConfig, x, mask) -> Stages:
    """The activations before a tower's first block and after each, of real tokens alone [N,D]."""
    causal = name == "text" and config.causal
    seen = Seen(None if mask is None else jnp.asarray(mask), causal)
    real = slice(None) if mask is None else mask > 0
    stack = name if name in _OTHERS else "transformer"
    blocks = tower[stack]["blocks"]
    # One block is compiled and called as often as there are layers; the whole tower, whose
    # embedding is a stage as well, loops over them.
    settings = config.text_blocks if name == "text" else config.vision_blocks
    layers = len(blocks["ln_1"]["scale"])
    turns = None
    if name == "vision" and config.rotary:
        turns = turns_of(config.side, settings.head_width, config.class_token, x.shape[1])
    found = {first_stage(name): np.asarray(x)[real]}
    for layer in range(layers):
        params = jax.tree.map(lambda array, layer=layer: array[layer], blocks)
        x = _block(params, x, seen, turns, settings)
        found[f"{name}: block {layer + 1}"] = np.asarray(x)[real]
    return found


@functools.partial(jax.jit, static_argnums=4)
def _block(params, x, seen: Seen, turns: Turns | None, settings: Blocks) -> jax.Array:
    """One block of a tower, whichever: x [B,L,D] -> [B,L,D]."""
    block = ResidualBlock(settings, jnp.dtype("float32"))
    return block.apply({"params": params}, x, seen, turns)[0]
