"""What holds for every head, whatever its formula."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCL, init_params, learned_parts, model_config, model_settings
from glscl_jax.models.heads.dicosa import DiCoSAHead
from glscl_jax.models.heads.gim_alone import GIMHead
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import HEADS as KNOWN
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.models.heads.wti import WTIHead
from glscl_jax.models.heads.x_pool import XPoolHead
from glscl_jax.retrieval import metrics, ranking
from glscl_jax.retrieval.encoded_split import (
    Store,
    load_features,
    text_arrays,
    video_arrays,
)
from glscl_jax.retrieval.score_blocks import score_in_blocks
from glscl_jax.training import recipe
from glscl_jax.training.objective import PairFeatures, feature_losses, gradient
from tests.builders import SMALL, mesh_of
from tests.heads import WIDTH, Alone, draw, encodings
from tests.products import multiply_adds_of
from tests.recipes import config_with

SMALL_LIM = {"queries": 2, "lim_layers": 1, "lim_heads": 2, "lim_feed_forward": 16}
ALL = {
    "mean": MeanHead(),
    "gim": GIMHead(2.0),
    "gim of directions": GIMHead(0.05, normalised=True),
    "glscl": GLSCLHead(**SMALL_LIM),
    "lim alone": GLSCLHead(gim_weight=0.0, **SMALL_LIM),
    "one query of each side": GLSCLHead(
        **{**SMALL_LIM, "queries": 1}, share_queries=False, share_decoder=False
    ),
    "wti": WTIHead(),
    "x_pool": XPoolHead(),
    "dicosa": DiCoSAHead(queries=4),
}
every_head = pytest.mark.parametrize("head", ALL.values(), ids=ALL)
# The others are whole models' in tests of training and ranking.
PEERS = ("wti", "x_pool", "dicosa")
every_peer = pytest.mark.parametrize("head", [ALL[name] for name in PEERS], ids=PEERS)


@functools.cache
def drawn_of(head):
    return draw(head)


def test_they_are_all_there():
    assert {head.name for head in ALL.values()} <= KNOWN.keys()
    with pytest.raises(UserError) as refused:
        recipe.read(config_with("xpool"))
    told = str(refused.value)
    assert "\n" not in told
    assert "name is 'xpool': give one of " in told
    assert all(name in told for name in KNOWN)


@every_head
def test_a_block_of_what_is_prepared_has_the_same_scores(head):
    drawn = drawn_of(head)
    whole = head.score(drawn.text, drawn.video)
    found = score_in_blocks(drawn.text, drawn.video, head=head, text_block=2, video_block=3)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)
    assert found.dtype == np.float32
    assert np.isfinite(whole).all()


@every_peer
def test_devices_that_share_the_videos_find_the_same_ranks(head):
    drawn, owner = drawn_of(head), np.array([0, 1, 2, 3, 1])
    found = ranking.ranks_in_blocks(
        drawn.text, drawn.video, owner, head=head, mesh=mesh_of({"data": 4, "fsdp": 1, "tensor": 1})
    )
    expected = metrics.retrieval(np.asarray(head.score(drawn.text, drawn.video)), owner)
    for name in ("t2v", "v2t"):
        np.testing.assert_array_equal(getattr(found, name).mean, getattr(expected, name).mean)


@every_head
def test_what_it_tells_sums_up_to_its_score(head):
    drawn = drawn_of(head)
    whole = head.score(drawn.text, drawn.video)
    for a, b in ((0, 0), (3, 1), (4, 3)):
        text, video = jax.tree.map(lambda x: x[a], drawn.text), None  # noqa: B023
        video = jax.tree.map(lambda x: x[b], drawn.video)  # noqa: B023
        told = head.explain(text, video)
        assert told.score == pytest.approx(float(whole[a, b]), abs=1e-5)
        weights = np.asarray(told.weights)
        assert not weights[drawn.videos["mask"][b] == 0].any()
        assert 0 < weights.sum() <= 1 + 1e-6
    assert all(term and text for term, text in head.legend)


def test_without_the_gim_no_frame_is_said_to_weigh_more_than_another():
    head = ALL["lim alone"]
    drawn = drawn_of(head)
    text, even = jax.tree.map(lambda x: x[0], drawn.text), drawn.videos["mask"]
    expected = even / even.sum(1, keepdims=True)
    np.testing.assert_allclose(head.frame_importance(text, drawn.video), expected, atol=1e-6)
    video = jax.tree.map(lambda x: x[1], drawn.video)
    np.testing.assert_allclose(head.explain(text, video).weights, expected[1], atol=1e-6)
    assert "GIM" in ALL["glscl"].legend[0][0]
    assert "GIM" not in head.legend[0][0]


@every_head
def test_its_cost_is_that_of_its_products(head):
    """Counted as what a text, a video and a pair more adds."""
    drawn = drawn_of(head)
    module, params = Alone(head), {"params": {f"learned_{k}": v for k, v in drawn.params.items()}}

    def text(size):
        inputs = encodings(texts=size)[0]
        return jax.make_jaxpr(lambda x: module.apply(params, **x, method="text"))(inputs)

    def video(size):
        inputs = encodings(videos=size)[1]
        return jax.make_jaxpr(lambda x: module.apply(params, **x, method="video"))(inputs)

    def added(make):
        more, fewer = (multiply_adds_of(make(size).jaxpr) for size in (4, 3))
        return more - fewer

    def of_prepare(size):
        return jax.make_jaxpr(head.prepare)(part(size))

    def part(size):
        return jax.tree.map(lambda x: x[:size], drawn.video)

    prepared = jax.eval_shape(head.prepare, drawn.video)
    pairs = jax.make_jaxpr(head.score)(drawn.text, drawn.video, prepared)
    cost = head.cost(WIDTH, words=6, frames=3)
    assert added(text) == cost.text
    assert added(video) == cost.video
    assert added(of_prepare) == cost.prepared
    assert multiply_adds_of(pairs.jaxpr) == 5 * 4 * cost.pair


@pytest.mark.parametrize("head", [ALL[name] for name in ("lim alone", *PEERS)])
def test_its_gradient_is_finite_and_reaches_all_that_it_has_learned(head):
    drawn = drawn_of(head)
    module = Alone(head)
    texts = jax.tree.map(lambda x: x[:4], drawn.texts)
    # A frame that is black to the last digit, as padding is before a temporal module.
    frames = drawn.videos["frames"] * drawn.videos["mask"][..., None]

    def loss(params, frames):
        videos = {**drawn.videos, "frames": frames}
        params = {"params": {f"learned_{name}": x for name, x in params.items()}}
        text, video = module.apply(params, texts, videos)
        weights = head.loss_weights()
        own = sum(head.losses(text, video, weights).values())
        return jnp.sum(jnp.square(head.score(text, video))) + own

    by_params, by_frames = jax.jit(jax.grad(loss, argnums=(0, 1)))(drawn.params, frames)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((by_params, by_frames)))
    assert by_frames.any()
    for path, slope in jax.tree_util.tree_leaves_with_path(by_params):
        # A shift of all keys, or of all logits, changes no softmax.
        name = jax.tree_util.keystr(path)
        free = ("['key']['bias']", "weights']['linear_2']['bias']", "_bias']['bias']")
        assert slope.any() or name.endswith(free), name


@every_peer
def test_losses_in_blocks_are_those_of_the_whole(head):
    drawn = drawn_of(head)
    four = functools.partial(jax.tree.map, lambda x: x[:4])
    pairs = PairFeatures(four(drawn.text), drawn.video)
    model = GLSCL(_small(head))
    run = functools.partial(
        feature_losses,
        {"clip": {"logit_scale": jnp.float32(2.0)}},
        pairs,
        model=model,
        weights=head.loss_weights(),
    )
    whole = jax.jit(run)()
    mesh = mesh_of({"data": 2, "fsdp": 1, "tensor": 1})
    shared = jax.jit(functools.partial(run, loss_block=1, mesh=mesh))()
    assert float(shared.total) == pytest.approx(float(whole.total), abs=1e-5)


def _small(head):
    return dataclasses.replace(SMALL, head=head)


@every_peer
def test_its_features_are_kept_and_read(head, tmp_path):
    drawn = drawn_of(head)
    store = Store.open(tmp_path, identity={})
    clips = ["a", "b", "c", "d"]
    captions = [["one"], ["two", "three"], ["four"], ["five"]]
    store.put("video", 0, video_arrays(jax.device_get(drawn.video), clips, captions))
    store.put("text", 0, text_arrays(jax.device_get(drawn.text)))
    store.finish()
    found = load_features(tmp_path, head)
    jax.tree.map(
        np.testing.assert_array_equal, (found.text, found.video), (drawn.text, drawn.video)
    )


@pytest.mark.parametrize("name", ["gim", "wti", "x_pool", "dicosa"])
def test_a_config_makes_it(name):
    settings = recipe.read(config_with(name))
    assert settings.model.head.name == name
    assert model_config(model_settings(settings.model)) == settings.model
    parts = learned_parts(settings.model)
    params = jax.eval_shape(lambda: init_params(GLSCL(settings.model), 0))
    assert set(params) == {"clip", "temporal", *parts}
    assert bool(parts) == (name != "gim")


def test_the_ablations_are_reachable_by_config():
    off = {"losses__alpha": 0.0, "losses__beta": 0.0, "losses__centre": 0.0}
    for queries in (1, 32):
        config = config_with("glscl", model__head__queries=queries, **off)
        config.model.head.update(gim_weight=0.0, share_queries=False, share_decoder=False)
        settings = recipe.read(config)
        assert settings.model.head.queries == queries
        drawn = drawn_of(ALL["glscl"])
        own = settings.model.head.losses(
            jax.tree.map(lambda x: x[:4], drawn.text), drawn.video, settings.losses
        )
        assert [float(x) for x in own.values()] == [0.0, 0.0]
    with pytest.raises(UserError, match=r"queries is 0.*1 or more"):
        recipe.read(config_with("glscl", model__head__queries=0))
    both = config_with("glscl", model__head__gim_weight=0.0, model__head__lim_weight=0.0)
    with pytest.raises(UserError, match="nothing is left to score by"):
        recipe.read(both)


@pytest.mark.slow
def test_under_encoders_in_micro_batches_all_of_it_trains():
    """The one whose texts' padding counts."""
    settings = recipe.read(config_with("wti"))
    model = GLSCL(settings.model)
    params = init_params(model, 0)
    clip, rng = settings.model.clip, np.random.default_rng(0)
    side = clip.image_size
    batch = {
        "text_ids": rng.integers(1, clip.vocab_size, (4, 5)).astype(np.int32),
        "text_mask": (np.arange(5) < [[2], [5], [3], [4]]).astype(np.int32),
        "frames": rng.integers(0, 256, (4, 2, side, side, 3), np.uint8),
        "frame_mask": np.array([[1, 0], [1, 1], [1, 1], [1, 0]], np.int32),
    }
    run = functools.partial(gradient, model=model, weights=settings.losses, microbatch=2)
    slopes, losses = jax.jit(run)(params, batch, None)
    assert np.isfinite(losses.total)
    assert all(any(np.any(x) for x in jax.tree.leaves(part)) for part in slopes.values())
    # Another word where no real one is: the causal tower shows it to nobody, and nor does WTI.
    other = {**batch, "text_ids": np.where(batch["text_mask"] > 0, batch["text_ids"], 7)}
    _, again = jax.jit(run)(params, other, None)
    assert float(again.total) == pytest.approx(float(losses.total), abs=1e-6)
