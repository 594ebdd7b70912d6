"""Evaluation of a trained run: what it writes, what it reads again, and what it refuses."""

import csv
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from glscl_jax import compare
from glscl_jax.checkpoints.model_dir import load_model, parameters_sha256, save_params
from glscl_jax.errors import UserError
from glscl_jax.evaluation import rank_files, run_card
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.input_pipeline.preparing import failures
from glscl_jax.input_pipeline.preparing.checkup import Failure
from glscl_jax.input_pipeline.preparing.failures import FAILED_FILE, failed_clips
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval import encoded_split, metrics
from glscl_jax.retrieval.rerank import DUAL_SOFTMAX
from glscl_jax.runtime import sharding
from tests import benchmark_files
from tests.builders import slow_mean, slow_score


@pytest.fixture(scope="module")
def workdir(shapes, forks, tmp_path_factory):
    """A run of a few steps, in another folder than what evaluates it, by paths from there."""
    workdir = tmp_path_factory.mktemp("evaluated") / "run"
    (workdir.parent / "prepared").symlink_to(shapes / "data")
    run = (
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        "--workdir=run",
        "--config.data.dir=prepared",
        "--config.num_steps=4",
        "--config.validate_every=2",
    )
    forks.together(run, environments=[{"PWD": str(workdir.parent)}])
    return workdir


@pytest.fixture(scope="module")
def evaluate(forks, refusal):
    """Runs the program; `refused` gives the line of its error."""
    run = functools.partial(forks, "glscl_jax.evaluate")
    run.refused = functools.partial(refusal, "glscl_jax.evaluate")
    return run


@pytest.fixture(scope="module")
def evaluated(workdir, evaluate, shapes):
    """The test split with the config's file, features kept: (what was printed, the features)."""
    kept = workdir.parent / "features"
    done = evaluate(
        f"--checkpoint={workdir}",
        "--config=configs/demo.py:tiny",
        f"--config.data.dir={shapes / 'data'}",
        f"--save-features={kept}",
        "--top-k=3",
    )
    return done, kept


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_table_and_the_run_card(workdir, evaluated, shapes):
    done, _ = evaluated
    card = results(workdir)
    data = card["data"]
    assert data["videos"] == card["t2v"]["queries"] == card["v2t"]["queries"] == 8
    assert data["split"] == "test"
    shown = [line for line in done.stdout.splitlines() if line.startswith("text-to-video")]
    assert float(shown[0].split()[1]) == round(card["t2v"]["mean"]["R@1"], 1)
    assert card["t2v"]["mean"]["R@10"] == 100
    assert {"load", "encode videos", "encode captions", "score and rank", "report"} <= set(
        card["seconds"]
    )
    # Hashes and counts against the prepared data, read by hand.
    batches = pipeline.eval_batches(open_data(shapes / "data"), "test", batch_size=8, num_frames=3)
    (batch,) = batches
    assert data["clip_ids_sha256"] == run_card.lines_sha256(batch.clip_ids)
    assert data["frames_decoded"] == batch.frame_mask.sum()
    step = card["checkpoint"]["step"]
    params = load_model(workdir, one_device(), step).params
    assert card["checkpoint"]["parameters_sha256"] == parameters_sha256(params)
    assert "## What was evaluated" in (workdir / "results.md").read_text()
    assert (workdir / "report.html").stat().st_size > 10_000


def one_device():
    return sharding.replicated(sharding.make_mesh(jax.devices()[:1]))


