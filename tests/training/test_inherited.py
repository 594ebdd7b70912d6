"""What a run takes from the checkpoint it starts from, and what it refuses."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from configs import common, demo, folder
from convert import checkpoint_output
from glscl_jax.checkpoints.model_dir import load_model
from glscl_jax.errors import UserError
from glscl_jax.files import write_json
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer, byte_symbols
from glscl_jax.models import model_file
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig, model_settings
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.runtime import sharding
from glscl_jax.training import inherited, inputs, recipe
from tests.builders import SMALL_CLIP, params_of

# Of no published size, with a tokenizer of its own and another activation than the default.
ODD = dataclasses.replace(
    SMALL_CLIP,
    image_size=32,
    patch_size=16,
    context_length=20,
    vocab_size=700,
    activation="gelu",
)
TRAINED = GLSCLConfig(
    clip=ODD, head=GLSCLHead(queries=5, lim_heads=4, temperature=7.0, lim_weight=0.25)
)


def write(directory, settings, tokenizer=True, num_words=None):
    """What a checkpoint directory says of itself, without parameters."""
    directory.mkdir()
    write_json(directory / "model.json", settings)
    if tokenizer:
        CLIPTokenizer.from_merges(DEMO_MERGES).save(directory / "tokenizer")
    if num_words:
        data = {"num_words": num_words, "tokenizer": "demo"}
        write_json(directory / "config.json", {"data": data})
    return directory


@pytest.fixture
def clip_alone(tmp_path):
    return inherited.read_source(write(tmp_path / "clip", {"clip": dataclasses.asdict(ODD)}))


@pytest.fixture
def glscl(tmp_path):
    path = write(tmp_path / "glscl", model_settings(TRAINED), num_words=16)
    return inherited.read_source(path)


def changed(changes: dict, config=None):
    config = config or common.base()
    config.update_from_flattened_dict(changes)
    return config


def refused(config, source, commanded=()) -> str:
    with pytest.raises(UserError) as caught:
        inherited.check(config, source, inherited.Chosen.of(config, commanded))
    return str(caught.value)


def test_every_setting_of_the_model_can_be_given():
    clip = {field.name for field in dataclasses.fields(CLIPConfig)}
    assert set(common.base().model.clip) == clip | {"variant"}
    assert set(common.base().model) == {field.name for field in dataclasses.fields(GLSCLConfig)}


def test_from_a_clip_of_any_size(clip_alone):
    config = folder.get_config()
    chosen = inherited.Chosen.of(config)
    inherited.check(config, clip_alone, chosen)
    found = inherited.resolve(config, clip_alone, chosen)
    assert {**found.model.clip, "variant": None} == {**dataclasses.asdict(ODD), "variant": None}
    assert found.data.tokenizer == str(clip_alone.tokenizer)
    assert found.data.num_words == 20
    # The reference's four start from the text tower, which has two.
    assert found.model.temporal_layers == 2
    assert found.model.head.queries == 8
    assert config.model.clip.activation is None


def test_from_a_whole_model(glscl):
    config = folder.get_config()
    found = inherited.resolve(config, glscl, inherited.Chosen.of(config)).model.head
    told = (found.queries, found.lim_heads, found.temperature, found.lim_weight)
    assert told == (5, 4, 7.0, 0.25)
    assert inherited.resolve(config, glscl, inherited.Chosen.of(config)).data.num_words == 16


@pytest.mark.parametrize(
    ("clip", "words", "expected"),
    [
        (VARIANTS["tiny-SigLIP"], None, 16),  # Its text tower sees its padding.
        (ODD, None, 20),
        (CLIPConfig(), None, 32),
        (VARIANTS["tiny-SigLIP"], 12, 12),  # Which is refused where it is used.
    ],
)
def test_captions_are_as_long_as_the_model_has_them_where_nobody_says(clip, words, expected):
    config = changed({} if words is None else {"data.num_words": words})
    told = inherited.follow_words(config, clip)
    assert config.data.num_words == expected
    assert bool(told) == (words is None and expected != 32)
    if told:
        assert f"{expected} places" in told


def test_a_fresh_model_that_sees_padding_has_all_places():
    config = changed({"model.clip.variant": "SigLIP-B/16"})
    chosen = inherited.Chosen.of(config)
    assert inherited.resolve(config, None, chosen).data.num_words == 64
    commanded = inherited.Chosen.of(config, ["data.num_words"])
    assert inherited.resolve(config, None, commanded).data.num_words == 32


def opened(**changes):
    """The tokenizer of a fresh run of the demo's with another text tower."""
    clip = {"text_pooling": "end", **changes}
    config = changed({f"model.clip.{name}": x for name, x in clip.items()}, demo.get_config())
    chosen = inherited.Chosen.of(config)
    config = inherited.resolve(config, None, chosen)
    return inputs.open_tokenizer(inputs.Asked(config, config, recipe.read(config), None, chosen))


