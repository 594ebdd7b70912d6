"""Benchmarks as they ship become clips; every mistake in their files is one line saying where."""

import collections
import json
import os
import pathlib
import pickle
import random
import shutil
import tempfile

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import (
    BENCHMARKS,
    READERS,
    lsmdc,
    msrvtt,
    plain_pickle,
    validation,
)
from tests import benchmark_files
from tests.conftest import SHARED

REAL = SHARED / "annotations"


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory) -> pathlib.Path:
    """A folder with every benchmark in its own, small."""
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


def read(dataset, folder):
    return {clip.clip_id: clip for clip in READERS[dataset](folder)}


def splits(clips):
    return dict(collections.Counter(clip.split for clip in clips.values()))


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


class Command:
    """Pickled, it is a call that leaves a trace."""

    def __init__(self, call, *arguments):
        self.made = call, arguments

    def __reduce__(self):
        return self.made


def test_a_hostile_pickle_runs_nothing(copied, tmp_path):
    folder = copied("msvd")
    benchmark_files.as_pickle(folder)
    path, trace = folder / "raw-captions.pkl", tmp_path / "trace"
    calls = [
        (pathlib.Path.touch, trace),
        (exec, f"open({str(trace)!r}, 'w')"),
        (getattr, trace, "touch"),
    ]
    for call in calls:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            path.write_bytes(pickle.dumps({"a": [[Command(*call)]]}, protocol))
            with pytest.raises(UserError, match=r"raw-captions\.pkl: it names .* could run code"):
                READERS["msvd"](folder)
    assert not trace.exists()


BAD_PICKLES = {
    "codec": (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
        "the codec",
    ),
    "registered class": (b"\x80\x02\x82\x01.", "registered class"),
    "outside object": (b"\x80\x02U\x01aQ.", "what is not in it"),
    "list": (pickle.dumps([1]), "a pickle of list, not of dict"),
    # Asks for a memo of 2 ** 31 entries.
    "memory": (b"\x80\x02]r\xff\xff\xff\x7f.", "a pickle of list"),
    "empty": (b"", "not a pickle"),
    "text": (b"hello", "not a pickle"),
    "Latin-1": (b"\x80\x02}U\x01\xe9]s.", "not a pickle .*can't decode"),
}


@pytest.mark.parametrize(("data", "message"), BAD_PICKLES.values(), ids=BAD_PICKLES.keys())
def test_pickles_that_are_not_captions(tmp_path, data, message):
    path = tmp_path / "raw-captions.pkl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        plain_pickle.load(path)
    assert "\n" not in str(error.value)


def test_damaged_pickles_are_one_line(tmp_path):
    whole = pickle.dumps({f"v{i}": [["a", "dog"], ["one", "cat"]] for i in range(5)}, 2)
    path, draw = tmp_path / "raw-captions.pkl", random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randint(1, len(data))])
        try:
            told = f"read: {type(plain_pickle.load(path)).__name__}"
        except UserError as error:
            told = str(error)
        assert told == "read: dict" or str(path) in told
        assert "\n" not in told


@pytest.mark.parametrize(
    "data",
    [
        # Python 3's way to write bytes for Python 2, and Python 2's own strings.
        pickle.dumps({b"id": [(b"a", b"dog")]}, 2),
        b"\x80\x02}U\x02id](U\x01aU\x03dog\x86es.",
    ],
)
def test_bytes_of_old_pickles_are_text(tmp_path, data):
    path = tmp_path / "raw-captions.pkl"
    path.write_bytes(data)
    assert plain_pickle.load(path) == {"id": [["a", "dog"]]}


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