def test_every_query_has_its_rank_and_its_best_items(workdir, evaluated):
    card, found = results(workdir), rank_files.read_ranks(workdir)
    for name in ("t2v", "v2t"):
        figures = metrics.recalls(found[name].ranks.mean).as_dict()
        assert figures == card[name]["mean"]
    with (workdir / "top.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["direction"] == "t2v"]
    # The right video is among the best three exactly where its rank says so.
    for query, (clip_id, rank) in enumerate(
        zip(found["t2v"].clip_ids, found["t2v"].ranks.mean, strict=True)
    ):
        best = [row["clip_id"] for row in rows if row["query"] == str(query)]
        assert len(best) == 3
        assert (clip_id in best) == (rank <= 3)


def test_kept_features_are_read_and_give_the_same(workdir, evaluated, evaluate, tmp_path):
    _, kept = evaluated
    # Without the frames: nothing is decoded. The run's own config has the same settings.
    again = evaluate(
        f"--checkpoint={workdir}",
        f"--save_features={kept}",
        f"--out={tmp_path}",
        "--no-report",
        "--legacy-ties",
    )
    assert "encoding" not in again.stderr
    card, before = results(tmp_path), results(workdir)
    assert card["features"] == "read"
    assert card["tie_rule"] == "legacy"
    assert card["t2v"]["mean"] == before["t2v"]["mean"]
    # Nothing ties, so the released metric agrees.
    assert card["t2v"]["legacy"] == card["t2v"]["mean"]
    assert card["data"] == before["data"]
    assert not (tmp_path / "report.html").exists()


def test_two_runs_are_compared(workdir, evaluated, evaluate):
    told = evaluate("compare", workdir, workdir).stdout
    assert told.count("+0.0 to +0.0: within noise") == 12
    assert "RUN_B is missing" in evaluate.refused("compare", workdir)


def test_features_of_another_checkpoint_are_refused(workdir, evaluated, evaluate):
    _, kept = evaluated
    other = 6 - results(workdir)["checkpoint"]["step"]  # Of steps 2 and 4.
    arguments = (f"--checkpoint={workdir}", f"--save_features={kept}")
    assert "another checkpoint (" in evaluate.refused(*arguments, f"--step={other}")


@pytest.mark.slow
def test_an_interrupted_encode_goes_on(workdir, evaluate, tmp_path):
    # 32 clips in batches of 8, of which the first is all there is.
    arguments = [f"--checkpoint={workdir}", "--split=train", "--noreport"]
    evaluate(*arguments, f"--save_features={tmp_path / 'kept'}", f"--out={tmp_path / 'whole'}")
    kept = tmp_path / "kept" / "train"
    for path in kept.iterdir():
        if path.name not in ("identity.json", "video-00000.npz"):
            path.unlink()
    done = evaluate(*arguments, f"--save_features={tmp_path / 'kept'}", f"--out={tmp_path / 'on'}")
    assert "encoding videos: 24 of 24" in done.stderr
    assert results(tmp_path / "on")["features"] == "resumed"
    same = [(tmp_path / name / "ranks.csv").read_text() for name in ("whole", "on")]
    assert same[0] == same[1]


def test_validation_and_evaluation_agree(workdir, evaluate, tmp_path):
    # The run's own config, another split, a given step, another place for the results.
    evaluate(
        f"--checkpoint={workdir}", "--split=val", "--step=4", f"--out={tmp_path}", "--noreport"
    )
    card = results(tmp_path)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    validation = next(
        row for row in map(json.loads, lines) if row["step"] == 4 and "validation/R@1" in row
    )
    for name in ("R@1", "R@5", "MnR"):
        assert card["t2v"]["mean"][name] == pytest.approx(validation[f"validation/{name}"])
        assert card["v2t"]["mean"][name] == pytest.approx(validation[f"validation/v2t {name}"])


def test_post_processing_says_so_and_where_its_bank_is_from(workdir, evaluated, evaluate, tmp_path):
    common = (f"--checkpoint={workdir}", f"--save_features={evaluated[1]}", "--noreport")
    evaluate(*common, "--rerank=qbnorm", f"--out={tmp_path / 'qb'}")
    card = results(tmp_path / "qb")
    bank = card["rerank"]["bank"]
    assert (bank["split"], bank["videos"], bank["texts"]) == ("train", 32, 32)
    assert (card["rerank"]["t2v"]["theta"], card["rerank"]["v2t"]["theta"]) == (3, 5)
    assert bank["clip_ids_sha256"] != card["data"]["clip_ids_sha256"]
    assert {"encode bank videos", "score", "rank"} <= set(card["seconds"])

    done = evaluate(*common, "--rerank=dual_softmax", "--top_k=8", f"--out={tmp_path / 'ds'}")
    page = (tmp_path / "ds" / "results.md").read_text()
    for shown in (done.stdout, page):
        assert DUAL_SOFTMAX in shown
    runs = [compare.read_run(tmp_path / name) for name in ("qb", "ds")]
    assert DUAL_SOFTMAX in compare.table(*runs, compare.compare(*runs))


def test_single_vectors_stand_beside_the_exact_score(workdir, evaluated, evaluate, tmp_path):
    done = evaluate(
        f"--checkpoint={workdir}",
        f"--save_features={evaluated[1]}",
        "--single_vector",
        "--examples=1",
        f"--out={tmp_path}",
    )
    card, exact = results(tmp_path), results(workdir)
    assert exact["single_vector"] is None
    pages = [(tmp_path / name).read_text() for name in ("results.md", "report.html")]
    for name in ("t2v", "v2t"):
        assert card["single_vector"][name]["exact"] == exact[name]["mean"]
        assert 0 <= card["single_vector"][name]["same_best"] <= 100
    # It is another ranking, or this would show nothing.
    assert card["t2v"]["mean"] != exact["t2v"]["mean"]
    for shown in (done.stdout, *pages):
        assert "anked by one vector a text and one a video" in shown
    assert pages[0].count("| by the head's own score |") == 2
    assert "by single vectors" in pages[1]
    run = compare.read_run(tmp_path)
    assert "by single vectors" in compare.table(run, run, compare.compare(run, run))


def test_a_checkpoint_is_needed(evaluate):
    assert "--checkpoint is missing" in evaluate.refused()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--checkpoint=nowhere"], "nowhere"),
        (["--step=3"], "no step 3"),
        (["--split=testing"], "no split 'testing' in the prepared data, only"),
        (["--top-k=9"], "--top_k 9: split 'test' has 8 videos"),
        (["--rerank=qbnorm", "--qb_split=training"], "give another with --qb_split"),
        (["--rerank=qbnorm", "--qb-split=test"], "the very queries"),
        (["--rerank=qbnorm", "--qb_theta=0"], "theta"),
        (["--rerank=dsl"], "dual_softmax"),
        (["--rerank=dual_softmax", "--dsl_temperature=0"], "--dsl_temperature 0"),
        (["--single_vector", "--rerank=qbnorm"], "--single_vector ranks without post-processing"),
        (["--examples=0"], "--examples 0: take 1 or more"),
        (["--features=x", "--encodings=y"], "give one of --encodings and --features"),
        (["--features=x", "--rerank=qbnorm"], "--rerank says nothing beside --features"),
        (["--features=x", "--save_features=y"], "--save_features says nothing beside --features"),
        (["--encodings=x", "--single_vector"], "--single_vector says nothing beside --encodings"),
        (["--encodings=x", "--out=y"], "--out says nothing beside --encodings"),
        (["--compile_for=v5e:1x1", "--top_k=3"], "--top_k says nothing beside --compile_for"),
        (["--compile_for=v5e:1x1", "--process_id=0"], "--process_id says nothing beside"),
        (["--qb_split=train"], "--qb_split says nothing without --rerank=qbnorm"),
        (["--rerank=dual_softmax", "--qb_k=3"], "--qb_k says nothing without --rerank=qbnorm"),
        (["--rerank=qbnorm", "--dsl_temperature=9"], "nothing without --rerank=dual_softmax"),
        (["--noreport", "--examples=3"], "--examples says nothing beside --noreport"),
        (["--out=README.md"], "--out README.md"),
        (["--config=configs/demo.py:tiny", "--config.data.tokenizer=other"], "with the tokenizer"),
        (["--config=configs/demo.py:tiny", "--config.data.num_words=33"], "num_words 33"),
        (["--config=configs/demo.py:tiny", "--config.data.num_frames=33"], "num_frames 33 is more"),
        (["--config=configs/demo.py:tiny", "--config.eval_batch_size=0"], "eval_batch_size is 0"),
    ],
)
def test_what_cannot_be_is_refused(workdir, evaluate, flags, told):
    assert told in evaluate.refused(f"--checkpoint={workdir}", *flags)


