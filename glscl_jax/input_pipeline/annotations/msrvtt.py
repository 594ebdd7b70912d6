"""MSR-VTT: 10,000 web videos of 10 to 32 s with 20 captions each, in three of its splits.

1k-A trains on 9,000 or 7,010 videos and tests on 1,000 with one caption each; the official split,
which papers call full, has 6,513, 497 and 2,990 videos. The captions are those that Microsoft
published, in its own two files or in the one that circulates with CLIP4Clip's release.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Container, Iterable, Iterator

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import csv_file, tables
from glscl_jax.input_pipeline.annotations.benchmark import Benchmark, Count, Figures, Result
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import Source
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

TRAIN_9K = "MSRVTT_train.9k.csv"
TRAIN_7K = "MSRVTT_train.7k.csv"
TEST = "MSRVTT_JSFUSION_test.csv"
DATA = "MSRVTT_data.json"
OFFICIAL_TRAIN, OFFICIAL_TEST = OFFICIAL = "train_val_videodatainfo.json", "test_videodatainfo.json"
# The official files' words -> this project's.
SPLITS = {"train": "train", "validate": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class _Data:
    """A file of videos and captions: one of the two official ones, or all in one.

    Attributes:
      path: the file.
      content: what is in it.
    """

    path: pathlib.Path
    content: dict

    def splits(self) -> dict[str, str]:
        """Id -> the split that the file says, by this project's name."""
        splits, faults = {}, Faults(self.path)
        for place, value in self._listed("videos"):
            with faults.at(place):
                entry = tables.fields(value, "video_id", "split")
                name, split = tables.video_id(entry["video_id"]), entry["split"]
                if not isinstance(split, str) or split not in SPLITS:
                    raise RowError(f"split {split!r} is none of {', '.join(SPLITS)}: mend it")
                if name in splits:
                    raise RowError(f"{name!r} is there already: keep one")
                splits[name] = SPLITS[split]
        faults.check()
        return splits

    def captions(self) -> dict[str, list[str]]:
        """Id -> its captions, in the order of the file."""
        captions, faults = {}, Faults(self.path)
        for place, value in self._listed("sentences"):
            with faults.at(place):
                entry = tables.fields(value, "video_id", "caption")
                name = tables.video_id(entry["video_id"])
                captions.setdefault(name, []).append(tables.caption(entry["caption"]))
        faults.check()
        return captions

    def _listed(self, name: str) -> Iterator[tuple[str, object]]:
        """Yields (place, entry) of a list in the file."""
        listed = self.content.get(name)
        if not isinstance(listed, list):
            raise UserError(f"{self.path}: no list {name!r} in it: take the file of captions")
        for number, value in enumerate(listed):
            yield f"{name}[{number}]", value


def read_msrvtt(
    source: pathlib.Path, videos: pathlib.Path | None = None, *, train_list: str = TRAIN_9K
) -> list[Clip]:
    """Reads the training ids, all their captions, and the 1,000 test pairs of 1k-A.

    With the official files the list of training ids can be left out: 7k is their training and
    validation videos, 9k all videos but those of the test pairs.

    Args:
      source: the folder that holds, however deep, `MSRVTT_data.json` or the two official files,
        `MSRVTT_JSFUSION_test.csv`, the list of training ids and `{video_id}.mp4`.
      videos: another folder, where the videos are.
      train_list: the name of that list.

    Raises:
      UserError: naming the file and the first bad row.
    """
    files = Source(source, videos)
    official = files.has(OFFICIAL_TRAIN) and not files.has(DATA)
    if official and not files.has(TEST):
        raise UserError(
            f"{files.folder}: the official files do not say which 1,000 pairs 1k-A is tested on:"
            f" put {TEST} there, or take the official split, --dataset msrvtt_full"
        )
    test_path = files.annotation(TEST)
    test = _test_pairs(test_path)
    if official and not files.has(train_list):
        data = _read(files, official)
        train_path, train = data[0].path, _official_training(data, train_list, test)
    else:
        train_path = files.annotation(train_list)
        train = _column(train_path, "video_id")
        data = _read(files, official)
    tables.check_apart({train_path: train, test_path: {k: row for k, (row, _) in test.items()}})
    captions = _captions(data)
    tables.check_told(train, train_path, captions, data[0].path)
    told = [(name, tuple(captions[name]), "train") for name in train]
    told += [(name, (caption,), "test") for name, (_, caption) in test.items()]
    return [
        Clip(name, files.video(name), captions, None, None, split) for name, captions, split in told
    ]


