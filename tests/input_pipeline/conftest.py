"""Fixtures that several files of this folder share."""

import csv
import functools
import pathlib
import shutil

import pytest

from glscl_jax.input_pipeline import rendered
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from tests import benchmark_files
from tests.bpe_oracle import OPENAI_MERGES


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory) -> pathlib.Path:
    """A folder with every benchmark in its own, small; nobody writes into it."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for dataset in benchmark_files.DATASETS:
        benchmark_files.write(dataset, folder / dataset)
    return folder


@pytest.fixture
def copied(benchmarks, tmp_path):
    """A benchmark's annotation files, to be spoilt; its videos are not there."""

    def copy(dataset: str) -> pathlib.Path:
        folder = tmp_path / dataset
        folder.mkdir()
        for path in (benchmarks / dataset).iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        return folder

    return copy


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Eight real clips of the demo with their captions: 4 train, 2 val, 2 test; one cut in two."""
    source = tmp_path_factory.mktemp("source")
    (source / "videos").mkdir()
    val_test_train = rendered.scenes(0, 4, 4)
    scenes = val_test_train[8:] + val_test_train[:2] + val_test_train[4:6]
    rows = [["video", "caption", "split", "start", "end"]]
    for scene in scenes:
        rendered.write_video(rendered.render_clip(scene), source / scene.video)
        rows.append([scene.video, scene.caption, scene.split, "", ""])
    rows.append([scenes[0].video, "said otherwise", "train", "", ""])
    rows.append([scenes[1].video, "the second half", "train", "1.5", "3"])
    with (source / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return source


@pytest.fixture
def faulty(videos, tmp_path):
    """The folder with three clips that cannot be read; returns it and their reasons."""
    source = tmp_path / "faulty"
    (source / "videos").mkdir(parents=True)
    for path in (videos / "videos").iterdir():
        (source / "videos" / path.name).write_bytes(path.read_bytes())
    reasons = {"gone.mp4": "no such file", "empty.mp4": "empty file", "text.mp4": "not a video"}
    (source / "empty.mp4").touch()
    (source / "text.mp4").write_text("hello")
    rows = [["video", "caption", "split"]]
    rows += [[name, f"a clip, {name}", "train"] for name in reasons]
    rows += [[f"videos/{p.name}", "fine", "train"] for p in sorted((videos / "videos").iterdir())]
    with (source / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return source, reasons


@pytest.fixture(scope="module")
def clip():
    """CLIP's tokenizer, of OpenAI's merges."""
    if not OPENAI_MERGES.exists():
        pytest.skip("OpenAI's merges file is not beside the repository")
    return CLIPTokenizer.from_merges(OPENAI_MERGES)


@pytest.fixture(scope="module")
def saved(clip, tmp_path_factory):
    """A directory to which that was saved."""
    directory = tmp_path_factory.mktemp("clip_tokenizer")
    clip.save(directory)
    return directory


@pytest.fixture(scope="module")
def hugging_face(saved):
    """The same as transformers has it."""
    import transformers

    return transformers.CLIPTokenizer.from_pretrained(saved, local_files_only=True)


@pytest.fixture(scope="module")
def demo():
    """The tokenizer of the demo's merges."""
    return CLIPTokenizer.from_merges(DEMO_MERGES)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Of a tokenizer's family its directory, trained once."""
    from tests import trained_tokenizers  # Which skips its tests without transformers.

    folder = tmp_path_factory.mktemp("families")
    return functools.cache(lambda family: getattr(trained_tokenizers, family)(folder / family))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """VideoPrism's model of SentencePiece."""
    from tests import trained_tokenizers

    return trained_tokenizers.videoprism(tmp_path_factory.mktemp("pieces") / "any.model")
