"""A prepared split's clips one after the other, for whoever decodes some of them alone.

`pipeline` reads all frames of all clips, by tf.data and in batches.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from glscl_jax.input_pipeline.prepared_data import PreparedData

# Records that are in memory at once.
_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class PreparedClip:
    """A record.

    Attributes:
      clip_id: its name.
      video: the path of its video, in the folder that it was prepared of.
      captions: at least one.
      jpegs: its frames as they are stored.
      times: float32, of each frame, in seconds from the clip's start.
    """

    clip_id: str
    video: str
    captions: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    times: np.ndarray

    def frames(self, places: np.ndarray) -> np.ndarray:
        """Some of its frames, uint8 [V,S,S,3]; the pixels that `pipeline` reads.

        Raises:
          OSError: a frame is damaged.
        """
        return np.stack([np.asarray(Image.open(io.BytesIO(self.jpegs[n]))) for n in places])

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(map(len, self.jpegs))

    def sha256(self) -> str:
        """Of all frames."""
        digest = hashlib.sha256()
        for jpeg in self.jpegs:
            digest.update(hashlib.sha256(jpeg).digest())
        return digest.hexdigest()


def clips(data: PreparedData, split: str) -> Iterator[PreparedClip]:
    """All of a split, in the order of its records.

    Raises:
      UserError: there is no such split, or a record cannot be read.
    """
    with data.records(split) as records:
        for first in range(0, len(records), _AT_ONCE):
            places = range(first, min(first + _AT_ONCE, len(records)))
            yield from map(_clip, records.read(places))


def _clip(record: bytes) -> PreparedClip:
    fields = tf.train.Example.FromString(record).features.feature
    (clip_id,), (video,) = (fields[name].bytes_list.value for name in ("clip_id", "video"))
    captions = (text.decode() for text in fields["captions"].bytes_list.value)
    times = np.array(fields["frame_times"].float_list.value, np.float32)
    jpegs = tuple(fields["frames"].bytes_list.value)
    return PreparedClip(clip_id.decode(), video.decode(), tuple(captions), jpegs, times)
