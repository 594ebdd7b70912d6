"""Benchmarks as they ship become clips."""

import json
import shutil

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import BENCHMARKS, READERS, lsmdc, msrvtt, validation
from tests import benchmark_files
from tests.benchmark_clips import read, splits

TEST_CSV = "MSRVTT_JSFUSION_test.csv"


@pytest.mark.parametrize("dataset", benchmark_files.DATASETS)
def test_every_file_finds_its_clip(benchmarks, dataset):
    clips = read(dataset, benchmarks / dataset)
    assert all(clip.video.is_file() for clip in clips.values())
    assert len({clip.video for clip in clips.values()}) == len(clips)
    # Videos elsewhere than the annotations are found as well, and nothing else then.
    apart = READERS[dataset](benchmarks / dataset, benchmarks / dataset)
    assert apart == list(clips.values())
    with pytest.raises(UserError, match="nowhere: No such file"):
        READERS[dataset](benchmarks / dataset, benchmarks / "nowhere")


@pytest.mark.parametrize("dataset", benchmark_files.DATASETS)
def test_a_record_names_the_splits_of_its_files(benchmarks, dataset):
    record = BENCHMARKS[dataset]
    there = {clip.split for clip in record.read(benchmarks / dataset, None)}
    assert record.name == dataset
    assert {count.splits[0] for count in record.counts} == there
    # What is carved is counted with what it is carved from, and nothing is where there is some.
    carved = {split for count in record.counts for split in count.splits} - there
    assert carved == ({"val"} if record.validation_size else set())


def test_every_benchmark_has_files_here():
    assert set(benchmark_files.DATASETS) == BENCHMARKS.keys() == READERS.keys() - {"folder"}


def test_msrvtt(benchmarks):
    large, small = (read(f"msrvtt_{size}", benchmarks / f"msrvtt_{size}") for size in ("9k", "7k"))
    assert splits(large) == {"train": 16, "test": 4}
    assert splits(small) == {"train": 12, "test": 4}
    told = {clip.captions for clip in large.values() if clip.split == "train"}
    # Every caption of a training video; of a test video the one of its pair, though the JSON
    # file has more.
    assert {len(captions) for captions in told} == {2}
    assert {len(clip.captions) for clip in large.values() if clip.split == "test"} == {1}
    assert all(clip.start is None and clip.end is None for clip in large.values())


