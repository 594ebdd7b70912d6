"""Decoded clips as files, so that a run that ends early is gone on with, not begun anew.

A clip's work item is named by all that decides its frames: the video (path, size, time of change),
the segment, how it is decoded and with which libraries. Of each there is

    NAME.npz     the frames as JPEG and their times; written whole or not at all
    NAME.fault   why frames are missing; without the .npz, why there are none

in a folder that every process that decodes has under one path. To do an item twice, or in two
places at once, does no harm.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence

import av
import numpy as np
import PIL

from glscl_jax.files import unfinished
from glscl_jax.input_pipeline.annotations import Clip
from glscl_jax.input_pipeline.decoding import video
from glscl_jax.input_pipeline.prepared_data import Settings
from glscl_jax.input_pipeline.preparing import builder
from glscl_jax.input_pipeline.preparing.checkup import Failure

_FORMAT = 3  # Raised when what decoding gives changes, or how it is stored.
_RECORD_BYTES = 19 * 10**8  # Protobuf's bound is 2 GiB, of which the rest needs little.
_FRAMES, _FAULT = ".npz", ".fault"


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What came of a clip.

    Attributes:
      example: as `builder.Clips` takes it; None if there is no frame.
      fault: why it is None or lacks frames; "" if all is well.
    """

    example: dict | None
    fault: str


@dataclasses.dataclass(frozen=True)
class Lost:
    """What the records do not hold, in the order of the clips.

    Attributes:
      failed: clips of which there is no frame.
      damaged: clips that are there with the frames that are good.
      undone: clips that nobody has decoded.
    """

    failed: tuple[Failure, ...] = ()
    damaged: tuple[Failure, ...] = ()
    undone: tuple[Clip, ...] = ()


@dataclasses.dataclass(frozen=True)
class DecodeCache:
    """The folder of decoded clips, and how they are decoded; can be sent to another process.

    Attributes:
      directory: where the files are.
      videos: the folder that holds the clips' videos.
      settings: how to decode.
    """

    directory: pathlib.Path
    videos: pathlib.Path
    settings: Settings

    def absolute(self) -> "DecodeCache":
        """The same for a process that runs elsewhere in the file system."""
        return DecodeCache(self.directory.absolute(), self.videos.absolute(), self.settings)

    def start(self, clips: Sequence[Clip]) -> frozenset[str]:
        """Makes the folder, or clears it of what is not of these clips.

        What failed is tried again: the reason may have been a disk that was away.

        Returns:
          the ids of the clips that are decoded already.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        names = {clip.clip_id: self._name(clip) for clip in clips}
        wanted, (there, _) = set(names.values()), self._listed()
        for path in self.directory.iterdir():
            if path.stem not in wanted or path.stem not in there:
                path.unlink(missing_ok=True)
        return frozenset(clip_id for clip_id, name in names.items() if name in there)

    def finished(self) -> int:
        """How many work items are done, well or ill."""
        there, faulty = self._listed()
        return len(there | faulty)

    def decode(self, clip: Clip) -> Decoded:
        """A clip's frames from its file; without one, decodes the clip and writes the file.

        Raises:
          OSError: the file cannot be written, on a full disk for one.
        """
        path = self._path(clip, _FRAMES)
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return self._read(clip, path)
        try:
            frames = video.read_frames(
                clip.video,
                size=self.settings.image_size,
                rate=self.settings.frame_rate,
                start=clip.start,
                end=clip.end,
                stored_pixels=self.settings.stored_pixels,
                pictures_rate=self.settings.pictures_rate,
                resize=self.settings.resize,
                interpolation=self.settings.interpolation,
                keep=_Encoder(self.settings.jpeg_quality),
            )
            times = frames.times.astype(np.float32)
            example = builder.record(clip, frames.images, times, self.videos)
            if frames.fault:
                self._note(clip, frames.fault)
            # The last: with it the item is done.
            self._keep(path, lambda file: _write(file, example))
        except (video.VideoError, MemoryError) as error:
            fault = str(error) or "there is not the memory for its frames"
            self._note(clip, fault)
            return Decoded(None, fault)
        return Decoded(example, frames.fault or "")

    def lost(self, clips: Iterable[Clip]) -> Lost:
        """What the files say of clips that were to be decoded."""
        there, faulty = self._listed()
        failed, damaged, undone = [], [], []
        for clip in clips:
            name = self._name(clip)
            if name in faulty:
                failure = Failure(clip, self._path(clip, _FAULT).read_text(encoding="utf-8"))
                (damaged if name in there else failed).append(failure)
            elif name not in there:
                undone.append(clip)
        return Lost(tuple(failed), tuple(damaged), tuple(undone))

    def clear(self) -> None:
        """Takes all of it away, and the folder around it where that holds nothing else."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.directory.parent.rmdir()

    def _listed(self) -> tuple[set[str], set[str]]:
        """The names of the work items that have frames, and of those that have a fault."""
        names = collections.defaultdict(set)
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                names[path.suffix].add(path.stem)
        return names[_FRAMES], names[_FAULT]

    def _path(self, clip: Clip, suffix: str) -> pathlib.Path:
        return self.directory / f"{self._name(clip)}{suffix}"

    def _name(self, clip: Clip) -> str:
        told = [
            _FORMAT,
            (av.__version__, PIL.__version__, np.__version__),
            clip.clip_id,
            clip.video.relative_to(self.videos).as_posix(),
            (clip.start, clip.end),
            (self.settings.frame_rate, self.settings.image_size, self.settings.jpeg_quality),
            (self.settings.stored_pixels, self.settings.pictures_rate),
            (self.settings.resize, self.settings.interpolation),
            _state(clip.video),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _read(self, clip: Clip, path: pathlib.Path) -> Decoded:
        with np.load(path, allow_pickle=False) as stored:
            ends = np.cumsum(stored["lengths"])
            frames = [part.tobytes() for part in np.split(stored["frames"], ends[:-1])]
            example = builder.record(clip, frames, stored["times"], self.videos)
        fault = path.with_suffix(_FAULT)
        return Decoded(example, fault.read_text(encoding="utf-8") if fault.exists() else "")

    def _note(self, clip: Clip, fault: str) -> None:
        self._keep(self._path(clip, _FAULT), lambda file: file.write(fault.encode()))

    def _keep(self, path: pathlib.Path, write: Callable) -> None:
        """Writes a file beside its place and moves it there."""
        with unfinished(path, many_writers=True) as part, part.open("wb") as file:
            write(file)


def _state(video: pathlib.Path) -> list | None:
    """What changes with a file, or with any picture of a folder; None if neither can be read."""
    with contextlib.suppress(OSError):
        if not video.is_dir():
            return _size_and_time(video.stat())
        with os.scandir(video) as entries:
            return sorted([entry.name, *_size_and_time(entry.stat())] for entry in entries)
    return None


def _size_and_time(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns]


class _Encoder:
    """Frames to JPEG, one by one, so that none waits as it was decoded."""

    def __init__(self, quality: int):
        self._quality, self._bytes = quality, 0

    def __call__(self, image: np.ndarray) -> bytes:
        encoded = builder.jpeg(image, self._quality)
        self._bytes += len(encoded)
        if self._bytes > _RECORD_BYTES:
            raise video.VideoError(
                "its frames are more than a record of 2 GB holds: cut it with start and end, or"
                " lower --frame_rate"
            )
        return encoded


def _write(file, example: dict) -> None:
    frames = example["frames"]
    np.savez(
        file,
        frames=np.frombuffer(b"".join(frames), np.uint8),
        lengths=np.array([len(frame) for frame in frames]),
        times=example["frame_times"],
    )
