"""DiDeMo: a paragraph of all descriptions finds its video, 64 words and 64 frames.

    python -m glscl_jax.input_pipeline.prepare --dataset didemo --source DIR \
        --data_dir prepared/didemo
    python -m glscl_jax.train --config configs/didemo.py --workdir runs/didemo \
        --config.init_from=CONVERTED_CHECKPOINT

Some 8,400 pairs, 1,310 updates.
The paper reports 46.7 and 45.9 R@1 (text-to-video, video-to-text)
for ViT-B/32; not run here.

docs/data.md says what DIR looks like.
"""

from configs import common


def get_config(variant: str | None = None):
    """The recipe; `:tiny` runs in seconds."""
    config = common.base()
    config.data.dir = "prepared/didemo"
    config.data.augment = True
    config.batch_size = 32
    config.data.num_frames = 64
    config.data.num_words = 64
    return common.variant_of(config, variant)
