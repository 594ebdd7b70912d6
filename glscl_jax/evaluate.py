"""Evaluates a checkpoint on a split: the recall table in both directions.

    python -m glscl_jax.evaluate --checkpoint runs/demo --config configs/demo.py

The checkpoint is a work directory of `train` (its best step by validation R@1, unless --step
says another) or what `convert` wrote. Without --config a work directory's own is used.
"""

import functools
import pathlib

from absl import flags
from ml_collections import config_flags

from glscl_jax import metrics, program, retrieval, sharding
from glscl_jax.checkpoint import LoadedModel, load_model
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import builder, pipeline
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.glscl import GLSCL
from glscl_jax.workdir import Workdir, write_json

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A directory that train or convert wrote.")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Where the data is and how it is read; the work directory's own by default."
)
SPLIT = flags.DEFINE_string("split", None, "The split; config.data.test_split by default.")
STEP = flags.DEFINE_integer("step", None, "A step of the work directory, instead of the best.")
OUT = flags.DEFINE_string("out", None, "Where results.json goes; into the checkpoint by default.")


def main(_):
    mesh = sharding.make_mesh()
    loaded = load_model(CHECKPOINT.value, sharding.replicated(mesh), STEP.value)
    if "lim" not in loaded.params:
        raise UserError(
            f"{loaded.directory} holds CLIP alone: train from it (config.init_from), or score "
            "with it in Python (glscl_jax.load)"
        )
    config = CONFIG.value or Workdir(loaded.directory).config()
    sharding.check_batch_size(config.eval_batch_size, mesh, "eval_batch_size")
    split = SPLIT.value or config.data.test_split

    data = builder.open_data(config.data.dir)
    image_size = loaded.config.clip.image_size
    pipeline.check_settings(data, frame_rate=config.data.frame_rate, image_size=image_size)
    result = evaluate(config, loaded, data, split, mesh)

    at = "converted" if loaded.step is None else f"step {loaded.step}"
    print(f"\n{loaded.directory.name} ({at}) on {split}: {data.splits[split]} videos")
    print(metrics.table(result))
    out = pathlib.Path(OUT.value or loaded.directory) / "results.json"
    write_json(out, results(result, loaded, config, split, data))
    print(f"written to {out}")


def evaluate(config, loaded: LoadedModel, data, split: str, mesh) -> metrics.Retrieval:
    """Encodes every video and caption of a split once, scores all pairs, ranks them."""
    model = GLSCL(loaded.config)
    batches = pipeline.eval_batches(
        data, split, batch_size=config.eval_batch_size, num_frames=config.data.num_frames
    )
    tokenizer = Tokenizer.load(loaded.directory / "tokenizer")
    encoded = retrieval.encode_split(
        retrieval.Encoder(model, mesh),
        loaded.params,
        batches,
        functools.partial(tokenizer, length=config.data.num_words),
        batch_size=config.eval_batch_size,
        total=data.splits[split],
    )
    return retrieval.rank_split(encoded, model)


def results(result: metrics.Retrieval, loaded: LoadedModel, config, split: str, data) -> dict:
    """What results.json holds."""
    return {
        "checkpoint": loaded.directory.name,
        "step": loaded.step,
        "split": split,
        "videos": data.splits[split],
        "frames": config.data.num_frames,
        "words": config.data.num_words,
        "tie_rule": "mean",
        **metrics.summary(result),
    }


if __name__ == "__main__":
    flags.mark_flag_as_required("checkpoint")
    program.run(main)