def test_a_caption_ends_where_the_model_takes_its_sentence_from():
    end = CLIPTokenizer.from_merges(DEMO_MERGES).end_id
    assert opened(end_id=end).end_id == end
    with pytest.raises(UserError, match=f"ends captions with id {end}, and .* from id 2 .*end_id"):
        opened(end_id=2)
    with pytest.raises(UserError, match=r"end_id 5000 is none of the \d+ ids of vocab_size"):
        opened(end_id=5000)


def test_another_head_leaves_the_checkpoint_s_behind(glscl):
    config = changed({"model.head.name": "wti", "model.head.temperature": 5.0})
    chosen = inherited.Chosen.of(config)
    # It says nothing of the head any more, so that nothing chosen of one contradicts it.
    source = inherited.leave_head(glscl, config, chosen)
    inherited.check(config, source, chosen)
    found = inherited.resolve(config, source, chosen)
    assert (found.model.head.name, found.model.head.temperature) == ("wti", 5.0)
    assert found.model.head.queries == common.base().model.head.queries
    # But all else stays its own.
    assert found.model.temporal_layers == TRAINED.temporal_layers
    assert found.model.clip.activation == "gelu"
    config = changed({"model.head.name": "wti", "model.temporal": "seqLSTM"})
    assert "temporal 'seqTransf', now 'seqLSTM'" in refused(config, source)


def test_the_same_head_or_none_that_was_chosen_is_gone_on_with(glscl):
    config = common.base()
    same = inherited.Chosen.of(config, ["model.head.name"])
    for chosen in (inherited.Chosen.of(config), same):
        assert inherited.leave_head(glscl, config, chosen) is glscl
    # The default's name is another head's where it is given for a run under one.
    wti = dataclasses.replace(glscl, settings={"temporal": "seqTransf", "head.name": "wti"})
    assert inherited.leave_head(wti, config, inherited.Chosen.of(config)) is wti
    assert inherited.leave_head(wti, config, same).left_head == "wti"
    # A run's own head cannot change.
    config = changed({"model.head.name": "wti"})
    itself = dataclasses.replace(glscl, resumes=True)
    assert inherited.leave_head(itself, config, inherited.Chosen.of(config)) is itself
    assert "head.name 'glscl', now 'wti'" in refused(config, itself)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wti", "the head wti starts fresh (token_weights, frame_weights)"),
        ("mean", "the head mean has nothing to learn"),
    ],
)
def test_what_is_left_and_what_starts_fresh_is_told(glscl, name, told):
    config = changed({"model.head.name": name})
    chosen = inherited.Chosen.of(config)
    source = inherited.leave_head(glscl, config, chosen)
    resolved = inherited.resolve(config, source, chosen)
    line = inherited.describe(source, resolved, recipe.read(resolved).model)
    assert line.endswith(f"its head glscl is left behind, {told}")
    assert "it has no" not in line


