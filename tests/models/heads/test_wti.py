"""WTI against its formula, a token and a frame at a time."""

import numpy as np

from glscl_jax.models.heads.wti import WTIHead
from tests.heads import cosine, draw, slow_scores, softmax


def weights(mlp, features):
    first, second = mlp["linear_1"], mlp["linear_2"]
    logits = []
    for feature in features:
        hidden = np.maximum(feature @ first["kernel"] + first["bias"], 0)
        logits.append((hidden @ second["kernel"] + second["bias"])[0])
    return softmax(np.array(logits))


def pair(params, sentence, tokens, frames):
    by_token = by_frame = 0.0
    for weight, token in zip(weights(params["token_weights"], tokens), tokens, strict=True):
        by_token += weight * max(cosine(token, frame) for frame in frames)
    for weight, frame in zip(weights(params["frame_weights"], frames), frames, strict=True):
        by_frame += weight * max(cosine(token, frame) for token in tokens)
    return (by_token + by_frame) / 2


def test_against_one_token_and_one_frame_at_a_time():
    drawn = draw(WTIHead())
    expected = slow_scores(drawn, pair)
    found = drawn.head.score(drawn.text, drawn.video)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_padding_has_no_part():
    drawn = draw(WTIHead())
    assert (drawn.texts["mask"] == 0).any()
    assert (drawn.videos["mask"] == 0).any()
    text = drawn.text.replace(
        tokens=np.where(drawn.texts["mask"][..., None] > 0, drawn.text.tokens, 9)
    )
    video = drawn.video.replace(
        frames=np.where(drawn.videos["mask"][..., None] > 0, drawn.video.frames, 9)
    )
    np.testing.assert_array_equal(
        drawn.head.score(text, video), drawn.head.score(drawn.text, drawn.video)
    )
