"""A validation split out of the training videos, where a data set has none of its own."""

import dataclasses
import hashlib
from collections.abc import Sequence

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import BENCHMARKS
from glscl_jax.input_pipeline.annotations.clip import Clip


def default_size(dataset: str, clips: Sequence[Clip]) -> int:
    """Videos to hold out: the benchmark's number, less where only a few videos are there."""
    videos = {_video(clip) for clip in clips if clip.split == "train"}
    benchmark = BENCHMARKS.get(dataset)
    return min(benchmark.validation_size, len(videos) // 4) if benchmark else 0


def carve(clips: Sequence[Clip], size: int) -> list[Clip]:
    """The clips with `size` training videos moved to split val, whole.

    They are those whose ids have the smallest SHA-256: which ones depends on nothing but the ids,
    and a video that is held out of a set is held out of every subset that still has it.

    Raises:
      UserError: a validation split is there, or too few training videos are.
    """
    if not size:
        return list(clips)
    if any(clip.split == "val" for clip in clips):
        raise UserError(f"--validation_size {size}: the data set has a split val: leave it out")
    videos = {_video(clip) for clip in clips if clip.split == "train"}
    if size >= len(videos):
        raise UserError(
            f"--validation_size {size}: only {len(videos)} videos are there to train on: hold out"
            " fewer"
        )
    held_out = set(sorted(videos, key=lambda video: hashlib.sha256(video.encode()).digest())[:size])
    return [
        dataclasses.replace(clip, split="val")
        if clip.split == "train" and _video(clip) in held_out
        else clip
        for clip in clips
    ]


def _video(clip: Clip) -> str:
    """A clip's id without its segment, so that a video's clips stay together."""
    return clip.clip_id.partition("#t=")[0]