def test_a_config_file_s_variant_and_tokenizer_are_for_fresh_models(clip_alone):
    config = demo.get_config("tiny")
    chosen = inherited.Chosen.of(config)
    assert {"model.clip.variant", "data.tokenizer"} <= chosen.all
    inherited.check(config, clip_alone, chosen)
    found = inherited.resolve(config, clip_alone, chosen)
    assert (found.model.clip.variant, found.model.clip.embed_dim) == ("", 64)
    assert found.data.tokenizer == str(clip_alone.tokenizer)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.clip.activation": "quick_gelu"}, "clip.activation 'gelu', now 'quick_gelu'"),
        ({"model.clip.patch_size": 8}, "clip.patch_size 16, now 8 by config.model.clip.patch_size"),
        ({"model.head.queries": 12}, "queries 5, now 12"),
        ({"model.head.lim_heads": 16}, "lim_heads 4, now 16"),
        (
            {"model.head.temperature": 5.0},
            "temperature 7.0, now 5.0 by config.model.head.temperature",
        ),
        ({"model.head.lim_weight": 1.0}, "lim_weight 0.25, now 1.0"),
        ({"model.temporal": "seqLSTM"}, "temporal 'seqTransf', now 'seqLSTM'"),
        ({"model.head.share_queries": False}, "share_queries True, now False"),
    ],
)
def test_what_contradicts_the_checkpoint_is_named(glscl, changes, told):
    error = refused(changed(changes), glscl)
    assert told in error
    assert str(glscl.directory) in error
    assert "\n" not in error


def test_the_command_line_s_word_stands_even_if_it_is_the_default_s(glscl):
    config = common.base()
    inherited.check(config, glscl, inherited.Chosen.of(config))
    assert "temperature 7.0, now 3.0" in refused(config, glscl, ["model.head.temperature"])
    assert "patch_size 16, now 32" in refused(config, glscl, ["model.clip.variant"])
    merges = glscl.directory / "merges.txt"
    symbols = byte_symbols()
    merges.write_text(f"#version: 0.2\n{symbols[0]} {symbols[1]}\n", encoding="utf-8")
    config.data.tokenizer = str(merges)
    assert "another than that of" in refused(config, glscl, ["data.tokenizer"])
    config.data.tokenizer = "demo"
    inherited.check(config, glscl, inherited.Chosen.of(config, ["data.tokenizer"]))


def test_all_of_it_at_once(glscl):
    error = refused(changed({"model.head.queries": 2, "model.head.temperature": 5.0}), glscl)
    assert error.startswith("2 things do not fit:\n")
    assert "queries" in error
    assert "temperature" in error


def test_more_temporal_layers_than_there_are_to_start_from(clip_alone):
    error = refused(changed({"model.temporal_layers": 3}), clip_alone)
    assert "config.model.temporal_layers 3" in error
    assert "2 layers" in error


def test_settings_of_training_alone_and_of_the_machine_are_free(glscl):
    config = changed(
        {"model.head.lim_dropout": 0.3, "model.dtype": "bfloat16", "model.scan": False}
    )
    chosen = inherited.Chosen.of(config)
    inherited.check(config, glscl, chosen)
    found = inherited.resolve(config, glscl, chosen).model
    assert (found.head.lim_dropout, found.dtype, found.scan) == (0.3, "bfloat16", False)


def test_a_checkpoint_without_tokenizer_asks_for_one(tmp_path):
    path = write(tmp_path / "clip", {"clip": dataclasses.asdict(ODD)}, tokenizer=False)
    source = inherited.read_source(path)
    assert "--config.data.tokenizer" in refused(common.base(), source)
    config = changed({"data.tokenizer": "demo"})
    inherited.check(config, source, inherited.Chosen.of(config))


