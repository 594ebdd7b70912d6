"""What encoders made of a split, before any module of frames and any head: kept, and read.

DIR/SPLIT/identity.json     whose features they are; "encoder" at least, or "checkpoint"
DIR/SPLIT/video-00000.npz   ids [n] (text), frames [n,V,D], lengths int [n]
DIR/SPLIT/text-00000.npz    ids [n] (text), sentence [n,D], tokens [n,L,D], lengths int [n],
                            captions [n] (text)
DIR/SPLIT/complete.json     {"video": 3, "text": 12}: how many files there are of each

`ids` are the videos' in one, and in the other those of the videos that the texts describe, in any
order. `lengths` are the frames and tokens that are real: the first so many. Features are float16,
float32, or bfloat16 as uint16 under the name "frames:bfloat16". Without "tokens" and "captions"
files are good as well; a head that reads tokens says that they are missing. docs/heads.md has more.
"""

import dataclasses
import functools
import json
import os
import pathlib
import zlib

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.files import read_json
from glscl_jax.retrieval import tower_arrays
from glscl_jax.retrieval.array_files import Arrays
from glscl_jax.retrieval.encoded_split import IDENTITY, KINDS, Store
from glscl_jax.retrieval.feature_identity import CHECKPOINT


@dataclasses.dataclass(frozen=True)
class TowerFeatures:
    """A split's, on the host. Texts are in the order of their videos.

    Attributes:
      identity: whose they are, JSON values.
      ids: of N videos.
      frames: [N,V,D].
      frame_mask: int32 [N,V], 1 on real frames.
      sentence: [A,D].
      tokens: [A,L,D]; None where they were not kept, or not asked for.
      text_mask: int32 [A,L]; [A,1] without tokens.
      owner: int [A], the video that each text describes, never falling.
      captions: of the texts; their numbers where they were not kept.
    """

    identity: dict
    ids: list[str]
    frames: np.ndarray
    frame_mask: np.ndarray
    sentence: np.ndarray
    tokens: np.ndarray | None
    text_mask: np.ndarray
    owner: np.ndarray
    captions: list[str]

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """How many texts each video has, int64 [N]."""
        return np.bincount(self.owner, minlength=len(self.ids))

    @functools.cached_property
    def checksum(self) -> str:
        """CRC-32 of what a head trains on, in hexadecimal; the same in however many files."""
        kept = (self.frames, self.frame_mask, self.sentence, self.tokens, self.text_mask)
        crc = zlib.crc32(json.dumps(self.ids).encode())
        for array in (x for x in (*kept, self.owner) if x is not None):
            crc = zlib.crc32(f"{array.dtype} {array.shape}".encode(), crc)
            crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8), crc)
        return f"{crc:08x}"

    def texts_of(self, videos: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The rows of texts: of each of so many videos the one of that number."""
        first = np.cumsum(self.counts) - self.counts
        return first[videos] + numbers

    def text_batch(self, rows) -> dict[str, np.ndarray]:
        """What a model takes of some texts, by the names of its arguments."""
        batch = {"sentence": self.sentence[rows], "text_mask": self.text_mask[rows]}
        return batch if self.tokens is None else {**batch, "tokens": self.tokens[rows]}

    def video_batch(self, rows) -> dict[str, np.ndarray]:
        """What a model takes of some videos, by the names of its arguments."""
        return {"frames": self.frames[rows], "frame_mask": self.frame_mask[rows]}


def video_file(ids: list[str], frames: np.ndarray, mask: np.ndarray) -> Arrays:
    """A batch of videos to keep: [n,V,D] and their mask [n,V], real frames first."""
    return {"ids": np.array(ids), "frames": frames, "lengths": mask.sum(axis=1)}


def text_file(
    ids: list[str],
    captions: list[str],
    sentence: np.ndarray,
    tokens: np.ndarray,
    mask: np.ndarray,
) -> Arrays:
    """A batch of texts to keep: [n,D], [n,L,D] and their mask [n,L], real tokens first."""
    return {
        "ids": np.array(ids),
        "captions": np.array(captions),
        "sentence": sentence,
        "tokens": tokens,
        "lengths": mask.sum(axis=1),
    }


def splits_of(directory: str | os.PathLike) -> list[str]:
    """The splits that a directory has features of; raises a `UserError` if it has none."""
    directory = pathlib.Path(directory)
    found = sorted(path.parent.name for path in directory.glob(f"*/{IDENTITY}"))
    if not found:
        raise UserError(
            f"--features {directory} holds no features (no SPLIT/{IDENTITY}): have them written by "
            "glscl_jax.evaluate --encodings, or as docs/heads.md says"
        )
    return found


def read_features(directory: str | os.PathLike, split: str, *, tokens: bool) -> TowerFeatures:
    """Reads a split.

    Args:
      directory: the folder of all splits.
      split: which.
      tokens: whether those of texts are needed; without, they are not read.

    Raises:
      UserError: there is no such split, it is not complete, or a file does not say what it must.
    """
    if split not in (there := splits_of(directory)):
        raise UserError(f"--features {directory} has no split {split!r}, only {', '.join(there)}")
    folder = pathlib.Path(directory).absolute() / split
    identity = read_json(folder / IDENTITY)
    # Another's features nobody here can encode again.
    again = f"remove {folder} and " if identity.get(CHECKPOINT) else ""
    again += "have it written again"
    store = Store(folder, again)
    if not store.complete:
        raise UserError(f"{folder} is not complete: have it written to its end")
    found, counts = {}, store.counts()
    for kind in KINDS:
        if counts[kind] != store.count(kind):
            raise UserError(
                f"{folder} should have {counts[kind]} {kind} files and has {store.count(kind)}: "
                f"{again}"
            )
        found[kind] = _joined(store, kind, counts[kind], tokens)
    return _split(folder, identity, found["video"], found["text"])


def _joined(store: Store, kind: str, count: int, tokens: bool) -> Arrays:
    """All files of a kind, one after the other."""
    needed = ("ids", "lengths", *(("frames",) if kind == "video" else ("sentence",)))
    parts = []
    for number in range(count):
        part = store.get(kind, number)
        called = f"{store.directory.name}/{kind}-{number:05}.npz"
        for name in needed:
            if name not in part:
                raise UserError(f"{called} has no {name!r}, only {', '.join(sorted(part))}")
        if tokens and kind == "text" and "tokens" not in part:
            raise UserError(
                f"{called} has no 'tokens', which this head reads: have them kept, or choose one "
                "of whole sentences (docs/heads.md)"
            )
        if not tower_arrays.check_arrays(called, part):
            continue
        kept = {name: part[name] for name in part if tokens or name != "tokens"}
        kept["ids"] = kept["ids"].astype(str)
        tower_arrays.check_values(called, kept)
        if parts and (found := tower_arrays.unlike(parts[0], kept)):
            raise UserError(f"{called} is of other features than the first file: {found}")
        parts.append(kept)
    if not parts:
        raise UserError(
            f"{store.directory} holds no {kind}: have one written, or name another split"
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _split(folder: pathlib.Path, identity: dict, video: Arrays, text: Arrays) -> TowerFeatures:
    """Videos and texts that belong together; raises a `UserError` where they do not."""
    ids = [str(x) for x in video["ids"]]
    places = {name: place for place, name in enumerate(ids)}
    if len(places) < len(ids):
        raise UserError(f"{folder}: {len(ids) - len(places)} ids stand for two videos")
    lost = [str(x) for x in text["ids"] if str(x) not in places]
    if lost:
        raise UserError(
            f"{folder}: texts of {lost[0]!r}, which is no video there ({len(lost)} such)"
        )
    width, other = video["frames"].shape[-1], text["sentence"].shape[-1]
    widths = {width, other, text["tokens"].shape[-1] if "tokens" in text else other}
    if len(widths) > 1:
        raise UserError(
            f"{folder}: features are {' and '.join(map(str, sorted(widths)))} wide: texts "
            "and videos must lie in one space"
        )
    owner = np.array([places[str(x)] for x in text["ids"]], np.int64)
    silent = np.flatnonzero(np.bincount(owner, minlength=len(ids)) == 0)
    if len(silent):
        raise UserError(f"{folder}: video {ids[silent[0]]!r} has no text ({len(silent)} such)")
    order = np.argsort(owner, kind="stable")
    if np.any(owner[:-1] > owner[1:]):
        text = {name: array[order] for name, array in text.items()}
    captions = text.get("captions", np.arange(len(owner)))
    tokens = text.get("tokens")
    return TowerFeatures(
        identity=identity,
        ids=ids,
        frames=video["frames"],
        frame_mask=_mask(video["lengths"], video["frames"].shape[1]),
        sentence=text["sentence"],
        tokens=tokens,
        text_mask=_mask(text["lengths"], 1 if tokens is None else tokens.shape[1]),
        owner=owner[order],
        captions=[str(x) for x in captions],
    )


def _mask(lengths: np.ndarray, longest: int) -> np.ndarray:
    """int32 [n,M], 1 at the first so many places."""
    return (np.arange(longest) < np.asarray(lengths)[:, None]).astype(np.int32)
