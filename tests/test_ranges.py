"""Every setting that there is: what cannot be meant is one line that names it."""

import numpy as np
import pytest

from configs import common
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCLConfig, model_config
from glscl_jax.ranges import EITHER, OneOf, Real, Whole
from glscl_jax.training import recipe

NAN, INF = float("nan"), float("inf")
NO_SIZE = [0, -1, True]  # of what there is 1 of at least
NO_COUNT = [-1, True]
NO_SHARE = [-0.1, 1.0, 1 - 1e-12, NAN, INF]  # float32 has 1 for the third
NO_WEIGHT = [-1e-9, NAN, INF, 1e39]
NO_SWITCH = [1, "yes"]

WRONG = {
    "seed": [-1, 2**32],
    "batch_size": NO_SIZE,
    "microbatch": NO_COUNT,
    "contrastive": ["", "triplet"],
    "gradient_dtype": ["", "float16", "auto"],
    "num_epochs": NO_SIZE,
    "num_steps": NO_COUNT,
    "eval_batch_size": NO_SIZE,
    "max_nonfinite": NO_SIZE,
    "log_every": NO_SIZE,
    "validate_every": NO_COUNT,
    "checkpoint_every": NO_COUNT,
    "keep_checkpoints": NO_SIZE,
    "data.frame_rate": [0.0, -1.0, NAN, INF],
    "data.num_frames": [*NO_SIZE, 78],
    "data.num_words": [1, 0, -1],
    "data.augment": NO_SWITCH,
    "model.clip.variant": ["ViT-B/64"],
    "model.clip.image_size": [*NO_SIZE, 225],
    "model.clip.patch_size": NO_SIZE,
    "model.clip.vision_width": [*NO_SIZE, 100],
    "model.clip.vision_layers": NO_SIZE,
    "model.clip.text_width": [*NO_SIZE, 100],
    "model.clip.text_layers": NO_SIZE,
    "model.clip.vision_head_width": [*NO_SIZE, 100],
    "model.clip.text_head_width": [*NO_SIZE, 100],
    "model.clip.embed_dim": [*NO_SIZE, 100],
    "model.clip.context_length": NO_SIZE,
    "model.clip.vocab_size": NO_SIZE,
    "model.clip.activation": ["swish"],
    "model.clip.text_activation": ["swish"],
    "model.clip.vision_mlp_width": NO_SIZE,
    "model.clip.text_mlp_width": NO_SIZE,
    "model.clip.layer_norm_epsilon": [0.0, -1e-5, NAN],
    "model.clip.norm_offset": [*NO_SWITCH, True],  # which takes a tower of videos
    "model.clip.attention_cap": [0.0, -50.0, NAN],
    "model.clip.time_layers": [-1, 2, True],  # without positions in time
    "model.clip.time_positions": [0, 4],
    "model.clip.auxiliary_layers": [-1, 1],
    "model.clip.patch_bias": NO_SWITCH,
    "model.clip.class_token": [*NO_SWITCH, False],  # which is pooled
    "model.clip.pre_norm": NO_SWITCH,
    "model.clip.rotary": NO_SWITCH,
    "model.clip.vision_pooling": ["max", ""],
    "model.clip.probe_heads": NO_SIZE,
    "model.clip.probe_mlp_width": NO_SIZE,
    "model.clip.vision_projection": ["linear", "none"],  # its width is not D
    "model.clip.causal": NO_SWITCH,
    "model.clip.text_pooling": ["first", "end"],  # without an end_id
    "model.clip.text_positions": ["rotary", ""],
    "model.clip.end_id": [-1, True],
    "model.clip.text_projection": ["linear"],
    "model.clip.logit_bias": NO_SWITCH,
    "model.clip.tokenizer": ["bert", ""],
    "model.clip.resize": ["pad", ""],
    "model.clip.interpolation": ["nearest", ""],
    "model.clip.image_mean": [(0.5,), (0.5, 0.5, NAN), 0.5],
    "model.clip.image_std": [(0.5, 0.5), (0.5, 0.5, 0.0)],
    "model.temporal": ["seqGRU", ""],
    "model.temporal_layers": NO_SIZE,
    "model.towers": NO_SWITCH,
    "model.head.name": ["", "xpool", "GLSCL"],
    "model.head.queries": NO_SIZE,
    "model.head.lim_layers": NO_SIZE,
    "model.head.lim_heads": [*NO_SIZE, 7],
    "model.head.lim_feed_forward": NO_SIZE,
    "model.head.lim_dropout": NO_SHARE,
    "model.head.share_queries": NO_SWITCH,
    "model.head.share_decoder": NO_SWITCH,
    "model.head.mask_padding": NO_SWITCH,
    "model.head.temperature": [0.0, -3.0, NAN, INF, 1e-60],
    "model.head.lim_weight": NO_WEIGHT,
    "model.head.normalised": NO_SWITCH,
    "model.head.gim_weight": NO_WEIGHT,
    "model.dtype": ["fp16", "float64", "", "int8"],
    "model.remat": ["all", ""],
    "model.scan": NO_SWITCH,
    "model.attention": ["flash", ""],
    "losses.alpha": NO_WEIGHT,
    "losses.beta": NO_WEIGHT,
    "losses.centre": NO_WEIGHT,
    "losses.margin": NO_WEIGHT,
    "losses.target": [NAN, INF],
    "losses.per_pair": NO_SWITCH,
    "optim.learning_rate": [0.0, *NO_WEIGHT],
    "optim.coef_lr": NO_WEIGHT,
    "optim.clip_group": ["("],
    "optim.layer_decay": [0.0, 1.1, NAN],
    "optim.frozen": [("(",)],
    "optim.ema": [*NO_SHARE[:2], NAN],
    "optim.warmup": [-0.1, 1.1, NAN],
    "optim.b1": NO_SHARE,
    "optim.b2": NO_SHARE,
    "optim.eps": [0.0, 1e-60, *NO_WEIGHT],
    "optim.weight_decay": NO_WEIGHT,
    "optim.no_decay": ["("],
    "optim.max_global_norm": [0.0, *NO_WEIGHT],
    "optim.max_tensor_norm": [0.0, *NO_WEIGHT],
    "optim.clip_numerics": ["float8"],
}
# Names of places, which are looked up, and the mesh, which is checked against the devices.
ELSEWHERE = ("init_from", "data.dir", "data.tokenizer", "data.train_split")
ELSEWHERE += ("data.validation_split", "data.test_split", "mesh.data", "mesh.fsdp", "mesh.tensor")


