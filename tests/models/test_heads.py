"""Heads against their formulas, written out a pair at a time."""

import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.evaluation.report import write_report
from glscl_jax.models.glscl import GLSCL, init_params, learned_parts, model_config, model_settings
from glscl_jax.models.heads.explanation import Explanation, Part
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import Cost, Head, register
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.encoded_split import (
    EncodedSplit,
    Store,
    load_features,
    text_arrays,
    video_arrays,
)
from glscl_jax.retrieval.score_blocks import score_in_blocks
from glscl_jax.retrieval.split_scores import Scored
from glscl_jax.training import recipe
from glscl_jax.training.objective import gradient
from tests.builders import slow_mean
from tests.recipes import config_with

A, B, V, K, D = 7, 9, 4, 3, 8
HEADS = [GLSCLHead(temperature=2.0, lim_weight=0.75), MeanHead()]


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.normal(size=shape).astype(np.float32)

    mask = (np.arange(V) < rng.integers(1, V + 1, (B, 1))).astype(np.int32)
    assert (mask == 0).any()
    # Padded frames are zero as they are read, and anything once a temporal module mixed them.
    frames = drawn(B, V, D) * np.where(np.arange(B)[:, None, None] % 2, 1, mask[:, :, None])
    text = TextFeatures(drawn(A, D), np.asarray(unit(drawn(A, K, D))))
    return text, VideoFeatures(frames, mask, np.asarray(unit(drawn(B, K, D))))


