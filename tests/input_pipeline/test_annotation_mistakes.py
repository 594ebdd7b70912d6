"""Every mistake in a benchmark's annotation files is one line saying where."""

import json
import os
import pathlib
import shutil
import tempfile

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import READERS, lsmdc, msrvtt
from tests import benchmark_files
from tests.benchmark_clips import read


def replaced(old, new):
    def spoil(path):
        text = path.read_text()
        assert old in text, path
        path.write_text(text.replace(old, new, 1))

    return spoil


def lines(change):
    def spoil(path):
        told = path.read_text().splitlines()
        change(told)
        path.write_text("\n".join(told) + "\n")

    return spoil


def added(line):
    return lines(lambda told: told.append(line))


def entries(change):
    def spoil(path):
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return spoil


def twice_with_other_captions(path):
    """A key of an object twice, which a parser would take the last of."""
    name, value = next(iter(json.loads(path.read_text()).items()))
    other = f"{json.dumps(name)}: {json.dumps(value).replace('a ', 'the ')}, "
    path.write_text("{" + other + path.read_text()[1:])


def latin_1(path):
    path.write_bytes(path.read_bytes() + "é".encode("latin-1"))


TEST_CSV, TRAIN_CSV = "MSRVTT_JSFUSION_test.csv", "MSRVTT_train.9k.csv"


TRAIN_VAL, TEST_INFO = msrvtt.OFFICIAL


VATEX = "vatex_validation_v1.0.json"


LSMDC_VAL, LSMDC_TEST = lsmdc.FILES["val"], lsmdc.FILES["test"]


