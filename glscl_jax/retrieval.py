"""Encode a split, score it, rank it: what validation, evaluation and search share."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.sharding import Mesh

from glscl_jax import metrics, progress, sharding, steps
from glscl_jax.models.glscl import GLSCL, TextFeatures, VideoFeatures
from glscl_jax.similarity import score_in_blocks


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """Features of a split, on the host.

    Attributes:
      text: of A captions.
      video: of B videos.
      owner: int [A], the video each caption describes.
      captions: A strings.
      clip_ids: B strings.
    """

    text: TextFeatures
    video: VideoFeatures
    owner: np.ndarray
    captions: list[str]
    clip_ids: list[str]


class Encoder:
    """The model's two sides, compiled once a batch shape, on a mesh."""

    def __init__(self, model: GLSCL, mesh: Mesh):
        self.model, self.mesh = model, mesh
        options = {"out_shardings": sharding.replicated(mesh)}
        self._text = jax.jit(functools.partial(steps.encode_text, model=model), **options)
        self._video = jax.jit(functools.partial(steps.encode_video, model=model), **options)

    def text(self, params, ids: np.ndarray, mask: np.ndarray) -> TextFeatures:
        """int32 [A,L] twice -> features on the host."""
        batch = sharding.put_batch({"ids": ids, "mask": mask}, self.mesh)
        return jax.device_get(self._text(params, batch["ids"], batch["mask"]))

    def video(self, params, frames: np.ndarray, mask: np.ndarray) -> VideoFeatures:
        """uint8 [B,V,H,W,3] and int32 [B,V] -> features on the host."""
        batch = sharding.put_batch({"frames": frames, "mask": mask}, self.mesh)
        return jax.device_get(self._video(params, batch["frames"], batch["mask"]))


def encode_split(
    encoder: Encoder,
    params: dict,
    batches: Iterable,
    tokenize: Callable,
    *,
    batch_size: int,
    total: int,
    show: bool = True,
) -> EncodedSplit:
    """Every video and every caption once.

    Args:
      encoder: see there.
      params: parameters.
      batches: of videos, with frames, frame_mask, clip_ids, captions and real (the number of
        clips that are not padding), as `input_pipeline.pipeline.eval_batches` gives them.
      tokenize: captions -> an object with ids and mask, int32 [A,L].
      batch_size: of captions.
      total: number of videos, for the progress.
      show: whether to show progress.
    """
    videos, owner, captions, clip_ids = [], [], [], []
    if show:
        batches = progress.track(batches, "encoding videos", total, each=batch_size)
    for batch in batches:
        features = encoder.video(params, batch.frames, batch.frame_mask)
        videos.append(_first(features, batch.real))
        for clip_id, own in zip(
            batch.clip_ids[: batch.real], batch.captions[: batch.real], strict=True
        ):
            owner += [len(clip_ids)] * len(own)
            captions += own
            clip_ids.append(clip_id)
    texts = _encode_captions(encoder, params, captions, tokenize, batch_size, show)
    return EncodedSplit(texts, _joined(videos), np.array(owner), captions, clip_ids)


def _encode_captions(encoder, params, captions, tokenize, batch_size, show) -> TextFeatures:
    starts = range(0, len(captions), batch_size)
    if show:
        starts = progress.track(
            starts, "encoding captions", len(captions), "captions", each=batch_size
        )
    texts = []
    for start in starts:
        part = captions[start : start + batch_size]
        # Only one shape is compiled: the last batch is filled up with its last caption.
        filled = part + part[-1:] * (batch_size - len(part))
        tokens = tokenize(filled)
        features = encoder.text(params, tokens.ids, tokens.mask)
        texts.append(_first(features, len(part)))
    return _joined(texts)


def _first(features, count: int):
    return jax.tree.map(lambda x: x[:count], features)


def _joined(parts: list):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def rank_split(encoded: EncodedSplit, model: GLSCL) -> metrics.Retrieval:
    """Scores of every caption against every video, and the ranks in both directions."""
    scores = score_in_blocks(
        encoded.text,
        encoded.video,
        temperature=model.config.temperature,
        lim_weight=model.config.lim_weight,
    )
    return metrics.retrieval(scores, encoded.owner)
