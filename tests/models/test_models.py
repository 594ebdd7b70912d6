"""The model's sizes, options and independence of what it should not see."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax import target
from glscl_jax.models.encoders.clip import CLIP
from glscl_jax.models.encoders.images import CLIP_MEAN, CLIP_STD
from glscl_jax.models.encoders.products import matmul
from glscl_jax.models.encoders.temporal import TemporalLSTM
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import (
    GLSCL,
    encode_text,
    encode_video,
    init_params,
    model_config,
    model_settings,
)
from tests.builders import SHORT, TINY, batch, fresh

# As torch counts the models of open_clip 3.3 (ViT-B/32 is the count its authors' code prints; a
# Perception Encoder's without its projection's bias, which timm adds); tiny is this project's own.
PARAMETERS = {
    "tiny": 1_457_409,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336": 427_944_193,
    "ViT-H/14": 986_109_441,
    "ViT-g/14": 1_366_678_273,
    "ViT-bigG/14": 2_539_567_105,
    "MetaCLIP2-bigG/14@378": 3_631_197_057,
    "CLIPA-L/14@336": 414_538_241,
    "SigLIP-B/16": 203_155_970,
    "SigLIP-SO400M/14": 877_360_306,
    "SigLIP2-B/32@256": 376_856_066,
    "SigLIP2-g/16@256": 1_871_393_906,
    "PE-Core-T/16@384": 69_545_601,
    "PE-Core-L/14@336": 671_137_793,
    "PE-Core-G/14@448": 2_419_266_561,
}


def count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    # Of any depth a stack is traced once.
    config = VARIANTS[name]
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    ids = jnp.zeros((1, config.fixed_length or 4), jnp.int32)
    shapes = jax.eval_shape(CLIP(config).init, jax.random.key(0), images, ids, ids)
    assert count(shapes) == PARAMETERS[name]


# Each temporal module, and either way of sharing; nothing that one of them does is the other's.
@pytest.mark.parametrize(
    ("temporal", "share"),
    [
        ("seqTransf", True),
        pytest.param("seqLSTM", False, marks=pytest.mark.slow),
        pytest.param("None", False, marks=pytest.mark.slow),
    ],
)
def test_every_option_encodes(temporal, share):
    config = dataclasses.replace(
        TINY,
        temporal=temporal,
        head=dataclasses.replace(TINY.head, share_queries=share, share_decoder=share),
    )
    model, inputs, params = GLSCL(config), batch(), fresh(config)
    text, video, scale = jax.jit(model.apply)({"params": params}, *inputs.values())
    assert text.queries.shape == video.queries.shape == (2, 3, 128)
    assert video.frames.shape == (2, 4, 128)
    np.testing.assert_allclose(np.linalg.norm(text.queries, axis=-1), 1, rtol=1e-5)
    assert scale == pytest.approx(np.log(1 / 0.07))
    own = (
        {"queries", "decoder"} if share else {"queries", "decoder", "text_queries", "video_decoder"}
    )
    assert set(params["lim"]) == own


def test_the_lstm_leaves_padded_frames_as_they_are():
    frames = np.random.default_rng(0).normal(size=(3, 5, 64)).astype(np.float32)
    mask = (np.arange(5) < np.array([[5], [2], [1]])).astype(np.int32)
    lstm = TemporalLSTM(jnp.float32)
    for kept in (slice(None), slice(1, None)):  # with a clip that has no padding, and without
        params = lstm.init(jax.random.key(0), frames[kept], mask[kept])
        found = lstm.apply(params, frames[kept], mask[kept])
        hidden = mask[kept] == 0
        np.testing.assert_array_equal(found[hidden], frames[kept][hidden])
        assert (np.abs(found - frames[kept])[~hidden].max(axis=-1) > 1e-3).all()


def test_decoder_layers_start_as_copies():
    params = fresh(SHORT)
    for leaf in jax.tree.leaves(params["lim"]["decoder"]):
        np.testing.assert_array_equal(leaf[0], leaf[1])
    blocks = params["clip"]["text"]["transformer"]["blocks"]["mlp_in"]["kernel"]
    assert not np.array_equal(blocks[0], blocks[1])


def test_frames_are_normalised_and_padding_is_zero_after():
    inputs = batch()
    inputs["frame_mask"][0, 2:] = 0
    normalize = TINY.clip.preprocessing.normalize
    found = normalize(jnp.array(inputs["frames"]), jnp.array(inputs["frame_mask"]))
    expected = (inputs["frames"] / 255.0 - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
    assert not np.any(found[0, 2:])
    # Floats are taken as normalised already.
    np.testing.assert_array_equal(normalize(found, jnp.array(inputs["frame_mask"])), found)


def test_a_text_does_not_see_its_padding():
    model, inputs, params = GLSCL(SHORT), batch(), fresh(SHORT)
    encode = jax.jit(lambda ids, mask: encode_text(params, ids, mask, model=model))
    before = encode(inputs["ids"], inputs["text_mask"]).sentence
    longer = np.concatenate([inputs["ids"], np.zeros((2, 3), np.int32)], axis=1)
    after = encode(longer, (longer > 0).astype(np.int32)).sentence
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_any_batch_size():
    inputs, params = batch(texts=2, videos=2), fresh(TINY)
    encode = jax.jit(functools.partial(encode_video, params, model=GLSCL(TINY)))
    both = encode(inputs["frames"], inputs["frame_mask"])
    part = encode(inputs["frames"][:1], inputs["frame_mask"][:1])
    np.testing.assert_allclose(both.frames[:1], part.frames, atol=1e-5)


def test_bfloat16_stays_close_and_remat_changes_nothing():
    inputs, params = batch(), fresh(SHORT)

    def loss(config):
        def compute(params):
            frames, mask = inputs["frames"], inputs["frame_mask"]
            video = encode_video(params, frames, mask, model=GLSCL(config))
            return (video.frames.astype(jnp.float32) ** 2).mean() + video.queries.mean()

        return compute

    value, plain = jax.jit(jax.value_and_grad(loss(SHORT)))(params)
    for remat in ("dots", "full"):
        again = jax.jit(jax.grad(loss(dataclasses.replace(SHORT, remat=remat))))(params)
        for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    # Without a loop nothing else keeps a compiler from merging what is computed twice.
    written_out = dataclasses.replace(SHORT, remat="full", scan=False)
    lowered = jax.jit(jax.grad(loss(written_out))).lower(params).as_text()
    assert "optimization_barrier" in lowered
    half = jax.jit(loss(dataclasses.replace(SHORT, dtype="bfloat16")))(params)
    assert half == pytest.approx(float(value), rel=2e-2)


def test_compile_time_does_not_grow_with_depth():
    def operations(layers):
        config = dataclasses.replace(TINY, clip=dataclasses.replace(TINY.clip, text_layers=layers))
        model, inputs = GLSCL(config), batch()
        params = jax.eval_shape(lambda: init_params(model, 0))
        encode = jax.jit(lambda p: encode_text(p, inputs["ids"], inputs["text_mask"], model=model))
        return len(encode.lower(params).as_text().splitlines())

    assert operations(24) == operations(12)


def test_settings_make_the_same_config_again():
    assert model_config(model_settings(TINY)) == TINY


def test_settings_of_the_head_where_they_once_stood():
    settings = model_settings(TINY)
    old = {**settings, **settings["head"]}
    del old["head"], old["name"], old["clip"]["vision_head_width"], old["clip"]["text_head_width"]
    assert model_config(old) == TINY


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip": {"variant": "ViT-Z"}}, "ViT-Z"),
        ({"clip": {"variant": "tiny"}, "quaries": 8}, "quaries"),
        ({"clip": {"variant": "tiny", "image_size": 33}}, "33"),
        ({"clip": {"variant": "tiny", "text_width": 100}}, "100"),
        ({"clip": {"variant": "tiny"}, "temporal": "seqGRU"}, "seqGRU"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        model_config(settings)


def test_products_are_flattened_but_for_a_tpu():
    x, kernel = jnp.ones((2, 3, 4)), jnp.ones((4, 5))

    def operations():
        # A function of its own: JAX keeps what it has traced of one.
        traced = jax.make_jaxpr(lambda *arguments: matmul(*arguments))(x, kernel)
        return [str(line.primitive) for line in traced.eqns]

    assert operations() == ["reshape", "dot_general", "reshape"]
    with target.compiling_for("tpu"):
        assert operations() == ["dot_general"]
        np.testing.assert_array_equal(matmul(x, kernel), np.full((2, 3, 5), 4.0))