def leaves(config, prefix=""):
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_setting_is_looked_at():
    assert set(leaves(common.base())) == WRONG.keys() | set(ELSEWHERE)


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant_is_named(name):
    *sections, last = name.split(".")
    for value in WRONG[name]:
        config = common.base()
        section = config
        for inner in sections:
            section = section[inner]
        with section.ignore_type():
            section[last] = value
        with pytest.raises(UserError, match=last.split("_")[-1]) as caught:
            recipe.read(config)
        assert str(caught.value).startswith(f"config.{sections[0] if sections else last}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": {"warmup": 0.0, "coef_lr": 0.0, "weight_decay": 0.0, "b1": 0.0}},
        {"optim": {"warmup": 1.0, "learning_rate": 1e38}},
        {"losses": {"alpha": 0.0, "beta": 0.0, "margin": 0.0, "target": -1.0}},
        {"model": {"dtype": "float16", "remat": "dots"}},
        {"model": {"head": {"lim_weight": 0.0, "lim_dropout": 0.0}}},
        {"seed": 2**32 - 1, "num_epochs": 1, "microbatch": 0, "keep_checkpoints": 1},
        {"data": {"num_frames": 77}},
        {"data": {"num_frames": 78}, "model": {"temporal": "seqLSTM"}},
        {"data": {"num_frames": 500}, "model": {"temporal": "None"}},
    ],
)
def test_what_can_be_meant_is_taken(changes):
    config = common.base()
    config.update(changes)
    recipe.read(config)


def test_frames_beyond_the_positions_are_told_with_the_way_out():
    config = common.base()
    config.data.num_frames = 78
    with pytest.raises(UserError) as caught:
        recipe.check_reading(config, GLSCLConfig())
    assert str(caught.value) == (
        "config.data.num_frames 78 is more than the temporal module's 77 positions, as many as"
        " CLIP's text tower has: take 77 or fewer"
    )


@pytest.mark.parametrize("name", ["image_size", "vision_layers", "context_length", "activation"])
def test_a_damaged_model_is_named(name):
    with pytest.raises(ValueError, match=f"{name} is 0: give "):
        model_config({"clip": {name: 0}})


def test_ranges_say_what_they_hold():
    assert str(Whole(1)) == "a whole number, 1 or more"
    assert str(Whole(0, 9)) == "a whole number, 0 to 9"
    assert str(Real(least=0, below=1)) == "a finite number, 0 or more, below 1"
    assert str(Real(above=0)) == "a finite number, above 0"
    assert str(OneOf(("a", "b"))) == "one of a, b"
    assert Whole(1).holds(np.int64(1))
    assert not Whole(1).holds(1.0)
    assert Real().holds(3)
    assert not EITHER.holds(1)