def test_the_mean_of_real_frames(features):
    text, video = features
    expected = slow_mean(text.sentence, video.frames, video.mask)
    np.testing.assert_allclose(MeanHead().score(text, video), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_block_of_what_is_prepared_has_the_same_scores(head, features):
    text, video = features
    whole = head.score(text, video)
    found = score_in_blocks(text, video, head=head, text_block=3, video_block=8)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_what_a_head_tells_sums_up_to_its_score(head, features):
    text, video = features
    whole = head.score(text, video)
    for a, b in ((0, 0), (3, 5), (A - 1, B - 1)):
        one = (jax.tree.map(lambda x: x[a], text), jax.tree.map(lambda x: x[b], video))  # noqa: B023
        told = head.explain(*one)
        assert told.score == pytest.approx(float(whole[a, b]), abs=1e-5)
        weights = np.asarray(told.weights)
        assert not weights[video.mask[b] == 0].any()
        assert 0 < weights.sum() <= 1 + 1e-6
        assert (told.concepts is None) == (head.name == "mean")
    assert all(term and text for term, text in head.legend)


def test_without_queries_the_glscl_head_is_the_gim_alone(features):
    text, video = features
    text, video = (x.replace(queries=x.queries[:, :0]) for x in (text, video))
    head = HEADS[0]
    told = head.explain(jax.tree.map(lambda x: x[0], text), jax.tree.map(lambda x: x[0], video))
    assert [part.name for part in told.parts] == ["GIM"]
    assert told.score == pytest.approx(float(head.score(text, video)[0, 0]), abs=1e-5)


@flax.struct.dataclass
class OfVideo:
    """What `BestFrame` makes of B videos: frames of length 1 [B,V,D], times a learned gain."""

    frames: jax.Array
    mask: jax.Array


@flax.struct.dataclass
class OfText:
    """What `BestFrame` makes of A texts: sentences of length 1 [A,D]."""

    sentence: jax.Array


class Gain(nn.Module):
    """A learned factor for each of D features."""

    @nn.compact
    def __call__(self, frames):
        return frames * self.param("factor", nn.initializers.ones, (frames.shape[-1],))


@dataclasses.dataclass(frozen=True)
class Spread:
    """The constant of `BestFrame`'s own loss."""

    gamma: float = 0.01


@register
@dataclasses.dataclass(frozen=True)
class BestFrame(Head):
    """A third head: the cosine of the sentence and the frame nearest to it, which is learned."""

    sharpness: float = 1.0

    name = "best frame"
    legend = (("Under each frame: whether it was the nearest", "One frame counts."),)
    loss_weights = Spread
    text_features, video_features = OfText, OfVideo

    def modules(self, width, dtype, scan):
        return {"gain": Gain()}

    def text(self, modules, sentence, tokens, mask, deterministic):
        return OfText(unit(sentence.astype(jnp.float32)))

    def video(self, modules, frames, mask, deterministic):
        return OfVideo(unit(modules["gain"](frames.astype(jnp.float32))), mask)

    def prepare(self, video):
        return video.frames * self.sharpness

    def score(self, text, video, prepared=None):
        frames = self.prepare(video) if prepared is None else prepared
        cosines = jnp.einsum("AD,BVD->ABV", text.sentence, frames, precision="highest")
        return jnp.max(jnp.where(video.mask > 0, cosines, -jnp.inf), axis=-1)

    def losses(self, text, video, weights):
        return {"spread": weights.gamma * jnp.mean(jnp.square(video.frames.mean(axis=1)))}

    def explain(self, text, video):
        cosines = jnp.einsum("D,VD->V", text.sentence, self.prepare(video), precision="highest")
        cosines = jnp.where(video.mask > 0, cosines, -jnp.inf)
        best = (jnp.arange(len(cosines)) == jnp.argmax(cosines)).astype(jnp.float32)
        return Explanation((Part("nearest frame", 1.0, float(jnp.max(cosines))),), best, None)

    def cost(self, width, words, frames):
        return Cost(pair=frames * width)


def unit(vectors):
    return vectors / (jnp.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)


def test_a_third_head_ranks_and_is_told_of_without_a_word_elsewhere(features, tmp_path):
    head, owner = BestFrame(), np.arange(A) % B
    of_text, of_video = features
    text = OfText(np.asarray(unit(of_text.sentence)))
    video = OfVideo(np.asarray(unit(of_video.frames)), of_video.mask)
    every = np.concatenate([owner, np.arange(B)])  # each video has a caption
    text = jax.tree.map(lambda x: np.concatenate([x, x[np.arange(B) % A]]), text)
    whole = np.asarray(head.score(text, video))
    expected = metrics.retrieval(whole, every)
    captions = [f"caption {a}" for a in range(len(every))]
    clips = [f"clip {b}" for b in range(B)]
    encoded = EncodedSplit(text, video, every, captions, clips, int(video.mask.sum()), {})
    scored = Scored(encoded, head)
    found = scored.retrieval()
    for name in ("t2v", "v2t"):
        np.testing.assert_array_equal(getattr(found, name).mean, getattr(expected, name).mean)
    np.testing.assert_array_equal(scored.top(1)["t2v"].items[:, 0], whole.argmax(axis=1))
    black = np.zeros((8, 8, 3), np.uint8)
    page = write_report(
        tmp_path,
        title="a third head",
        retrieval=found,
        encoded=encoded,
        scores_of=scored.row,
        head=head,
        frames_of=lambda clip: [black] * int(video.mask[clips.index(clip)].sum()),
        examples=1,
    ).read_text(encoding="utf-8")
    assert "nearest frame " in page
    assert "One frame counts." in page
    assert 'class="most"' in page


@pytest.mark.parametrize(("head", "parts"), [("mean", ()), ("best frame", ("gain",))])
def test_a_config_chooses_the_head(head, parts):
    settings = recipe.read(config_with(head))
    assert settings.model.head.name == head
    assert learned_parts(settings.model) == parts
    assert model_config(model_settings(settings.model)) == settings.model
    params = jax.eval_shape(lambda: init_params(GLSCL(settings.model), 0))
    assert set(params) == {"clip", "temporal", *parts}
    # GLSCL's settings play no part, and nobody is left to think that they do.
    told = recipe.without_part(config_with(head), settings.model)
    assert told.startswith(f"head {head}: ")
    assert "config.model.head.lim_weight" in told
    assert "config.losses.alpha" in told
    glscl = config_with("glscl")
    assert recipe.without_part(glscl, recipe.read(glscl).model) == ""


def test_a_head_without_a_score_cannot_be_made():
    @dataclasses.dataclass(frozen=True)
    class Silent(Head):
        name = "silent"

    with pytest.raises(TypeError, match="abstract methods") as caught:
        Silent()
    assert all(name in str(caught.value) for name in ("cost", "prepare", "score", "explain"))


def test_settings_of_no_head_are_refused():
    config = config_with("mean")
    with pytest.raises(UserError, match=r"config.losses: gama: there is no such setting"):
        recipe.read(config_with("mean", losses__gama=1.0))
    config.model.head.sharpnes = 2.0
    with pytest.raises(UserError, match=r"config.model: head.sharpnes: there is no such setting"):
        recipe.read(config)
    config = config_with("best frame", losses__gamma=0.5)
    config.model.head.sharpness = 3.0
    settings = recipe.read(config)
    assert (settings.model.head.sharpness, settings.losses.gamma) == (3.0, 0.5)


def pairs(clip, count=4, frames=2, words=5):
    """A batch of pairs, some of whose frames and tokens are padding."""
    rng, side = np.random.default_rng(0), clip.image_size
    return {
        "text_ids": rng.integers(1, clip.vocab_size, (count, words)).astype(np.int32),
        "text_mask": (np.arange(words) < rng.integers(2, words + 1, (count, 1))).astype(np.int32),
        "frames": rng.integers(0, 256, (count, frames, side, side, 3), np.uint8),
        "frame_mask": (np.arange(frames) < [[2], [1], [2], [2]]).astype(np.int32),
    }


@pytest.mark.parametrize("head", [pytest.param("mean", marks=pytest.mark.slow), "best frame"])
def test_a_head_trains_whole_in_blocks_and_in_micro_batches(head):
    settings = recipe.read(config_with(head))
    model = GLSCL(settings.model)
    params = jax.jit(lambda: init_params(model, 0))()
    batch = pairs(model.config.clip)
    run = functools.partial(gradient, model=model, weights=settings.losses)
    whole, losses = jax.jit(run)(params, batch, None)
    assert set(losses.own) == ({"spread"} if head == "best frame" else set())
    assert losses.total == pytest.approx(
        float(losses.contrastive) + sum(map(float, losses.own.values())), abs=1e-6
    )
    moved = {part for part in whole if any(np.any(x) for x in jax.tree.leaves(whole[part]))}
    assert moved == set(params)
    apart = jax.jit(functools.partial(run, microbatch=2, loss_block=2))
    other, again = apart(params, batch, None)
    assert float(again.total) == pytest.approx(float(losses.total), abs=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-4), whole, other)


def test_features_of_another_head_are_kept_and_read(tmp_path):
    rng = np.random.default_rng(0)
    text = OfText(rng.normal(size=(3, D)).astype(np.float32))
    mask = np.array([[1, 0], [1, 1]], np.int32)
    video = OfVideo(rng.normal(size=(2, 2, D)).astype(np.float32), mask)
    store = Store.open(tmp_path, identity={})
    store.put("video", 0, video_arrays(video, ["a", "b"], [["one"], ["two", "three"]]))
    store.put("text", 0, text_arrays(text))
    store.finish()
    found = load_features(tmp_path, BestFrame())
    jax.tree.map(np.testing.assert_array_equal, (found.text, found.video), (text, video))
    assert found.owner.tolist() == [0, 1, 1]
