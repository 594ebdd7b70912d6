"""The commands of docs/own_videos.md on a folder of five clips, prepared by the defaults."""

import json
import shutil

import pytest

from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer
from tests.conftest import one_line_error

FLAGS = [
    "--config.data.frame_rate=1.0",
    "--config.model.clip.image_size=224",
    '--config.data.validation_split=""',
    "--config.batch_size=5",
]
CAPTION = "a small red circle moves from left to right then from right to left and stops"


@pytest.fixture(scope="module")
def videos(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("five")
    rows = ["video,caption"]
    for video in sorted((shapes / "videos" / "videos").iterdir())[:5]:
        shutil.copy(video, folder)
        rows.append(f"{video.name},{CAPTION}")
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def prepared(forks, videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare = "glscl_jax.input_pipeline.prepare"
    told = forks(prepare, f"--source={videos}", "--check").stdout
    assert "5" in told
    forks(prepare, f"--source={videos}", f"--data_dir={folder}")
    return folder


def test_more_than_there_is_cannot_be_held_out(refusal, videos, tmp_path):
    arguments = (f"--source={videos}", f"--data_dir={tmp_path}", "--validation_size=200")
    told = refusal("glscl_jax.input_pipeline.prepare", *arguments)
    assert "--validation_size 200: only 5 videos are there to train on: hold out fewer" in told


def test_all_that_does_not_fit_is_told_with_flags_that_help(forks, prepared, tmp_path):
    train = ("glscl_jax.train", "--config=configs/folder.py:tiny", f"--workdir={tmp_path}")
    train += (f"--config.data.dir={prepared}", "--config.num_steps=1")
    first, *lines = one_line_error(forks(*train, check=False)).splitlines()
    assert first == "error: 4 things do not fit:"
    assert not any(tmp_path.iterdir())
    flags = [word for line in lines for word in line.split() if word.startswith("--config")]
    assert flags == FLAGS


@pytest.mark.slow
def test_with_these_flags_it_trains_and_is_evaluated(forks, prepared, tmp_path):
    train = ("glscl_jax.train", "--config=configs/folder.py:tiny", f"--workdir={tmp_path}")
    train += (f"--config.data.dir={prepared}", "--config.num_steps=1")
    # As a shell hands them on; and with patches so large that the test is quick.
    flags = [flag.replace('""', "") for flag in FLAGS]
    out = forks(*train, *flags, "--config.model.clip.patch_size=224").stdout
    assert f"trained to step 1; the run's files are in {tmp_path}" in out
    cut = "5 of 5 train captions (100.0 %) are cut: they have more tokens than"
    assert out.count(cut) == 1

    evaluate = ("glscl_jax.evaluate", f"--checkpoint={tmp_path}")
    (line,) = one_line_error(forks(*evaluate, check=False)).splitlines()
    assert line.endswith("only train: prepare it too, or give another with --split")
    told = forks(*evaluate, "--split=train").stdout
    longest = int(read_tokenizer("demo")(CAPTION, 100).mask.sum())
    assert f"note: {cut} config.data.num_words 16, the longest {longest}" in told
    card = json.loads((tmp_path / "results.json").read_text())
    assert card["data"]["cut"] == {"captions": 5, "cut": 5, "num_words": 16, "longest": longest}


def test_every_setting_that_does_not_fit_is_told(forks, prepared, tmp_path):
    """Settings among themselves, then what they meet: devices, data, tokenizer."""
    train = ("glscl_jax.train", "--config=configs/folder.py:tiny", f"--workdir={tmp_path / 'run'}")
    train += (f"--config.data.dir={prepared}", "--config.data.frame_rate=1")
    wrong = ("--config.num_epochs=0", "--config.optim.b1=2.0", "--config.data.num_frames=99")
    wrong += ("--config.losses.margin=nan",)
    first, *lines = one_line_error(forks(*train, *wrong, check=False)).splitlines()
    assert first == "error: 4 things do not fit:"
    assert [line.split()[0] for line in lines[:3]] == [
        "config.num_epochs",
        "config.losses:",
        "config.optim:",
    ]
    assert "config.data.num_frames 99" in lines[3]
    wrong = ("--config.mesh.tensor=3", "--config.data.tokenizer=nowhere.txt")
    first, *lines = one_line_error(forks(*train, *wrong, check=False)).splitlines()
    assert first == "error: 5 things do not fit:"
    for part, line in zip(
        ("mesh", "image_size", "'val'", "batch_size", "nowhere"), lines, strict=True
    ):
        assert part in line
    assert not (tmp_path / "run").exists()
