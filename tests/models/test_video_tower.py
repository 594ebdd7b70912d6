"""The factorised space-time encoder: what a frame sees, positions in time, rates and costs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.models.encoders.clip import CLIP
from glscl_jax.models.encoders.parameters import stage_of
from glscl_jax.models.encoders.sinusoids import sinusoids
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.encoders.video_tower import resampling
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params, model_config
from glscl_jax.profiling.model_flops import forward_flops
from glscl_jax.training.groups import heights
from glscl_jax.training.optim_config import OptimConfig
from glscl_jax.training.warm_start import start_params

TINY = VARIANTS["tiny-VideoPrism"]
SMALL = dataclasses.replace(TINY, vision_layers=1, text_layers=1, vocab_size=64)


@pytest.fixture(scope="module")
def params():
    """Random everywhere: what begins at 0 would hide its part."""
    return drawn(GLSCLConfig(clip=SMALL, temporal="None"), 0)["clip"]


def drawn(config: GLSCLConfig, seed: int):
    """Parameters of a normal distribution, without compiling what would initialise them."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(config), 0))
    return jax.tree.map(lambda x: np.float32(0.1 * random.normal(size=x.shape)), shapes)


@jax.jit
def frames_of(params, videos, mask):
    return CLIP(SMALL).apply({"params": params}, videos, mask, method="frames")


@jax.jit
def texts_of(params, ids, mask):
    return CLIP(SMALL).apply({"params": params}, ids, mask, method="texts")


def videos(*shape):
    size = SMALL.image_size
    return np.random.default_rng(0).random((*shape, size, size, 3)).astype(np.float32)


def test_padding_changes_no_real_frame(params):
    """Neither what stands in it, nor how much of it there is, nor where."""
    three = videos(1, 3)
    alone = frames_of(params, three, np.ones((1, 3), np.int32))[0]
    padded = np.concatenate([three, 9 * videos(1, 2)], axis=1)
    mask = np.array([[1, 1, 1, 0, 0]], np.int32)
    found = frames_of(params, padded, mask)[0, :3]
    np.testing.assert_allclose(found, alone, rtol=0, atol=2e-6)
    blank = np.where(mask[:, :, None, None, None] > 0, padded, 0)
    assert np.array_equal(frames_of(params, blank, mask)[0, :3], found)
    scattered = padded[:, [3, 0, 4, 1, 2]]
    found = frames_of(params, scattered, np.array([[0, 1, 0, 1, 1]], np.int32))
    np.testing.assert_allclose(found[0, [1, 3, 4]], alone, rtol=0, atol=2e-6)
    # And the frames of one video see each other, and none of another.
    both = frames_of(params, np.concatenate([three, three[:, ::-1]]), np.ones((2, 3), np.int32))
    np.testing.assert_allclose(both[0], alone, rtol=0, atol=2e-6)
    assert np.abs(both[1, ::-1] - alone).max() > 1e-2
    assert np.isfinite(frames_of(params, padded, 0 * mask)).all()


def test_padding_gets_no_gradient(params):
    mask = np.array([[1, 1, 0]], np.int32)

    def total(given):
        return (frames_of(params, given, mask)[0, :2] ** 2).sum()

    slope = jax.grad(total)(jnp.asarray(videos(1, 3)))[0]
    assert np.abs(slope[2]).max() == 0 < np.abs(slope[1]).max()


@pytest.mark.parametrize(("frames", "positions"), [(4, 4), (1, 4), (3, 4), (12, 16), (12, 8)])
def test_positions_are_resampled_as_jax_resizes(frames, positions):
    table = np.random.default_rng(0).normal(size=(positions, 5)).astype(np.float32)
    weights = resampling(jnp.ones((1, frames), jnp.int32), positions)[0]
    expected = jax.image.resize(table, (frames, 5), "bilinear")
    np.testing.assert_allclose(weights @ table, expected, rtol=0, atol=1e-5)
    if frames == positions:
        assert np.array_equal(weights, np.eye(positions))


