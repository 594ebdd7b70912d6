"""What sets families of encoders apart, each against what it is said to be."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax import target
from glscl_jax.models.encoders.clip import sentence_feature
from glscl_jax.models.encoders.rotary import apply_rotary, rotary_angles
from glscl_jax.models.encoders.transformer import ACTIVATIONS
from glscl_jax.models.encoders.variants import VARIANTS, variant_of
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, model_config, model_settings
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval.encoder_inputs import check_text
from tests.builders import params_of

# Of OpenAI's build there are tests elsewhere.
OTHERS = ("tiny-MetaCLIP2", "tiny-CLIPA", "tiny-SigLIP", "tiny-PE-G", "tiny-VideoPrism")
# These two have towers like OpenAI's and settings that conversion's tests compare with theirs.
ALIKE = ("tiny-MetaCLIP2", "tiny-CLIPA")
MADE = [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in OTHERS]
HEAD = GLSCLHead(queries=3, lim_layers=1, lim_feed_forward=16)


def test_every_variant_is_what_a_config_can_say():
    for name, clip in VARIANTS.items():
        config = GLSCLConfig(clip=clip, temporal="None")
        clip.check()
        assert model_config(model_settings(config)) == config
        assert variant_of(clip) == name
        # From the name alone, as a recipe gives it.
        assert model_config({"clip": {"variant": name}}).clip == clip


def test_no_two_families_have_a_setting_alone():
    """Each setting is used: some variant has another value than OpenAI's."""
    usual, used = VARIANTS["ViT-B/32"], set()
    for clip in VARIANTS.values():
        used |= {key for key, value in vars(clip).items() if value != getattr(usual, key)}
    assert vars(usual).keys() == used


def test_a_variant_is_known_whatever_its_vocabulary_and_activation():
    clip = dataclasses.replace(VARIANTS["ViT-B/32"], vocab_size=7, activation="gelu")
    assert variant_of(clip) == "ViT-B/32"
    assert variant_of(VARIANTS["SigLIP2-B/16"]) == "SigLIP2-B/16"
    assert variant_of(dataclasses.replace(clip, vision_layers=5)) is None


@pytest.mark.parametrize("name", MADE)
def test_every_family_feeds_the_head(name):
    """Tokens, sentence and frames of one width, of which GLSCL makes a finite score."""
    clip = dataclasses.replace(VARIANTS[name], vision_layers=1, text_layers=1)
    config = GLSCLConfig(clip=clip, temporal="None", head=HEAD)
    random, length = np.random.default_rng(0), clip.fixed_length or 7
    ids = random.integers(3, clip.vocab_size, (2, length)).astype(np.int32)
    ids[:, 4] = clip.end_id or clip.vocab_size - 1
    mask = np.broadcast_to((np.arange(length) < 5).astype(np.int32), ids.shape)
    frames = random.integers(0, 256, (2, 3, 32, 32, 3)).astype(np.uint8)
    params = jax.tree.map(lambda x: 0.1 * x, params_of(config, 0))

    def run(model):
        text, video, scale = model(ids, mask, frames, jnp.ones((2, 3), jnp.int32))
        _, tokens = model.clip.texts(ids, mask)
        return tokens, text, video, scale, config.head.score(text, video)

    model = GLSCL(config)
    tokens, text, video, _, score = jax.jit(
        lambda params: model.apply({"params": params}, method=run)
    )(params)
    assert tokens.shape == (2, length, clip.embed_dim)
    assert video.frames.shape == (2, 3, clip.embed_dim)
    place = length - 1 if clip.text_pooling == "last" else 4
    if clip.text_pooling != "class":
        np.testing.assert_allclose(text.sentence, tokens[:, place], atol=1e-6)
    assert np.isfinite(score).all()
    assert score.shape == (2, 2)
    # Frames differ, and are told apart.
    assert np.abs(np.diff(video.frames, axis=1)).max() > 1e-3


def test_where_the_sentence_is():
    ids = jnp.array([[5, 9, 2, 2, 0], [9, 2, 7, 0, 0]])
    tokens = jnp.arange(10.0).reshape(2, 5, 1)

    def found(**settings):
        clip = dataclasses.replace(VARIANTS["tiny"], **settings)
        return sentence_feature(tokens, ids, clip)[:, 0].tolist()

    assert found() == [1, 5]
    assert found(text_pooling="end", end_id=2) == [2, 6]
    assert found(text_pooling="last") == found(text_pooling="class") == [4, 9]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_rotary_positions_are_products_with_a_rotation(platform):
    """Against each pair's own 2 x 2 matrix, written out."""
    side, width, first = 3, 8, 1
    angles = rotary_angles(side, width, class_token=True, length=side**2 + first + 2)
    heads = np.random.default_rng(0).normal(size=(1, side**2 + first + 2, 1, width))
    expected = heads.copy()
    for patch in range(side**2):
        y, x = divmod(patch, side)
        # Two pairs turn with x, two with y; the first of each by a radian a patch, the second by
        # a hundredth (10,000^-1/2).
        for pair, angle in enumerate(((x + 1), (x + 1) / 100, (y + 1), (y + 1) / 100)):
            matrix = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            numbers = slice(2 * pair, 2 * pair + 2)
            place = patch + first
            expected[0, place, 0, numbers] = matrix @ heads[0, place, 0, numbers]
    with target.compiling_for(platform):
        found = apply_rotary(jnp.asarray(heads, jnp.float32), angles)
    # The class token and what fills up are as they were.
    np.testing.assert_allclose(found, expected, atol=1e-6)
    apart = rotary_angles(side, width, class_token=False, length=side**2)
    np.testing.assert_array_equal(apart.cos[0], 1)


def test_the_approximation_by_tanh_is_another_function():
    x = jnp.linspace(-3, 3, 31)
    cubed = 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(ACTIVATIONS["gelu_tanh"](x), cubed, atol=1e-6)
    assert np.abs(ACTIVATIONS["gelu_tanh"](x) - ACTIVATIONS["gelu"](x)).max() > 1e-4


def test_what_sees_its_padding_has_one_length():
    clip = VARIANTS["tiny-SigLIP"]
    assert clip.fixed_length == 16
    ids = np.ones((2, 9), np.int32)
    with pytest.raises(ValueError, match="9 is not 16, which all texts of this model have"):
        check_text(ids, ids, clip)
    check_text(np.ones((2, 16), np.int32), np.ones((2, 16), np.int32), clip)
    VARIANTS["tiny"].check_length(9)


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("tiny", {"vision_pooling": "max"}, "vision_pooling is 'max': give one of class"),
        ("tiny", {"class_token": False}, "takes a class token"),
        ("tiny", {"text_pooling": "end"}, "give end_id"),
        ("tiny", {"text_projection": "none", "embed_dim": 64}, "text_width 128, which is not"),
        ("tiny", {"vision_head_width": 48}, "vision_width 128 is no multiple of 48"),
        ("tiny-PE", {"vision_head_width": 2}, "no multiple of 4: rotary"),
        ("tiny-PE", {"probe_heads": 5}, "does not make 5 heads"),
        ("tiny", {"layer_norm_epsilon": 0.0}, "layer_norm_epsilon is 0.0"),
        ("tiny", {"vision_mlp_width": 0}, "a whole number, 1 or more, or None"),
    ],
)
def test_settings_that_cannot_be_mixed(variant, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model_config({"clip": {"variant": variant, **changes}})
