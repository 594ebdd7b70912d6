"""A checkpoint directory, converted or trained, in a few lines of Python.

model = glscl_jax.load("runs/msrvtt")
text = model.encode_captions(["a man plays the guitar", "a dog runs on the beach"])
video = model.encode_video_files(["one.mp4", "two.mp4"])
scores = model.score(text, video)  # float32 [2,2]

What these do first can be done by itself:

tokens = model.tokenize(["a man plays the guitar", "a dog runs on the beach"])
text = model.encode_text(tokens.ids, tokens.mask)
video = model.encode_video(frames, mask)  # uint8 [B,V,H,W,3] and int32 [B,V]
scores = model.score(text, video)  # float32 [2,B]
"""

import os
import warnings
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from glscl_jax import ranges
from glscl_jax.checkpoints.model_dir import (
    LoadedModel,
    load_model,
    read_run_config,
    tokenizer_folder,
)
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.input_pipeline.tokenizer import TokenBatch
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer
from glscl_jax.input_pipeline.video_files import read_videos
from glscl_jax.models.heads.features import Features
from glscl_jax.ranges import Real, Whole
from glscl_jax.retrieval import score_blocks
from glscl_jax.retrieval.encoder_inputs import check_text, check_video
from glscl_jax.retrieval.encoding import Encoder
from glscl_jax.runtime import sharding

# Where no run says how it was trained, the reference's for short captions and videos. The LIM sees
# padding, too, so scores depend on them.
NUM_WORDS, NUM_FRAMES, FRAME_RATE = 32, 12, 1.0
# Videos, or captions, that are encoded at once.
BATCH_SIZE = 16


def load(
    directory: str | os.PathLike, *, step: int | None = None, mesh: Mesh | None = None
) -> "Retriever":
    """Reads a checkpoint directory.

    Of several processes (`jax.distributed`) each may load, encode and score what it likes, whatever
    the others do.

    Args:
      directory: a work directory of `train`, or what `convert` wrote.
      step: of a work directory; without one the best by validation R@1, else the latest.
      mesh: the devices to encode on; all of this process by default, and none of another.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
      ValueError: the mesh has devices of another process.
    """
    mesh = mesh or sharding.make_mesh(jax.local_devices())
    others = {device.process_index for device in mesh.devices.flat} - {jax.process_index()}
    if others:
        raise ValueError(
            f"the mesh has devices of process {min(others)}, this is {jax.process_index()}: each "
            "process encodes rows of its own; give sharding.make_mesh(jax.local_devices())"
        )
    return Retriever(load_model(directory, sharding.replicated(mesh), step), mesh)


