"""A LIM that reads no padding: an item's concepts are those of what is there of it, alone."""

import jax
import numpy as np
import pytest

from glscl_jax.models.heads.glscl import GLSCLHead
from tests.heads import Alone, draw

LIM = {"queries": 2, "lim_layers": 2, "lim_heads": 2, "lim_feed_forward": 16}
WIDTH, REAL, PLACES = 8, 3, 5


def items(rng, places):
    """A text and a video of `REAL` tokens and frames among so many places, padding drawn, too."""
    mask = (np.arange(places) < REAL).astype(np.int32)[None]
    real = rng.normal(size=(REAL, WIDTH))
    padding = np.random.default_rng(places).normal(size=(places - REAL, WIDTH))
    rows = np.concatenate([real, padding])[None].astype(np.float32)
    return {"sentence": rows[:, 0], "tokens": rows, "mask": mask}, {"frames": rows, "mask": mask}


@pytest.mark.parametrize("masked", [True, False])
def test_concepts_hang_on_padding_where_it_is_not_masked(masked):
    drawn = draw(GLSCLHead(mask_padding=masked, **LIM))
    params = {"params": {f"learned_{name}": x for name, x in drawn.params.items()}}
    features = jax.jit(Alone(drawn.head).apply)
    short, long = (
        features(params, *items(np.random.default_rng(0), places)) for places in (REAL, PLACES)
    )
    for few, many in zip(short, long, strict=True):
        apart = np.abs(few.queries - many.queries).max()
        assert apart < 1e-6 if masked else apart > 1e-3
