"""From a prepared data set through tf.data to arrays on the device: `FOLDER BATCH STEPS`."""

import pathlib
import sys

import jax
import numpy as np

from benchmarks.inputs import figures
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.clip_tokenizer import DEMO_MERGES, CLIPTokenizer
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.runtime import sharding


def batches(folder: pathlib.Path, batch_size: int, num_steps: int):
    """Yields (clips, real frames) of each batch once it is on the device."""
    mesh = sharding.make_mesh()
    reader = pipeline.train_batches(
        open_data(folder),
        "train",
        CLIPTokenizer.from_merges(DEMO_MERGES),
        batch_size=batch_size,
        num_frames=figures.NUM_FRAMES,
        num_words=32,
        seed=0,
        first_step=0,
        num_steps=num_steps,
    )
    for batch in reader:
        placed = jax.block_until_ready(sharding.put_batch(batch, mesh))
        counts = len(batch["frames"]), int(np.sum(placed["frame_mask"]))
        # As after a step: or the next batch would be read beside two copies of this one.
        del batch, placed
        yield counts


if __name__ == "__main__":
    folder, batch_size, num_steps = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    figures.measure(batches(folder, batch_size, num_steps)).print_json()
