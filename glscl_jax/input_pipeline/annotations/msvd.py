"""MSVD: 1,970 YouTube clips with some 40 captions each, every caption a pair.

As it was published: clips by their ids, `youtube_mapping.txt`, which gives each a number, and
`AllVideoDescriptions.txt`; or the lists and captions that circulate with retrieval papers, which
are the same split (Venugopalan et al. 2015).
"""

import dataclasses
import pathlib
import re

from glscl_jax.input_pipeline.annotations import plain_pickle, tables
from glscl_jax.input_pipeline.annotations.benchmark import Benchmark, Count, Figures, Result
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import Source
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

SPLITS = ("train", "val", "test")
CAPTIONS_JSON = "captions_msvd.json"
CAPTIONS_PICKLE = "raw-captions.pkl"
DESCRIPTIONS = "AllVideoDescriptions.txt"
MAPPING = "youtube_mapping.txt"
# The last number of each split: vid1 to vid1200 are to train on.
LAST_NUMBERS = {"train": 1_200, "val": 1_300, "test": 1_970}
_NUMBERED = re.compile(r"vid([1-9]\d{0,3})", re.ASCII)


@dataclasses.dataclass(frozen=True)
class _Listed:
    """A clip in a list.

    Attributes:
      row: its line, from 1.
      path: the list.
      split: which split that says.
      alias: what else its file may be called, or "".
    """

    row: int
    path: pathlib.Path
    split: str
    alias: str = ""


def read_msvd(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """Reads three lists of ids, or the mapping, and the captions in one of three formats.

    A caption that is there twice stays so: the published figures count every one.

    Args:
      source: the folder that holds, however deep, `{train,val,test}_list.txt` or
        `youtube_mapping.txt`; `captions_msvd.json`, `raw-captions.pkl` or
        `AllVideoDescriptions.txt`; and `{id}.avi`, or by the mapping `vid{number}.avi`.
      videos: another folder, where the videos are.

    Raises:
      UserError: naming the file and the first bad row.
    """
    files = Source(source, videos)
    listed = _listed(files)
    captions_path = files.annotation(CAPTIONS_JSON, CAPTIONS_PICKLE, DESCRIPTIONS)
    captions = _captions(captions_path)
    for path in dict.fromkeys(one.path for one in listed.values()):
        ids = {name: one.row for name, one in listed.items() if one.path == path}
        tables.check_told(ids, path, captions, captions_path)
    return [
        Clip(name, files.video(name, one.alias), captions[name], None, None, one.split)
        for name, one in listed.items()
    ]


def _listed(files: Source) -> dict[str, _Listed]:
    """Id -> where it is listed, split by split."""
    names = [f"{split}_list.txt" for split in SPLITS]
    if not any(files.has(name) for name in names):
        return _mapped(files.annotation(names[0], MAPPING))
    lists = {files.annotation(name): split for name, split in zip(names, SPLITS, strict=True)}
    ids = {path: tables.id_list(path) for path in lists}
    tables.check_apart(ids)
    return {
        name: _Listed(row, path, split)
        for path, split in lists.items()
        for name, row in ids[path].items()
    }


def _mapped(path: pathlib.Path) -> dict[str, _Listed]:
    """As `_listed`, of the mapping's lines "id vid1"."""
    numbers, faults = {}, Faults(path)
    listed: dict[str, _Listed] = {}
    for line, text in tables.lines(path):
        if not text.strip():
            continue
        with faults.at(f"line {line}"):
            columns = text.split()
            if len(columns) != 2:
                raise RowError(f"{len(columns)} columns where an id and vid1, vid2, ... belong")
            name, number = tables.video_id(columns[0]), _number(columns[1])
            for key, there in ((name, listed.get(name)), (columns[1], numbers.get(number))):
                if there:
                    raise RowError(f"{key!r} is in line {there.row} already: keep one")
            split = next(split for split, last in LAST_NUMBERS.items() if number <= last)
            listed[name] = numbers[number] = _Listed(line, path, split, columns[1])
    faults.check()
    return dict(sorted(listed.items(), key=lambda pair: SPLITS.index(pair[1].split)))


def _number(told: str) -> int:
    found, most = _NUMBERED.fullmatch(told), max(LAST_NUMBERS.values())
    if not found or int(found[1]) > most:
        raise RowError(f"{told!r} is none of vid1 to vid{most}: mend it")
    return int(found[1])


def _captions(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    if path.name == DESCRIPTIONS:
        return _described(path)
    if path.name == CAPTIONS_PICKLE:
        told, one = plain_pickle.load(path), _joined
    else:
        told, one = tables.json_value(path, dict), tables.caption
    captions, faults = {}, Faults(path)
    for name, values in told.items():
        with faults.at(repr(name)):
            if not isinstance(values, list | tuple) or not values:
                raise RowError("not a list of captions: fetch the file anew")
            captions[tables.video_id(name)] = tuple(one(value) for value in values)
    faults.check()
    return captions


def _described(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """Of lines "id a caption", below a header of lines with # before them."""
    captions, faults = {}, Faults(path)
    for line, text in tables.lines(path):
        if not text.strip() or text.startswith("#"):
            continue
        with faults.at(f"line {line}"):
            name, *told = text.split(maxsplit=1)
            caption = tables.caption(" ".join(told))
            captions.setdefault(tables.video_id(name), []).append(caption)
    faults.check()
    return {name: tuple(told) for name, told in captions.items()}


def _joined(words) -> str:
    if not isinstance(words, list | tuple):
        raise RowError(f"caption {words!r} is no list of words: fetch the file anew")
    return tables.caption(" ".join(tables.string(word, "word") for word in words))


MSVD = Benchmark(
    name="msvd",
    title="MSVD",
    read=read_msvd,
    counts=(
        # Ids: Venugopalan et al. 2015. Captions: captions_msvd.json. All counted.
        Count.exactly(("train",), 1_200, 48_774),
        Count.exactly(("val",), 100, 4_290),
        Count.exactly(("test",), 670, 27_763),
    ),
    source="Venugopalan et al. 2015 (the split); captions as counted in captions_msvd.json",
    results=(
        Result(
            "ViT-B/32",
            Figures(47.5, 76.3, 86.1, None, 9.8),
            Figures(69.1, 91.5, 94.8, None, 3.2),
        ),
    ),
)