FAULTS = [
    ("msrvtt_9k", TRAIN_CSV, replaced("video_id", "id"), "no column 'video_id' in line 1"),
    ("msrvtt_9k", TEST_CSV, replaced("sentence", "text"), "no column 'sentence' in line 1"),
    ("msrvtt_9k", TEST_CSV, latin_1, "line 6: not UTF-8"),
    (
        "msrvtt_9k",
        TEST_CSV,
        added("ret9,msr9,video4,a dog"),
        "line 6: 'v",
    ),
    ("msrvtt_9k", TEST_CSV, added("r,m,video99, ?"), "line 6: sentence"),
    (
        "msrvtt_9k",
        TEST_CSV,
        added("r,m,../up,a dog"),
        "line 6: id '../up'",
    ),
    (
        "msrvtt_9k",
        TEST_CSV,
        added("r,m,video8,a dog"),
        "give it one split",
    ),
    (
        "msrvtt_9k",
        TRAIN_CSV,
        added("video77"),
        "row 18: no caption",
    ),
    ("msrvtt_9k", "MSRVTT_data.json", latin_1, "line 1: not UTF-8"),
    ("msrvtt_9k", "MSRVTT_data.json", replaced('"sentences"', '"texts"'), "no list 'sentences'"),
    ("msrvtt_9k", "MSRVTT_data.json", replaced('"caption"', '"text"'), r"sentences\[0\]: no 'capt"),
    ("msrvtt_9k", "MSRVTT_data.json", lambda path: path.write_text("[1"), "not JSON"),
    ("msrvtt_9k", "MSRVTT_data.json", lambda path: path.write_text("[1]"), "not an object"),
    ("msrvtt_9k", "MSRVTT_data.json", lambda path: path.unlink(), "no MSRVTT_data.json in it or b"),
    ("msrvtt_full", TRAIN_VAL, replaced('"videos"', '"films"'), "no list 'videos' in it"),
    ("msrvtt_full", TRAIN_VAL, replaced('"validate"', '"dev"'), r"videos\[12\]: split 'dev' is n"),
    ("msrvtt_full", TRAIN_VAL, replaced('"video1"', '"video0"'), r"videos\[\d+\]: 'video0' is th"),
    ("msrvtt_full", TRAIN_VAL, replaced('"video_id"', '"id2"'), r"videos\[0\]: no 'video_id'"),
    ("msrvtt_full", TEST_INFO, replaced('"caption"', '"text"'), r"sentences\[0\]: no 'capt"),
    ("msrvtt_full", TEST_INFO, entries(lambda told: told["sentences"].clear()), "row 1: no capt"),
    ("msrvtt_full", TEST_INFO, lambda path: path.unlink(), "no test_videodatainfo.json in it or"),
    ("msvd", "train_list.txt", lines(lambda told: told.insert(1, "")), "line 2: no id"),
    ("msvd", "train_list.txt", added("new_1_2"), "row 13: no caption of"),
    ("msvd", "test_list.txt", latin_1, "line 5: not UTF-8"),
    ("msvd", "captions_msvd.json", twice_with_other_captions, "is there twice, and says two thin"),
    (
        "msvd",
        "captions_msvd.json",
        replaced('["', '["...", "'),
        r"DBc_5_15': caption '...' has no",
    ),
    ("msvd", "captions_msvd.json", replaced("[", "[1, "), "caption 1 is not a text"),
    ("msvd", "captions_msvd.json", lambda path: path.write_text("{"), "not JSON"),
    ("vatex", VATEX, replaced('"enCap"', '"caps"'), r"\[0\]: no 'enCap' in it"),
    ("vatex", VATEX, replaced("_000122_", "_122_"), r"\[0\]: videoID '.*' is not a YouTube id"),
    ("vatex", VATEX, entries(lambda told: told.append(told[0])), r"\[8\]: .* is there already"),
    ("vatex", VATEX, entries(lambda told: told[0].update(enCap="a")), r"\[0\]: enCap is not a l"),
    ("vatex", VATEX, entries(lambda told: told[1].update(enCap=["?"])), r"\[1\]: enCap '\?' has"),
    ("vatex", VATEX, lambda path: path.unlink(), "no vatex_validation_v1.0.json in it or below"),
    (
        "vatex",
        "val_list.txt",
        lambda path: path.unlink(),
        "no val_list.txt in it.* half of the val",
    ),
    (
        "vatex",
        "test_list.txt",
        added("Ptf_2VRj-01_000122_000132"),
        "row 5: no caption of|one split",
    ),
    ("lsmdc", LSMDC_VAL, replaced("\t", " "), "line 1: 5 columns, separated by tabs, where 6"),
    ("lsmdc", LSMDC_VAL, added(""), "line 5: 1 columns"),
    ("lsmdc", LSMDC_VAL, latin_1, "line 5: not UTF-8"),
    ("lsmdc", LSMDC_TEST, lines(lambda told: told.append(told[0] + "!")), "line 5: .* already: ke"),
    (
        "didemo",
        "val_data.json",
        entries(lambda told: told[1].pop("description")),
        r"\[1\]: no",
    ),
    ("didemo", "val_data.json", entries(lambda told: told.append("x")), r"\[8\]: not an object"),
    (
        "didemo",
        "val_data.json",
        entries(lambda told: told.clear()),
        "row 1: .* 3 more",
    ),
    ("didemo", "val_data.json", lambda path: path.write_text("{}"), "not a list"),
    ("didemo", "val_list.txt", latin_1, "line 5: not UTF-8"),
    ("didemo", "val_data.json", latin_1, "line 1: not UTF-8"),
    ("activitynet", "train_ids.json", latin_1, "line 1: not UTF-8"),
    ("activitynet", "val_1.json", latin_1, "line 1: not UTF-8"),
    ("activitynet", "train.json", replaced('"duration"', '"length"'), ": no 'duration' in it"),
    ("activitynet", "train.json", replaced('"sentences"', '"texts"'), ": no 'sentences' in it"),
    ("activitynet", "train.json", replaced("2.76", '"long"'), "duration 'long' is not a number"),
    ("activitynet", "train.json", replaced("2.76", "0"), "duration 0"),
    ("activitynet", "train.json", replaced("2.76", "NaN"), "duration nan: give seconds"),
    ("activitynet", "train.json", replaced('"sentences": [', '"sentences": [3, '), "sentence 3 is"),
    ("activitynet", "val_ids.json", replaced("[", "[7, "), "entry 1: id 7 is not a text"),
    ("activitynet", "val_1.json", twice_with_other_captions, "is there twice"),
]


