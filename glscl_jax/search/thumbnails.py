"""Small pictures of the frames of an index's videos."""

import io
import os
import pathlib
import threading

from PIL import Image

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.decoding.video import VideoError, read_frames

SIZE = 224
_QUALITY = 85
# Pictures that are kept, of some kB each.
_KEPT = 2000


class Thumbnails:
    """Decodes pictures and keeps the newest; so many at once as there are cores."""

    def __init__(self, pictures_rate: float | None):
        self._rate = pictures_rate
        self._kept: dict[tuple, bytes] = {}
        self._lock = threading.Lock()
        self._free = threading.Semaphore(os.cpu_count() or 1)

    def jpeg(self, path: pathlib.Path, time: float) -> bytes:
        """The picture that is on the screen at some second of a video.

        Raises:
          UserError: it cannot be read.
        """
        key = (path, round(time, 3))
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        with self._free:
            made = self._read(path, time)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return made

    def _read(self, path: pathlib.Path, time: float) -> bytes:
        try:
            found = read_frames(
                path, size=SIZE, start=max(time, 0.0), end=time, pictures_rate=self._rate
            )
        except VideoError as error:
            raise UserError(f"{path.name}: {error}") from error
        encoded = io.BytesIO()
        Image.fromarray(found.images[0]).save(encoded, "JPEG", quality=_QUALITY)
        return encoded.getvalue()
