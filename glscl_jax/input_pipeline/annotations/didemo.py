"""DiDeMo: 10,464 Flickr videos cut to 30 s, each retrieved by all of its descriptions at once."""

import pathlib

from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.benchmark import Benchmark, Count, Figures, Result
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import Source, stem
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

SPLITS = ("train", "val", "test")
# Beside the annotations in the authors' repository (LisaAnne/LocalizingMoments, data/): a line a
# video, Flickr's number of it and the hash by which Multimedia Commons calls its file. The number
# is the second part of an id.
HASHES = "yfcc100m_hash.txt"
# Annotators saw the first 30 s.
START, END = 0.0, 31.0


def read_didemo(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """Reads the three lists of ids and the three files of descriptions.

    Args:
      source: the folder that holds, however deep, `{train,val,test}_list.txt`,
        `{train,val,test}_data.json` and the videos. Ids name a video's ending or not, and the
        file may have another: `x.3gp` is also found as `x.mp4` or `x.3gp.mp4`. With
        `yfcc100m_hash.txt` a video is also found by its hash in YFCC100M.
      videos: another folder, where the videos are.

    Raises:
      UserError: naming the file and the first bad row.
    """
    files = Source(source, videos)
    lists = {split: files.annotation(f"{split}_list.txt") for split in SPLITS}
    ids = {path: tables.id_list(path) for path in lists.values()}
    tables.check_apart(ids)
    hashes = _hashes(files.annotation(HASHES)) if files.has(HASHES) else {}
    clips = []
    for split, path in lists.items():
        data_path = files.annotation(f"{split}_data.json")
        told = _descriptions(data_path)
        by_stem = {stem(name): row for name, row in ids[path].items()}
        tables.check_told(by_stem, path, told, data_path)
        clips += [
            Clip(
                name,
                files.video(name, hashes.get(_number(name), "")),
                (tables.paragraph(told[stem(name)]),),
                START,
                END,
                split,
            )
            for name in ids[path]
        ]
    return clips


def _number(name: str) -> str:
    """Flickr's number of a video, of an id `user_number_hash`; "" of another."""
    return name.split("_")[1] if name.count("_") else ""


def _hashes(path: pathlib.Path) -> dict[str, str]:
    """Flickr's number -> the hash in YFCC100M."""
    hashes, faults = {}, Faults(path)
    for line, text in tables.lines(path):
        with faults.at(f"line {line}"):
            number, tab, told = text.partition("\t")
            if not tab or not number.isdecimal():
                raise RowError("not a number and a hash with a tab between: fetch the file anew")
            name = tables.video_id(told)
            if hashes.setdefault(number, name) != name:
                raise RowError(f"{number} has another hash above: keep one")
    faults.check()
    return hashes


def _descriptions(path: pathlib.Path) -> dict[str, list[str]]:
    """Id without a video's ending -> its descriptions, in the order of the file."""
    told, faults = {}, Faults(path)
    for number, value in enumerate(tables.json_value(path, list)):
        with faults.at(f"[{number}]"):
            entry = tables.fields(value, "video", "description")
            name = stem(tables.video_id(entry["video"]))
            told.setdefault(name, []).append(tables.caption(entry["description"], "description"))
    faults.check()
    return told


DIDEMO = Benchmark(
    name="didemo",
    title="DiDeMo",
    read=read_didemo,
    counts=(
        # 8,395: Hendricks et al. 2017. 8,392: the list of Liu et al. 2019, its README says so.
        Count.paragraphs(("train",), 8_392, 8_395),
        # 1,065: both.
        Count.paragraphs(("val",), 1_065, 1_065),
        # 1,004: both; 1,003 with CLIP4Clip (Luo et al. 2022).
        Count.paragraphs(("test",), 1_003, 1_004),
    ),
    source="Hendricks et al. 2017; Liu et al. 2019 (8,392 train); Luo et al. 2022 (1,003 test)",
    results=(
        Result(
            "ViT-B/32",
            Figures(46.7, 75.0, 82.9, None, 13.0),
            Figures(45.9, 74.5, 83.1, None, 9.5),
        ),
    ),
)
