"""What is compared: heads, and the sizes at which they are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from benchmarks.heads import xla
from benchmarks.heads.head import Sizes
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import HEADS, Cost, Head

NAMES = ("mean", "gim", "glscl", "x_pool", "dicosa", "wti")


@dataclasses.dataclass(frozen=True)
class Setting:
    """Sizes, and GLSCL's head at them; those of others have no sizes of their own.

    Attributes:
      name: as flags and files have it.
      title: as a table has it.
      sizes: A, B, L, V, K and D.
      glscl: its LIM is of these sizes, too.
    """

    name: str
    title: str
    sizes: Sizes
    glscl: GLSCLHead

    def head(self, name: str) -> Head:
        """One of `NAMES`."""
        return self.glscl if name == GLSCLHead.name else HEADS[name]()

    def cost(self, name: str) -> Cost:
        """Multiply-adds of a head, see there."""
        return self.head(name).cost(self.sizes.width, self.sizes.words, self.sizes.frames)

    def pairs(self, name: str) -> int:
        """Multiply-adds of all pairs, from what is made once an item."""
        return self.sizes.pairs * self.cost(name).pair

    def items(self, name: str) -> int:
        """Multiply-adds of what is made once an item, of all texts and videos."""
        cost = self.cost(name)
        return self.sizes.texts * cost.text + self.sizes.videos * (cost.video + cost.prepared)


# As configs/demo.py has it, which the tests hold.
DEMO = Setting(
    "demo",
    "the demo's sizes",
    Sizes(words=20, frames=6, width=128),
    GLSCLHead(lim_layers=2, lim_feed_forward=256, lim_dropout=0.0),
)
PAPER = Setting("paper", "the paper's sizes", Sizes(), GLSCLHead())
SETTINGS = {setting.name: setting for setting in (DEMO, PAPER)}


@functools.partial(jax.jit, static_argnums=(0, 1))
def features(head: Head, sizes: Sizes, key: jax.Array) -> tuple:
    """Features of A texts and B videos, and what is prepared of videos, of random encodings.

    As fresh parameters make them, float32; all tokens and frames are real.
    """
    clip = dataclasses.replace(VARIANTS["tiny"], embed_dim=sizes.width)
    model = GLSCL(GLSCLConfig(clip=clip, towers=False, temporal="None", head=head))
    variables = {"params": init_params(model, 0)}
    shapes = (
        (sizes.texts, sizes.width),
        (sizes.texts, sizes.words, sizes.width),
        (sizes.videos, sizes.frames, sizes.width),
    )
    keys = jax.random.split(key, len(shapes))
    sentence, tokens, frames = map(jax.random.normal, keys, shapes)
    words, real = (jnp.ones(x.shape[:2], jnp.int32) for x in (tokens, frames))
    text = model.apply(variables, sentence, words, tokens, method="text_features")
    video = model.apply(variables, frames, real, method="video_features")
    return text, video, head.prepare(video)


def shapes_of(head: Head, sizes: Sizes) -> tuple:
    """The shapes of `features`, of which nothing is made."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(functools.partial(features, head, sizes), key)


def xla_flops(setting: Setting, name: str) -> float:
    """XLA's count of all pairs, of the same program as `Setting.pairs`; nothing is compiled."""
    head = setting.head(name)
    return xla.flops(head.score, *shapes_of(head, setting.sizes))
