"""Features of a split, and a directory that keeps them: for reuse, and to resume an encode.

identity.json      what the features are of: checkpoint, data, sizes
video-00000.npz    a batch of videos: features, clip ids, captions
text-00000.npz     a batch of captions, in the order of the videos
complete.json      how many there are of each; written last

A file appears whole or not at all, so an interrupted encode goes on after those that are there.
"""

import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.files import PART, read_json, unfinished, write_json
from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import Head
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.array_files import DAMAGE, Arrays, read_arrays, write_arrays

KINDS = ("video", "text")
IDENTITY, _COMPLETE = "identity.json", "complete.json"


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """Features of a split, on the host.

    Attributes:
      text: of A captions, as a head makes them.
      video: of B videos.
      owner: int [A], the video each caption describes.
      captions: A strings.
      clip_ids: B strings.
      frames_decoded: real frames that went through the encoder, over all videos.
      seconds: time spent encoding, "video" and "text", waiting for input included; nothing for
        features that were read.
    """

    text: Features
    video: Features
    owner: np.ndarray
    captions: list[str]
    clip_ids: list[str]
    frames_decoded: int
    seconds: dict[str, float]


class Store:
    """The features that a directory keeps, batch by batch."""

    def __init__(self, directory: pathlib.Path, again: str = ""):
        """Opens nothing yet.

        Args:
          directory: where it is.
          again: how a damaged one comes to be whole; by default it is removed and encoded again.
        """
        self.directory = directory
        self._again = again or f"remove {directory} to encode again"

    @classmethod
    def open(cls, directory: str | os.PathLike, *, identity: dict) -> "Store":
        """Opens a directory, which is made if it is not there.

        Args:
          directory: with nothing in it, or features of the same identity.
          identity: JSON values that tell these features from any others.

        Raises:
          UserError: the directory holds features of another identity (the message names what
            differs) or something else, or cannot be written.
        """
        store = cls(pathlib.Path(directory).absolute())
        path = store.directory / IDENTITY
        try:
            store.directory.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _check_same(read_json(path), identity, store.directory)
            elif any(x.suffix != PART for x in store.directory.iterdir()):
                raise UserError(f"{store.directory} holds something else: give an empty directory")
            else:
                write_json(path, identity)
        except OSError as error:
            raise UserError(f"{store.directory}: {error.strerror}") from error
        return store

    def count(self, kind: str) -> int:
        """How many batches of a kind are kept, up to the first that is not."""
        number = 0
        while self._path(kind, number).exists():
            number += 1
        return number

    @property
    def done(self) -> int:
        """How many batches of videos are kept."""
        return self.count("video")

    @property
    def complete(self) -> bool:
        """Whether `finish` was called: every video and every caption is kept."""
        return (self.directory / _COMPLETE).exists()

    def counts(self) -> dict[str, int]:
        """How many batches of each kind there are in all, once they are complete.

        Raises:
          UserError: the file that says so is damaged, or says no numbers.
        """
        path = self.directory / _COMPLETE
        found = read_json(path)
        for kind in KINDS:
            if type(found.get(kind)) is not int or found[kind] < 0:
                raise UserError(
                    f"{path}: {kind!r} is {found.get(kind)!r}, which is no number of files: "
                    f"{self._again}"
                )
        return found

    def put(self, kind: str, number: int, arrays: Arrays) -> None:
        """Keeps a batch; raises a `UserError` where it cannot be written (a full disk, say)."""
        path = self._path(kind, number)
        try:
            with unfinished(path) as part, part.open("wb") as file:
                write_arrays(file, arrays)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}): make room and start again to go on "
                "after the batches that are kept"
            ) from error

    def get(self, kind: str, number: int) -> Arrays:
        """A batch as it was put; raises a `UserError` if it is gone or damaged."""
        path = self._path(kind, number)
        try:
            return read_arrays(path)
        except (OSError, *DAMAGE) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path} is gone or damaged ({reason}): {self._again}") from error

    def finish(self) -> None:
        """Says that all is kept."""
        try:
            write_json(self.directory / _COMPLETE, {kind: self.count(kind) for kind in KINDS})
        except OSError as error:
            raise UserError(f"{self.directory / _COMPLETE}: {error.strerror}") from error

    def _path(self, kind: str, number: int) -> pathlib.Path:
        return self.directory / f"{kind}-{number:05}.npz"


