"""VATEX: every English caption is a query, every video has ten.

    python -m glscl_jax.input_pipeline.prepare --dataset vatex --source DIR \
        --data_dir prepared/vatex
    python -m glscl_jax.train --config configs/vatex.py --workdir runs/vatex \
        --config.init_from=CONVERTED_CHECKPOINT

259,910 pairs, 10,150 updates.
The paper has no figures of VATEX and the released code no script for it. The recipe is the paper's
base recipe, as MSVD's is, which has several captions a video, too; batch, epochs, words and frames
are also those of the VATEX script of TS2-Net (Liu et al. 2022), a model on the same towers. Nothing
of it was run here.

docs/data.md says what DIR looks like.
"""

from configs import common


def get_config(variant: str | None = None):
    """The recipe; `:tiny` runs in seconds."""
    config = common.base()
    config.data.dir = "prepared/vatex"
    config.data.augment = True
    return common.variant_of(config, variant)