def test_a_clip_alone_is_ranked_by_the_mean_of_the_frames(workdir, shapes, evaluate, tmp_path):
    """A converted CLIP: no temporal module, no LIM, no config of its own."""
    clip, out = tmp_path / "clip", tmp_path / "out"
    save_params(clip, {"clip": load_model(workdir, one_device()).params["clip"]})
    model = json.loads((workdir / "model.json").read_text())
    (clip / "model.json").write_text(json.dumps({"clip": model["clip"]}))
    shutil.copytree(workdir / "tokenizer", clip / "tokenizer")
    printed = evaluate(
        f"--checkpoint={clip}",
        "--config=configs/demo.py:tiny",
        f"--config.data.dir={shapes / 'data'}",
        f"--save-features={tmp_path / 'kept'}",
        f"--out={out}",
        "--examples=1",
    ).stdout
    assert "clip (converted) on folder, split test" in printed
    card = results(out)
    assert card["settings"]["head"] == "mean"
    assert not {"temperature", "lim_weight"} & card["settings"].keys()
    encoded = encoded_split.load_features(tmp_path / "kept" / "test")
    assert encoded.text.queries.shape == (8, 0, model["clip"]["embed_dim"])
    scores = slow_mean(encoded.text.sentence, encoded.video.frames, encoded.video.mask)
    ranks = [place(row, row[b]) for row, b in zip(scores, encoded.owner, strict=True)]
    assert rank_files.read_ranks(out)["t2v"].ranks.mean.tolist() == ranks
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "cosine " in page
    assert 'class="most"' not in page  # every frame counts alike
    assert "GIM" not in page
    assert "LIM" not in page


