"""The annotation files as they were published, where they lie beside the repository."""

import collections
import json
import pathlib
import shutil

import pytest

from glscl_jax.input_pipeline.annotations import BENCHMARKS, msrvtt, validation
from tests import benchmark_files
from tests.benchmark_clips import read, splits
from tests.conftest import SHARED

TRAIN_VAL, TEST_INFO = msrvtt.OFFICIAL
REAL = SHARED / "annotations"


@pytest.fixture
def real(tmp_path):
    """The published files of a benchmark, in a folder that can be written."""

    def copy(name: str) -> pathlib.Path:
        if not (REAL / name).is_dir():
            pytest.skip(
                f"the published annotation files (../shared/annotations/{name}) are not here"
            )
        folder = tmp_path / name
        folder.mkdir()
        for path in (REAL / name).iterdir():
            shutil.copyfile(path, folder / path.name)
        return folder

    return copy


@pytest.mark.parametrize(("size", "train"), [("9k", 9_000), ("7k", 7_010)])
def test_the_real_msrvtt_files(real, size, train):
    folder = real("msrvtt")
    ids = (folder / f"MSRVTT_train.{size}.csv").read_text().split()[1:]
    # The training captions are too large to be among them.
    sentences = [
        {"video_id": name, "caption": f"caption {k}", "sen_id": k}
        for name in ids
        for k in range(20)
    ]
    (folder / "MSRVTT_data.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    clips = read(f"msrvtt_{size}", folder)
    assert splits(clips) == {"train": train, "test": 1_000}
    assert clips["video9770"].captions == ("a person is connecting something to system",)
    (pair, test) = BENCHMARKS[f"msrvtt_{size}"].counts
    assert pair.videos == (train, train)
    assert pair.captions == (20 * train, 20 * train)
    assert test.captions == (1_000, 1_000)
    carved = validation.carve(list(clips.values()), 500)
    assert collections.Counter(clip.split for clip in carved)["val"] == 500


def test_the_real_lists_are_of_the_official_split(real):
    """What stands in for the lists of training ids where only the official files are there."""
    folder = real("msrvtt")
    official = {TRAIN_VAL: ["train"] * 6_513 + ["validate"] * 497, TEST_INFO: ["test"] * 2_990}
    first = 0
    for name, of in official.items():
        ids = [f"video{number}" for number in range(first, first + len(of))]
        videos = [{"video_id": i, "split": split} for i, split in zip(ids, of, strict=True)]
        # One caption in place of twenty, which take longer.
        sentences = [{"video_id": i, "caption": "a caption"} for i in ids]
        (folder / name).write_text(json.dumps({"videos": videos, "sentences": sentences}))
        first += len(of)
    there = splits(read("msrvtt_full", folder))
    for count in BENCHMARKS["msrvtt_full"].counts:
        assert count.videos == (there[count.splits[0]],) * 2
        assert count.captions == (20 * count.videos[0],) * 2
    for size in ("9k", "7k"):
        listed = read(f"msrvtt_{size}", folder)
        (folder / f"MSRVTT_train.{size}.csv").unlink()
        derived = read(f"msrvtt_{size}", folder)
        assert derived.keys() == listed.keys()
        assert splits(derived) == splits(listed)


def test_the_real_msvd_files(real):
    folder = real("msvd")
    clips = read("msvd", folder)
    assert splits(clips) == {"train": 1_200, "val": 100, "test": 670}
    told = collections.Counter()
    for clip in clips.values():
        told[clip.split] += len(clip.captions)
    for count in BENCHMARKS["msvd"].counts:
        assert (told[count.splits[0]],) * 2 == count.captions
    benchmark_files.as_pickle(folder)
    assert read("msvd", folder) == clips


def test_msvd_as_published_is_the_same(real):
    folder = real("msvd")
    clips = read("msvd", folder)
    benchmark_files.as_original(folder)
    assert read("msvd", folder) == clips
