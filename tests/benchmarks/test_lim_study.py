"""The LIM study: the head is the product's until an option says otherwise, and options act."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.lim_study import recipe as demo
from benchmarks.lim_study import results, summary
from benchmarks.lim_study.clips import export, read_clips
from benchmarks.lim_study.head import StudyHead
from benchmarks.lim_study.lanes import Length, lanes_of
from benchmarks.lim_study.options import STARTS, Options
from benchmarks.lim_study.trainer import Program, Trained, pixels
from benchmarks.lim_study.variants import RELEASED, Shape, Variant
from configs import demo as config_file
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.training import precomputed_features, recipe
from tests.heads import Alone, encodings

SIZES = {
    "queries": 4,
    "lim_layers": 2,
    "lim_heads": 2,
    "lim_feed_forward": 16,
    "lim_dropout": 0.0,
}


def test_the_recipe_is_the_demo_s():
    config = config_file.get_config()
    read = recipe.read(config)
    head = read.model.head
    own = dataclasses.replace(demo.MODEL, head=head, remat="auto", attention="auto")
    assert own == read.model
    assert (head.lim_layers, head.lim_heads) == (demo.LIM_LAYERS, demo.LIM_HEADS)
    assert head.lim_feed_forward == demo.LIM_FEED_FORWARD
    assert head.lim_dropout == 0
    assert head.queries == Shape().queries
    assert demo.OPTIM[demo.END_TO_END] == read.optim
    options, losses = Options(), read.losses
    assert all(getattr(options, name) == value for name, value in vars(losses).items())
    assert (options.gim_weight, options.lim_weight) == (head.gim_weight, head.lim_weight)
    sizes = (config.batch_size, config.data.num_frames, config.data.num_words, config.seed)
    assert sizes == (demo.BATCH, demo.NUM_FRAMES, demo.NUM_WORDS, demo.SEEDS[0])
    assert config.num_epochs * (4000 // config.batch_size) == demo.STEPS
    assert not config.model.head.share_queries ^ Shape().share_queries


def test_from_features_the_towers_are_frozen():
    assert demo.TOWERS == precomputed_features.TOWERS
    config = config_file.get_config()
    config.optim.frozen = (precomputed_features.TOWERS,)
    assert demo.OPTIM[demo.FROM_FEATURES] == recipe.read(config).optim


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_without_options_it_is_the_product_s(shared):
    sizes = {**SIZES, "share_queries": shared, "share_decoder": shared}
    texts, videos = encodings(texts=4, videos=4)
    found = {}
    for head, weights in ((StudyHead(**sizes), None), (GLSCLHead(**sizes), LossWeights())):

        def all_of_it(head=head, weights=weights):
            module = Alone(head)
            params = module.init(jax.random.key(3), texts, videos)["params"]
            text, video = module.apply({"params": params}, texts, videos)
            losses = head.losses(text, video, weights)
            return params, (text.queries, video.queries, head.score(text, video), losses)

        found[head.name] = jax.jit(all_of_it)()
    (ours, what_ours), (theirs, what_theirs) = found["lim_study"], found["glscl"]
    leaves = jax.tree_util.tree_leaves_with_path(theirs)
    ours = dict(jax.tree_util.tree_leaves_with_path(ours))
    for path, leaf in leaves:
        np.testing.assert_allclose(ours[path], leaf, rtol=1e-6, err_msg=str(path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), what_ours, what_theirs)


@functools.cache
def parameters() -> dict:
    """Of which no two are alike."""
    module = Alone(StudyHead(**SIZES))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(3), *encodings(texts=4)))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 2, shapes)


@jax.jit
def _features(params, texts, videos, options):
    return Alone(StudyHead(**SIZES, options=options)).apply(params, texts, videos)


def concepts(texts, videos, **options):
    """A head with options, and the features of both sides: one program for all of them."""
    options = jax.tree.map(np.float32, Options(**options))
    head = StudyHead(**SIZES, options=options)
    return head, *_features(parameters(), texts, videos, options)


SWITCHES = ("positions", "memory_norm", "masked", "competing", "repeated", "pre_norm", "projected")
SWITCHES += ("sliced", "centred")


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_the_concepts(switch):
    texts, videos = encodings(texts=4, videos=4)
    _, *usual = concepts(texts, videos)
    _, *other = concepts(texts, videos, **{switch: 1.0})
    for a, b in zip(usual, other, strict=True):
        assert np.abs(a.queries - b.queries).max() > 1e-3
        np.testing.assert_allclose(jnp.linalg.norm(b.queries, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("competing", [0.0, 1.0])
def test_masked_padding_has_no_part(competing):
    texts, videos = encodings(texts=4, videos=4)
    padded = np.where(texts["mask"][:, :, None] > 0, texts["tokens"], 7.0)
    assert np.any(padded != texts["tokens"])
    for masked, apart in ((1.0, False), (0.0, True)):
        one, other = (
            concepts({**texts, "tokens": x}, videos, masked=masked, competing=competing)[1].queries
            for x in (texts["tokens"], padded)
        )
        assert (np.abs(one - other).max() > 1e-4) == apart


def test_what_tells_concepts_apart():
    texts, videos = encodings(texts=4, videos=4)
    _, text, _ = concepts(texts, videos, sliced=1.0)
    gram = np.einsum("AKD,AJD->AKJ", text.queries, text.queries)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(4), gram.shape), atol=1e-5)


def test_losses_of_each_item():
    texts, videos = encodings(texts=4, videos=4)
    options = {"per_item": 1.0, "both_sides": 1.0, "alpha": 2.0, "margin": 1.0, "per_pair": 1.0}
    head, text, video = concepts(texts, videos, **options)
    found = head.losses(text, video, None)
    wanted = 0.0
    for queries in (text.queries, video.queries):
        for one in np.asarray(queries):
            gram = one @ one.T
            hinge = np.maximum(0, 1 + gram - np.diag(gram)[:, None])
            wanted += 2 * 2.0 * np.sum(hinge * (1 - np.eye(4))) / 12 / len(queries)
    np.testing.assert_allclose(found["diversity"], wanted, rtol=1e-4)
    pairs = np.einsum("BKD,BKD->K", text.queries, video.queries) / 4
    apart = np.mean(video.queries - text.queries, axis=0)
    wanted = np.mean(apart**2) + 5e-3 * np.sum((pairs - 0.75) ** 2)
    np.testing.assert_allclose(found["consistency"], wanted, rtol=1e-4)


def test_the_weights_of_the_scores():
    texts, videos = encodings(texts=4, videos=4)
    scores = {}
    for gim, lim, learned in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 2.0, 0.0), (1.0, 0.0, 1.0)):
        head, text, video = concepts(texts, videos, gim_weight=gim, lim_weight=lim, learned=learned)
        scores[gim, lim, learned] = head.score(text, video)
    gim, lim, both, learned = scores.values()
    np.testing.assert_allclose(both, 0.5 * gim + 2 * lim, atol=1e-5)
    assert np.abs(learned - gim).max() > 1e-4


def test_starts():
    for name, start in STARTS.items():
        found = start(4, 16, np.random.default_rng(0))
        assert found.shape == (4, 16), name
    for name, length in (("orthogonal", 1), ("orthogonal_long", 4)):
        found = STARTS[name](4, 16, np.random.default_rng(0))
        np.testing.assert_allclose(found @ found.T, length**2 * np.eye(4), atol=1e-9)
        np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-9)


def test_lines():
    rng = np.random.default_rng(0)
    seeds, texts = [4, 5], 6
    variants = [RELEASED, Variant("other", options=(("learned", 1.0),), start="orthogonal")]
    scores = np.stack([np.eye(texts), -np.eye(texts), np.eye(texts), np.full((texts,) * 2, np.nan)])
    queries = rng.normal(size=(4, texts, 8, 3)).astype(np.float32)
    trained = Trained(
        losses=rng.random((7, 4)),
        scores=scores,
        text_queries=queries / np.linalg.norm(queries, axis=-1, keepdims=True),
        video_queries=np.ones((4, texts, 8, 3), np.float32) / np.sqrt(3),
        weight=np.full(4, 0.5),
        params={},
    )
    program = Program(Shape(), "end_to_end", Length(7))
    first, second = results.lines(program, variants, seeds, trained, 3.0, None)
    assert (first["name"], first["head"], first["temporal"]) == ("glscl", "glscl", "seqTransf")
    assert (first["r1"], first["hits1"]) == ([100.0, 0.0], ["1" * texts, "0" * texts])
    assert first["settings"] == {}
    assert second["settings"] == {
        "learned": 1.0,
        "start": "orthogonal",
        "learned_weight": [0.5, 0.5],
    }
    assert second["r1"] == [100.0, None]
    assert second["hits1"][1] is None
    np.testing.assert_allclose(first["concept_cosine_video"], 1, rtol=1e-5)
    assert first["concept_cosine_text"][0] < 0.5
    np.testing.assert_allclose(second["loss"], trained.losses[:, 2:].mean(axis=0))
    assert (first["steps"], first["seconds"], first["seeds"]) == (7, 1.5, seeds)


def line(name: str, *runs: str, **more) -> dict:
    share = [100 * run.count("1") / len(run) for run in runs]
    nothing = dict.fromkeys(("concept_cosine_text", "concept_cosine_video"), [None] * len(runs))
    nothing |= dict.fromkeys(("effective_text", "effective_video"), [None] * len(runs))
    return {"name": name, "protocol": "p", "r1": share, "hits1": list(runs), **nothing, **more}


def test_the_summary_holds_variants_against_both(tmp_path):
    low, high = "0001" * 50, "0111" * 50
    lines = [
        line("gim", low, low),
        line("glscl", low, high, concept_cosine_text=[0.5, 0.7], effective_text=[1.0, 2.0]),
        line("other", high, high),
    ]
    found = summary.difference(lines[0], lines[2])
    assert (found.a, found.b, found.difference) == (25.0, 75.0, 50.0)
    assert 0 < found.low < 50 < found.high
    path = tmp_path / "lines"
    path.write_text("".join(json.dumps(x) + "\n" for x in [line("other", low), *lines]))
    rows = summary.table(results.read_lines(path))
    cells = {row.split(" | ")[0]: row.split(" | ")[1:] for row in rows if row.startswith("| ")}
    assert cells["| gim"][:2] == ["25.0 ± 0.0", "-"]
    assert cells["| other"][1].startswith("**+50.0 (")
    assert cells["| glscl"][0] == "50.0 ± 35.4"
    assert cells["| glscl"][3] == "0.600, 1.5"


def test_lanes_read_what_training_reads():
    variants = [RELEASED, Variant("other", options=(("alpha", 1.0),), start="orthogonal")]
    lanes = lanes_of(variants, (1, 2), Length(5, 3), clips=9)
    assert lanes.seed.tolist() == [1, 2, 1, 2]
    assert lanes.given.tolist() == [False] * 2 + [True] * 2
    np.testing.assert_array_equal(lanes.options.alpha, np.float32([1e-4, 1e-4, 1, 1]))
    assert lanes.picks.shape == (4, 5, 3)
    np.testing.assert_array_equal(lanes.picks[0], lanes.picks[2])
    assert np.any(lanes.picks[0] != lanes.picks[1])
    assert np.any(lanes.start[2] != lanes.start[3])
    assert not np.any(lanes.start[:2])


def test_exported_clips_are_the_pipeline_s(shapes, tmp_path):
    export(shapes / "data", tmp_path / "clips.npz")
    splits = read_clips(tmp_path / "clips.npz")
    assert {name: len(clips.frames) for name, clips in splits.items()} == {"train": 32, "test": 8}
    batches = pipeline.train_batches(
        open_data(shapes / "data"),
        "train",
        read_tokenizer("demo", "clip"),
        batch_size=4,
        num_frames=demo.NUM_FRAMES,
        num_words=demo.NUM_WORDS,
        seed=7,
        first_step=0,
        num_steps=10,
    )
    picks = lanes_of([RELEASED], (7,), Length(10, 4), clips=32).picks[0]
    split = pixels(splits["train"])
    for rows, batch in zip(picks, batches, strict=True):
        batch.pop("clip_index")
        ours = split.pairs(rows)
        assert ours.keys() == batch.keys()
        for name, array in batch.items():
            np.testing.assert_array_equal(ours[name], array, name)
            assert ours[name].dtype == array.dtype


@pytest.mark.slow
def test_losses_are_those_of_the_train_program(shapes, run_program, tmp_path):
    settings = ("batch_size=8", "num_steps=12", "log_every=1", "seed=43", "data.validation_split=")
    run_program(
        "glscl_jax.train",
        "--config=configs/demo.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={shapes / 'data'}",
        *(f"--config.{setting}" for setting in settings),
    )
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    logged = [line for line in map(json.loads, log) if "loss/total" in line]
    # Counted from 1; the first, whose time is the compiler's, has no line.
    steps = np.array([line["step"] for line in logged]) - 1
    theirs = np.array([line["loss/total"] for line in logged])
    assert len(steps) >= 11
    export(shapes / "data", tmp_path / "clips.npz")
    splits = {name: pixels(clips) for name, clips in read_clips(tmp_path / "clips.npz").items()}
    length = Length(12, 8)
    lanes = lanes_of([RELEASED], (42, 43), length, clips=32)
    program = Program(Shape(), demo.END_TO_END, length)
    trained = jax.jit(program)(lanes, *splits.values(), None)
    np.testing.assert_allclose(trained.losses[steps, 1], theirs, rtol=1e-3)
    assert np.abs(trained.losses[steps, 0] / theirs - 1).max() > 1e-2