def test_weights_that_are_not_finite_name_the_item(workdir, evaluate, tmp_path):
    params = jax.tree.map(np.array, load_model(workdir, one_device()).params)
    params["lim"]["queries"] = params["lim"]["queries"] * np.nan
    save_params(tmp_path, params)
    for name in ("model.json", "config.json"):
        shutil.copy(workdir / name, tmp_path)
    told = f"--checkpoint={tmp_path}"
    assert "has no tokenizer" in evaluate.refused(told)
    shutil.copytree(workdir / "tokenizer", tmp_path / "tokenizer")
    assert "are not finite (8 of 8" in evaluate.refused(told)


def test_a_tokenizer_of_another_model_is_named(workdir, evaluate, tmp_path):
    damaged = tmp_path / "run"
    shutil.copytree(workdir, damaged)
    path = damaged / "tokenizer" / "vocab.json"
    vocab = json.loads(path.read_text())
    start, end = list(vocab)[-2:]
    extra = {f"more{n}": len(vocab) - 2 + n for n in range(1000)}
    kept = {key: n for key, n in vocab.items() if key not in (start, end)}
    count = len(kept) + len(extra)
    path.write_text(json.dumps(kept | extra | {start: count, end: count + 1}))
    told = evaluate.refused(f"--checkpoint={damaged}")
    assert "the model beside it 1024" in told


