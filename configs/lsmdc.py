"""LSMDC: one sentence a clip of a film, tested on the 1,000 pairs of the 2016 challenge.

    python -m glscl_jax.input_pipeline.prepare --dataset lsmdc --source DIR \
        --data_dir prepared/lsmdc
    python -m glscl_jax.train --config configs/lsmdc.py --workdir runs/lsmdc \
        --config.init_from=CONVERTED_CHECKPOINT

Some 101,000 pairs, 3,945 updates.
The paper reports 23.4 and 22.2 R@1 (text-to-video, video-to-text)
for ViT-B/32; not run here.

docs/data.md says what DIR looks like.
"""

from configs import common


def get_config(variant: str | None = None):
    """The recipe; `:tiny` runs in seconds."""
    config = common.base()
    config.data.dir = "prepared/lsmdc"
    config.data.augment = True
    config.model.head.temperature = 5.0
    config.losses.alpha = 1e-2
    return common.variant_of(config, variant)
