"""MSVD: 1,970 YouTube clips with some 40 captions each, every caption a pair."""

import pathlib

from glscl_jax.input_pipeline.annotations import plain_pickle, tables
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import Source
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

SPLITS = ("train", "val", "test")
CAPTIONS_JSON = "captions_msvd.json"
CAPTIONS_PICKLE = "raw-captions.pkl"


def read_msvd(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """Reads the three lists of ids and the captions, as JSON or as the pickle of word lists.

    A caption that is there twice stays so: the published figures count every one.

    Args:
      source: the folder that holds, however deep, `{train,val,test}_list.txt`,
        `captions_msvd.json` or `raw-captions.pkl`, and `{id}.avi`.
      videos: another folder, where the videos are.

    Raises:
      UserError: naming the file and the first bad row.
    """
    files = Source(source, videos)
    lists = {split: files.annotation(f"{split}_list.txt") for split in SPLITS}
    ids = {path: tables.id_list(path) for path in lists.values()}
    tables.check_apart(ids)
    captions_path = files.annotation(CAPTIONS_JSON, CAPTIONS_PICKLE)
    captions = _captions(captions_path)
    for path, names in ids.items():
        tables.check_told(names, path, captions, captions_path)
    return [
        Clip(name, files.video(name), captions[name], None, None, split)
        for split, path in lists.items()
        for name in ids[path]
    ]


def _captions(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
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


def _joined(words) -> str:
    if not isinstance(words, list | tuple):
        raise RowError(f"caption {words!r} is no list of words: fetch the file anew")
    return tables.caption(" ".join(tables.string(word, "word") for word in words))
