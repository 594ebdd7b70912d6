"""Encode a split, score it, rank it: what validation, evaluation and search share.

In several processes each reads and tokenizes its share of every batch, and all get all features.
"""

import collections
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCL, encode_text, encode_video
from glscl_jax.models.heads.features import Features
from glscl_jax.models.heads.head import Head
from glscl_jax.retrieval import encoded_split, metrics, ranking
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.runtime import processes, progress, sharding

__all__ = ["EncodedSplit", "Encoder", "check_encoded", "encode_split", "rank_split"]


class Encoder:
    """The model's two sides, compiled once a batch shape, on a mesh.

    `start_text` and `start_video` return at once, with arrays that the devices are still working
    on, for `fetch`; `text` and `video` wait for them. Each process of the mesh gives its own rows
    of a batch, equally many, and gets the features of all: its first process's rows come first.
    """

    def __init__(self, model: GLSCL, mesh: Mesh):
        self.model, self.mesh = model, mesh
        options = {"out_shardings": sharding.replicated(mesh)}
        self._text = jax.jit(functools.partial(encode_text, model=model), **options)
        self._video = jax.jit(functools.partial(encode_video, model=model), **options)
        self._whole = jax.jit(lambda array: array, **options)
        self._processes = sorted({device.process_index for device in mesh.devices.flat})
        self._orders: dict[int, np.ndarray] = {}

    def start_text(self, params, ids: np.ndarray, mask: np.ndarray) -> Features:
        """int32 [A,L] twice -> features on the devices."""
        batch = sharding.put_batch({"ids": ids, "mask": mask}, self.mesh)
        return self._text(params, batch["ids"], batch["mask"])

    def start_video(self, params, frames: np.ndarray, mask: np.ndarray) -> Features:
        """uint8 [B,V,H,W,3] and int32 [B,V] -> features on the devices."""
        batch = sharding.put_batch({"frames": frames, "mask": mask}, self.mesh)
        return self._video(params, batch["frames"], batch["mask"])

    def lowered_text(self, params, ids, mask) -> jax.stages.Lowered:
        """What `start_text` runs, for arrays of shapes and shardings alone."""
        return self._text.lower(params, ids, mask)

    def lowered_video(self, params, frames, mask) -> jax.stages.Lowered:
        """What `start_video` runs, likewise."""
        return self._video.lower(params, frames, mask)

    def text(self, params, ids: np.ndarray, mask: np.ndarray) -> Features:
        """int32 [A,L] twice -> features on the host."""
        return self.fetch(self.start_text(params, ids, mask))

    def video(self, params, frames: np.ndarray, mask: np.ndarray) -> Features:
        """uint8 [B,V,H,W,3] and int32 [B,V] -> features on the host."""
        return self.fetch(self.start_video(params, frames, mask))

    def fetch(self, found: Features) -> Features:
        """Features of a batch that was started, on the host."""
        found = jax.device_get(found)
        if len(self._processes) == 1:
            return found
        rows = len(jax.tree.leaves(found)[0])
        if rows not in self._orders:
            self._orders[rows] = self._order(rows)
        return jax.tree.map(lambda x: x[self._orders[rows]], found)

    def _order(self, rows: int) -> np.ndarray:
        """Where a batch's rows lie, process by process: along a mesh processes may alternate."""
        own = rows // len(self._processes)
        before = self._processes.index(jax.process_index()) * own
        numbers = before + np.arange(own, dtype=np.int32)
        batch = sharding.put_batch({"numbers": numbers}, self.mesh)
        return np.argsort(jax.device_get(self._whole(batch["numbers"])))


def encode_split(
    encoder: Encoder,
    params: dict,
    batches: Iterable,
    tokenize: Callable,
    *,
    batch_size: int,
    total: int,
    show: bool = True,
    keep: encoded_split.Store | None = None,
) -> EncodedSplit:
    """Every video and every caption once.

    The devices work on a batch while the next one is read: no step waits for its result.

    Args:
      encoder: see there.
      params: parameters.
      batches: this process's share of each batch of videos, with frames, frame_mask, clip_ids
        and captions (of the clips that are not padding), as `input_pipeline.pipeline.eval_batches`
        gives them; with `keep` those after its first `keep.done` batches.
      tokenize: captions -> an object with ids and mask, int32 [A,L].
      batch_size: of videos and of captions over all processes; one shape of each is compiled.
      total: number of videos, for the progress.
      show: whether to show progress.
      keep: where features are kept. Batches that it has are read, the others added. For a single
        process.

    Raises:
      UserError: a video or a caption whose features no score can be made of, a video without
        captions, or features that cannot be kept.
    """
    show = show and not jax.process_index()
    head = encoder.model.config.head
    gathering = encoded_split.Gathering(head)
    begun = time.perf_counter()
    kept = keep.done if keep else 0
    for number in range(kept):
        assert keep is not None
        gathering.add_videos(keep.get("video", number))
    new = _encoded_videos(encoder, params, batches)
    if show:
        left = total - len(gathering.clip_ids)
        new = progress.track(new, "encoding videos", left, each=batch_size)
    for number, arrays in enumerate(new, kept):
        gathering.add_videos(arrays)
        if keep:
            keep.put("video", number, arrays)
    videos_done = time.perf_counter()
    _gather_texts(encoder, params, gathering, tokenize, batch_size, show, keep)
    seconds = {"video": videos_done - begun, "text": time.perf_counter() - videos_done}
    encoded = gathering.encoded(seconds)
    check_encoded(encoded, head)
    if keep:
        keep.finish()
    return encoded


