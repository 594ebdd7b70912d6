"""MSVD: every caption is a query, every video has some forty.

    python -m glscl_jax.input_pipeline.prepare --dataset msvd --source DIR \
        --data_dir prepared/msvd
    python -m glscl_jax.train --config configs/msvd.py --workdir runs/msvd \
        --config.init_from=CONVERTED_CHECKPOINT

48,774 pairs, 1,905 updates.
The paper reports 47.5 and 69.1 R@1 (text-to-video, video-to-text)
for ViT-B/32; not run here.

docs/data.md says what DIR looks like.
"""

from configs import common


def get_config(variant: str | None = None):
    """The recipe; `:tiny` runs in seconds."""
    config = common.base()
    config.data.dir = "prepared/msvd"
    config.data.augment = True
    return common.variant_of(config, variant)
