"""The demo: moving coloured shapes, two events in order, 4,000 rendered clips.

    make demo

renders and prepares the clips, then runs

    python -m glscl_jax.train --config configs/demo.py --workdir demo/run

README.md has the score to expect, and the time it takes.
"""

from configs import common


def get_config(variant: str | None = None):
    """The demo's recipe; `:tiny` runs in seconds."""
    config = common.base()
    config.data.dir = "demo/data"
    config.data.frame_rate = 2.0
    config.data.num_frames = 6
    config.data.num_words = 20
    config.data.tokenizer = "demo"

    config.model.clip.variant = "tiny"
    config.model.temporal_layers = 2
    config.model.head.lim_layers = 2
    config.model.head.lim_feed_forward = 256
    config.model.head.lim_dropout = 0.0

    # From scratch: one rate for all, and the patch embedding learns too.
    config.optim.learning_rate = 5e-4
    config.optim.coef_lr = 1.0
    config.optim.frozen = ()

    # Small batches: with as many clips seen, more and shorter steps learn faster here.
    config.batch_size = 64
    config.num_epochs = 18
    config.log_every = 50
    config.validate_every = 372  # Every sixth epoch.
    return common.variant_of(config, variant)
