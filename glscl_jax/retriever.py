"""A checkpoint directory, converted or trained, in a few lines of Python.

model = glscl_jax.load("runs/msrvtt")
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

from glscl_jax.checkpoints.model_dir import LoadedModel, load_model
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.input_pipeline.tokenizer import TokenBatch, Tokenizer
from glscl_jax.models.heads.features import Features
from glscl_jax.retrieval import score_blocks
from glscl_jax.retrieval.encoder_inputs import checked_text, checked_video
from glscl_jax.retrieval.encoding import Encoder
from glscl_jax.runtime import sharding

# The LIM sees padding, too, so scores depend on it: the reference's for short captions.
NUM_WORDS = 32


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
      head: what scores, e.g. `models.heads.glscl.GLSCLHead`.
    """

    def __init__(self, loaded: LoadedModel, mesh: Mesh):
        self.config, self.params, self.step = loaded.config, loaded.params, loaded.step
        folder = loaded.directory / "tokenizer"
        self.tokenizer = Tokenizer.load(folder) if folder.is_dir() else None
        self.num_words = min(_words_of(loaded), self.config.clip.context_length)
        self._directory, self._mesh = loaded.directory, mesh
        self.head = loaded.head
        self._encoder = Encoder(loaded.model, mesh)
        self._most_frames = loaded.model.config.most_frames

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
        full = [text for text, last in zip(captions, tokens.mask[:, -1], strict=True) if last]
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
        ids, mask = checked_text(ids, mask, self.config.clip)
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
        frames, mask = checked_video(frames, mask, self.config.clip.preprocessing)
        most = self._most_frames
        if most is not None and mask.shape[1] > most:
            raise ValueError(
                f"{mask.shape[1]} frames are more than the temporal module's {most} positions"
            )
        return self._in_whole_shares(self._encoder.video, frames, mask)

    def score(self, text: Features, video: Features) -> np.ndarray:
        """A texts against B videos -> float32 [A,B] on the host; higher is better."""
        return score_blocks.score_in_blocks(text, video, head=self.head)

    def _in_whole_shares(self, encode, inputs: np.ndarray, mask: np.ndarray):
        """Encodes a batch of any size: filled up with its last row till the devices share it."""
        count = len(inputs)
        filled = np.minimum(np.arange(-count % self._mesh.size + count), count - 1)
        features = encode(self.params, inputs[filled], mask[filled])
        return jax.tree.map(lambda x: x[:count], features)


def _words_of(loaded: LoadedModel) -> int:
    """The length that a run was trained with; else CLIP's context, of a GLSCL the reference's."""
    if (loaded.directory / "config.json").exists():
        return Workdir(loaded.directory).config().data.num_words
    return loaded.config.clip.context_length if loaded.params.keys() == {"clip"} else NUM_WORDS