def test_texts_depend_on_no_padding_and_end_in_a_class_token(params):
    ids = np.array([[5, 6, 7, 0, 0, 0]], np.int32)
    sentence, tokens = texts_of(params, ids, np.array([[1, 1, 1, 0, 0, 0]], np.int32))
    short, its_tokens = texts_of(params, ids[:, :3], np.ones((1, 3), np.int32))
    assert tokens.shape == (1, 6, 128)
    assert its_tokens.shape == (1, 3, 128)
    np.testing.assert_allclose(sentence, short, rtol=0, atol=2e-6)
    np.testing.assert_allclose(tokens[:, :3], its_tokens, rtol=0, atol=2e-6)
    # A token sees none behind it, and the class token sees all.
    other, others = texts_of(params, np.array([[5, 6, 8]], np.int32), np.ones((1, 3), np.int32))
    assert np.array_equal(others[:, :2], its_tokens[:, :2])
    assert np.abs(other - short).max() > 1e-3


def test_sinusoids_end_at_ten_thousand():
    found = np.asarray(sinusoids(3, 6))
    np.testing.assert_allclose(found[2], [*np.sin([2, 0.02, 2e-4]), *np.cos([2, 0.02, 2e-4])])
    assert np.array_equal(found[0], [0, 0, 0, 1, 1, 1])


def test_logits_are_capped(params):
    """With a cap near 0 all keys count alike; with none, other numbers than with 50."""
    mask = np.ones((1, 2), np.int32)
    given = videos(1, 2)
    usual = frames_of(params, given, mask)
    strong = jax.tree.map(lambda x: x, params)
    blocks = strong["vision"]["transformer"]["blocks"]["attention"]
    blocks["qkv_kernel"] = 20 * blocks["qkv_kernel"]
    free = CLIP(dataclasses.replace(SMALL, attention_cap=None))
    capped, uncapped = (
        jax.jit(lambda p, clip=clip: clip.apply({"params": p}, given, mask, method="frames"))(
            strong
        )
        for clip in (CLIP(SMALL), free)
    )
    assert np.isfinite(usual).all()
    assert np.abs(capped - uncapped).max() > 1e-3


# ---- Settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_layers": 0}, "time_positions takes a tower of videos"),
        ({"time_layers": 0, "time_positions": None}, "auxiliary_layers takes a tower of videos"),
        (
            {"time_layers": 0, "time_positions": None, "auxiliary_layers": 0},
            "norm_offset takes a tower of videos",
        ),
        (
            {
                "time_layers": 0,
                "time_positions": None,
                "auxiliary_layers": 0,
                "norm_offset": False,
            },
            "vision_pooling query takes a tower of videos",
        ),
        ({"time_positions": None}, "give time_positions"),
        ({"vision_pooling": "probe"}, "has vision_pooling query, not probe"),
        ({"class_token": True}, "has class_token False, not True"),
        ({"pre_norm": True}, "has pre_norm False"),
        ({"rotary": True}, "has rotary False"),
        ({"vision_projection": "matrix"}, "has vision_projection none"),
        ({"vision_mlp_width": 510}, "does not make 4 heads"),
        ({"attention_cap": 0.0}, "attention_cap"),
        ({"text_positions": "rotary"}, "text_positions"),
    ],
)
def test_what_cannot_be_mixed_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        model_config({"clip": {**dataclasses.asdict(TINY), **changes}})
    assert "\n" not in str(caught.value)


def test_no_kernel_caps_logits():
    clip = {"variant": "tiny-VideoPrism"}
    with pytest.raises(ValueError, match="attention fused: no kernel caps logits"):
        model_config({"clip": clip, "attention": "fused"})
    assert model_config({"clip": clip, "attention": "auto"}).clip == TINY


# ---- Parameters ---------------------------------------------------------------------------------

CONFIG = GLSCLConfig(clip=TINY, temporal="None")


@pytest.fixture(scope="module")
def shapes():
    drawn = jax.eval_shape(lambda: init_params(GLSCL(CONFIG), 0))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(drawn)
    }