def test_without_a_checkpoint_the_variant_s_sizes(tmp_path):
    config = changed({"model.clip.variant": "tiny", "model.clip.activation": "gelu"})
    found = inherited.resolve(config, None, inherited.Chosen.of(config)).model.clip
    assert (found.variant, found.embed_dim, found.activation) == ("tiny", 128, "gelu")
    config = changed({"model.clip.image_size": 33})
    with pytest.raises(UserError, match=r"config\.model\.clip: image_size 33"):
        inherited.resolve(config, None, inherited.Chosen.of(config))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A CLIP as `convert` leaves it, with parameters."""
    path = tmp_path_factory.mktemp("converted") / "clip"
    path.mkdir()
    params = {"clip": params_of(GLSCLConfig(clip=ODD), 3)["clip"]}
    params = jax.tree.map(lambda x: np.asarray(0.05 * x, np.float32), params)
    checkpoint_output.write_checkpoint(
        path, params, ODD, CLIPTokenizer.from_merges(DEMO_MERGES), {}
    )
    return path


def arguments(shapes, workdir, converted, *more):
    return (
        "--config=configs/folder.py",
        f"--workdir={workdir}",
        f"--config.init_from={converted}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.data.frame_rate=2",
        "--config.batch_size=8",
        "--config.eval_batch_size=8",
        "--config.num_steps=2",
        "--config.checkpoint_every=1",
        # Seconds instead of the reference's sizes.
        "--config.data.num_frames=2",
        "--config.data.validation_split=",
        "--config.model.head.lim_layers=1",
        "--config.model.head.lim_feed_forward=64",
        *more,
    )


def test_a_run_in_one_line(shapes, forks, converted, tmp_path):
    workdir = tmp_path / "run"
    done = forks("glscl_jax.train", *arguments(shapes, workdir, converted))
    told = next(x for x in done.stdout.splitlines() if x.startswith("starting from "))
    assert "a CLIP of its own size, 32 pixels, gelu" in told
    assert "it has no temporal module and no LIM" in told
    assert model_file.read_model_config(workdir).clip == ODD
    config = json.loads((workdir / "config.json").read_text())
    clip = json.loads(json.dumps(dataclasses.asdict(ODD)))  # which has no tuples
    assert config["model"]["clip"] == {**clip, "variant": ""}
    assert config["data"]["num_words"] == 20
    # The first step's rate is 0: these are still the parameters that came in.
    sharded = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    ours, theirs = (
        load_model(*x).params["clip"] for x in ((workdir, sharded, 1), (converted, sharded))
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

    # Nothing of the checkpoint is needed any more.
    again = forks("glscl_jax.train", *arguments(shapes, workdir, tmp_path / "gone"))
    assert "nothing to train" in again.stdout


@pytest.mark.slow
def test_it_goes_on_by_itself(shapes, forks, converted, tmp_path):
    workdir = tmp_path / "run"
    forks("glscl_jax.train", *arguments(shapes, workdir, converted))
    shutil.rmtree(workdir / "checkpoints" / "2")
    again = forks("glscl_jax.train", *arguments(shapes, workdir, tmp_path / "gone"))
    assert "from step 1 to 2" in again.stdout


def test_what_does_not_fit_is_found_before_anything_is_made(shapes, refusal, converted, tmp_path):
    flags = (
        "--config.data.frame_rate=1",
        "--config.data.num_words=30",
        "--config.model.clip.activation=quick_gelu",
    )
    error = refusal("glscl_jax.train", *arguments(shapes, tmp_path / "run", converted, *flags))
    assert "3 things do not fit" in error
    assert not (tmp_path / "run").exists()


def test_each_that_does_not_fit_has_a_line(shapes, converted, tmp_path):
    from glscl_jax.train import train

    config = folder.get_config()
    changes = {"init_from": str(converted), "data.num_words": 30, "data.frame_rate": 1.0}
    changes |= {"data.dir": str(shapes / "data"), "batch_size": 8, "eval_batch_size": 8}
    changed(changes | {"model.clip.activation": "quick_gelu"}, config)
    with pytest.raises(UserError) as caught:
        train(config, tmp_path / "run")
    lines = str(caught.value).splitlines()
    named = ("config.model.clip.activation", "frame_rate", "config.data.num_words")
    assert len(lines) == 4
    assert all(name in line for name, line in zip(named, lines[1:], strict=True))
