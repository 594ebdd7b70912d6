"""Your own videos, prepared from a folder with a captions.csv.

    python -m glscl_jax.input_pipeline.prepare --source videos --data_dir prepared
    python -m glscl_jax.train --config configs/folder.py --workdir runs/mine \
        --config.data.dir=prepared --config.init_from=CONVERTED_CHECKPOINT

The paper's base recipe, without RandAugment, which turns and inverts pictures
(--config.data.augment=True for it); start from a converted CLIP, since a few thousand videos do not
teach one.
"""

from configs import common


def get_config(variant: str | None = None):
    """The recipe; `:tiny` runs in seconds."""
    return common.variant_of(common.base(), variant)
