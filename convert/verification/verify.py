"""Whether converted weights compute what the source does, stage by stage.

The source runs in PyTorch (`torch_stages`), the conversion in the library's own modules, both on
the same seeded frames and texts.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.attention import ALL, Seen
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.transformer import ResidualBlock
from glscl_jax.models.glscl import GLSCL, GLSCLConfig

# In float32; 1e-5 is what to expect. Values beyond 1 are rounded in proportion to their size, and
# CLIP has activations of 30 and more: there it is this share of the stage's largest value.
TOLERANCE = 1e-4

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

    The first text fills all places of the context. Without a tokenizer the last two ids of the
    vocabulary start and end texts.
    """
    random = np.random.default_rng(seed)
    start = tokenizer.start_id if tokenizer else clip.vocab_size - 2
    end = tokenizer.end_id if tokenizer else clip.vocab_size - 1
    length = clip.context_length
    mask = (np.arange(length) < np.array([[length], [length // 2], [2]])).astype(np.int32)
    ids = random.integers(1, min(start, end), mask.shape, dtype=np.int32) * mask
    ids[:, 0] = start
    ids[np.arange(3), mask.sum(axis=1) - 1] = end
    frame_mask = np.array([[1, 1], [1, 0]], np.int32)
    frames = random.normal(size=(2, 2, clip.image_size, clip.image_size, 3))
    frames = (frames * frame_mask[:, :, None, None, None]).astype(np.float32)
    return Inputs(frames, frame_mask, ids, mask)


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
        ends, captured = _ends(params, config, inputs)
        embedding = captured["clip"]["vision"]["ln_pre"]["__call__"][0]
        clip, tokens = params["clip"], jnp.asarray(inputs.ids)
        return {
            "logit scale": np.asarray(clip["logit_scale"], np.float32),
            **_blocks("vision", clip["vision"], config.clip, embedding, None),
            "image embedding": ends["image embedding"],
            **_blocks("text", clip["text"], config.clip, _embedded(clip, tokens), inputs.mask),
            **{name: value for name, value in ends.items() if name != "image embedding"},
        }


def _ends(params: Mapping, config: GLSCLConfig, inputs: Inputs) -> tuple[Stages, dict]:
    """What comes out of the towers and after them, and the vision tower's first activations."""

    def forward(model: GLSCL, ids, mask, frames, frame_mask):
        images = frames.reshape(-1, *frames.shape[2:])
        if "lim" not in params:
            tokens = model.clip.text(ids, mask)
            found = {
                "image embedding": model.clip.vision(images),
                "text embedding": tokens[jnp.arange(len(ids)), ids.argmax(axis=1)],
            }
            if "temporal" in params:
                found["frame features"] = model.encode_frames(frames, frame_mask)
            return found
        text = model.encode_text(ids, mask)
        video = model.encode_video(frames, frame_mask)
        return {
            "image embedding": model.clip.vision(images),
            "text embedding": text.sentence,
            "frame features": video.frames,
            "text queries": text.queries,
            "video queries": video.queries,
            "score": config.head.score(text, video),
        }

    @jax.jit
    def run(params, *arrays):
        return GLSCL(config).apply(
            {"params": params},
            *arrays,
            method=forward,
            capture_intermediates=lambda module, _: module.name == "ln_pre",
            mutable=["intermediates"],
        )

    ends, state = run(params, inputs.ids, inputs.mask, inputs.frames, inputs.frame_mask)
    return jax.device_get(ends), state["intermediates"]


def _embedded(clip: Mapping, ids: jax.Array) -> jax.Array:
    """The text tower's first activations [A,L,D]."""
    text = clip["text"]
    positions = jnp.asarray(text["positional_embedding"], jnp.float32)[: ids.shape[1]]
    return jnp.asarray(text["token_embedding"], jnp.float32)[ids] + positions


def _blocks(name: str, tower: Mapping, config: CLIPConfig, x, mask) -> Stages:
    """The activations before a tower's first block and after each, of real tokens alone [N,D]."""
    seen = ALL if mask is None else Seen(jnp.asarray(mask), causal=True)
    real = slice(None) if mask is None else mask > 0
    blocks = tower["transformer"]["blocks"]
    # One block is compiled and called as often as there are layers; the whole tower, whose
    # embedding is a stage as well, loops over them.
    settings = config.vision_blocks if name == "vision" else config.text_blocks
    layers = settings.layers
    block = ResidualBlock(settings, jnp.dtype("float32"))
    step = jax.jit(lambda params, x: block.apply({"params": params}, x, seen)[0])
    first = {"vision": "patch embedding", "text": "token embedding"}[name]
    found = {f"{name}: {first}": np.asarray(x)[real]}
    for layer in range(layers):
        x = step(jax.tree.map(lambda array, layer=layer: array[layer], blocks), x)
        found[f"{name}: block {layer + 1}"] = np.asarray(x)[real]
    return found