def _encoded_videos(encoder, params, batches) -> Iterator[encoded_split.Arrays]:
    def start(batch):
        return encoder.start_video(params, batch.frames, batch.frame_mask)

    for batch, found in _one_ahead(start, encoder.fetch, batches):
        # Padding is at the end of the last batch, so at the end of all processes' rows, too.
        own = list(zip(batch.clip_ids, batch.captions, strict=True))
        clips = list(itertools.chain.from_iterable(processes.gather(own)))
        if clips:
            clip_ids, captions = map(list, zip(*clips, strict=True))
            yield encoded_split.video_arrays(_first(found, len(clips)), clip_ids, captions)


def _gather_texts(encoder, params, gathering, tokenize, batch_size, show, keep) -> None:
    """Adds the features of the gathered captions, those that are kept first."""
    captions = gathering.captions
    parts = [captions[x : x + batch_size] for x in range(0, len(captions), batch_size)]
    kept = min(keep.count("text"), len(parts)) if keep else 0
    for number in range(kept):
        gathering.add_texts(keep.get("text", number))

    each = batch_size // jax.process_count()
    own = slice(jax.process_index() * each, (jax.process_index() + 1) * each)

    def start(part):
        # Only one shape is compiled: the last batch is filled up with its last caption.
        tokens = tokenize((part + part[-1:] * (batch_size - len(part)))[own])
        return encoder.start_text(params, tokens.ids, tokens.mask)

    new = _one_ahead(start, encoder.fetch, parts[kept:])
    if show:
        left = sum(map(len, parts[kept:]))
        new = progress.track(new, "encoding captions", left, "captions", each=batch_size)
    for number, (part, found) in enumerate(new, kept):
        arrays = encoded_split.text_arrays(_first(found, len(part)))
        gathering.add_texts(arrays)
        if keep:
            keep.put("text", number, arrays)


def _one_ahead(start: Callable, fetch: Callable, inputs: Iterable) -> Iterator[tuple]:
    """Yields (input, what was fetched of what `start` began), the next one started before."""
    under_way = collections.deque()
    for item in inputs:
        under_way.append((item, start(item)))
        if len(under_way) > 1:
            item, found = under_way.popleft()
            yield item, fetch(found)
    for item, found in under_way:
        yield item, fetch(found)


def _first(found, count: int):
    return jax.tree.map(lambda x: x[:count], found)


def check_encoded(encoded: EncodedSplit, head: Head) -> None:
    """Whether a split can be ranked.

    Raises:
      UserError: naming a video without a caption, a caption whose video is not there, or an item
        whose features have no direction, so that the head's cosine has no value.
    """
    videos, owner = len(encoded.clip_ids), np.asarray(encoded.owner)
    lost = np.flatnonzero((owner < 0) | (owner >= videos))
    if len(lost):
        raise UserError(
            f"caption {encoded.captions[lost[0]]!r} describes a video that is not among the "
            f"{videos} of the gallery ({len(lost)} such captions): prepare the split again"
        )
    silent = np.flatnonzero(np.bincount(owner, minlength=videos) == 0)
    if len(silent):
        raise UserError(
            f"clip {encoded.clip_ids[silent[0]]!r} has no caption ({len(silent)} such clips): "
            "prepare the split again"
        )
    texts, videos = head.directed(encoded.text, encoded.video)
    for name, (vectors, mask), names in (
        ("text features", texts, encoded.captions),
        ("video features", videos, encoded.clip_ids),
    ):
        _check_directions(name, vectors, mask, names)


def _check_directions(name: str, vectors, mask, names: list[str]) -> None:
    """Raises a `UserError` for an item of [n,V,D] with a vector of no length that counts."""
    broken = []
    # A slice at a time: all in float32 would be gigabytes.
    for start in range(0, len(names), 1024):
        part = np.asarray(vectors[start : start + 1024], np.float32)
        real = np.ones(part.shape[:2], bool) if mask is None else mask[start : start + 1024] > 0
        squares = np.einsum("nVD,nVD->nV", part, part)
        usable = (squares > 0) & np.isfinite(squares)
        good = (usable | ~real).all(axis=1) & real.any(axis=1)
        broken += (start + np.flatnonzero(~good)).tolist()
    if broken:
        raise UserError(
            f"the {name} of {names[broken[0]]!r} have a length of 0, or one beyond float32 "
            f"({len(broken)} of {len(names)} such items): look at that item, or take another "
            "checkpoint"
        )


def rank_split(encoded: EncodedSplit, head: Head, mesh: Mesh | None = None) -> metrics.Retrieval:
    """Ranks of every caption's video and of every video's captions; scores are not kept.

    Args:
      encoded: A captions and B videos, that `check_encoded` lets pass.
      head: what scores them.
      mesh: the devices that share the work; by default all of this process.
    """
    return ranking.ranks_in_blocks(encoded.text, encoded.video, encoded.owner, head=head, mesh=mesh)