def test_a_damaged_checkpoint_is_named(workdir, evaluate, refusal, tmp_path):
    damaged = tmp_path / "run"
    shutil.copytree(workdir, damaged)
    for step in (2, 4):
        for path in (damaged / "checkpoints" / str(step)).rglob("d/*"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = evaluate.refused(f"--checkpoint={damaged}", "--step=2")
    assert "checkpoints/2 cannot be read" in error
    error = refusal(
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={damaged}",
        f"--config.data.dir={json.loads((workdir / 'config.json').read_text())['data']['dir']}",
        "--config.num_steps=6",
    )
    assert "checkpoints/4 cannot be read" in error


def test_a_half_written_checkpoint_is_passed_over(workdir, evaluate, tmp_path):
    interrupted = tmp_path / "run"
    shutil.copytree(workdir, interrupted)
    # What a killed Orbax leaves: the directory has not got its final name.
    steps = interrupted / "checkpoints"
    (steps / "4").rename(steps / "4.orbax-checkpoint-tmp")
    done = evaluate(f"--checkpoint={interrupted}", f"--out={tmp_path}", "--noreport")
    assert "(step 2)" in done.stdout


@pytest.fixture(scope="module")
def msvd(forks, tmp_path_factory):
    """MSVD's own layout, small, one test video of which cannot be read: the prepared data."""
    folder = tmp_path_factory.mktemp("msvd")
    source = benchmark_files.write("msvd", folder / "source")
    lost = (source / "test_list.txt").read_text().split()[0]
    (source / "YouTubeClips" / f"{lost}.avi").write_bytes(b"no video")
    forks(
        "glscl_jax.input_pipeline.prepare",
        "--dataset=msvd",
        f"--source={source}",
        f"--data_dir={folder / 'data'}",
        "--frame_rate=2",
        "--image_size=32",
        "--allow-partial",
    )
    return folder / "data"


def place(scores, own) -> float:
    """The mean place of the right one: two videos share a caption, so their groups tie."""
    return 1 + sum(x > own for x in scores) + (sum(x == own for x in scores) - 1) / 2


def test_several_captions_a_video(workdir, msvd, evaluate, tmp_path):
    evaluate(
        f"--checkpoint={workdir}",
        "--config=configs/demo.py:tiny",
        f"--config.data.dir={msvd}",
        f"--save-features={tmp_path / 'kept'}",
        f"--out={tmp_path}",
        "--examples=1",
    )
    card = results(tmp_path)
    data = card["data"]
    assert (data["dataset"], data["texts"], data["videos"]) == ("msvd", 9, 3)
    assert (card["t2v"]["queries"], card["v2t"]["queries"]) == (9, 3)
    assert data["failed"] == 1
    assert "3 of 670 test" in data["partial"]
    # The page says what the terminal does.
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"A part of the data set only: {data['partial']}." in report
    assert "1 clips of this split could not be read" in report
    for name in ("t2v", "v2t"):
        low, high = card[name]["interval_95"]["R@1"]
        assert f"<small>{low:.1f} to {high:.1f}</small>" in report
    # Slow oracle: the features' scores one by one, every caption and every video in turn.
    encoded = encoded_split.load_features(tmp_path / "kept" / "test")
    scores = slow_score(encoded.text, encoded.video, GLSCLHead(3.0, 0.5))
    groups = [scores[encoded.owner == b].max(axis=0) for b in range(3)]
    right = {
        "t2v": [place(row, row[b]) for row, b in zip(scores, encoded.owner, strict=True)],
        "v2t": [place([group[b] for group in groups], groups[b][b]) for b in range(3)],
    }
    for name, ranks in right.items():
        assert card[name]["mean"]["R@1"] == pytest.approx(100 * np.mean(np.equal(ranks, 1)))
        assert card[name]["mean"]["MnR"] == pytest.approx(np.mean(ranks))
    found = rank_files.read_ranks(tmp_path)
    assert found["t2v"].ranks.mean.tolist() == right["t2v"]
    assert found["v2t"].ranks.mean.tolist() == right["v2t"]


def test_clips_that_could_not_be_read_are_those_that_prepare_lists(tmp_path):
    assert failed_clips(tmp_path, "test") == set()
    lost = [
        Failure(Clip(name, pathlib.Path(name), ("a dog",), None, None, split), "empty, or no video")
        for name, split in (("one, two.mp4", "test"), ("three.mp4", "train"), ("=4.mp4", "test"))
    ]
    failures.write_clips(lost, tmp_path / failures.FAILED_FILE)
    assert failed_clips(tmp_path, "test") == {"one, two.mp4", "=4.mp4"}
    for damage in (b"\xff\xfe", b"one,two\n1,2\n"):
        (tmp_path / FAILED_FILE).write_bytes(damage)
        with pytest.raises(UserError, match=r"failed\.csv is damaged"):
            failed_clips(tmp_path, "test")
