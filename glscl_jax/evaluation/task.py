"""What an evaluation reads: checkpoint, tokenizer and data, opened and checked together.

All that can be wrong is found here, before anything is encoded.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glscl_jax import paths
from glscl_jax.checkpoints.model_dir import (
    LoadedModel,
    load_model,
    parameters_sha256,
    read_run_config,
    tokenizer_folder,
)
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import Problems, UserError
from glscl_jax.evaluation import published_results, run_card
from glscl_jax.files import PART
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.cut_captions import Cut
from glscl_jax.input_pipeline.data_dir import at_hand
from glscl_jax.input_pipeline.prepared_data import PreparedData, open_data
from glscl_jax.input_pipeline.preparing.failures import failed_clips
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import model_settings
from glscl_jax.retrieval import encoded_split, metrics
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.runtime import processes, sharding
from glscl_jax.training import inherited, recipe


@dataclasses.dataclass(frozen=True)
class Task:
    """What is evaluated.

    Attributes:
      loaded: the checkpoint.
      sha256: of its parameters.
      config: where the data is and how it is read.
      data: the prepared data set.
      split: the part of it to evaluate.
      tokenizer: the checkpoint's.
      failed: ids of clips of the split that the data set's failed.csv lists.
      mesh: the devices.
      out: where results go; it exists.
    """

    loaded: LoadedModel
    sha256: str
    config: ConfigDict
    data: PreparedData
    split: str
    tokenizer: Tokenizer
    failed: frozenset[str]
    mesh: Mesh
    out: pathlib.Path

    def batches(self, split: str, first: int = 0) -> Iterable[pipeline.VideoBatch]:
        """This process's share of the batches of a split's clips from number `first` on."""
        return self._batches(
            split,
            first,
            self.data.splits[split],
            batch_size=self.config.eval_batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def frames(self, split: str, place: int) -> list[np.ndarray]:
        """The frames of a split's clip that are encoded, in order, uint8 [S,S,3]."""
        (batch,) = self._batches(split, place, place + 1, batch_size=1)
        return list(batch.frames[0][batch.frame_mask[0] > 0])

    def _batches(self, split: str, first: int, stop: int, **sizes):
        if first >= stop:
            return ()
        whole = (first, stop) == (0, self.data.splits[split])
        part = split if whole else f"{split}[{first}:{stop}]"
        data = dataclasses.replace(self.data, splits={part: stop - first})
        return pipeline.eval_batches(data, part, num_frames=self.config.data.num_frames, **sizes)

    def store(
        self, directory: str | os.PathLike, split: str, *, of_towers: bool = False
    ) -> encoded_split.Store:
        """Kept features of a split; raises a `UserError` if they are of something else.

        They are the head's, or `of_towers` what encoders made before it.
        """
        config, data = self.config, dict(self.data.identity)
        part = data.pop("splits")[split]
        settings = sorted(model_settings(self.loaded.config).items())
        # A head's settings change nothing of what lies before it.
        own = {} if of_towers else {"model": _sha256(repr(settings).encode())}
        identity = {
            "checkpoint": self.sha256,
            **own,
            "dtype": self.loaded.config.dtype,
            "tokenizer": self.tokenizer.sha256,
            "split": split,
            "videos": part["clips"],
            "bytes of records": part["bytes"],
            "records": part["records"],
            "frames": config.data.num_frames,
            "words": config.data.num_words,
            "eval_batch_size": config.eval_batch_size,
            **data,
        }
        return encoded_split.Store.open(pathlib.Path(directory) / split, identity=identity)

    def trained_otherwise(self) -> str:
        """The settings in which a run's training read its data differently, "" for none."""
        trained = (read_run_config(self.loaded.directory) or {}).get("data", {})
        names = ("num_frames", "num_words", "frame_rate")
        return ", ".join(
            f"{name} {trained[name]}, here {self.config.data[name]}"
            for name in names
            if name in trained and trained[name] != self.config.data[name]
        )


def open_task(
    checkpoint: str | os.PathLike,
    config: ConfigDict | None,
    split: str | None,
    step: int | None,
    out: str | os.PathLike | None,
) -> Task:
    """Opens everything; the arguments are those of `options.Options`.

    Raises:
      UserError: naming what is not there, damaged, or does not fit the rest.
    """
    mesh = sharding.make_mesh()
    loaded = load_model(checkpoint, sharding.replicated(mesh), step)
    sha256 = parameters_sha256(loaded.params)
    processes.check_same({"parameters": sha256})

    def open_rest() -> Task:
        if config is None:
            own = Workdir(loaded.directory).config()
        else:
            own = config.copy_and_resolve_references()  # The caller's stays as it is.
            note = inherited.follow_words(own, loaded.config.clip)
            if note and not jax.process_index():
                print(f"note: {note}", flush=True)
        paths.expand(own)
        recipe.check_reading(own, loaded.model.config)
        problems, part = Problems(), split or own.data.test_split
        problems.attempt(sharding.check_batch_size, own.eval_batch_size, mesh, "eval_batch_size")
        tokenizer = problems.attempt(_open_tokenizer, loaded, own, config is not None)
        data, failed = problems.attempt(_open_data, own.data.dir, part) or (None, frozenset())
        if data:
            problems.attempt(
                pipeline.check_settings,
                data,
                frame_rate=own.data.frame_rate,
                images=loaded.config.clip.preprocessing,
                flags_of={"frame_rate": "config.data.frame_rate"},
            )
            problems.attempt(check_split, data, part, "--split")
        problems.raise_all()
        directory = writable(paths.local(out or loaded.directory, "--out"))
        return Task(loaded, sha256, own, data, part, tokenizer, failed, mesh, directory)

    task = processes.by_all(open_rest)
    processes.check_same(
        {
            "data": task.data.identity,
            "tokenizer": task.tokenizer.sha256,
            "split": task.split,
            "frames": task.config.data.num_frames,
            "words": task.config.data.num_words,
            "eval_batch_size": task.config.eval_batch_size,
        }
    )
    return task


