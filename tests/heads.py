"""A head by itself: its modules under parameters of which no two are alike, on drawn features."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.models.heads.head import Head

WIDTH = 8


class Alone(nn.Module):
    """A head's own modules, without encoders."""

    head: Head
    width: int = WIDTH

    def setup(self):
        self.learned = self.head.modules(self.width, jnp.dtype(jnp.float32), True)

    def text(self, sentence, tokens, mask):
        return self.head.text(self.learned, sentence, tokens, mask, True)

    def video(self, frames, mask):
        return self.head.video(self.learned, frames, mask, True)

    def __call__(self, texts, videos):
        return self.text(**texts), self.video(**videos)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A head with parameters.

    Attributes:
      head: see there.
      params: its own, by the names that its modules have.
      texts, videos: what the encoders give.
      text, video: the head's features of that.
    """

    head: Head
    params: dict
    texts: dict
    videos: dict
    text: object
    video: object


def encodings(texts=5, videos=4, words=6, frames=3, width=WIDTH, seed=0):
    """What encoders give: of texts and videos of all lengths, numbers at padding, too."""
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def mask(count, length):
        real = np.arange(count) % length + 1
        return (np.arange(length) < real[:, None]).astype(np.int32)

    return (
        {
            "sentence": drawn(texts, width),
            "tokens": drawn(texts, words, width),
            "mask": mask(texts, words),
        },
        {"frames": drawn(videos, frames, width), "mask": mask(videos, frames)},
    )


def draw(head, seed=0, **sizes) -> Drawn:
    """Parameters and features of a head; parameters are normal, of deviation 0.5."""
    texts, videos = encodings(seed=seed, **sizes)
    module, rng = Alone(head, texts["sentence"].shape[-1]), np.random.default_rng(seed + 1)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), texts, videos))
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 2, shapes)
    text, video = jax.jit(module.apply)(params, texts, videos)
    params = {name.removeprefix("learned_"): x for name, x in params.get("params", {}).items()}
    return Drawn(head, params, texts, videos, text, video)


def double(tree):
    """As float64 NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def softmax(logits):
    """Of one row."""
    weights = np.exp(logits - np.max(logits))
    return weights / weights.sum()


def cosine(x, y):
    """Of two vectors."""
    return x @ y / np.sqrt((x @ x) * (y @ y))


def slow_scores(drawn: Drawn, pair) -> np.ndarray:
    """`pair(params, sentence, tokens, frames)` of all pairs, padding cut away; float64 [A,B]."""
    params, texts, videos = double((drawn.params, drawn.texts, drawn.videos))
    return np.array(
        [
            [
                pair(params, sentence, tokens[words > 0], frames[real > 0])
                for frames, real in zip(videos["frames"], videos["mask"], strict=True)
            ]
            for sentence, tokens, words in zip(
                texts["sentence"], texts["tokens"], texts["mask"], strict=True
            )
        ]
    )
