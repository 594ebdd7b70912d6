"""DiCoSA against its formula, a pair and a concept at a time."""

import jax
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.models.heads.dicosa import DiCoSAHead
from glscl_jax.training import recipe
from tests.heads import Alone, cosine, draw, encodings, slow_scores, softmax
from tests.recipes import config_with

TEMPERATURE, CONCEPTS = 2.0, 4


def pair(params, sentence, tokens, frames):
    mlp = params["confidence"]
    first = np.concatenate([mlp["of_text"]["kernel"], mlp["of_video"]["kernel"]])
    logits = np.array([frame @ sentence for frame in frames]) / TEMPERATURE
    video = sum(weight * frame for weight, frame in zip(softmax(logits), frames, strict=True))
    total, width = 0.0, len(sentence) // CONCEPTS
    for start in range(0, len(sentence), width):
        of_text, of_video = (x[start : start + width] for x in (sentence, video))
        both = np.concatenate([of_text, of_video])
        hidden = np.maximum(both @ first + mlp["of_text"]["bias"], 0)
        gate = hidden @ mlp["out_kernel"] + mlp["out_bias"][0]
        total += gate * cosine(of_text, of_video)
    return total


def test_against_one_concept_at_a_time():
    drawn = draw(DiCoSAHead(temperature=TEMPERATURE, queries=CONCEPTS))
    found = drawn.head.score(drawn.text, drawn.video)
    np.testing.assert_allclose(found, slow_scores(drawn, pair), rtol=0, atol=1e-5)


def test_it_begins_near_the_mean_of_the_concepts_cosines():
    head = DiCoSAHead(queries=CONCEPTS)
    texts, videos = encodings()
    (text, video), _ = Alone(head).init_with_output(jax.random.key(0), texts, videos)
    one = (jax.tree.map(lambda x: x[0], text), jax.tree.map(lambda x: x[0], video))
    assert [part.weight for part in head.explain(*one).parts] == pytest.approx(
        [1 / CONCEPTS] * CONCEPTS, abs=0.02
    )


def test_concepts_of_unlike_widths_are_refused():
    config = config_with("dicosa", model__head__queries=7)
    with pytest.raises(UserError, match="embed_dim 128 is no multiple of queries 7"):
        recipe.read(config)
