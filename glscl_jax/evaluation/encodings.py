"""Features of whole splits by a checkpoint's encoders, kept for training heads."""

import functools
import itertools
import os

import jax
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.evaluation.evaluator import Evaluator
from glscl_jax.evaluation.options import Options
from glscl_jax.evaluation.run_card import Stages
from glscl_jax.evaluation.task import Task
from glscl_jax.input_pipeline.captions import captions
from glscl_jax.models.glscl import GLSCL
from glscl_jax.retrieval import tower_features
from glscl_jax.retrieval.encoded_split import Store
from glscl_jax.runtime import progress, sharding


def encode(directory: str | os.PathLike, options: Options) -> str:
    """Keeps what a checkpoint's encoders make of a split, or of all.

    Args:
      directory: where.
      options: of an evaluation: checkpoint, config, step, and the split, None for all.

    Returns:
      A line on what lies there.

    Raises:
      UserError: naming what is not there, damaged, or does not fit the rest.
    """
    task = Evaluator.open(options, Stages()).task
    splits = [options.split] if options.split else list(task.data.splits)
    return keep_encodings(task, directory, splits)


def keep_encodings(task: Task, directory: str | os.PathLike, splits: list[str]) -> str:
    """Writes what `tower_features.read_features` reads; what is there of it already stays.

    Args:
      task: checkpoint and data.
      directory: the folder of all splits.
      splits: which.

    Returns:
      A line on what lies there.

    Raises:
      UserError: the directory holds features of something else, or cannot be written.
    """
    if jax.process_count() > 1:
        raise UserError("--encodings works in one process only")
    towers = _Towers(task)
    told = []
    for split in splits:
        store = task.store(directory, split, of_towers=True)
        if not store.complete:
            towers.keep_videos(store, split)
            towers.keep_texts(store, split)
            store.finish()
        texts = sum(map(len, captions(task.data, split)))
        told.append(f"{split} ({task.data.splits[split]:,} videos, {texts:,} captions)")
    return f"encodings are in {directory}: {', '.join(told)}"


class _Towers:
    """The encoders, compiled once a shape."""

    def __init__(self, task: Task):
        self._task, model = task, task.loaded.model
        whole = {"out_shardings": sharding.replicated(task.mesh)}
        self._text, self._video = (
            jax.jit(functools.partial(_apply, model=model, method=method), **whole)
            for method in ("text_tower", "frame_tower")
        )
        self._size = task.config.eval_batch_size

    def keep_videos(self, store: Store, split: str) -> None:
        """All frames of a split, from the first batch on that is not there."""
        done = store.count("video")
        batches = self._task.batches(split, done * self._size)
        left = self._task.data.splits[split] - done * self._size
        batches = progress.track(batches, f"encoding videos of {split}", left, each=self._size)
        for number, batch in enumerate(batches, done):
            frames = self._run(self._video, batch.frames, batch.frame_mask)[: batch.real]
            mask = batch.frame_mask[: batch.real]
            store.put("video", number, tower_features.video_file(batch.clip_ids, frames, mask))

    def keep_texts(self, store: Store, split: str) -> None:
        """All captions of a split, in the order of its videos."""
        told = captions(self._task.data, split)
        ids = itertools.chain.from_iterable(
            store.get("video", number)["ids"] for number in range(store.count("video"))
        )
        pairs = [(name, text) for name, of in zip(ids, told, strict=True) for text in of]
        parts = [pairs[x : x + self._size] for x in range(0, len(pairs), self._size)]
        done = store.count("text")
        ticks = progress.track(
            parts[done:], f"encoding captions of {split}", len(pairs), "captions", each=self._size
        )
        for number, part in enumerate(ticks, done):
            names, texts = map(list, zip(*part, strict=True))
            # One shape is compiled: the last batch is filled up with its last caption.
            filled = texts + texts[-1:] * (self._size - len(texts))
            tokens = self._task.tokenizer(filled, self._task.config.data.num_words)
            found = self._run(self._text, tokens.ids, tokens.mask)
            sentence, all_tokens = (x[: len(part)] for x in found)
            mask = tokens.mask[: len(part)]
            store.put(
                "text", number, tower_features.text_file(names, texts, sentence, all_tokens, mask)
            )

    def _run(self, run, *arrays: np.ndarray):
        """What an encoder makes of a batch's arrays, on the host."""
        batch = dict(enumerate(arrays))
        on_devices = sharding.put_batch(batch, self._task.mesh)
        return jax.device_get(run(self._task.loaded.params, *on_devices.values()))


def _apply(params, *arrays, model: GLSCL, method: str):
    return model.apply({"params": params}, *arrays, method=method)