def read_msrvtt_full(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """Reads the official split, in which the videos of all three splits have all their captions.

    Args:
      source: the folder that holds, however deep, `train_val_videodatainfo.json` and
        `test_videodatainfo.json`, or a `MSRVTT_data.json` that says the three splits, and
        `{video_id}.mp4`.
      videos: another folder, where the videos are.

    Raises:
      UserError: naming the file and the first bad entry, or a split that no video is of.
    """
    files = Source(source, videos)
    data = _read(files, official=files.has(OFFICIAL_TRAIN) or not files.has(DATA))
    splits = [one.splits() for one in data]
    rows = {
        one.path: {name: row for row, name in enumerate(of, 1)}
        for one, of in zip(data, splits, strict=True)
    }
    tables.check_apart(rows)
    captions = _captions(data)
    for path, names in rows.items():
        tables.check_told(names, path, captions, path)
    for word, split in SPLITS.items():
        if not any(split in of.values() for of in splits):
            raise UserError(
                f"{data[0].path}: no video of split {word!r} in it: the official split is in"
                f" {' and '.join(OFFICIAL)} as Microsoft published them"
            )
    return [
        Clip(name, files.video(name), tuple(captions[name]), None, None, split)
        for of in splits
        for name, split in of.items()
    ]


def _read(files: Source, official: bool) -> list[_Data]:
    paths = [files.annotation(name) for name in (OFFICIAL if official else (DATA,))]
    return [_Data(path, tables.json_value(path, dict)) for path in paths]


def _official_training(data: list[_Data], train_list: str, test: Container[str]) -> dict[str, int]:
    """What a list of training ids would say: id -> its place, from 1."""
    splits = {name: split for one in data for name, split in one.splits().items()}
    if train_list == TRAIN_9K:
        names = [name for name in splits if name not in test]
    else:
        names = [name for name, split in splits.items() if split != "test"]
    return {name: row for row, name in enumerate(names, 1)}


def _captions(data: Iterable[_Data]) -> dict[str, list[str]]:
    """Id -> its captions, those of a video that is in two files from both."""
    captions = {}
    for one in data:
        for name, told in one.captions().items():
            captions.setdefault(name, []).extend(told)
    return captions


def _column(path: pathlib.Path, column: str) -> dict[str, int]:
    ids, faults = {}, Faults(path)
    for line, record in csv_file.csv_records(path, [column]):
        with faults.at(f"line {line}"):
            ids.setdefault(tables.video_id(_row(record)[column]), line)
    faults.check()
    return ids


def _test_pairs(path: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Id -> (line, its one caption)."""
    pairs, faults = {}, Faults(path)
    for line, record in csv_file.csv_records(path, ["video_id", "sentence"]):
        with faults.at(f"line {line}"):
            name = tables.video_id(_row(record)["video_id"])
            caption = tables.caption(_row(record)["sentence"], "sentence")
            if name in pairs:
                raise RowError(f"{name!r} is in line {pairs[name][0]} already: keep one pair")
            pairs[name] = line, caption
    faults.check()
    return pairs


def _row(record: dict | RowError) -> dict:
    if isinstance(record, RowError):
        raise record
    if not record:
        raise RowError("empty: delete the line")
    return record


# Yu et al. 2018 (JSFusion), one caption a video; counted.
_TEST_1K_A = Count.exactly(("test",), 1_000, 1_000)
# Of both lists of training videos, which are tested alike.
_RESULTS = (
    Result("ViT-B/32", Figures(48.1, 73.9, 82.3, 2, 13.8), Figures(47.1, 73.0, 83.2, 2, 10.3)),
    Result(
        "ViT-B/32",
        Figures(50.0, 73.7, 82.8, 1.5, 14.2),
        Figures(49.4, 74.5, 83.9, 2, 9.6),
        rerank="qbnorm",
    ),
    Result("ViT-B/16", Figures(49.5, 75.1, 83.9, 2, 12.6), Figures(48.9, 76.3, 85.8, 2, 8.4)),
    Result(
        "ViT-B/16",
        Figures(50.5, 75.2, 83.8, 1, 12.8),
        Figures(49.2, 76.1, 86.2, 2, 8.5),
        rerank="qbnorm",
    ),
)

MSRVTT_9K = Benchmark(
    name="msrvtt_9k",
    title="MSR-VTT 1k-A",
    read=functools.partial(read_msrvtt, train_list=TRAIN_9K),
    counts=(
        # Ids: Gabeur et al. 2020 (MMT), counted. Captions: 20 a video, Xu et al. 2016.
        Count.exactly(("train", "val"), 9_000, 180_000),
        _TEST_1K_A,
    ),
    source="Xu et al. 2016 (20 captions a video); Yu et al. 2018 (test 1k-A); Gabeur et al. 2020"
    " (9k)",
    validation_size=500,
    results=_RESULTS,
)
MSRVTT_7K = Benchmark(
    name="msrvtt_7k",
    title="MSR-VTT 1k-A",
    read=functools.partial(read_msrvtt, train_list=TRAIN_7K),
    counts=(
        # Ids: the list of Miech et al. 2019 (HowTo100M), counted. Captions: as above.
        Count.exactly(("train", "val"), 7_010, 140_200),
        _TEST_1K_A,
    ),
    source="Xu et al. 2016 (20 captions a video); Yu et al. 2018 (test 1k-A); Miech et al. 2019"
    " (7k)",
    validation_size=500,
    results=_RESULTS,
)
# The paper has no figures of this one, whose test split is another.
MSRVTT_FULL = Benchmark(
    name="msrvtt_full",
    title="MSR-VTT full",
    read=read_msrvtt_full,
    counts=(
        # Videos: Xu et al. 2016. Captions: 20 a video; the table in the README of Dong et al. 2021
        # (hybrid_space) says the same of each split.
        Count.exactly(("train",), 6_513, 130_260),
        Count.exactly(("val",), 497, 9_940),
        Count.exactly(("test",), 2_990, 59_800),
    ),
    source="Xu et al. 2016 (the official split, 20 captions a video)",
)
