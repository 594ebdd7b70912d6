"""Sentences and metadata, as people write them."""

import datetime

import pyarrow as pa
import pytest

from glscl_jax.errors import UserError
from glscl_jax.search import metadata, question


def test_a_sentence_is_stripped():
    assert question.sentence("  a dog\n runs ") == "a dog runs"
    assert question.sentence("犬 🐕") == "犬 🐕"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the sentence is empty"),
        (" \t\n", "the sentence is empty"),
        ("?!", "the sentence is empty"),
        ("word " * 10_000, "has 49,999 characters: ask with at most 2,000"),
        ("a \x00 dog", r"control character U\+0000"),
        ("a \x1b[31m dog", r"control character U\+001B"),
        ("a \ud800 dog", r"control character U\+D800"),
    ],
)
def test_what_is_no_sentence(text, told):
    with pytest.raises(UserError, match=told):
        question.sentence(text)


def test_sentences_of_a_file():
    assert question.sentences("a dog\n\n a cat \r\n", "file") == ["a dog", "a cat"]
    with pytest.raises(UserError, match="file line 2: the sentence is empty"):
        question.sentences("a dog\n...\n", "file")
    with pytest.raises(UserError, match="file: no sentence in it"):
        question.sentences("\n", "file")


def write(tmp_path, text):
    path = tmp_path / "metadata.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_have_types(tmp_path):
    found = metadata.read(
        write(
            tmp_path,
            "video;year;rate;day;place\ndeep/./a.mp4;2024;1;2024-05-31;Bern\nb.mp4;;2.5;;NaN\n",
        )
    )
    assert found.fields == (
        pa.field("year", pa.int64()),
        pa.field("rate", pa.float64()),
        pa.field("day", pa.date32()),
        pa.field("place", pa.string()),
    )
    day = datetime.date(2024, 5, 31)
    assert found.of == {
        "deep/a.mp4": {"year": 2024, "rate": 1.0, "day": day, "place": "Bern"},
        "b.mp4": {"rate": 2.5},
    }
    columns = found.columns(["b.mp4", "other.mp4", "deep/a.mp4"])
    assert columns["year"].to_pylist() == [None, None, 2024]
    assert columns["day"].type == pa.date32()
    other = metadata.read(write(tmp_path, "video,year\ndeep/a.mp4,2024\n"))
    assert other.sha256 != found.sha256


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("year\n2024\n", "no column 'video' in line 1"),
        ("video,start\na.mp4,3\n", "column 'start' is the index's own"),
        ("video,the year\na.mp4,3\n", "column 'the year' could not be named"),
        ("video,year\na.mp4,1\na.mp4,2\n", "line 3: 'a.mp4' is there twice"),
        ("video,year\n,1\n", "line 2: no video"),
        ("video,year\na.mp4,1,2\n", "line 2: 3 cells where the header has 2"),
    ],
)
def test_what_is_no_metadata(tmp_path, text, told):
    with pytest.raises(UserError, match=told):
        metadata.read(write(tmp_path, text))