@pytest.mark.parametrize(
    ("dataset", "name", "spoil", "message"),
    FAULTS,
    ids=[f"{fault[0]} {fault[1]} {fault[3]}" for fault in FAULTS],
)
def test_mistakes_are_one_line(copied, dataset, name, spoil, message):
    folder = copied(dataset)
    spoil(folder / name)
    with pytest.raises(UserError, match=message) as error:
        READERS[dataset](folder)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def first_caption(new):
    def spoil(path):
        told = path.read_text().splitlines()
        told[7] = told[7].partition(" ")[0] + new
        path.write_text("\n".join(told))

    return spoil


ORIGINAL_FAULTS = [
    ("youtube_mapping.txt", replaced(" vid2", ""), "line 2: 1 columns where an id and vid1"),
    ("youtube_mapping.txt", replaced("vid2", "vid1"), "line 2: 'vid1' is in line 1 already"),
    ("youtube_mapping.txt", replaced("vid2", "vid1971"), "line 2: 'vid1971' is none of vid1 to v"),
    ("youtube_mapping.txt", replaced("vid2", "2"), "line 2: '2' is none of vid1 to vid1970"),
    ("AllVideoDescriptions.txt", first_caption(" ..."), r"line 8: caption '\.\.\.' has no lett"),
    ("AllVideoDescriptions.txt", first_caption(""), "line 8: caption '' has no letters"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), ORIGINAL_FAULTS)
def test_mistakes_in_msvd_as_published(copied, name, spoil, message):
    folder = copied("msvd")
    benchmark_files.as_original(folder)
    spoil(folder / name)
    with pytest.raises(UserError, match=message) as error:
        read("msvd", folder)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_an_id_in_two_splits(copied):
    folder = copied("msvd")
    name = (folder / "test_list.txt").read_text().splitlines()[0]
    lines(lambda told: told.append(name))(folder / "train_list.txt")
    with pytest.raises(UserError, match=r"test_list\.txt row 1: .* in train_list\.txt row 13 too"):
        READERS["msvd"](folder)


def test_one_file_of_a_name(benchmarks, copied):
    folder = copied("msvd")
    (folder / "more").mkdir()
    shutil.copy(folder / "val_list.txt", folder / "more")
    with pytest.raises(UserError, match=r"both .*val_list\.txt and .*val_list\.txt are there"):
        READERS["msvd"](folder)
    shutil.rmtree(folder / "more")
    name = (folder / "val_list.txt").read_text().splitlines()[0]
    for ending in (".avi", ".mp4"):
        (folder / f"{name}{ending}").touch()
    with pytest.raises(UserError, match=r"\.avi and .*\.mp4 are there: keep one"):
        READERS["msvd"](folder)
    # What a file manager left there is none.
    (folder / f"{name}.avi").rename(folder / f"._{name}.avi")
    assert read("msvd", folder)[name].video == folder / f"{name}.mp4"
    (folder / f"{name}.mp4").unlink()
    (folder / f"{name}.mp4").symlink_to(benchmarks / "msvd" / "val_list.txt")
    with pytest.raises(UserError, match=r"\.mp4 is a link out of .*--follow_links"):
        READERS["msvd"](folder)


def test_unreadable_folders_are_named():
    # Not in pytest's own folder, which only the user who runs the tests may enter.
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)
        closed = pathlib.Path(folder, "closed")
        closed.mkdir(mode=0)
        root = os.geteuid() == 0  # who may read anything
        try:
            if root:
                os.seteuid(65534)
            with pytest.raises(UserError, match="closed: Permission denied: make it readable"):
                READERS["msvd"](pathlib.Path(folder))
        finally:
            if root:
                os.seteuid(0)
            closed.chmod(0o755)