class Gathering:
    """Batches on their way to an `EncodedSplit`, as `Store` keeps them."""

    def __init__(self, head: Head):
        self._head = head
        self._videos, self._texts = [], []
        self._texts_added = 0
        self._owner: list[int] = []
        self.captions: list[str] = []
        self.clip_ids: list[str] = []

    def add_videos(self, arrays: Arrays) -> None:
        """Takes a batch that `video_arrays` made; raises a `UserError` if it is not finite."""
        found = _features(self._head.video_features, arrays)
        clips = json.loads(bytes(arrays["clips"]))
        clip_ids = [clip_id for clip_id, _ in clips]
        for array in _floating(found):
            metrics.check_finite("video features", array, clip_ids)
        for number, (_, captions) in enumerate(clips, len(self.clip_ids)):
            self._owner += [number] * len(captions)
            self.captions += captions
        self.clip_ids += clip_ids
        self._videos.append(found)

    def add_texts(self, arrays: Arrays) -> None:
        """Takes a batch that `text_arrays` made, of the next captions; raises as `add_videos`."""
        found, start = _features(self._head.text_features, arrays), self._texts_added
        self._texts_added += count_of(found)
        for array in _floating(found):
            metrics.check_finite("text features", array, self.captions[start : self._texts_added])
        self._texts.append(found)

    def encoded(self, seconds: dict[str, float]) -> EncodedSplit:
        """All that was added; raises a `UserError` where videos or captions are missing."""
        if not self.captions:
            raise UserError("the split has no captions, so there is nothing to rank")
        text, video = _joined(self._texts), _joined(self._videos)
        texts, videos = count_of(text), count_of(video)
        if texts != len(self.captions) or videos != len(self.clip_ids):
            raise UserError(
                f"features of {texts} captions and {videos} videos, but "
                f"there are {len(self.captions)} and {len(self.clip_ids)}: encode again"
            )
        frames = int(np.sum(video.mask))
        return EncodedSplit(
            text, video, np.array(self._owner), self.captions, self.clip_ids, frames, seconds
        )


def video_arrays(features: Features, clip_ids: list[str], captions: list[list[str]]) -> Arrays:
    """A batch of videos to keep: features, and who they are."""
    told = json.dumps(list(zip(clip_ids, captions, strict=True))).encode()
    return {**vars(features), "clips": np.frombuffer(told, np.uint8)}


def text_arrays(features: Features) -> Arrays:
    """A batch of captions to keep."""
    return dict(vars(features))


def load_features(directory: str | os.PathLike, head: Head | None = None) -> EncodedSplit:
    """Reads complete features; no video is decoded.

    Args:
      directory: where an evaluation kept them.
      head: which made them; by default GLSCL's.

    Raises:
      UserError: they are not complete, gone or damaged.
    """
    store = Store(pathlib.Path(directory).absolute())
    if not store.complete:
        raise UserError(
            f"{store.directory} holds no complete features: run the same evaluation again to "
            "finish them"
        )
    kept = store.counts()
    gathering = Gathering(head or GLSCLHead())
    for number in range(kept["video"]):
        gathering.add_videos(store.get("video", number))
    for number in range(kept["text"]):
        gathering.add_texts(store.get("text", number))
    return gathering.encoded({})


def _check_same(kept: dict, asked: dict, directory: pathlib.Path) -> None:
    asked = json.loads(json.dumps(asked))
    differing = [
        f"{key} ({_shown(kept.get(key))}, now {_shown(asked.get(key))})"
        for key in sorted(kept.keys() | asked.keys())
        if kept.get(key) != asked.get(key)
    ]
    if differing:
        raise UserError(
            f"{directory} holds features of another {', another '.join(differing)}: give another "
            "directory, or remove that one"
        )


def _shown(value) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."


def _features(kind, arrays: Arrays):
    return kind(**{field.name: arrays[field.name] for field in dataclasses.fields(kind)})


def _floating(features) -> list[np.ndarray]:
    """The arrays of numbers that can be infinite or none."""
    return [x for x in jax.tree.leaves(features) if jnp.issubdtype(x.dtype, jnp.floating)]


def _joined(parts: list):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
