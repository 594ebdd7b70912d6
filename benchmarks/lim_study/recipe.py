"""The demo's recipe, as `configs/demo.py` has it, for a machine without ml_collections."""

import dataclasses

from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.training.optim_config import OptimConfig

BATCH = 64
NUM_FRAMES = 6
NUM_WORDS = 20
# 18 epochs of 62 steps.
STEPS = 1116
FEATURE_STEPS = 300
# The first is the demo's own.
SEEDS = (42, 43, 44, 45, 46)

# What the backward pass computes again changes no number, and here all fits.
MODEL = GLSCLConfig(
    clip=VARIANTS["tiny"], temporal="seqTransf", temporal_layers=2, remat="none", attention="plain"
)
# Of the LIM; K is 8.
LIM_LAYERS, LIM_HEADS, LIM_FEED_FORWARD = 2, 8, 256

END_TO_END, FROM_FEATURES = PROTOCOLS = ("end_to_end", "from_features")
# The encoders' parameters, as in `training.precomputed_features`, which needs ml_collections.
TOWERS = "^clip/(vision|text)/"
_OPTIM = OptimConfig(learning_rate=5e-4, coef_lr=1.0, frozen=())
OPTIM = {
    END_TO_END: _OPTIM,
    FROM_FEATURES: dataclasses.replace(_OPTIM, frozen=(TOWERS,)),
}
