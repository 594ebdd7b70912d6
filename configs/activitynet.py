"""ActivityNet Captions: a paragraph finds its video, 64 words and 64 frames; tested on val_1.

    python -m glscl_jax.input_pipeline.prepare --dataset activitynet --source DIR \
        --data_dir prepared/activitynet
    python -m glscl_jax.train --config configs/activitynet.py --workdir runs/activitynet \
        --config.init_from=CONVERTED_CHECKPOINT

9,509 pairs, 1,480 updates.
The paper reports 41.4 and 40.6 R@1 (text-to-video, video-to-text)
for ViT-B/32; not run here.

The reference picks its best epoch on the test split; here `prepare` holds 500 training videos out
(--validation_size).

docs/data.md says what DIR looks like.
"""

from configs import common


def get_config(variant: str | None = None):
    """The recipe; `:tiny` runs in seconds."""
    config = common.base()
    config.data.dir = "prepared/activitynet"
    config.data.augment = True
    config.batch_size = 64
    config.num_epochs = 10
    config.data.num_frames = 64
    config.data.num_words = 64
    config.model.head.queries = 12
    return common.variant_of(config, variant)
