"""What several tests build: small models, batches, features, and slow scores to compare with."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from convert.naming import sizes
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.runtime import sharding

TINY = GLSCLConfig(
    clip=dataclasses.replace(VARIANTS["tiny"], vision_layers=2, text_layers=2),
    temporal_layers=1,
    head=GLSCLHead(lim_layers=2, lim_feed_forward=32, queries=3),
)
# For what the module over time has no part in: it compiles faster without.
SHORT = dataclasses.replace(TINY, temporal="None")
# What tests of meshes and micro-batches train.
DROPOUT = dataclasses.replace(TINY, head=dataclasses.replace(TINY.head, lim_dropout=0.1))
# The smallest towers, for what no number of theirs is looked at.
SMALL_CLIP = CLIPConfig(
    image_size=8,
    patch_size=8,
    vision_width=64,
    vision_layers=1,
    text_width=64,
    text_layers=2,
    embed_dim=64,
    context_length=24,
    vocab_size=600,
)
SMALL = GLSCLConfig(
    clip=SMALL_CLIP, temporal_layers=1, head=GLSCLHead(queries=2, lim_layers=1, lim_feed_forward=8)
)
# Of the clips of the fixture `shapes`, as they are prepared.
SHAPES_CLIP = CLIPConfig(
    image_size=32,
    patch_size=16,
    vision_width=64,
    vision_layers=1,
    text_width=64,
    text_layers=1,
    embed_dim=64,
    context_length=24,
    vocab_size=600,
)
# Of towers that differ in all their sizes.
UNLIKE = CLIPConfig(
    image_size=16,
    patch_size=8,
    vision_width=64,
    vision_layers=3,
    text_width=128,
    text_layers=2,
    embed_dim=64,
    context_length=9,
    vocab_size=31,
)
# Every kind of temporal module and of sharing.
MODELS = {
    "transformer": GLSCLConfig(
        clip=UNLIKE, temporal_layers=4, head=GLSCLHead(queries=5, lim_layers=1, lim_feed_forward=96)
    ),
    "lstm, own queries": GLSCLConfig(
        clip=UNLIKE,
        temporal="seqLSTM",
        head=GLSCLHead(queries=5, lim_layers=2, share_queries=False),
    ),
    "none, own decoder": GLSCLConfig(
        clip=UNLIKE,
        temporal="None",
        head=GLSCLHead(queries=3, lim_feed_forward=32, share_decoder=False),
    ),
}
SCORE = {"head": GLSCLHead(temperature=3.0, lim_weight=0.5)}


@functools.cache
def fresh(config):
    """Parameters of a model, made once for all tests; compiled whole, in a third of the time."""
    return jax.jit(lambda: init_params(GLSCL(config), 0))()


def params_of(config: GLSCLConfig, seed: int) -> dict:
    """Of the right shapes, no two values alike; faster than the model's own initialisation."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(config), 0))
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), shapes)


def random_params(config, seed=0) -> dict:
    """Parameters of the right shapes, all values different."""
    random = np.random.default_rng(seed)
    arrays = {
        path: random.normal(size=shape).astype(np.float32)
        for path, shape in sizes.parameter_shapes(config).items()
    }
    return traverse_util.unflatten_dict(arrays, sep="/")


def batch(seed=0, texts=2, videos=2, length=8, frames=4):
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 900, (texts, length)).astype(np.int32)
    ids[:, 5] = 1000
    ids[:, 6:] = 0
    return {
        "ids": ids,
        "text_mask": (ids > 0).astype(np.int32),
        "frames": rng.integers(0, 256, (videos, frames, 32, 32, 3)).astype(np.uint8),
        "frame_mask": np.ones((videos, frames), np.int32),
    }


def train_batch(size=8):
    inputs = batch(texts=size, videos=size)
    inputs["text_ids"] = inputs.pop("ids")
    return inputs


def mesh_of(axes):
    return sharding.make_mesh(jax.devices()[: math.prod(axes.values())], axes)


def assert_same_gradient(grads, expected):
    """To 1e-5 of each tensor's norm, and of the whole's."""
    difference = jax.tree.map(np.subtract, grads, expected)
    assert optax.global_norm(difference) <= 1e-5 * optax.global_norm(expected)
    for apart, one in zip(jax.tree.leaves(difference), jax.tree.leaves(expected), strict=True):
        # A tensor whose gradient is a rounding error of others has no digits to compare.
        assert np.linalg.norm(apart) <= 1e-5 * max(np.linalg.norm(one), 1e-3)


def features(texts, videos, frames=4, width=16, queries=3, seed=0):
    """float32; every video has 1 to `frames` real frames, and numbers on its padded ones, too."""
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def units(*shape):
        x = numbers(*shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    real = rng.integers(1, frames + 1, videos)
    mask = (np.arange(frames) < real[:, None]).astype(np.int32)
    text = TextFeatures(numbers(texts, width), units(texts, queries, width))
    video = VideoFeatures(numbers(videos, frames, width), mask, units(videos, queries, width))
    return text, video


def cast(tree, dtype):
    """Floating leaves as `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, tree)


def slow_score(text, video, head):
    """Every video pooled for every sentence, p [A,B,D] and the LIM's [A,B,K] whole, in float64."""
    text, video = (jax.tree.map(lambda x: np.asarray(x, np.float64), x) for x in (text, video))
    logits = np.einsum("AD,BVD->ABV", text.sentence, video.frames) / head.temperature
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True) * video.mask
    pooled = np.einsum("ABV,BVD->ABD", weights, video.frames)
    lengths = np.linalg.norm(text.sentence, axis=-1)[:, None] * np.linalg.norm(pooled, axis=-1)
    gim = np.einsum("AD,ABD->AB", text.sentence, pooled) / lengths
    lim = np.einsum("AKD,BKD->ABK", text.queries, video.queries).mean(-1)
    return gim + head.lim_weight * lim


def slow_mean(sentence, frames, mask):
    """CLIP4Clip's meanP: frames of length 1, their mean, its cosine with the sentence."""
    scores = np.empty((len(sentence), len(frames)))
    for a, text in enumerate(np.asarray(sentence, np.float64)):
        for b, video in enumerate(np.asarray(frames, np.float64)):
            real = [frame / np.linalg.norm(frame) for frame in video[np.asarray(mask[b]) > 0]]
            mean = np.mean(real, axis=0)
            scores[a, b] = text @ mean / (np.linalg.norm(text) * np.linalg.norm(mean))
    return scores


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def split(videos, captions, seed=0, noise=1.0):
    """Random features; each video has `captions` captions that are near it, in mixed order."""
    random = np.random.default_rng(seed)
    frames = random.normal(size=(videos, 3, 16))
    queries = random.normal(size=(videos, 2, 16))
    owner = random.permutation(np.repeat(np.arange(videos), captions))
    near = random.normal(size=(2, len(owner), 2, 16)) * noise
    text = TextFeatures(
        (frames.mean(1)[owner] + near[0, :, 0]).astype(np.float32), unit(queries[owner] + near[1])
    )
    mask = np.ones((videos, 3), np.int32)
    mask[: videos // 2, 2] = 0
    video = VideoFeatures(frames.astype(np.float32), mask, unit(queries))
    names = [f"caption {a}" for a in range(len(owner))]
    return EncodedSplit(
        text, video, owner, names, [f"{b}.mp4" for b in range(videos)], int(mask.sum()), {}
    )