def _open_data(directory: str, split: str) -> tuple[PreparedData, frozenset[str]]:
    """The prepared data, and the clips of a split that its failed.csv lists."""
    with at_hand(directory) as folder:
        return open_data(folder), failed_clips(folder, split)


def check_split(data: PreparedData, split: str, flag: str) -> None:
    """Raises a `UserError` naming the splits there are."""
    if split not in data.splits:
        raise UserError(
            f"no split {split!r} in the prepared data, only {', '.join(data.splits)}: prepare it "
            f"too, or give another with {flag}"
        )


def _open_tokenizer(loaded: LoadedModel, config: ConfigDict, given: bool) -> Tokenizer:
    folder, clip = tokenizer_folder(loaded.directory), loaded.config.clip
    if folder is None:
        raise UserError(
            f"{loaded.directory} has no tokenizer: convert its source again with --tokenizer"
        )
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > clip.vocab_size:
        raise UserError(
            f"{folder} has {tokenizer.vocab_size} entries, the model beside it {clip.vocab_size}: "
            "it is another model's tokenizer; put the right one there"
        )
    recipe.check_words(config, clip)
    was_chosen = given and "data.tokenizer" in inherited.Chosen.of(config).all
    if was_chosen and (run := read_run_config(loaded.directory)):
        # What came from the hub does not say.
        trained = run["data"].get("tokenizer")
        if (
            trained
            and trained != config.data.tokenizer
            and not _same(tokenizer, config.data.tokenizer, clip)
        ):
            raise UserError(
                f"{loaded.directory} was trained with the tokenizer {trained}, --config has "
                f"{config.data.tokenizer}: leave --config out, or add "
                f"--config.data.tokenizer={trained}"
            )
    return tokenizer


def _same(tokenizer: Tokenizer, name: str, clip: CLIPConfig) -> bool:
    """Whether another name or place has the same tokenizer."""
    try:
        return read_tokenizer(name, clip.tokenizer).sha256 == tokenizer.sha256
    except UserError:
        return False


def writable(out: pathlib.Path) -> pathlib.Path:
    """`out`, made; better to fail now than after hours of encoding.

    Raises:
      UserError: it cannot be written to.
    """
    if jax.process_index():
        return out
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f"{run_card.RESULTS}{PART}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    return out


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def facts(
    task: Task,
    encoded: EncodedSplit,
    result: metrics.Retrieval,
    *,
    legacy: bool,
    rerank: dict,
    single_vector: dict | None,
) -> dict:
    """The run card, but for times.

    Args:
      task: what was evaluated.
      encoded: its features.
      result: the ranks.
      legacy: whether ties are counted as the released metric does, too.
      rerank: post-processing: "method", a key of `run_card_text.LABELS`, and its settings.
      single_vector: of ranks by single vectors, `single_vectors.beside_exact`; None of others.
    """
    loaded, settings = task.loaded, task.data.settings
    checkpoint = run_card.checkpoint_facts(loaded, task.sha256)
    cut = Cut.of(encoded.captions, task.tokenizer, task.config.data.num_words)
    row = None
    # What is published is of the head's own score.
    if loaded.head.name == published_results.HEAD and single_vector is None:
        row = published_results.find(
            settings.dataset, task.split, checkpoint["variant"], rerank["method"]
        )
    of_features = loaded.head.figures(encoded.text, encoded.video)
    card = {
        "checkpoint": checkpoint,
        "data": {
            "dataset": settings.dataset,
            **run_card.split_facts(encoded, task.split),
            "failed": len(task.failed - set(encoded.clip_ids)),
            "partial": getattr(settings, "partial", ""),
            "cut": dataclasses.asdict(cut),
        },
        "settings": {
            "frames": task.config.data.num_frames,
            "words": task.config.data.num_words,
            "frame_rate": settings.frame_rate,
            "image_size": settings.image_size,
            "dtype": loaded.config.dtype,
            "head": loaded.head.name,
            **dataclasses.asdict(loaded.head),
            "batch_size": task.config.eval_batch_size,
        },
        "head": {"figures": of_features, "remarks": loaded.head.remarks(of_features)},
        "gallery": published_results.differing_gallery(
            settings.dataset, task.split, len(encoded.clip_ids), len(encoded.captions)
        ),
        "tie_rule": "legacy" if legacy else "mean",
        **run_card.direction_facts(result, encoded.owner, legacy),
        "published": run_card.published_facts(row, len(encoded.clip_ids)),
        **run_card.machine_facts(task.mesh),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": json.loads(task.config.to_json_best_effort()),
        "trained_otherwise": task.trained_otherwise(),
        "rerank": rerank,
        "single_vector": single_vector,
    }
    return {**card, "notes": run_card.notes(card)}
