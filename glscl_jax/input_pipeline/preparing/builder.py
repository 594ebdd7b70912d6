"""Writes the TFDS data set `clips`: every clip's frames, decoded once and stored as JPEG.

`prepared_data.open_data` opens one for reading.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import writer

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import annotations
from glscl_jax.input_pipeline import data_dir as folders
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.decoding.video import Frames
from glscl_jax.input_pipeline.prepared_data import SETTINGS_FILE, Settings

_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


# A split's (clip id, `example`) pairs, or a Beam transform that makes them.
Examples = Any


def annotations_digest(clips: Iterable[Clip]) -> str:
    """SHA-256 of all that the annotations say, wherever their folder lies."""
    told = sorted(
        (clip.clip_id, clip.split, clip.captions, str(clip.start), str(clip.end)) for clip in clips
    )
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class Clips(tfds.core.GeneratorBasedBuilder):
    """One record a clip. TFDS orders a split by a hash of the clips' ids.

    `frames` are JPEG bytes in a text feature: TFDS's own image sequences cannot be read undecoded
    by random access.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in annotations.READERS]  # noqa: RUF012
    # Nothing is downloaded. TFDS would look for checksums beside this file, with a package that
    # it does not install (importlib_resources).
    url_infos = None

    def __init__(
        self,
        *,
        data_dir: pathlib.Path,
        settings: Settings,
        examples: dict[str, Examples],
    ):
        """Takes each split's (clip id, example) pairs; they are read once, split after split."""
        self._settings = settings
        self._examples = examples
        super().__init__(data_dir=data_dir, config=settings.dataset, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description="Video clips with captions; frames at a fixed rate as JPEG.",
            features=tfds.features.FeaturesDict(
                {
                    "clip_id": text,
                    "video": text,
                    "captions": tfds.features.Sequence(text),
                    "frames": tfds.features.Sequence(text),
                    "frame_times": tfds.features.Sequence(np.float32),
                }
            ),
            metadata=tfds.core.MetadataDict(self._settings.metadata()),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return self._examples

    # TFDS wants it of every builder, and would call it in `_split_generators`.
    def _generate_examples(self):
        raise NotImplementedError("the examples are given to the constructor")

    def _example_writer(self) -> writer.ExampleWriter:
        return _SameBytes(self.info.file_format)

    # TFDS prints here that it downloads, which it does not.
    def _log_download_bytes(self):
        pass

    def _log_download_done(self):
        pass


class _SameBytes(writer.ExampleWriter):
    """Writes equal records as equal bytes: protobuf orders a record's fields anew every run."""

    def write(self, path, examples):
        def same(record: bytes) -> bytes:
            return tf.train.Example.FromString(record).SerializeToString(deterministic=True)

        return super().write(path, ((key, same(record)) for key, record in examples))


def example(clip: Clip, frames: Frames, source: pathlib.Path, settings: Settings) -> dict:
    """A clip's record as `Clips` takes it; `video` is the path relative to `source`."""
    images = [jpeg(image, settings.jpeg_quality) for image in frames.images]
    return record(clip, images, frames.times.astype(np.float32), source)


def record(clip: Clip, frames: list[bytes], times: np.ndarray, source: pathlib.Path) -> dict:
    """As `example`, of frames that are JPEG already; `times` is float32 [V], in seconds."""
    relative = clip.video.relative_to(source)
    return {
        "clip_id": clip.clip_id,
        # A path need not be UTF-8, a record's text is.
        "video": os.fsencode(relative.as_posix()).decode(errors="backslashreplace"),
        "captions": list(clip.captions),
        "frames": frames,
        "frame_times": times,
    }


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """A frame, uint8 [H,W,3], as it is stored."""
    buffer = io.BytesIO()
    # Full chroma (4:4:4): at half resolution small coloured things bleed.
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


@contextlib.contextmanager
def written(
    examples: dict[str, Examples],
    data_dir: pathlib.Path,
    settings: Settings,
    engine: dict | None = None,
) -> Iterator[Callable[[str], None]]:
    """Writes a data set aside; puts it in place when the body ends well, else discards it.

    So a data set is there whole or not at all, and one that was there stays until then. What it
    yields stores a note on what is missing (`Settings.partial`).

    Args:
      examples: each split's (clip id, `example`) pairs.
      data_dir: the data directory, which exists.
      settings: stored with the data set.
      engine: what TFDS is to be told of Apache Beam, if that makes the examples.

    Raises:
      UserError: it cannot be written, on a full disk for one.
    """
    # What a run that was killed had begun.
    folders.finish(data_dir)
    folders.discard_unfinished(data_dir)
    try:
        staging = data_dir / folders.STAGING
        maker = Clips(data_dir=staging, settings=settings, examples=examples)
        tfds.disable_progress_bar()
        maker.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False, **(engine or {}))
        )
        made = pathlib.Path(maker.data_dir)

        def note(partial: str) -> None:
            noted = dataclasses.replace(settings, partial=partial)
            (made / SETTINGS_FILE).write_text(json.dumps(noted.metadata()), encoding="utf-8")

        yield note
        folders.put_in_place(data_dir)
    except Exception as error:
        # What writes records raises a RuntimeError that quotes the system.
        full = [reason for reason in _FULL if reason in str(error)]
        if not full:
            raise
        raise UserError(f"{data_dir}: {full[0]}: nothing was made; make room") from error
    finally:
        folders.discard_unfinished(data_dir)
