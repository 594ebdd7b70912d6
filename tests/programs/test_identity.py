"""Data and tokenizers are known by what they are: elsewhere they are the same, others are not."""

import csv
import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from glscl_jax.checkpoints import model_dir
from glscl_jax.input_pipeline import annotations, rendered
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES
from glscl_jax.input_pipeline.prepared_data import Settings, open_data
from glscl_jax.input_pipeline.preparing import builder, data_set
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
FOLDERS = {"source": "videos", "data_dir": "data"}
RED, BLUE = (200, 30, 30), (30, 30, 200)


def prepared(folder, colours, caption="a colour", **changes):
    """Eight clips of a training and a test split, each of one colour: the open data set."""
    (folder / "videos").mkdir(parents=True)
    with (folder / "videos" / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "caption", "split"])
        for number in range(8):
            frames = np.full((8, 32, 32, 3), colours[number % len(colours)], np.uint8)
            rendered.write_video(frames, folder / "videos" / f"{number}.mp4")
            rows.writerow([f"{number}.mp4", f"{caption} {number}", "test" * (number > 5)])
    clips = annotations.read_folder(folder / "videos")
    settings = {"frame_rate": 2.0, "image_size": 32, "jpeg_quality": 95, **changes}
    data_set.prepare(
        clips,
        folder / "videos",
        folder / "data",
        Settings("folder", annotations=builder.annotations_digest(clips), **settings),
        workers=2,
        max_failed_share=0,
    )
    return open_data(folder / "data")


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    folder = tmp_path_factory.mktemp("red")
    return folder, prepared(folder, [RED]).identity


def test_a_copy_and_a_second_preparation_are_the_same(red, tmp_path):
    folder, identity = red
    shutil.copytree(folder / "data", tmp_path / "copy")
    assert open_data(tmp_path / "copy").identity == identity
    assert prepared(tmp_path / "again", [RED]).identity == identity
    # It is kept as JSON.
    assert json.loads(json.dumps(identity)) == identity
    assert identity["splits"]["train"]["clips"] == 6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colours": [BLUE]}, "splits"),
        ({"colours": [RED] * 7 + [BLUE]}, "splits"),  # one video of test
        ({"caption": "a color"}, "annotations"),
        ({"jpeg_quality": 90}, "jpeg_quality"),
    ],
)
def test_other_data_is_another(red, tmp_path, change, named):
    other = prepared(tmp_path, **{"colours": [RED]} | change).identity
    assert named in {key for key in other if other[key] != red[1][key]}


CLIP = Clip("a", pathlib.Path("a.mp4"), ("one", "two"), None, 2.0, "train")


@pytest.mark.parametrize(
    "change",
    [
        {"split": "val"},
        {"clip_id": "b"},
        {"captions": ("two", "one")},
        {"captions": ("one",)},
        {"start": 0.0},
        {"end": None},
    ],
)
def test_all_that_annotations_say_is_told_apart(change):
    others = [dataclasses.replace(CLIP, clip_id=name) for name in ("x", "y")]
    digests = [
        builder.annotations_digest([*others, clip])
        for clip in (CLIP, dataclasses.replace(CLIP, **change))
    ]
    assert digests[0] != digests[1]
    # Neither their order nor where the videos lie is of the annotations.
    moved = dataclasses.replace(CLIP, video=pathlib.Path("elsewhere") / "a.mp4")
    assert builder.annotations_digest([moved, *others]) == digests[0]


def test_a_split_changed_in_the_annotations_is_refused(red, refusal, tmp_path):
    shutil.copytree(red[0], tmp_path / "red")
    captions = tmp_path / "red" / "videos" / "captions.csv"
    captions.write_text(captions.read_text().replace("a colour 5,", "a colour 5,test"))
    program = "glscl_jax.input_pipeline.prepare"
    folders = [f"--{flag}={tmp_path / 'red' / of}" for flag, of in FOLDERS.items()]
    told = refusal(program, *folders, "--frame_rate=2", "--image_size=32")
    assert "was made from other annotations or splits" in told


