"""Training a head from features that encoders made once: what stands in for data and validation.

What is frozen makes the same features at every step, so they are read in place of clips and
captions. The steps are those of a run with frozen encoders: the same pairs in the same order, the
same loss, the same updates.
"""

import copy
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glscl_jax.errors import Problems, UserError
from glscl_jax.files import read_json
from glscl_jax.input_pipeline import pair_order
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, init_params
from glscl_jax.retrieval import encoding, feature_identity, tower_features
from glscl_jax.retrieval.encoded_split import IDENTITY, EncodedSplit
from glscl_jax.retrieval.feature_identity import (
    CHECKPOINT,
    CHECKSUM,
    owned,
    owner_of,
    trained_on,
)
from glscl_jax.retrieval.tower_features import TowerFeatures
from glscl_jax.runtime import sharding
from glscl_jax.training import recipe
from glscl_jax.training.groups import all_tensors
from glscl_jax.training.validation import figures

# The encoders' parameters, whatever they are called below; the logit's scale is none of theirs.
TOWERS = "^clip/(vision|text)/"
_OF_TOWERS = ("^clip/(vision|text)", "^clip/(text|vision)", "^clip/vision", "^clip/text")


class PrecomputedFeatures:
    """A directory of features, as a run's data.

    Attributes:
      directory: as it was given.
      identity: of each split, what the features are of, and a checksum of the arrays.
      splits: split name -> number of videos.
    """

    def __init__(self, directory: str, splits: dict[str, TowerFeatures]):
        self.directory = directory
        self._splits = splits
        self.identity = {
            name: {**split.identity, CHECKSUM: split.checksum} for name, split in splits.items()
        }
        self.splits = {name: len(split.ids) for name, split in splits.items()}

    @property
    def partial(self) -> str:
        """How it came out short; nobody knows."""
        return ""

    def as_begun(self, directory: pathlib.Path) -> "PrecomputedFeatures":
        """The same, without checksums where the run of a directory began before it kept any."""
        found, begun = copy.copy(self), trained_on(directory)
        found.identity = {
            name: {k: v for k, v in one.items() if k != CHECKSUM or k in begun.get(name, one)}
            for name, one in self.identity.items()
        }
        return found

    def split(self, name: str) -> TowerFeatures:
        """The features of one."""
        return self._splits[name]

    def batches(self, config: ConfigDict, first: int, total: int) -> Iterator[dict]:
        """The batches of steps `first` to `total` - 1, of the pairs that clips would be read of."""
        kept = self._splits[config.data.train_split]
        order = pair_order.TrainOrder(kept.counts, config.batch_size, config.seed)
        for step in range(first, total):
            picked = order(step)
            texts = kept.texts_of(picked.clips, picked.captions)
            yield {
                **kept.text_batch(texts),
                **kept.video_batch(picked.clips),
                "clip_index": picked.clips.astype(np.int32),
            }

    def clip_ids(self, config: ConfigDict) -> Callable[[np.ndarray], list[str]]:
        """What looks up the ids of training videos by their places."""
        ids = self._splits[config.data.train_split].ids
        return lambda places: [ids[place] for place in places]


def open_features(directory: str, config: ConfigDict, model: GLSCLConfig) -> PrecomputedFeatures:
    """Opens the splits that a run reads.

    Raises:
      UserError: naming all that is missing, damaged, or not what config and model take.
    """
    names = [config.data.train_split, *filter(None, [config.data.validation_split])]
    splits, problems = {}, Problems()
    for name in names:
        read = functools.partial(tower_features.read_features, tokens=model.head.reads_tokens)
        if kept := problems.attempt(read, directory, name):
            splits[name] = kept
            problems.attempt(check_sizes, f"--features {directory}, {name}", kept, config, model)
    problems.raise_all()
    if len(owners := {owner_of(split.identity) for split in splits.values()}) > 1:
        told = " and ".join(sorted(owners))
        raise UserError(f"--features {directory}: its splits are of other encoders ({told})")
    for name in names[1:]:
        if found := feature_identity.unlike(splits[names[0]].identity, splits[name].identity):
            raise UserError(
                f"--features {directory}: split {name!r} was made otherwise than {names[0]!r} "
                f"({found}): have both made alike, or say the same in each {IDENTITY}"
            )
    return PrecomputedFeatures(directory, splits)


def check_sizes(where: str, kept: TowerFeatures, config: ConfigDict, model: GLSCLConfig) -> None:
    """Raises a `UserError` where features are not of the width and lengths that a model takes."""
    width, frames = kept.sentence.shape[-1], kept.frames.shape[1]
    if width != model.clip.embed_dim:
        raise UserError(
            f"{where}: features are {width} wide, the model's {model.clip.embed_dim}: give "
            f"--config.model.clip.embed_dim={width}, or the features of config.init_from"
        )
    if frames != config.data.num_frames:
        raise UserError(
            f"{where}: videos have {frames} frames, config.data.num_frames is "
            f"{config.data.num_frames}: give --config.data.num_frames={frames}"
        )
    words = 0 if kept.tokens is None else kept.tokens.shape[1]
    if words and words != config.data.num_words:
        raise UserError(
            f"{where}: texts have {words} tokens, config.data.num_words is "
            f"{config.data.num_words}: give --config.data.num_words={words}"
        )


