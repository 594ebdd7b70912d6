"""MSR-VTT: 10,000 web videos of 10 to 32 s with 20 captions each; the 1k-A test split."""

import pathlib

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.source import Source
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

TRAIN_9K = "MSRVTT_train.9k.csv"
TRAIN_7K = "MSRVTT_train.7k.csv"
TEST = "MSRVTT_JSFUSION_test.csv"
DATA = "MSRVTT_data.json"


def read_msrvtt(
    source: pathlib.Path, videos: pathlib.Path | None = None, *, train_list: str = TRAIN_9K
) -> list[Clip]:
    """Reads the training ids, all their captions, and the 1,000 test pairs.

    Args:
      source: the folder that holds, however deep, `MSRVTT_data.json`,
        `MSRVTT_JSFUSION_test.csv`, the list of training ids and `{video_id}.mp4`.
      videos: another folder, where the videos are.
      train_list: the name of that list.

    Raises:
      UserError: naming the file and the first bad row.
    """
    files = Source(source, videos)
    train_path, test_path = files.annotation(train_list), files.annotation(TEST)
    data_path = files.annotation(DATA)
    train, test = _column(train_path, "video_id"), _test_pairs(test_path)
    captions = _sentences(data_path)
    tables.check_told(train, train_path, captions, data_path)
    tables.check_apart({train_path: train, test_path: {k: row for k, (row, _) in test.items()}})
    told = [(name, tuple(captions[name]), "train") for name in train]
    told += [(name, (caption,), "test") for name, (_, caption) in test.items()]
    return [
        Clip(name, files.video(name), captions, None, None, split) for name, captions, split in told
    ]


def _column(path: pathlib.Path, column: str) -> dict[str, int]:
    ids, faults = {}, Faults(path)
    for line, record in tables.csv_records(path, [column]):
        with faults.at(f"line {line}"):
            ids.setdefault(tables.video_id(_row(record)[column]), line)
    faults.check()
    return ids


def _test_pairs(path: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Id -> (line, its one caption)."""
    pairs, faults = {}, Faults(path)
    for line, record in tables.csv_records(path, ["video_id", "sentence"]):
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


def _sentences(path: pathlib.Path) -> dict[str, list[str]]:
    """Id -> its captions, in the order of the file; those of test videos too."""
    sentences = tables.json_value(path, dict).get("sentences")
    if not isinstance(sentences, list):
        raise UserError(f"{path}: no list 'sentences' in it: take the file of captions")
    captions, faults = {}, Faults(path)
    for number, value in enumerate(sentences):
        with faults.at(f"sentences[{number}]"):
            entry = tables.fields(value, "video_id", "caption")
            name = tables.video_id(entry["video_id"])
            captions.setdefault(name, []).append(tables.caption(entry["caption"]))
    faults.check()
    return captions
