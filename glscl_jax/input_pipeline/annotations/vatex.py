"""VATEX: 28,991 pieces of 10 s of YouTube videos with 10 English captions each.

The training videos are the official ones. VATEX 1.0 gave no captions of test videos, so Chen et al.
2020 (HGR) halved the official validation videos: 1,500 to validate on and 1,500 to test on. Papers
on retrieval use these halves, which two lists of ids say.
"""

import pathlib
import re

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.benchmark import Benchmark, Count
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import Source, stem
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

TRAINING = "vatex_training_v1.0.json"
VALIDATION = "vatex_validation_v1.0.json"
LISTS = {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"}
# A YouTube id, and which seconds of that video the piece is.
_ID = re.compile(r"(.+)_(\d{6})_(\d{6})", re.ASCII)


def read_vatex(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """Reads the lists of ids and the English captions.

    A clip is the file `{id}.mp4`; where that is not there but one of its YouTube id is, which is
    whole, it is the seconds of that one that the id names.

    Args:
      source: the folder that holds, however deep, `vatex_training_v1.0.json`,
        `vatex_validation_v1.0.json`, `val_list.txt`, `test_list.txt`, the videos, and, where it is
        not all of the training file, `train_list.txt`.
      videos: another folder, where the videos are.

    Raises:
      UserError: naming the file and the first bad entry.
    """
    files = Source(source, videos)
    told = {path: _captions(path) for path in map(files.annotation, (TRAINING, VALIDATION))}
    training_path, validation_path = told
    of = {"train": training_path, "val": validation_path, "test": validation_path}
    lists = {split: _list(files, split) or training_path for split in LISTS}
    ids = {
        path: {name: row for row, name in enumerate(told[path], 1)}
        if path == training_path
        else tables.id_list(path)
        for path in lists.values()
    }
    tables.check_apart(ids)
    for split, path in lists.items():
        tables.check_told(ids[path], path, told[of[split]], of[split])
    return [
        _clip(name, files, told[of[split]][name], split)
        for split, path in lists.items()
        for name in ids[path]
    ]


def _list(files: Source, split: str) -> pathlib.Path | None:
    """The list of a split's ids; None where the split is all of the training file.

    Raises:
      UserError: it is not there.
    """
    name = LISTS[split]
    if files.has(name):
        return files.annotation(name)
    if split == "train":
        return None
    raise UserError(
        f"{files.folder}: no {name} in it or below: put there the ids, one a line, of Chen et al.'s"
        " half of the validation videos (docs/data.md says where they are)"
    )


def _captions(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """Id -> its English captions."""
    captions, faults = {}, Faults(path)
    for number, value in enumerate(tables.json_value(path, list)):
        with faults.at(f"[{number}]"):
            entry = tables.fields(value, "videoID", "enCap")
            name, told = tables.video_id(entry["videoID"]), entry["enCap"]
            if not _ID.fullmatch(name):
                raise RowError(f"videoID {name!r} is not a YouTube id with _start_end: mend it")
            if name in captions:
                raise RowError(f"{name!r} is there already: keep one")
            if not isinstance(told, list) or not told:
                raise RowError("enCap is not a list of captions: fetch the file anew")
            captions[name] = tuple(tables.caption(one, "enCap") for one in told)
    faults.check()
    return captions


def _clip(name: str, files: Source, captions: tuple[str, ...], split: str) -> Clip:
    youtube, *window = _ID.fullmatch(name).groups()
    video = files.video(name, youtube)
    start, end = map(float, window) if stem(video.name) == youtube else (None, None)
    return Clip(name, video, captions, start, end, split)


VATEX = Benchmark(
    name="vatex",
    title="VATEX",
    read=read_vatex,
    counts=(
        # Training videos: Wang et al. 2019. The halves: Chen et al. 2020 (HGR), who say so in the
        # 28th issue of cshizhe/hgr_v2t. Captions: 10 a video, Wang et al. 2019; the table in the
        # README of Dong et al. 2021 (hybrid_space) says all of these numbers.
        Count.exactly(("train",), 25_991, 259_910),
        Count.exactly(("val",), 1_500, 15_000),
        Count.exactly(("test",), 1_500, 15_000),
    ),
    source="Wang et al. 2019 (10 English captions a video); Chen et al. 2020 (the split)",
)
