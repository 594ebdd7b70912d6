"""ranks.csv and top.csv: what is written is read again, whatever the captions hold."""

import csv
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.evaluation.rank_files import RANKS, TOP, read_ranks, write_ranks, write_top
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.retrieval.split_scores import Reranked
from glscl_jax.spreadsheet import escape, unescape

CAPTIONS = ['a "red", round one', "two\nlines\r\n", "", "ünï 日本", "=1+1"]
CLIP_IDS = ["a,b.mp4", "c.mp4#t=1", "d.mp4"]
FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "'=1",
    "''-",
]
FORMULA_BEGINS = set("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
PLAIN = ["", "a=b", "'tis a cat", "'", " =1", "1-2", "日本"]
OWNER = np.array([0, 0, 1, 2, 2])
SCORES = np.array(
    [[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.5, 0.5, 0.1], [0.1, 0.2, 0.3], [1, 1, 1]], np.float32
)


def encoded(captions=CAPTIONS, clip_ids=CLIP_IDS):
    # No features: only names are written.
    text = TextFeatures(np.zeros((5, 1)), np.zeros((5, 1, 1)))
    video = VideoFeatures(np.zeros((3, 1, 1)), np.ones((3, 1)), np.zeros((3, 1, 1)))
    return EncodedSplit(text, video, OWNER, captions, clip_ids, 3, {})


def test_ranks_come_back(tmp_path):
    result = metrics.retrieval(SCORES, OWNER)
    write_ranks(tmp_path, result, encoded())
    found = read_ranks(tmp_path)
    for name in ("t2v", "v2t"):
        for end in ("optimistic", "pessimistic"):
            np.testing.assert_array_equal(
                getattr(found[name].ranks, end), getattr(getattr(result, name), end)
            )
    assert found["t2v"].captions == CAPTIONS
    assert found["t2v"].clip_ids == [CLIP_IDS[b] for b in OWNER]
    assert found["v2t"].clip_ids == CLIP_IDS
    assert [path.name for path in tmp_path.iterdir()] == [RANKS]


def test_the_best_items_by_hand(tmp_path):
    top = Reranked(SCORES, SCORES.T, OWNER).top(2)
    write_top(tmp_path, top, encoded())
    with (tmp_path / TOP).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (5 + 3)
    best = [(row["clip_id"], row["score"]) for row in rows if row["direction"] == "t2v"][:2]
    assert best == [("a,b.mp4", "0.9"), ("d.mp4", "0.5")]
    # Of captions that score alike the first; the item is a caption and has its video's id.
    best = [row for row in rows if row["direction"] == "v2t" and row["query"] == "0"]
    assert [(row["place"], row["caption"], row["clip_id"]) for row in best] == [
        ("1", "'=1+1", "d.mp4"),
        ("2", CAPTIONS[0], "a,b.mp4"),
    ]


def cells(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [cell for row in list(csv.reader(file))[1:] for cell in row[:5]]


@pytest.mark.parametrize("captions", [FORMULAS[:5], FORMULAS[5:]])
def test_no_cell_is_a_formula_and_all_come_back(tmp_path, captions):
    clip_ids = ["=1.mp4", "-x/@y.mp4", "'+.mp4"]
    split = encoded(captions, clip_ids)
    write_ranks(tmp_path, metrics.retrieval(SCORES, OWNER), split)
    write_top(tmp_path, Reranked(SCORES, SCORES.T, OWNER).top(2), split)
    for name in (RANKS, TOP):
        assert not [cell for cell in cells(tmp_path / name) if cell[:1] in FORMULA_BEGINS]
    found = read_ranks(tmp_path)
    assert found["t2v"].captions == captions
    assert found["v2t"].clip_ids == clip_ids


@given(st.text(alphabet=["'", "a", " ", *sorted(FORMULA_BEGINS)]))
def test_every_text_comes_back_from_its_cell(text):
    cell = escape(text)
    assert unescape(cell) == text
    assert cell[:1] not in FORMULA_BEGINS


def test_most_text_stays_as_it_is():
    assert list(map(escape, PLAIN)) == PLAIN
    # Files of earlier versions had formulas as they were.
    assert unescape("=1+1") == "=1+1"


@pytest.mark.parametrize(
    ("pattern", "new", "told"),
    [
        ("^direction,", "way,", "its columns are"),
        ("^t2v,2,", "t2v,7,", "query 2 is not whole"),
        ("^v2t,0,.*", "v2t,0,x", "query 0 is not whole"),
        ("^v2t,2,", "v2v,2,", "neither t2v nor v2t"),
        ("^(v2t,2,.*,)[0-9]+,", r"\g<1>0,", "a rank below 1"),
        ("^(v2t,2,.*,)[0-9]+,", r"\g<1>9,", "a last place before the first"),
        ("^(v2t,2,.*,)[0-9]+,", r"\g<1>one,", "could not convert"),
        ("^v2t,.*", "", "list index out of range"),
        ('^t2v,0,"a', 't2v,0,"x', "the video of a caption"),
    ],
)
def test_what_is_damaged_is_named(tmp_path, pattern, new, told):
    write_ranks(tmp_path, metrics.retrieval(SCORES, OWNER), encoded())
    path = tmp_path / RANKS
    content, changes = re.subn(pattern, new, path.read_bytes().decode(), count=1, flags=re.M)
    assert changes
    path.write_bytes(content.encode())
    with pytest.raises(UserError) as refused:
        read_ranks(tmp_path)
    assert "ranks.csv is damaged" in str(refused.value)
    assert told in str(refused.value)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"ranks\.csv is not there"):
        read_ranks(tmp_path)
    (tmp_path / RANKS).write_text("")
    with pytest.raises(UserError, match="damaged"):
        read_ranks(tmp_path)
