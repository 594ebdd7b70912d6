"""The demo's clips and captions in one file that needs NumPy and Pillow alone to be read.

    python -m benchmarks.lim_study.clips --data_dir demo/data --to demo/clips.npz

writes it, where TensorFlow is. Frames and tokens are those that the training's own pipeline gives.
"""

import dataclasses
import io
import pathlib
from collections.abc import Mapping

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.lim_study import recipe

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Clips:
    """A split: N clips, each with one caption.

    Attributes:
      frames: uint8 [N,V,S,S,3].
      frame_mask: int32 [N,V], 1 on real frames.
      text_ids, text_mask: int32 [N,L].
    """

    frames: np.ndarray
    frame_mask: np.ndarray
    text_ids: np.ndarray
    text_mask: np.ndarray

    def first(self, count: int) -> "Clips":
        """The first `count` clips."""
        return Clips(*(array[:count] for array in vars(self).values()))


def read_clips(path: str | pathlib.Path) -> dict[str, Clips]:
    """The splits of a file that `export` wrote."""
    with np.load(path) as file:
        return {split: _unpacked(file, split) for split in SPLITS}


def _unpacked(file: Mapping[str, np.ndarray], split: str) -> Clips:
    counts, sizes = file[f"{split}/counts"], file[f"{split}/sizes"]
    stored = file[f"{split}/frames"].tobytes()
    ends = np.cumsum(sizes)
    pictures = [_decoded(stored[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    mask = np.arange(recipe.NUM_FRAMES) < counts[:, None]
    frames = np.zeros((*mask.shape, *pictures[0].shape), np.uint8)
    frames[mask] = pictures
    texts = (file[f"{split}/{name}"] for name in ("text_ids", "text_mask"))
    return Clips(frames, mask.astype(np.int32), *texts)


def _decoded(jpeg: bytes) -> np.ndarray:
    """uint8 [S,S,3]: Pillow's decoder and the pipeline's are equal bit for bit."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def export(data_dir: str | pathlib.Path, path: str | pathlib.Path) -> None:
    """Writes the splits of a prepared demo, frames as they are stored; needs TensorFlow."""
    from glscl_jax.input_pipeline.prepared_data import open_data
    from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer

    data = open_data(data_dir)
    tokenizer = read_tokenizer("demo", recipe.MODEL.clip.tokenizer)
    arrays = {
        f"{split}/{name}": array
        for split in SPLITS
        for name, array in _packed(data, split, tokenizer).items()
    }
    # JPEG headers are alike: packed, the file is half as large.
    np.savez_compressed(path, **arrays)


def _packed(data, split: str, tokenizer) -> dict[str, np.ndarray]:
    clips, captions = [], []
    with data.records(split) as records:
        for record in records.read(range(len(records))):
            fields = data.features.deserialize_example(record)
            clips.append(list(fields["frames"].numpy()))
            captions.append([caption.decode() for caption in fields["captions"].numpy()])
    if {len(of_clip) for of_clip in captions} != {1}:
        raise ValueError(f"split {split}: a clip of the demo has one caption, and these have more")
    if max(map(len, clips)) > recipe.NUM_FRAMES:
        raise ValueError(f"split {split}: a clip of the demo has {recipe.NUM_FRAMES} frames")
    jpegs = [jpeg for of_clip in clips for jpeg in of_clip]
    tokens = tokenizer([of_clip[0] for of_clip in captions], recipe.NUM_WORDS)
    return {
        "frames": np.frombuffer(b"".join(jpegs), np.uint8),
        "sizes": np.array([len(jpeg) for jpeg in jpegs]),
        "counts": np.array([len(of_clip) for of_clip in clips]),
        "text_ids": tokens.ids,
        "text_mask": tokens.mask,
    }


def main(_) -> None:
    values = flags.FLAGS
    export(values.data_dir, values.to)
    print(f"{values.to}: {pathlib.Path(values.to).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "demo/data", "The demo, prepared.")
    flags.DEFINE_string("to", "demo/clips.npz", "What to write.")
    app.run(main)