def test_heights_count_through_all_stacks(shapes):
    found = heights(shapes)
    at = {
        name: found[f"clip/vision/{name}"].tolist()
        for name in (
            "auxiliary/blocks/mlp_in/kernel",
            "ln_time/scale",
            "time/blocks/mlp_in/kernel",
            "time_embedding",
            "ln_space/bias",
            "transformer/blocks/mlp_in/kernel",
            "positional_embedding",
            "patch_embedding",
            "pooler/query",
            "pooler/attention/qkv_kernel",
        )
    }
    assert at == {
        "auxiliary/blocks/mlp_in/kernel": [1],
        "ln_time/scale": [2],
        "time/blocks/mlp_in/kernel": [3, 2],
        "time_embedding": [4],
        "ln_space/bias": [4],
        "transformer/blocks/mlp_in/kernel": [5, 4],
        "positional_embedding": [6],
        "patch_embedding": [6],
        "pooler/query": [0],
        "pooler/attention/qkv_kernel": [0],
    }
    text = {name: found[name].tolist() for name in found if name.startswith("clip/text/")}
    assert text["clip/text/class_embedding"] == text["clip/text/token_embedding"] == [5]
    assert text["clip/text/transformer/blocks/mlp_in/kernel"] == [4, 3, 2, 1]
    assert text["clip/text/ln_final/scale"] == [0]
    assert stage_of("clip/vision/pooler/query") == -1


def test_heights_of_a_single_stack_stay(shapes):
    assert OptimConfig().layer_decay == 1.0
    clip = heights(
        {
            "clip/vision/transformer/blocks/mlp_in/kernel": (3, 2, 2),
            "clip/vision/ln_post/scale": (2,),
            "clip/vision/ln_pre/scale": (2,),
        }
    )
    assert [x.tolist() for x in clip.values()] == [[3, 2, 1], [0], [4]]


def test_the_temporal_module_starts_fresh():
    config = GLSCLConfig(clip=SMALL, temporal_layers=1)
    assert not SMALL.begins_temporal
    fresh, other = drawn(config, 0), drawn(config, 1)
    begun = start_params(fresh, {"clip": other["clip"]}, config)
    same = jax.tree.map(np.array_equal, begun["temporal"], fresh["temporal"])
    assert all(jax.tree.leaves(same))


def test_flops_are_those_of_the_products(shapes):
    """Counted anew from the parameters: each kernel once a token, and attention's own."""
    frames, words, width, patches = 3, 7, 128, 4
    kernels = {name: int(np.prod(shape)) for name, shape in shapes.items() if "kernel" in name}

    def of(start):
        return sum(size for name, size in kernels.items() if name.startswith(f"clip/{start}"))

    tokens = frames * patches
    found = tokens * (16 * 16 * 3 * width + sum(map(of, ("vision/transformer", "vision/time"))))
    found += tokens * of("vision/auxiliary")
    found += 2 * 2 * width * frames * patches**2 + 2 * 2 * width * patches * frames**2
    found += 2 * width * tokens**2
    # Of the pooler keys and values of each token, the query and what comes out once a frame.
    pooler = 4 * width * width
    found += tokens * 2 * pooler + frames * 2 * pooler + 2 * tokens * 4 * width
    assert TINY.video_multiply_adds(frames) == found
    text = (words + 1) * of("text/") + 4 * 2 * width * (words + 1) ** 2
    assert TINY.text_multiply_adds(words) == text
    assert forward_flops(CONFIG, batch=1, words=words, frames=frames).vision == 2 * found


@pytest.mark.parametrize(("remat", "times"), [("none", 0), ("full", 4)])
def test_every_stack_recomputes_where_it_is_asked_to(params, remat, times):
    """Three of the vision tower and the text tower's."""
    clip = CLIP(SMALL, remat=remat)

    def both(params, given, mask):
        ids = jnp.ones((1, 3), jnp.int32)
        frames = clip.apply({"params": params}, given, mask, method="frames")
        return frames.sum() + clip.apply({"params": params}, ids, ids, method="texts")[0].sum()

    slope = jax.make_jaxpr(both)(params, videos(1, 2), np.ones((1, 2), np.int32))
    assert str(slope).count("remat2[") + str(slope).count("checkpoint[") == times