class Retriever:
    """A model that encodes and scores.

    A checkpoint of CLIP alone has neither temporal module nor LIM: its frame features are CLIP's,
    its queries none (K = 0), its head the mean of the frames. That is CLIP without training, to
    compare with. Another head may take its place: `GLSCLHead()` is
    the GIM alone where there are no queries.

    Attributes:
      config: `GLSCLConfig`, of a CLIP alone with defaults for what it lacks.
      params: nested dicts of arrays on the mesh.
      step: of the run that trained it; None for a converted one.
      tokenizer: None if the directory has none.
      num_words: L, the places that `tokenize` gives a caption.
      num_frames: V, the frames that `encode_video_files` takes of a video.
      frame_rate: frames a second of which it takes them.
      head: what scores, e.g. `models.heads.glscl.GLSCLHead`.
    """

    def __init__(self, loaded: LoadedModel, mesh: Mesh):
        self.config, self.params, self.step = loaded.config, loaded.params, loaded.step
        folder = tokenizer_folder(loaded.directory)
        self.tokenizer = load_tokenizer(folder) if folder else None
        words, self.num_frames, self.frame_rate = _reading(loaded)
        clip = self.config.clip
        self.num_words = clip.fixed_length or min(words, clip.context_length)
        self._directory, self._mesh = loaded.directory, mesh
        self.head = loaded.head
        self._encoder = Encoder(loaded.model, mesh)
        self._most_frames = loaded.model.config.most_frames
        if self._most_frames is not None:
            self.num_frames = min(self.num_frames, self._most_frames)

    def tokenize(self, captions: str | Sequence[str]) -> TokenBatch:
        """A captions, or a single one (A = 1) -> ids and mask, int32 [A,num_words].

        Captions that are cut, for want of places, are counted in a warning.

        Raises:
          UserError: the checkpoint has no tokenizer.
        """
        if self.tokenizer is None:
            raise UserError(
                f"{self._directory} has no tokenizer: convert its source again with --tokenizer"
            )
        captions = [captions] if isinstance(captions, str) else list(captions)
        tokens = self.tokenizer(captions, self.num_words)
        # A row that is not full lost nothing.
        full = [text for text, all_ in zip(captions, tokens.mask.all(axis=1), strict=True) if all_]
        if cut := Cut.of(full, self.tokenizer, self.num_words).cut:
            warnings.warn(
                f"{cut} of {len(captions)} captions are cut: they have more than {self.num_words}"
                " tokens",
                stacklevel=2,
            )
        return tokens

    def encode_text(self, ids: np.ndarray, mask: np.ndarray) -> Features:
        """Texts to features, compiled once a shape.

        Args:
          ids: integers [A,L], those of the model's tokens; L at most the context length.
          mask: 0 and 1 [A,L], 1 on real tokens, at least one a text.

        Returns:
          On the host: sentence [A,D], queries float32 [A,K,D].

        Raises:
          ValueError: what is given does not fit the model.
        """
        ids, mask = check_text(ids, mask, self.config.clip)
        return self._in_whole_shares(self._encoder.text, ids, mask)

    def encode_video(self, frames: np.ndarray, mask: np.ndarray) -> Features:
        """Videos to features, compiled once a shape.

        Args:
          frames: [B,V,H,W,3], uint8 pixels or floats already normalised; H = W = the model's image
            size.
          mask: 0 and 1 [B,V], 1 on real frames, at least one a video.

        Returns:
          On the host: frames [B,V,D], mask int32 [B,V], queries float32 [B,K,D].

        Raises:
          ValueError: what is given does not fit the model.
        """
        frames, mask = check_video(frames, mask, self.config.clip.preprocessing)
        self._check_frames(mask.shape[1])
        return self._in_whole_shares(self._encoder.video, frames, mask)

    def encode_captions(
        self, captions: str | Sequence[str], *, batch_size: int = BATCH_SIZE
    ) -> Features:
        """A captions, or a single one (A = 1), to features; `tokenize` and `encode_text` in one.

        Args:
          captions: at least one.
          batch_size: that are encoded at once; of features it changes the rounding alone.

        Returns:
          On the host: sentence [A,D], queries float32 [A,K,D].

        Raises:
          UserError: the checkpoint has no tokenizer.
          ValueError: there is no caption.
        """
        tokens = self.tokenize(captions)
        return _in_batches(
            lambda part: self.encode_text(tokens.ids[part], tokens.mask[part]),
            len(tokens.ids),
            batch_size,
            "caption",
        )

    def encode_video_files(
        self,
        files: str | os.PathLike | Sequence[str | os.PathLike],
        *,
        num_frames: int | None = None,
        frame_rate: float | None = None,
        pictures_rate: float | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Features:
        """B video files, or a single one (B = 1), to features.

        The frames are those that `prepare` stores of a whole video and `evaluate` picks of them,
        but that they were never a JPEG: a pixel is off by a few of 255 there, a feature by little.
        Of a damaged file the good ones are taken, and a warning says so.

        Args:
          files: at least one; a folder of numbered pictures is a video, too.
          num_frames: V; by default that of the run's training, else 12.
          frame_rate: frames a second of which V evenly spaced ones are taken; by default that of
            the run's training, else 1.
          pictures_rate: pictures a second, where one is a folder.
          batch_size: that are held and encoded at once; of features it changes the rounding alone.

        Returns:
          On the host: frames [B,V,D], mask int32 [B,V], queries float32 [B,K,D].

        Raises:
          UserError: naming a file that cannot be read.
          ValueError: there is no file, or a number that cannot be.
        """
        files = [files] if isinstance(files, (str, os.PathLike)) else list(files)
        num_frames = self.num_frames if num_frames is None else num_frames
        frame_rate = self.frame_rate if frame_rate is None else frame_rate
        ranges.check(
            {"num_frames": num_frames, "frame_rate": frame_rate},
            {"num_frames": Whole(1), "frame_rate": Real(above=0)},
        )
        self._check_frames(num_frames)
        images = self.config.clip.preprocessing

        def encode(part: slice) -> Features:
            return self.encode_video(
                *read_videos(
                    files[part],
                    size=images.size,
                    rate=frame_rate,
                    num_frames=num_frames,
                    pictures_rate=pictures_rate,
                    resize=images.resize,
                    interpolation=images.interpolation,
                )
            )

        return _in_batches(encode, len(files), batch_size, "video file")

    def score(self, text: Features, video: Features) -> np.ndarray:
        """A texts against B videos -> float32 [A,B] on the host; higher is better."""
        return score_blocks.score_in_blocks(text, video, head=self.head)

    def _check_frames(self, count: int) -> None:
        """Raises a `ValueError` for more frames than the temporal module can place."""
        most = self._most_frames
        if most is not None and count > most:
            raise ValueError(f"{count} frames are more than the temporal module's {most} positions")

    def _in_whole_shares(self, encode, inputs: np.ndarray, mask: np.ndarray):
        """Encodes a batch of any size: filled up with its last row till the devices share it."""
        count = len(inputs)
        filled = np.minimum(np.arange(-count % self._mesh.size + count), count - 1)
        features = encode(self.params, inputs[filled], mask[filled])
        return jax.tree.map(lambda x: x[:count], features)


def _in_batches(encode, count: int, size: int, name: str):
    """Joins what `encode` makes of slices of `count` things, on the host."""
    ranges.check({"batch_size": size}, {"batch_size": Whole(1)})
    if not count:
        raise ValueError(f"there is no {name} to encode: give one or more")
    parts = [encode(slice(first, first + size)) for first in range(0, count, size)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _reading(loaded: LoadedModel) -> tuple[int, int, float]:
    """Words, frames and frame rate of a run's training; else the reference's, a CLIP's context."""
    if run := read_run_config(loaded.directory):
        data = run["data"]
        frames, rate = data.get("num_frames", NUM_FRAMES), data.get("frame_rate", FRAME_RATE)
        return data["num_words"], frames, rate
    alone = loaded.params.keys() == {"clip"}
    words = loaded.config.clip.context_length if alone else NUM_WORDS
    return words, NUM_FRAMES, FRAME_RATE
