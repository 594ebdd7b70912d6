"""Clips as a benchmark's reader gives them."""

import collections

from glscl_jax.input_pipeline.annotations import READERS


def read(dataset, folder):
    return {clip.clip_id: clip for clip in READERS[dataset](folder)}


def splits(clips):
    return dict(collections.Counter(clip.split for clip in clips.values()))
