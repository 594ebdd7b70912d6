"""Encode a split, score it, rank it: what validation, evaluation and search share."""

import collections
import functools
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from glscl_jax import features, metrics, progress, ranking, sharding, steps
from glscl_jax.errors import UserError
from glscl_jax.features import EncodedSplit
from glscl_jax.models.glscl import GLSCL, TextFeatures, VideoFeatures

__all__ = ["EncodedSplit", "Encoder", "check_split", "encode_split", "rank_split"]


class Encoder:
    """The model's two sides, compiled once a batch shape, on a mesh.

    `start_text` and `start_video` return at once, with arrays that the devices are still working
    on; `text` and `video` wait for them.
    """

    def __init__(self, model: GLSCL, mesh: Mesh):
        self.model, self.mesh = model, mesh
        options = {"out_shardings": sharding.replicated(mesh)}
        self._text = jax.jit(functools.partial(steps.encode_text, model=model), **options)
        self._video = jax.jit(functools.partial(steps.encode_video, model=model), **options)

    def start_text(self, params, ids: np.ndarray, mask: np.ndarray) -> TextFeatures:
        """int32 [A,L] twice -> features on the devices."""
        batch = sharding.put_batch({"ids": ids, "mask": mask}, self.mesh)
        return self._text(params, batch["ids"], batch["mask"])

    def start_video(self, params, frames: np.ndarray, mask: np.ndarray) -> VideoFeatures:
        """uint8 [B,V,H,W,3] and int32 [B,V] -> features on the devices."""
        batch = sharding.put_batch({"frames": frames, "mask": mask}, self.mesh)
        return self._video(params, batch["frames"], batch["mask"])

    def text(self, params, ids: np.ndarray, mask: np.ndarray) -> TextFeatures:
        """int32 [A,L] twice -> features on the host."""
        return jax.device_get(self.start_text(params, ids, mask))

    def video(self, params, frames: np.ndarray, mask: np.ndarray) -> VideoFeatures:
        """uint8 [B,V,H,W,3] and int32 [B,V] -> features on the host."""
        return jax.device_get(self.start_video(params, frames, mask))


def encode_split(
    encoder: Encoder,
    params: dict,
    batches: Iterable,
    tokenize: Callable,
    *,
    batch_size: int,
    total: int,
    show: bool = True,
    keep: features.Store | None = None,
) -> EncodedSplit:
    """Every video and every caption once.

    The devices work on a batch while the next one is read: no step waits for its result.

    Args:
      encoder: see there.
      params: parameters.
      batches: of videos, with frames, frame_mask, clip_ids, captions and real (the number of
        clips that are not padding), as `input_pipeline.pipeline.eval_batches` gives them; with
        `keep` those after its first `keep.done` batches.
      tokenize: captions -> an object with ids and mask, int32 [A,L].
      batch_size: of videos and of captions; one shape of each is compiled.
      total: number of videos, for the progress.
      show: whether to show progress.
      keep: where features are kept. Batches that it has are read, the others added.

    Raises:
      UserError: a video or a caption whose features are not finite, a video without captions, or
        features that cannot be kept.
    """
    gathering = features.Gathering()
    begun = time.perf_counter()
    kept = keep.done if keep else 0
    for number in range(kept):
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
    check_split(encoded)
    if keep:
        keep.finish()
    return encoded


def _encoded_videos(encoder, params, batches) -> Iterator[features.Arrays]:
    def start(batch):
        return encoder.start_video(params, batch.frames, batch.frame_mask)

    for batch, found in _one_ahead(start, batches):
        real = batch.real
        if real:
            yield features.video_arrays(
                _first(found, real), batch.clip_ids[:real], batch.captions[:real]
            )


def _gather_texts(encoder, params, gathering, tokenize, batch_size, show, keep) -> None:
    """Adds the features of the gathered captions, those that are kept first."""
    captions = gathering.captions
    parts = [captions[x : x + batch_size] for x in range(0, len(captions), batch_size)]
    kept = min(keep.count("text"), len(parts)) if keep else 0
    for number in range(kept):
        gathering.add_texts(keep.get("text", number))

    def start(part):
        # Only one shape is compiled: the last batch is filled up with its last caption.
        tokens = tokenize(part + part[-1:] * (batch_size - len(part)))
        return encoder.start_text(params, tokens.ids, tokens.mask)

    new = _one_ahead(start, parts[kept:])
    if show:
        left = sum(map(len, parts[kept:]))
        new = progress.track(new, "encoding captions", left, "captions", each=batch_size)
    for number, (part, found) in enumerate(new, kept):
        arrays = features.text_arrays(_first(found, len(part)))
        gathering.add_texts(arrays)
        if keep:
            keep.put("text", number, arrays)


def _one_ahead(start: Callable, inputs: Iterable) -> Iterator[tuple]:
    """Yields (input, what `start` made of it, on the host), the next one started before."""
    under_way = collections.deque()
    for item in inputs:
        under_way.append((item, start(item)))
        if len(under_way) > 1:
            item, found = under_way.popleft()
            yield item, jax.device_get(found)
    for item, found in under_way:
        yield item, jax.device_get(found)


def _first(found, count: int):
    return jax.tree.map(lambda x: x[:count], found)


def check_split(encoded: EncodedSplit) -> None:
    """Whether a split can be ranked.

    Raises:
      UserError: naming a video without a caption or a caption whose video is not there.
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


def rank_split(encoded: EncodedSplit, model: GLSCL, mesh: Mesh | None = None) -> metrics.Retrieval:
    """Ranks of every caption's video and of every video's captions; scores are not kept.

    Args:
      encoded: A captions and B videos, that `check_split` lets pass.
      model: for the temperature and the LIM's weight.
      mesh: the devices that share the work; by default all of this process.
    """
    config = model.config
    return ranking.ranks_in_blocks(
        encoded.text,
        encoded.video,
        encoded.owner,
        temperature=config.temperature,
        lim_weight=config.lim_weight,
        mesh=mesh,
    )