def test_the_official_split_of_msrvtt(benchmarks, copied):
    clips = read("msrvtt_full", benchmarks / "msrvtt_full")
    assert splits(clips) == {"train": 12, "val": 4, "test": 4}
    # Test videos have all of their captions too.
    assert {len(clip.captions) for clip in clips.values()} == {2}
    told = {one.scene.number: tuple(one.captions) for one in _told()}
    assert all(clip.captions == told[int(name[5:])] for name, clip in clips.items())
    # The file of all captions says the split as well, unless it calls all of them training videos,
    # as one does that circulates.
    folder = copied("msrvtt_full")
    both = [json.loads((folder / name).read_text()) for name in msrvtt.OFFICIAL]
    for name in msrvtt.OFFICIAL:
        (folder / name).unlink()
    whole = {key: both[0][key] + both[1][key] for key in ("videos", "sentences")}
    (folder / "MSRVTT_data.json").write_text(json.dumps(whole))
    again = read("msrvtt_full", folder)
    assert [c.captions for c in again.values()] == [c.captions for c in clips.values()]
    assert splits(again) == splits(clips)
    for video in whole["videos"]:
        video["split"] = "train"
    (folder / "MSRVTT_data.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=r"no video of split 'validate' in it: .*_val_videodata"):
        read("msrvtt_full", folder)


@pytest.mark.parametrize("size", ["9k", "7k"])
def test_1k_a_of_the_official_files(benchmarks, copied, size):
    dataset = f"msrvtt_{size}"
    clips = read(dataset, benchmarks / dataset)
    folder = copied(dataset)
    for path in (benchmarks / "msrvtt_full").glob("*.json"):
        shutil.copy(path, folder)
    (folder / "MSRVTT_data.json").unlink()
    contents = {name: (clip.split, clip.captions) for name, clip in clips.items()}

    def contents_of(found):
        return {name: (clip.split, clip.captions) for name, clip in found.items()}

    assert contents_of(read(dataset, folder)) == contents
    # Which videos to train on follows from the official split and the test pairs.
    (folder / f"MSRVTT_train.{size}.csv").unlink()
    derived = contents_of(read(dataset, folder))
    if size == "9k":
        assert derived == contents
    else:  # here, unlike in the real files, the 7k list lacks the validation videos
        assert splits(read(dataset, folder)) == {"train": 16, "test": 4}
    (folder / TEST_CSV).unlink()
    with pytest.raises(UserError, match=f"put {TEST_CSV} there, or .* --dataset msrvtt_full"):
        read(dataset, folder)


def test_msvd_in_both_formats(benchmarks, copied):
    clips = read("msvd", benchmarks / "msvd")
    assert splits(clips) == {"train": 12, "val": 4, "test": 4}
    assert {len(clip.captions) for clip in clips.values()} == {3}
    folder = copied("msvd")
    benchmark_files.as_pickle(folder)
    assert [c.captions for c in read("msvd", folder).values()] == [
        c.captions for c in clips.values()
    ]


def test_msvd_as_it_was_published(benchmarks, copied):
    clips = read("msvd", benchmarks / "msvd")
    folder = copied("msvd")
    benchmark_files.as_original(folder)
    found = read("msvd", folder)
    assert [(c.clip_id, c.split, c.captions) for c in found.values()] == [
        (c.clip_id, c.split, c.captions) for c in clips.values()
    ]
    # Mirrors name the videos by the mapping's numbers.
    first, *_, last = found
    (folder / "vid1.avi").touch()
    assert read("msvd", folder)[first].video == folder / "vid1.avi"
    (folder / "vid1304.avi").touch()
    assert read("msvd", folder)[last].video == folder / "vid1304.avi"
    (folder / f"{last}.avi").touch()
    assert read("msvd", folder)[last].video == folder / f"{last}.avi"


def test_vatex(benchmarks, copied):
    clips = read("vatex", benchmarks / "vatex")
    assert splits(clips) == {"train": 12, "val": 4, "test": 4}
    told = {one.scene.number: tuple(one.captions) for one in _told()}
    # The English captions alone.
    assert all(clip.captions == told[int(name[9:11])] for name, clip in clips.items())
    assert all(clip.start is None and clip.end is None for clip in clips.values())
    # Fewer to train on, where a list says so; and a video as it is on YouTube, whole.
    folder = copied("vatex")
    names = [name for name, clip in clips.items() if clip.split == "train"]
    (folder / "train_list.txt").write_text("\n".join(names[1:]) + "\n")
    (folder / f"{names[1][:11]}.webm").touch()
    few = read("vatex", folder)
    assert splits(few) == {"train": 11, "val": 4, "test": 4}
    assert few[names[1]].video == folder / f"{names[1][:11]}.webm"
    assert (few[names[1]].start, few[names[1]].end) == (122.0, 132.0)
    (folder / f"{names[1]}.mp4").touch()
    assert read("vatex", folder)[names[1]].video == folder / f"{names[1]}.mp4"
    assert read("vatex", folder)[names[1]].start is None


def test_lsmdc_leaves_three_clips_out(benchmarks):
    clips = read("lsmdc", benchmarks / "lsmdc")
    text = (benchmarks / "lsmdc" / lsmdc.FILES["train"]).read_text()
    assert len(lsmdc.EXCLUDED) == 3
    assert all(name in text for name in lsmdc.EXCLUDED)
    assert lsmdc.EXCLUDED.isdisjoint(clips)
    assert splits(clips) == {"train": 12, "val": 4, "test": 4}
    several = [clip for clip in clips.values() if len(clip.captions) > 1]
    assert [clip.captions[1] for clip in several] == ['SOMEONE says "no']


@pytest.mark.parametrize(("dataset", "end"), [("didemo", 31.0), ("activitynet", 3.0)])
def test_paragraphs(benchmarks, dataset, end):
    clips = read(dataset, benchmarks / dataset)
    told = {one.scene.caption: one for one in _told()}
    for clip in clips.values():
        (caption,) = clip.captions
        one = next(one for first, one in told.items() if caption.startswith(first))
        # Sentences in their order, stripped, with one space between.
        assert caption == " ".join(one.captions)
        assert (clip.start, clip.end) == (0.0, end)
    assert set(splits(clips)) == ({"train", "test"} if dataset == "activitynet" else ALL)


ALL = {"train", "val", "test"}


def _told():
    named = benchmark_files._named(str)
    return [one for listed in named.values() for one in listed]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "crlf"])
@pytest.mark.parametrize("dataset", benchmark_files.DATASETS)
def test_spreadsheets_and_windows(benchmarks, copied, dataset, encoding):
    folder = copied(dataset)
    for path in folder.iterdir():
        text = path.read_text()
        data = text.replace("\n", "\r\n").encode() if encoding == "crlf" else text.encode(encoding)
        path.write_bytes(data)
    told = [clip.captions for clip in read(dataset, folder).values()]
    assert told == [clip.captions for clip in read(dataset, benchmarks / dataset).values()]


def test_validation_is_carved_by_the_ids_alone(benchmarks):
    clips = READERS["msrvtt_9k"](benchmarks / "msrvtt_9k")

    def held_out(clips, size):
        return {c.clip_id for c in validation.carve(clips, size) if c.split == "val"}

    # Written down: another choice would make another benchmark of it.
    assert held_out(clips, 4) == HELD_OUT
    assert held_out(clips[::-1], 4) == held_out(clips, 4)
    assert held_out(clips, 2) < held_out(clips, 4)
    assert validation.carve(clips, 0) == clips
    assert [c.clip_id for c in validation.carve(clips, 4)] == [c.clip_id for c in clips]
    assert validation.default_size("msrvtt_9k", clips) == 4
    with pytest.raises(UserError, match="only 16 videos are there to train on"):
        validation.carve(clips, 16)
    with pytest.raises(UserError, match="has a split val"):
        validation.carve(validation.carve(clips, 4), 4)


HELD_OUT = {"video0", "video3", "video8", "video12"}
