"""ActivityNet Captions: 14,926 YouTube videos, each retrieved by all of its sentences at once."""

import math
import pathlib

from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.benchmark import Benchmark, Count, Figures, Result
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import Source
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

# Split -> (ids, captions). Published figures are those of val_1, whose ids nothing else may see.
FILES = {"train": ("train_ids.json", "train.json"), "test": ("val_ids.json", "val_1.json")}


def read_activitynet(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """Reads both splits' ids and dense captions; a clip is a whole video.

    Args:
      source: the folder that holds, however deep, `train_ids.json`, `train.json`,
        `val_ids.json`, `val_1.json` and the videos `v_ID.*`.
      videos: another folder, where the videos are.

    Raises:
      UserError: naming the file and the first bad entry.
    """
    files = Source(source, videos)
    paths = {s: [files.annotation(name) for name in names] for s, names in FILES.items()}
    ids = {ids_path: _ids(ids_path) for ids_path, _ in paths.values()}
    tables.check_apart(ids)
    clips = []
    for split, (ids_path, captions_path) in paths.items():
        told = tables.json_value(captions_path, dict)
        tables.check_told(ids[ids_path], ids_path, told, captions_path)
        faults = Faults(captions_path)
        for name in ids[ids_path]:
            with faults.at(repr(name)):
                clips.append(_clip(name, told[name], files, split))
        faults.check()
    return clips


def _ids(path: pathlib.Path) -> dict[str, int]:
    """Id -> its place in the list, from 1; one that is there again counts once."""
    ids, faults = {}, Faults(path)
    for number, value in enumerate(tables.json_value(path, list), 1):
        with faults.at(f"entry {number}"):
            ids.setdefault(tables.video_id(value), number)
    faults.check()
    return ids


def _clip(name: str, value, files: Source, split: str) -> Clip:
    entry = tables.fields(value, "duration", "sentences")
    if not isinstance(entry["sentences"], list):
        raise RowError("its sentences are no list: mend it")
    end = float(math.ceil(tables.seconds(entry["duration"], "duration")))
    if not end:
        raise RowError("duration 0: give the video's")
    return Clip(name, files.video(name), (tables.paragraph(entry["sentences"]),), 0.0, end, split)


ACTIVITYNET = Benchmark(
    name="activitynet",
    title="ActivityNet val_1",
    read=read_activitynet,
    counts=(
        # 10,009 and 4,917 (val_1): Krishna et al. 2017, as counted by Liu et al. 2019; the
        # paragraphs: Zhang et al. 2018.
        Count.paragraphs(("train", "val"), 10_009, 10_009),
        Count.paragraphs(("test",), 4_917, 4_917),
    ),
    source="Krishna et al. 2017; Zhang et al. 2018 (paragraphs, tested on val_1)",
    validation_size=500,
    results=(
        Result(
            "ViT-B/32",
            Figures(41.4, 72.1, 83.9, None, 7.5),
            Figures(40.6, 71.8, 84.1, None, 7.1),
        ),
    ),
)
