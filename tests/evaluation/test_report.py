"""The report: its numbers against plain loops, and its safety."""

import base64
import dataclasses
import hashlib
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glscl_jax.errors import UserError
from glscl_jax.evaluation.query_examples import Explainer, choose
from glscl_jax.retrieval import metrics
from tests.evaluation.reports import (
    ATTACK,
    FRAMES,
    HEAD,
    LIM_WEIGHT,
    OWNER,
    TEMPERATURE,
    A,
    B,
    D,
    K,
    Page,
    Split,
    V,
    colour,
    decoded,
    frames_of,
    unit,
)


def test_a_pair_taken_apart_agrees_with_loops(split):
    encoded, ranks = split.encoded, metrics.retrieval(split.scores, OWNER).t2v
    explain = Explainer(encoded, lambda a: split.scores[a], HEAD, frames_of)
    for a, b in ((0, 0), (3, 2), (5, 3), (8, 1)):
        pair = explain.pair(a, b, 0.0, right=True)
        sentence, frames = encoded.text.sentence[a], encoded.video.frames[b]
        powers = [math.exp(float(np.dot(sentence, f)) / TEMPERATURE) for f in frames]
        # Padded frames take part in the sum, and have no weight.
        weights = [power / sum(powers) for power in powers[: FRAMES[b]]]
        assert [frame.weight for frame in pair.frames] == pytest.approx(weights, abs=1e-6)
        assert pair.padding == pytest.approx(1 - sum(weights), abs=1e-6)
        pooled = sum(weight * f for weight, f in zip(weights, frames, strict=False))
        cosine = np.dot(sentence, pooled) / np.linalg.norm(sentence) / np.linalg.norm(pooled)
        gim, lim = pair.parts
        assert (gim.name, gim.value) == ("GIM", pytest.approx(float(cosine), abs=1e-5))
        for i in range(K):
            for j in range(K):
                inner = sum(encoded.text.queries[a, i] * encoded.video.queries[b, j])
                assert pair.concepts[i, j] == pytest.approx(float(inner), abs=1e-6)
        assert (lim.name, lim.weight) == ("LIM", LIM_WEIGHT)
        assert pair.unchanged == pytest.approx(split.scores[a, b], abs=1e-5)
    for a in range(A):
        example = explain(a, ranks)
        assert example.caption == encoded.captions[a]
        assert example.pairs[0].right
        assert example.pairs[0].clip_id == encoded.clip_ids[OWNER[a]]
        first = int(np.argmax(split.scores[a]))
        assert example.pairs[-1].clip_id == encoded.clip_ids[first]
        assert len(example.pairs) == 1 + (first != OWNER[a])


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_best_the_median_and_the_worst(queries, count, seed):
    rng = np.random.default_rng(seed)
    ranks, owner = rng.integers(1, 9, queries) / 2, rng.integers(5, size=queries)
    groups = choose(ranks, owner, count)
    together = np.concatenate(list(groups.values()))
    assert len(set(together)) == len(together)
    if queries >= 3 * count:
        assert [len(group) for group in groups.values()] == [count] * 3
    best, median, worst = (groups[name] for name in ("best", "median", "worst"))
    assert sorted(ranks[best]) == sorted(ranks)[: len(best)]
    others = np.setdiff1d(np.arange(queries), best)
    assert sorted(ranks[worst]) == sorted(ranks[others])[len(others) - len(worst) :]
    others = np.setdiff1d(others, worst)
    away = abs(ranks - np.median(ranks))
    assert sorted(away[median]) == sorted(away[others])[: len(median)]


