"""The count by hand: equal to the traced program's products, close to XLA's count of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from glscl_jax.models.encoders import temporal
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.profiling.model_flops import forward_flops, training_flops
from glscl_jax.training.objective import encode_pairs, gradient
from tests.products import multiply_adds_of

# All different, so that no two letters of a formula can be confused.
SIZES = {"batch": 5, "words": 11, "frames": 3}
TINY = GLSCLConfig(
    VARIANTS["tiny"],
    temporal_layers=2,
    head=GLSCLHead(queries=7, lim_layers=2, lim_feed_forward=96),
)


def abstract(config, batch, words, frames):
    """Shapes of the parameters and of a batch; nothing is made."""

    def whole(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    side = config.clip.image_size
    clips = {
        "text_ids": whole(batch, words),
        "text_mask": whole(batch, words),
        "frames": jax.ShapeDtypeStruct((batch, frames, side, side, 3), jnp.uint8),
        "frame_mask": whole(batch, frames),
    }
    return jax.eval_shape(lambda: init_params(GLSCL(config), 0)), clips


def forward(params, clips, *, config):
    """The scores of all pairs."""
    features = encode_pairs(params, clips, None, model=GLSCL(config))
    return GLSCLConfig().head.score(features.text, features.video)


@pytest.mark.parametrize("kind", temporal.KINDS)
def test_equals_the_products_of_the_program(kind):
    config = dataclasses.replace(TINY, temporal=kind)
    arguments = abstract(config, **SIZES)
    jaxpr = jax.make_jaxpr(functools.partial(forward, config=config))(*arguments).jaxpr
    counted = 2 * multiply_adds_of(jaxpr)
    assert SIZES["batch"] * forward_flops(config, **SIZES).total == counted


@pytest.mark.parametrize(
    "variant", ["tiny-bigG", "tiny-CLIPA", "tiny-SigLIP", "tiny-PE", "tiny-PE-G"]
)
def test_equals_the_products_of_every_family(variant):
    clip = VARIANTS[variant]
    config = dataclasses.replace(TINY, clip=clip)
    sizes = SIZES | {"words": clip.fixed_length or SIZES["words"]}
    jaxpr = jax.make_jaxpr(functools.partial(forward, config=config))(
        *abstract(config, **sizes)
    ).jaxpr
    ours = sizes["batch"] * forward_flops(config, **sizes).total
    assert ours == 2 * multiply_adds_of(jaxpr)


def xla_flops(config, sizes):
    """XLA's count of a forward pass that is only lowered."""
    step = jax.jit(functools.partial(forward, config=config))
    return step.lower(*abstract(config, **sizes)).cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("config", "sizes", "above"),
    [
        # What is elementwise is XLA's besides: much beside narrow products, little beside wide.
        (TINY, SIZES, 0.07),
        (GLSCLConfig(), {"batch": 4, "words": 32, "frames": 12}, 0.02),
    ],
    ids=["tiny", "ViT-B/32"],
)
def test_is_close_to_xla_s_count_of_layers_written_out(config, sizes, above):
    ours = sizes["batch"] * forward_flops(config, **sizes).total
    written_out = xla_flops(dataclasses.replace(config, scan=False), sizes)
    assert 1 <= written_out / ours < 1 + above


def test_xla_counts_a_scanned_layer_once():
    # Why the count is by hand: most of the FLOPs are missing from XLA's.
    assert xla_flops(GLSCLConfig(), SIZES) < 0.2 * 5 * forward_flops(GLSCLConfig(), **SIZES).total


def test_training_is_three_forward_passes():
    # The program's gradient has fewer products, by one of the patches, which asks for no gradient
    # of pixels, and more by those of the loss over queries.
    arguments = abstract(TINY, **SIZES)
    jaxpr = jax.make_jaxpr(
        lambda params, clips: gradient(
            params, clips, None, model=GLSCL(TINY), weights=LossWeights()
        )[0]
    )(*arguments).jaxpr
    clip, batch = TINY.clip, SIZES["batch"]
    ours = batch * training_flops(TINY, **SIZES)
    patches = (clip.image_size // clip.patch_size) ** 2 * 3 * clip.patch_size**2
    pixels = 2 * batch * SIZES["frames"] * patches * clip.vision_width
    counted = 2 * multiply_adds_of(jaxpr) + pixels
    assert ours == pytest.approx(counted, rel=0.01)


def test_a_clip_by_hand():
    # ViT-B/32 is known for 4.4 G multiply-adds an image: 8.7 GFLOP.
    flops = forward_flops(GLSCLConfig(), batch=1, words=32, frames=1)
    assert flops.vision == pytest.approx(8.7e9, rel=0.02)
