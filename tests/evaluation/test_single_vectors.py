"""Ranking by single vectors, against the exact score and against the product written out."""

import dataclasses

import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.evaluation import run_card, run_card_text, single_vectors
from glscl_jax.models.heads.gim_alone import GIMHead
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.models.heads.wti import WTIHead
from glscl_jax.models.heads.x_pool import XPoolHead
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.split_scores import Scored
from tests.builders import split

GLSCL = GLSCLHead(queries=2, gim_weight=0.8, lim_weight=0.5, temperature=0.3)


@pytest.fixture(scope="module")
def encoded():
    return split(videos=20, captions=2)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def by_hand(encoded):
    """GLSCL's single vectors multiplied in NumPy, float64 [A,B]: mean frames and concepts."""
    text, video = encoded.text, encoded.video
    sentence, frames = (np.asarray(x, np.float64) for x in (text.sentence, video.frames))
    mean = (frames * video.mask[:, :, None]).sum(axis=1)
    concepts = np.einsum("AKD,BKD->AB", text.queries, video.queries, dtype=np.float64) / 2
    scores = 0.8 * unit(sentence) @ unit(mean).T + 0.5 * concepts
    # A video's vector has length 1, and all are as long before: 0.8 and, in each of 2, 0.5 / 2.
    return scores / np.sqrt(0.8**2 + 2 * (0.5 / 2) ** 2)


def test_of_the_mean_head_they_are_the_score(encoded):
    head = single_vectors.head_of(MeanHead())
    scores, exact = Scored(encoded, head), Scored(encoded, MeanHead())
    for found, ranks in zip(
        dataclasses.astuple(scores.retrieval()), dataclasses.astuple(exact.retrieval()), strict=True
    ):
        for one, other in zip(found, ranks, strict=True):
            np.testing.assert_array_equal(one, other)
    told = single_vectors.beside_exact(encoded, MeanHead(), None, scores)
    for name in ("t2v", "v2t"):
        assert told[name]["same_best"] == 100
        ranks = getattr(exact.retrieval(), name).mean
        assert told[name]["exact"] == metrics.recalls(ranks).as_dict()


def test_of_glscl_they_are_the_product_written_out(encoded):
    head = single_vectors.head_of(GLSCL)
    expected = by_hand(encoded)
    np.testing.assert_allclose(
        Scored(encoded, head).matrix(encoded.text, encoded.video), expected, rtol=0, atol=1e-5
    )
    scores = Scored(encoded, head)
    found, ranks = scores.retrieval(), metrics.retrieval(expected, encoded.owner)
    np.testing.assert_array_equal(found.t2v.mean, ranks.t2v.mean)
    np.testing.assert_array_equal(found.v2t.mean, ranks.v2t.mean)

    exact = np.asarray(GLSCL.score(encoded.text, encoded.video))
    told = single_vectors.beside_exact(encoded, GLSCL, None, scores)
    same = exact.argmax(axis=1) == expected.argmax(axis=1)
    assert told["t2v"]["same_best"] == pytest.approx(100 * same.mean())
    owners = [encoded.owner[x.argmax(axis=0)] for x in (exact, expected)]
    assert told["v2t"]["same_best"] == pytest.approx(100 * np.mean(owners[0] == owners[1]))
    # They do not all agree, or this would show nothing.
    assert told["t2v"]["same_best"] < 100
    assert told["t2v"]["exact"]["R@1"] == pytest.approx(
        100 * np.mean(metrics.retrieval(exact, encoded.owner).t2v.mean <= 1)
    )


@pytest.mark.parametrize("head", [WTIHead(), XPoolHead()])
def test_a_head_without_them_is_refused(head):
    with pytest.raises(UserError) as refused:
        single_vectors.head_of(head)
    told = str(refused.value)
    assert told.startswith(f"--single_vector: the head {head.name} has no single vectors")
    assert "gim, glscl, mean have them" in told
    assert "\n" not in told


def test_a_block_multiplies_as_many_as_it_says():
    assert single_vectors.head_of(GIMHead()).cost(512, 32, 12).pair == 512
    assert single_vectors.head_of(GLSCL).cost(512, 32, 12).pair == 3 * 512


def test_the_card_and_its_pages_say_so():
    exact = {"R@1": 50.0, "R@5": 80.0, "R@10": 90.0, "R@50": 100.0, "MdR": 1.0, "MnR": 4.0}
    single = {name: {"exact": exact, "same_best": 87.5} for name in ("t2v", "v2t")}
    row = {name: {"mean": {"R@1": 42.0}, "tied_queries": 0} for name in ("t2v", "v2t")}
    data = {
        "partial": "",
        "failed": 0,
        "split": "test",
        "cut": {"captions": 1, "cut": 0, "num_words": 8, "longest": 4},
    }
    card = {"data": data, "rerank": {"method": "none"}, "single_vector": single, **row}
    card |= {"published": None, "trained_otherwise": ""}
    (note,) = run_card.notes(card)
    assert "not by the head's own score" in note
    assert "text-to-video R@1 42.0, by its own score 50.0, the same best item for 87.5 %" in note
    card["checkpoint"] = {"directory": "x", "step": 1}
    card["data"] |= {"dataset": "folder"}
    assert run_card_text.title(card).endswith(", by single vectors")
