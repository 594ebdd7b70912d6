"""A step from what frozen encoders made is the step of the whole model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.retrieval import tower_features
from glscl_jax.retrieval.encoded_split import Store
from glscl_jax.training import precomputed_features, recipe, steps
from glscl_jax.training.groups import check_patterns
from glscl_jax.training.optim import OptimConfig, make_optimizer
from tests.builders import SMALL
from tests.recipes import config_with
from tests.retrieval.other_features import written

CONFIG = OptimConfig(learning_rate=1e-3, coef_lr=1.0, frozen=(precomputed_features.TOWERS,))
# With dropout, so that it must be drawn alike.
DROPPING = dataclasses.replace(
    SMALL,
    clip=dataclasses.replace(SMALL.clip, text_layers=1),
    head=dataclasses.replace(SMALL.head, lim_dropout=0.2),
)
# Of features that are 4 wide.
NARROW = dataclasses.replace(SMALL, clip=dataclasses.replace(SMALL.clip, embed_dim=4))
B, L, V = 6, 7, 3


def pairs(clip):
    rng, side = np.random.default_rng(0), clip.image_size
    ids = rng.integers(1, clip.vocab_size, (B, L)).astype(np.int32)
    return {
        "text_ids": ids,
        "text_mask": (np.arange(L) < rng.integers(2, L + 1, (B, 1))).astype(np.int32),
        "frames": rng.integers(0, 256, (B, V, side, side, 3), np.uint8),
        "frame_mask": (np.arange(V) < rng.integers(1, V + 1, (B, 1))).astype(np.int32),
    }


def encoded(model, params, batch):
    """What the encoders make of a batch."""

    def towers(params, batch):
        apply = functools.partial(model.apply, {"params": params})
        sentence, tokens = apply(batch["text_ids"], batch["text_mask"], method="text_tower")
        frames = apply(batch["frames"], batch["frame_mask"], method="frame_tower")
        return {"sentence": sentence, "tokens": tokens, "frames": frames}

    found = jax.jit(towers)(params, batch)
    return {**found, "text_mask": batch["text_mask"], "frame_mask": batch["frame_mask"]}


def test_a_step_from_features_is_the_step_of_frozen_encoders():
    model, optimizer = GLSCL(DROPPING), make_optimizer(CONFIG, 10)
    step = jax.jit(
        functools.partial(
            steps.train_step,
            model=model,
            optimizer=optimizer,
            optim=CONFIG,
            weights=DROPPING.head.loss_weights(),
            seed=3,
        )
    )
    batch = pairs(SMALL.clip)
    params = jax.jit(lambda: init_params(model, 0))()
    begun = steps.init_state(params, optimizer, CONFIG)
    kept = encoded(model, params, batch)
    whole = short = begun
    for _ in range(3):  # The first has rate 0.
        (whole, of_whole), (short, of_short) = step(whole, batch), step(short, kept)
        # To float32's rounding: one program has the encoders in it, the other has not.
        for name in ("total", "contrastive"):
            one, other = (float(getattr(x.losses, name)) for x in (of_whole, of_short))
            assert other == pytest.approx(one, abs=1e-5)
        assert float(of_short.grad_norm) == pytest.approx(float(of_whole.grad_norm), rel=1e-4)
    for part in params:
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5),
            short.params[part],
            whole.params[part],
        )
    for tower in ("vision", "text"):
        jax.tree.map(
            np.testing.assert_array_equal, short.params["clip"][tower], params["clip"][tower]
        )
    for part in ("temporal", "lim"):
        moved = [np.abs(x - y).max() for x, y in zip(*leaves(short, params, part), strict=True)]
        assert max(moved) > 1e-4
    assert short.params["clip"]["logit_scale"] != params["clip"]["logit_scale"]


def leaves(state, params, part):
    return jax.tree.leaves(state.params[part]), jax.tree.leaves(params[part])


def config_of(**changes):
    sizes = {"data__num_frames": 2, "data__num_words": 5, "data__validation_split": ""}
    return config_with("wti", **{**sizes, **changes})


def test_sizes_that_are_not_the_config_s_are_refused(tmp_path):
    written(tmp_path / "train")
    assert precomputed_features.open_features(tmp_path, config_of(), NARROW).splits == {"train": 3}
    for config, model, told in (
        (config_of(), SMALL, "features are 4 wide, the model's 64"),
        (
            config_of(data__num_frames=3),
            NARROW,
            "videos have 2 frames, config.data.num_frames is 3",
        ),
        (config_of(data__num_words=9), NARROW, "texts have 5 tokens, config.data.num_words is 9"),
    ):
        with pytest.raises(UserError) as refused:
            precomputed_features.open_features(tmp_path, config, model)
        assert told in str(refused.value)
    written(tmp_path / "val", identity={"encoder": "another"})
    config = config_of(data__validation_split="val")
    with pytest.raises(UserError, match=r"of other encoders \(another and theirs\)"):
        precomputed_features.open_features(tmp_path, config, NARROW)


def test_features_of_another_checkpoint_are_refused(tmp_path):
    written(tmp_path / "train", identity={"checkpoint": "0123456789abcdef"})
    assert not precomputed_features.is_foreign(tmp_path)
    kept = precomputed_features.open_features(tmp_path, config_of(), NARROW)
    precomputed_features.check_checkpoint(kept, "0123456789abcdef", "clip")
    with pytest.raises(
        UserError, match=r"the checkpoint 0123456789ab\.\.\., config.init_from clip is"
    ):
        precomputed_features.check_checkpoint(kept, "fedcba9876543210", "clip")
    with pytest.raises(UserError, match=r"name it with --config.init_from"):
        precomputed_features.freeze_encoders(config_of(), str(tmp_path), has_source=False)
    augmented = config_of(data__augment=True)
    with pytest.raises(UserError, match=r"config.data.augment changes clips"):
        precomputed_features.freeze_encoders(augmented, str(tmp_path), has_source=True)
    config = config_of(optim__frozen=("^temporal/",))
    precomputed_features.freeze_encoders(config, str(tmp_path), has_source=True)
    assert tuple(config.optim.frozen) == ("^temporal/", precomputed_features.TOWERS)


def test_another_s_encoder_leaves_the_logit_s_scale_alone(tmp_path):
    written(tmp_path / "train")
    config = config_of()
    with config.unlocked():
        precomputed_features.freeze_encoders(config, str(tmp_path), has_source=False)
    assert config.model.towers is False
    assert tuple(config.optim.frozen) == ()
    config.init_from = "clip"
    with pytest.raises(UserError, match="of another encoder, which no checkpoint goes with"):
        precomputed_features.freeze_encoders(config, str(tmp_path), has_source=True)
    params = jax.eval_shape(lambda: init_params(GLSCL(dataclasses.replace(SMALL, towers=False)), 0))
    assert set(params) == {"clip", "temporal", "lim"}
    assert set(params["clip"]) == {"logit_scale"}
    assert params["clip"]["logit_scale"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("frozen", "kept"),
    [
        (("^clip/vision/patch_embedding$",), ()),
        (("^clip/(vision|text)/", "^temporal/"), ("^temporal/",)),
        (("^clip/logit_scale$",), ("^clip/logit_scale$",)),
        (("^clip/",), ("^clip/",)),
        (("^clip/text/|logit_scale", "^clip/text"), ("^clip/text/|logit_scale",)),
        (("^clip/logit_skale$",), ("^clip/logit_skale$",)),
    ],
)
def test_what_is_there_stays_frozen_beside_another_s_encoder(tmp_path, frozen, kept):
    written(tmp_path / "train")
    config = config_of(optim__frozen=frozen)
    with config.unlocked():
        precomputed_features.freeze_encoders(config, str(tmp_path), has_source=False)
    assert tuple(config.optim.frozen) == kept
    settings = recipe.read(config)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(settings.model), 0))
    if "skale" in str(frozen):
        with pytest.raises(UserError, match=r"skale\$' matches no parameter"):
            check_patterns(shapes, settings.optim)
    else:
        check_patterns(shapes, settings.optim)


THEIRS = {"encoder": "theirs", "layer": 3}


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (THEIRS, {"encoder": "theirs"}, "layer 3, now None"),
        ({"encoder": "theirs"}, THEIRS, "layer None, now 3"),
        (THEIRS, {**THEIRS, "layer": 12}, "layer 3, now 12"),
        (
            {"checkpoint": "01", "dtype": "float32"},
            {"checkpoint": "01", "dtype": "bfloat16"},
            "dtype 'float32', now 'bfloat16'",
        ),
        ({**THEIRS, "split": "train", "videos": 3}, {**THEIRS, "split": "val", "videos": 9}, ""),
    ],
)
def test_splits_that_were_made_otherwise_are_refused(tmp_path, one, other, told):
    written(tmp_path / "train", identity=one)
    written(tmp_path / "val", identity=other)
    config = config_of(data__validation_split="val")
    if not told:
        found = precomputed_features.open_features(tmp_path, config, NARROW)
        assert found.splits == {"train": 3, "val": 3}
        return
    with pytest.raises(UserError) as refused:
        precomputed_features.open_features(tmp_path, config, NARROW)
    assert f"split 'val' was made otherwise than 'train' ({told})" in str(refused.value)


CHANGES = {
    "nothing": {},
    "captions": {("text", "captions"): np.array(["a", "b", "c", "d"])},
    "ids": {("video", "ids"): np.array(["b", "a", "c"])},
    "frames": {("video", "frames"): np.ones((3, 2, 4), np.float16)},
    "lengths": {("video", "lengths"): np.array([2, 2, 2])},
    "sentence": {("text", "sentence"): np.ones((4, 4), np.float16)},
    "tokens": {("text", "tokens"): np.ones((4, 5, 4), np.float16)},
    "owners": {("text", "ids"): np.array(["a", "a", "c", "b"])},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_run_does_not_go_on_from_other_arrays(tmp_path, changed):
    config, settings = config_of(), recipe.read(config_of()).model

    def begin():
        kept = precomputed_features.open_features(tmp_path / "kept", config, NARROW)
        workdir = Workdir(tmp_path / "run")
        workdir.begin(config, settings, kept.as_begun(workdir.path).identity)

    written(tmp_path / "kept" / "train")
    begin()
    written(tmp_path / "kept" / "train", CHANGES[changed])
    if changed in ("nothing", "captions"):
        begin()
        return
    with pytest.raises(UserError, match=r"crc32 of arrays '\w{8}', now '\w{8}'"):
        begin()
    # A run of before there were checksums goes on as it did.
    write_json(tmp_path / "run" / "data.json", {"train": {"encoder": "theirs"}})
    begin()


def test_the_checksum_is_the_same_in_several_files(tmp_path):
    arrays = written(tmp_path / "one")
    store = Store.open(tmp_path / "two", identity={"encoder": "theirs"})
    for kind, content in arrays.items():
        for number, part in enumerate((slice(0, 1), slice(1, None))):
            store.put(kind, number, {name: array[part] for name, array in content.items()})
    store.finish()
    one, two = (tower_features.read_features(tmp_path, x, tokens=True) for x in ("one", "two"))
    assert one.checksum == two.checksum