def test_records_of_equal_length_are_told_apart(red, tmp_path):
    shutil.copytree(red[0] / "data", tmp_path / "data")
    (path,) = (tmp_path / "data").rglob("*train*array_record*")
    whole = bytearray(path.read_bytes())
    whole[300] ^= 1
    path.write_bytes(whole)
    assert open_data(tmp_path / "data").identity != red[1]


@pytest.fixture(scope="module")
def train(forks, refusal, shapes):
    """Runs the program to step 4; `refused` gives the line of its error."""

    def arguments(workdir, data, *more):
        return (
            "--config=configs/demo.py:tiny",
            f"--workdir={workdir}",
            f"--config.data.dir={data}",
            "--config.data.validation_split=",
            "--config.num_steps=4",
            "--config.checkpoint_every=2",
            *more,
        )

    def run(*args):
        return forks("glscl_jax.train", *arguments(*args))

    def refused(*args):
        return refusal("glscl_jax.train", *arguments(*args))

    run.refused = refused
    return run


@pytest.fixture(scope="module")
def merges(tmp_path_factory):
    """The demo's tokenizer in a file of one's own."""
    path = tmp_path_factory.mktemp("merges") / "merges.txt"
    return shutil.copy(DEMO_MERGES, path)


@pytest.fixture(scope="module")
def trained(train, shapes, merges, tmp_path_factory):
    """The work directory of a run that has come to step 2; what it had at step 4 lies beside it."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    train(workdir, shapes / "data", f"--config.data.tokenizer={merges}")
    shutil.move(workdir / "checkpoints" / "4", workdir.parent / "4")
    return workdir


@pytest.fixture
def run(trained, shapes, tmp_path):
    """Copies to do harm to: (the work directory, the data)."""
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(shapes / "data", tmp_path / "data")
    return tmp_path / "run", tmp_path / "data"


@pytest.fixture(scope="module")
def others_data(forks, tmp_path_factory):
    """Puts data of other videos, with the same settings, in the place of its argument."""
    folder, made = (tmp_path_factory.mktemp(name) for name in ("videos", "others"))
    forks("glscl_jax.input_pipeline.rendered", f"--out={folder}", "--clips=32", "--held_out=8",
          "--seed=1")  # fmt: skip
    forks("glscl_jax.input_pipeline.prepare", f"--source={folder}", f"--data_dir={made}",
          "--frame_rate=2", "--image_size=32")  # fmt: skip

    def put(place):
        shutil.rmtree(place)
        shutil.copytree(made, place)

    return put


def test_a_run_goes_by_what_its_data_and_tokenizer_are(
    trained, run, train, others_data, merges, tmp_path
):
    workdir, data = run
    data.rename(tmp_path / "moved")
    elsewhere = shutil.copy(merges, tmp_path / "copied.txt")
    tokenizer = f"--config.data.tokenizer={elsewhere}"
    done = train(workdir, tmp_path / "moved", tokenizer)
    assert "from step 2 to 4" in done.stdout
    # As if nothing had been in between.
    one, other = (
        jax.tree.leaves(model_dir._load_params(path, ONE))
        for path in (trained.parent / "4", workdir / "checkpoints" / "4")
    )
    assert all(map(np.array_equal, one, other))
    assert json.loads((workdir / "config.json").read_text())["data"]["dir"].endswith("moved")

    # The same places, other contents.
    kept = {path: path.read_bytes() for path in workdir.glob("*.json")}
    others_data(tmp_path / "moved")
    told = train.refused(workdir, tmp_path / "moved", tokenizer)
    assert "was trained on other data (annotations" in told
    assert "splits.train.records" in told
    assert "--config.data.dir" in told
    assert {path: path.read_bytes() for path in kept} == kept


def test_another_tokenizer_at_the_same_place_is_refused(run, train, merges, tmp_path):
    workdir, data = run
    lines = DEMO_MERGES.read_text().splitlines()
    other = tmp_path / "merges.txt"
    other.write_text("\n".join(lines[:-1]) + "\n")
    told = train.refused(workdir, data, f"--config.data.tokenizer={other}")
    assert "another tokenizer than config.data.tokenizer" in told
    assert load_tokenizer(workdir / "tokenizer").sha256 == read_tokenizer(merges).sha256


def test_how_data_is_read_is_fixed(trained, shapes, train, merges):
    tokenizer = f"--config.data.tokenizer={merges}"
    for flag, told in (
        ("--config.data.num_frames=2", "data.num_frames 3, now 2"),
        ("--config.data.num_words=20", "data.num_words 16, now 20"),
        ("--config.data.train_split=val", "data.train_split 'train', now 'val'"),
    ):
        assert told in train.refused(trained, shapes / "data", tokenizer, flag)


@pytest.fixture
def without_data(run):
    """As `run`, of a run that did not write down its data."""
    workdir, data = run
    (workdir / "data.json").unlink()
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["dir"] = str(data)
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir, data


def test_a_run_that_did_not_write_down_its_data_does_not_move(
    without_data, train, merges, tmp_path
):
    workdir, data = without_data
    shutil.copytree(data, tmp_path / "copy")
    tokenizer = f"--config.data.tokenizer={merges}"
    told = train.refused(workdir, tmp_path / "copy", tokenizer)
    assert "does not say what data it had: go on with that once" in told


@pytest.mark.slow
def test_a_run_that_did_not_write_down_its_data_goes_on_in_its_place(
    without_data, train, merges, tmp_path
):
    workdir, data = without_data
    shutil.copytree(data, tmp_path / "copy")
    tokenizer = f"--config.data.tokenizer={merges}"
    assert "from step 2" in train(workdir, data, tokenizer).stdout
    assert "nothing to train" in train(workdir, tmp_path / "copy", tokenizer).stdout


def test_evaluate_changes_the_runs_own_config(run, forks, refusal, others_data, tmp_path):
    workdir, data = run
    evaluate = functools.partial(forks, "glscl_jax.evaluate", f"--checkpoint={workdir}")
    data.rename(tmp_path / "moved")
    kept = f"--save_features={tmp_path / 'kept'}"
    out = f"--out={tmp_path / 'out'}"
    moved = f"--config.data.dir={tmp_path / 'moved'}"
    evaluate(moved, "--config.eval_batch_size=16", kept, out, "--noreport")
    card = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (card["settings"]["batch_size"], card["settings"]["frames"]) == (16, 3)
    # Features are known by the same: elsewhere they are read, other data's are refused.
    (tmp_path / "moved").rename(tmp_path / "again")
    again = f"--config.data.dir={tmp_path / 'again'}"
    flags = ("--config.eval_batch_size=16", kept, out, "--noreport")
    evaluate(again, *flags)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["features"] == "read"
    others_data(tmp_path / "again")
    refused = functools.partial(refusal, "glscl_jax.evaluate")
    assert "features of another annotations" in refused(f"--checkpoint={workdir}", again, *flags)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--checkpoint={run}", "--config.data.dirr=x"], "dirr"),
        (["--checkpoint={run}", "--config.data.num_frames=many"], "num_frames"),
        (["--config.data.dir=x"], "--checkpoint is missing"),
        (["--checkpoint={run}/tokenizer", "--config.data.dir=x"], "holds no config.json"),
        (["--checkpoint", "{run}", "--config.data.dir", "nowhere"], "nowhere"),
    ],
)
def test_a_change_that_cannot_be_is_one_line(trained, refusal, flags, told):
    given = [flag.format(run=trained) for flag in flags]
    assert told in refusal("glscl_jax.evaluate", *given)