def is_foreign(directory: str) -> bool:
    """Whether features are of an encoder that this library has not.

    Raises:
      UserError: there are none, or they do not say whose they are.
    """
    split = tower_features.splits_of(directory)[0]
    path = pathlib.Path(directory) / split / IDENTITY
    identity = read_json(path)
    if not owned(identity):
        raise UserError(f'{path} does not say whose features they are: give it an "encoder"')
    return not identity.get(CHECKPOINT)


def freeze_encoders(config: ConfigDict, directory: str, has_source: bool) -> None:
    """Makes a resolved recipe one of frozen encoders; in place.

    Raises:
      UserError: it asks for what needs clips, or a checkpoint is missing or too many.
    """
    if jax.process_count() > 1:
        raise UserError("--features works in one process only")
    if config.data.augment:
        raise UserError(
            "--features: config.data.augment changes clips, and these were encoded as they are: "
            "give --config.data.augment=False"
        )
    settings = recipe.read(config)
    frozen = settings.optim.frozen
    if is_foreign(directory):
        if config.init_from:
            raise UserError(
                f"config.init_from {config.init_from}: --features {directory} are of another "
                "encoder, which no checkpoint goes with: leave it out"
            )
        config.model.towers = False
        # What is not there is not frozen.
        config.optim.frozen = _without_towers(frozen, settings.model)
        return
    if not has_source:
        raise UserError(
            f"--features {directory} are of a checkpoint: name it with --config.init_from"
        )
    config.model.towers = True
    config.optim.frozen = (*(x for x in frozen if x != TOWERS), TOWERS)


def _without_towers(patterns: tuple[str, ...], model: GLSCLConfig) -> tuple[str, ...]:
    """Patterns of parameters but those that speak of the encoders alone, which are not there."""
    if not any(x.startswith(_OF_TOWERS) for x in patterns):
        return patterns
    rest = GLSCL(dataclasses.replace(model, towers=False))
    names = all_tensors(jax.eval_shape(lambda: init_params(rest, 0)))
    return tuple(
        x for x in patterns if not x.startswith(_OF_TOWERS) or any(re.search(x, y) for y in names)
    )


def check_checkpoint(kept: PrecomputedFeatures, sha256: str, directory: str) -> None:
    """Raises a `UserError` where features are of other parameters than those started from."""
    for name, identity in kept.identity.items():
        theirs = identity.get(CHECKPOINT)
        if theirs != sha256:
            raise UserError(
                f"--features {kept.directory}, {name}: they are of the checkpoint "
                f"{str(theirs)[:12]}..., config.init_from {directory} is {sha256[:12]}...: have "
                "its features written, or start from theirs"
            )


class HeadEncoder:
    """What a model makes of encoders' features: its module over time, and its head."""

    def __init__(self, model: GLSCL, mesh: Mesh, batch_size: int):
        """Batches of one size are compiled, of texts and of videos."""
        self.head, self._mesh, self._size = model.config.head, mesh, batch_size
        whole = {"out_shardings": sharding.replicated(mesh)}
        self._text, self._video = (
            jax.jit(functools.partial(_apply, model=model, method=method), **whole)
            for method in ("text_features", "video_features")
        )

    def __call__(self, params: dict, kept: TowerFeatures) -> EncodedSplit:
        """The head's features of a split; raises a `UserError` where one cannot be scored."""
        found = EncodedSplit(
            text=self._run(self._text, params, kept.text_batch, len(kept.owner)),
            video=self._run(self._video, params, kept.video_batch, len(kept.ids)),
            owner=kept.owner,
            captions=kept.captions,
            clip_ids=kept.ids,
            frames_decoded=int(kept.frame_mask.sum()),
            seconds={},
        )
        encoding.check_encoded(found, self.head)
        return found

    def _run(self, run: Callable, params, take: Callable, count: int) -> Any:
        parts = []
        for start in range(0, count, self._size):
            # One shape is compiled: the last batch is filled up with its last row.
            rows = np.minimum(np.arange(start, start + self._size), count - 1)
            found = jax.device_get(run(params, sharding.put_batch(take(rows), self._mesh)))
            parts.append(jax.tree.map(lambda x: x[: count - start], found))  # noqa: B023
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class FeatureValidation:
    """Scores and ranks the validation split's features; called with parameters.

    Attributes:
      split: its name; "" for none.
    """

    def __init__(self, config: ConfigDict, kept: PrecomputedFeatures, model: GLSCL, mesh: Mesh):
        self.split, self._kept = config.data.validation_split, kept
        self._encode = HeadEncoder(model, mesh, config.eval_batch_size)

    def __call__(self, params) -> dict[str, float]:
        """The figures of both directions, as `validation.Validation`'s."""
        encoded = self._encode(params, self._kept.split(self.split))
        return figures(encoded, self._encode.head)


def _apply(params, batch, *, model: GLSCL, method: str):
    return model.apply({"params": params}, **batch, method=method)