def test_equal_ranks_show_different_videos():
    groups = choose(np.ones(400), np.repeat(np.arange(20), 20), 5)
    for group in groups.values():
        assert len(set(group // 20)) == 5


def test_the_page_has_every_query_with_its_frames_and_weights(split, page):
    encoded = split.encoded
    ranks = metrics.retrieval(split.scores, OWNER).t2v
    explain = Explainer(encoded, lambda a: split.scores[a], HEAD, frames_of)
    chosen = np.concatenate(list(choose(ranks.mean, OWNER, 3).values()))
    examples = [explain(int(a), ranks) for a in chosen]
    assert page.texts["h3"] == [example.caption for example in examples]
    assert page.texts["h2"] == ["Result", "Best queries", "Median queries", "Worst queries"]
    assert page.texts["bdi"] == [pair.clip_id for one in examples for pair in one.pairs]
    frames = [frame for one in examples for pair in one.pairs for frame in pair.frames]
    assert page.texts["span"] == [f"{100 * frame.weight:.1f} %" for frame in frames]
    # Two pictures, each for light and dark, then the frames.
    images = [x["src"] for x in page.all("img")]
    assert len(page.all("source")) == 2
    assert images[2:] == [frame.source for frame in frames]
    concepts = sum(len(one.pairs) for one in examples)
    assert len(page.texts["title"]) == 1 + K * K * concepts
    row = metrics.recalls(ranks.mean).as_dict().values()
    assert page.texts["td"][:6] == [f"{value:.1f}" for value in row]


def test_frames_are_small_and_their_own(page):
    shown = {decoded(x["src"]).getpixel((50, 50)) for x in page.all("img")[2:]}
    known = [colour(b, v) for b in range(B) for v in range(V)]
    for found in shown:
        distances = np.abs(np.array(known) - found).max(axis=1)
        assert distances.min() <= 4
    assert all(decoded(x["src"]).size == (160, 120) for x in page.all("img")[2:])


def test_a_caption_is_text_and_nothing_else(path, page):
    content = path.read_text(encoding="utf-8")
    assert ATTACK in page.texts["h3"]
    assert "<script" not in content
    assert "onerror" not in " ".join(name for _, x in page.elements for name in x)
    assert {"script", "iframe", "link", "object", "base", "form", "b"}.isdisjoint(
        tag for tag, _ in page.elements
    )


def test_nothing_is_asked_of_the_network(path, page):
    policy = next(x["content"] for x in page.all("meta") if "http-equiv" in x)
    style = page.texts["style"][0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    for _, attributes in page.elements:
        assert "style" not in attributes
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#"))
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", path.read_text(encoding="utf-8"))


def test_it_can_be_heard(page):
    assert page.all("html")[0]["lang"] == "en"
    assert all(len(x["alt"]) > 10 for x in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert levels.count(1) == 1
    assert {x["scope"] for x in page.all("th")} == {"row", "col"}
    for picture in page.all("svg"):
        assert "aria-label" in picture or picture["aria-hidden"] == "true"
    names = [x["id"] for _, x in page.elements if "id" in x]
    assert len(set(names)) == len(names)
    assert {x["href"][1:] for x in page.all("a")} <= set(names)


def test_intervals_and_notes_stand_with_the_figures(split, tmp_path):
    ranks = metrics.retrieval(split.scores, OWNER)
    figures = metrics.recalls(ranks.t2v.mean).as_dict()
    ends = {name: (value - 1.25, value + 2.5) for name, value in figures.items()}
    notes = ["a part of the data set only: 3 of 9 <videos>", "trained with num_words 7, here 9"]
    path = split.write(tmp_path, intervals={"t2v": ends, "v2t": ends}, notes=notes)
    content = path.read_text(encoding="utf-8")
    shown = [f"{low:.1f} to {high:.1f}" for low, high in ends.values()]
    page = Page(content)
    assert page.texts["small"] == shown * 2
    assert page.texts["td"][:6] == [f"{value:.1f}" for value in figures.values()]
    assert "95 % interval, by bootstrap" in page.texts["caption"][0]
    assert "A part of the data set only: 3 of 9 <videos>." in page.texts["p"]
    assert "Trained with num_words 7, here 9." in page.texts["p"]
    assert (
        "interval"
        not in Page(split.write(tmp_path).read_text(encoding="utf-8")).texts["caption"][0]
    )


@pytest.mark.parametrize("concepts", [1, 43, 44, pytest.param(64, marks=pytest.mark.slow)])
def test_any_number_of_concepts_is_drawn(tmp_path, concepts):
    split, rng = Split(), np.random.default_rng(0)
    text, video = (
        dataclasses.replace(x, queries=unit(rng.normal(size=(len(x.queries), concepts, D))))
        for x in (split.encoded.text, split.encoded.video)
    )
    split.encoded = dataclasses.replace(split.encoded, text=text, video=video)
    page = Page(split.write(tmp_path, examples=1).read_text(encoding="utf-8"))
    squares = [x for x in page.all("rect") if x.get("fill", "").startswith("#")]
    frames = [x for x in page.all("rect") if x.get("fill") == "none"]
    assert len(squares) * 2 == len(frames) * concepts
    for each in squares + frames:
        x, y, width, height, stroke = (
            float(each.get(name, 0)) for name in ("x", "y", "width", "height", "stroke-width")
        )
        assert width == height > 0
        # Within the matrix, which is 86 wide; rounding adds up.
        assert min(x, y) - stroke / 2 >= -0.01
        assert max(x, y) + width + stroke / 2 <= 86.1
    # A frame leaves most of its cell to be seen.
    assert all(float(x["width"]) > 0.7 * 86 / concepts for x in frames)


def test_a_tie_is_told(split, tmp_path):
    tied = Split()
    # Caption 0 scores its own video 0 and another one alike, before all others.
    tied.scores = split.scores.copy()
    tied.scores[0, [0, 4]] = 7
    content = tied.write(tmp_path).read_text(encoding="utf-8")
    assert "<strong>1.5</strong> of 6 (tied: 1 to 2)" in content
    assert "Tied with it: <bdi>clip4&amp;&lt;b&gt;</bdi>" in content
    assert "1 of 9 text to video queries have items tied" in content
    assert "ranked by 7, after post-processing" in content
    assert "tied:" not in split.write(tmp_path).read_text(encoding="utf-8")


def test_padding_that_takes_the_whole_softmax(tmp_path):
    split = Split()
    # Clip 3 has one real frame; its padding answers caption 5 a thousand times as loudly.
    split.encoded.video.frames[3, 1:] = 1000 * split.encoded.text.sentence[5]
    explain = Explainer(split.encoded, lambda a: split.scores[a], HEAD, frames_of)
    pair = explain.pair(5, 3, 0.0, right=True)
    assert pair.frames[0].weight == 0
    assert pair.padding == pytest.approx(1)
    sentence, frame = split.encoded.text.sentence[5], split.encoded.video.frames[3, 0]
    cosine = np.dot(sentence, frame) / np.linalg.norm(sentence) / np.linalg.norm(frame)
    assert pair.parts[0].value == pytest.approx(float(cosine), abs=1e-5)
    content = split.write(tmp_path).read_text(encoding="utf-8")
    assert "100.0 % of the softmax fell on padding and was masked." in content
    assert not re.search(r"\b(nan|inf)\b", " ".join(Page(content).texts["p"]))


def test_the_same_result_is_the_same_file(split, path, tmp_path):
    assert split.write(tmp_path).read_bytes() == path.read_bytes()


def test_frames_that_are_not_those_encoded(split, tmp_path):
    with pytest.raises(UserError, match=r"clip .clip\d.* has 2 frames, but"):
        split.write(tmp_path, frames_of=lambda clip_id: [np.zeros((8, 8, 3), np.uint8)] * 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("examples", [0, -1])
def test_a_report_of_nothing_is_refused(split, tmp_path, examples):
    with pytest.raises(UserError, match=f"with {examples} examples of each kind"):
        split.write(tmp_path, examples=examples)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(split, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"report.html cannot be written: (Not a dir|File exists)"):
        split.write(tmp_path / "file")


def test_a_name_that_is_no_text(split, tmp_path):
    odd = Split()
    odd.encoded.clip_ids[:] = [name + "\udcff" for name in odd.encoded.clip_ids]
    assert "\\udcff" in odd.write(tmp_path).read_text(encoding="utf-8")
