"""What a run takes over from the checkpoint that it starts or goes on from.

A checkpoint says what makes its numbers: sizes, activation, the LIM's heads, temperature,
tokenizer. A setting that nobody chose follows it; one that was chosen and contradicts it is
refused, since parameters mean something else under other settings. Chosen is what the command line
gives, or what a config file changes from configs/common.py. Of two things a config file's word is
only for a model that starts fresh: the name of CLIP's sizes (`model.clip.variant`) and the
tokenizer; the command line's word stands for them, too.

One choice is no contradiction: another head. The checkpoint's encoders and module over time are
taken, its head is left behind, and the chosen one starts fresh.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from glscl_jax.checkpoints.model_dir import at_hand, read_run_config, tokenizer_folder
from glscl_jax.errors import Problems, UserError
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer, read_tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.variants import VARIANTS, variant_of
from glscl_jax.models.glscl import (
    GLSCLConfig,
    learned_parts,
    model_config,
    model_settings,
)
from glscl_jax.models.model_file import read_model_config, read_model_settings

# Of the machine and not of the model, or of what it is fed with: each run has its own.
_OWN = ("dtype", "remat", "scan", "attention", "towers")
# Changes training and no score: it follows, but may be chosen.
_FREE = ("head.lim_dropout",)
_VARIANT, _TOKENIZER, _WORDS = "model.clip.variant", "data.tokenizer", "data.num_words"
_HEAD = "head.name"


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint directory, as far as it says what it is.

    Attributes:
      directory: a work directory, or what `convert` wrote.
      settings: those of the parts it has, by path: "clip.activation", "head.temperature".
      clip: sizes of its towers, by name.
      tokenizer: the folder; None if there is none.
      tokenizer_name: of it, as a config has it.
      num_words: places of a caption in its training; None of a converted one.
      resumes: whether it is the run itself, which is resumed, and no other checkpoint.
      left_head: the name of its head, of which nothing is taken; "" where its head is, or it has
        none that learned.
    """

    directory: pathlib.Path
    settings: Mapping[str, object]
    clip: Mapping[str, object]
    tokenizer: pathlib.Path | None
    tokenizer_name: str
    num_words: int | None
    resumes: bool
    left_head: str = ""

    @property
    def has_temporal(self) -> bool:
        """Whether a temporal module, or that there is none, is part of it."""
        return "temporal" in self.settings


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Paths of settings that somebody chose.

    Attributes:
      all: by a config file or on the command line.
      commanded: on the command line.
    """

    all: frozenset[str]
    commanded: frozenset[str]

    @classmethod
    def of(cls, config: ConfigDict, commanded: Collection[str] = ()) -> "Chosen":
        """What was chosen in a config, of which `commanded` on the command line."""
        # Not before a config is there: reading a checkpoint does not need the recipes.
        from configs import common

        base, given = (flatten_dict(x.to_dict(), sep=".") for x in (common.base(), config))
        changed = {path for path, value in given.items() if value != base.get(path)}
        changed = {path for path in changed if given[path] not in (None, "")}
        commanded = {path for path in commanded if given.get(path) not in (None, "")}
        return cls(frozenset(changed | commanded), frozenset(commanded))


def read_source(directory: str | pathlib.Path, resumes: bool = False) -> Source:
    """Reads what a checkpoint directory says of itself.

    Args:
      directory: the checkpoint's; of one in a bucket what is read lies in a local copy.
      resumes: whether it is the run's own work directory.

    Raises:
      UserError: it is no checkpoint directory, or damaged.
    """
    with at_hand(directory, name="config.init_from") as folder:
        return _source(folder.absolute(), resumes)


def _source(directory: pathlib.Path, resumes: bool) -> Source:
    model = read_model_config(directory)
    said = read_model_settings(directory)
    whole = {name: value for name, value in model_settings(model).items() if name in said}
    clip = whole["clip"]
    if not resumes and not learned_parts(model):
        whole.pop("head", None)  # Any head can begin where there is nothing of another.
    settings = {
        name: value
        for name, value in flatten_dict(whole, sep=".").items()
        if name.split(".")[0] not in _OWN
    }
    folder, data = tokenizer_folder(directory), (read_run_config(directory) or {}).get("data", {})
    return Source(
        directory,
        settings,
        clip,
        tokenizer=folder,
        tokenizer_name=data.get("tokenizer", "") if resumes else str(folder or ""),
        num_words=data.get("num_words"),
        resumes=resumes,
    )


def leave_head(source: Source, config: ConfigDict, chosen: Chosen) -> Source:
    """The checkpoint without its head, where somebody chose another; a run that goes on is itself.

    Args:
      source: the checkpoint.
      config: as it was given.
      chosen: of the config.
    """
    theirs = source.settings.get(_HEAD)
    if (
        source.resumes
        or theirs in (None, config.model.head.name)
        or f"model.{_HEAD}" not in chosen.all
    ):
        return source
    rest = {path: x for path, x in source.settings.items() if not path.startswith("head.")}
    return dataclasses.replace(source, settings=rest, left_head=theirs)


def resolve(config: ConfigDict, source: Source | None, chosen: Chosen) -> ConfigDict:
    """The config with what it leaves open filled in: from the checkpoint, else the defaults.

    Whatever contradicts the checkpoint is here as chosen, or (CLIP's sizes) as the checkpoint has
    it; `check` refuses it.
    """
    config = config.copy_and_resolve_references().unlock()
    if source is not None:
        config.model.clip.update(source.clip)
        config.model.clip.variant = ""
        for name, value in source.settings.items():
            if f"model.{name}" not in chosen.all and not name.startswith("clip."):
                section, _, last = name.rpartition(".")
                (config.model[section] if section else config.model)[last] = value
        if not source.has_temporal and "model.temporal_layers" not in chosen.all:
            # They start from the text tower's.
            layers = min(config.model.temporal_layers, source.clip["text_layers"])
            config.model.temporal_layers = layers
        if _WORDS not in chosen.all:
            fitting = CLIPConfig(**source.clip).fitting_length(config.data.num_words)
            config.data.num_words = source.num_words or fitting
        if source.tokenizer and _TOKENIZER not in chosen.commanded:
            config.data.tokenizer = source.tokenizer_name
    if config.contrastive == "sigmoid":
        config.model.clip.logit_bias = True  # A CLIP without one begins with SigLIP's.
    try:
        # Whether the rest goes with it is the recipe's matter.
        rest = {"temporal": "None", "head": {"name": "mean"}}
        clip = model_config({"clip": config.model.clip.to_dict(), **rest}).clip
    except (TypeError, ValueError) as error:
        raise UserError(f"config.model.clip: {error}") from error
    config.model.clip.update(dataclasses.asdict(clip))
    config.model.clip.variant = variant_of(clip) or ""
    if source is None and _WORDS not in chosen.all:
        config.data.num_words = clip.fixed_length or config.data.num_words
    return config.lock()


def follow_words(config: ConfigDict, clip: CLIPConfig) -> str:
    """Puts as many places of a caption as a model has into a config in which nobody chose them.

    Args:
      config: how clips are read; `data.num_words` may change.
      clip: the model.

    Returns:
      A line on what changed, "" for nothing.
    """
    words = config.data.num_words
    fitting = clip.fitting_length(words)
    if fitting == words or _WORDS in Chosen.of(config).all:
        return ""
    config.data.num_words = fitting
    return f"captions have {fitting} places as the model's text tower has, for {_WORDS} is {words}"


def check(config: ConfigDict, source: Source, chosen: Chosen) -> None:
    """Compares what was chosen with the checkpoint.

    Args:
      config: as it was given, not resolved.
      source: the checkpoint.
      chosen: of the config.

    Raises:
      UserError: naming every setting that contradicts it, its value and the checkpoint's.
    """
    way_out = "leave it out, or start from another checkpoint"
    whose = f"config.init_from {source.directory}"
    if source.resumes:
        way_out = f"give the run a --workdir of its own, or remove {source.directory}"
        whose = f"the run in {source.directory}"
    problems, given = Problems(), flatten_dict(config.model.to_dict(), sep=".")
    if _VARIANT in chosen.commanded:
        _check_variant(config.model.clip.variant, source, problems, f"{whose}: {way_out}")
    for name, theirs in source.settings.items():
        if f"model.{name}" not in chosen.all or name in _FREE:
            continue
        if name == "temporal_layers" and source.settings["temporal"] != "seqTransf":
            continue
        if given.get(name) != theirs:
            problems.add(
                f"{whose} has another model ({name} {theirs!r}, now {given.get(name)!r} by "
                f"config.model.{name}): {way_out}"
            )
    if source.resumes and config.contrastive == "sigmoid" and not source.clip["logit_bias"]:
        problems.add(f"{whose} has no bias for config.contrastive sigmoid: {way_out}")
    if not source.resumes:
        _check_beginnings(config, source, chosen, problems)
    problems.raise_all()


def _check_variant(variant: str, source: Source, problems: Problems, whose: str) -> None:
    # An unknown one is said of the config itself.
    sizes = dataclasses.asdict(VARIANTS[variant]) if variant in VARIANTS else {}
    # No size: a variant is trained with either.
    for name in ("activation", "tokenizer"):
        sizes.pop(name, None)
    if other := [
        f"{x} {source.clip[x]!r}, now {sizes[x]!r}" for x in sizes if sizes[x] != source.clip[x]
    ]:
        problems.add(
            f"config.model.clip.variant {variant} is of other sizes ({', '.join(other)}) than "
            f"{whose}"
        )


def _check_beginnings(
    config: ConfigDict, source: Source, chosen: Chosen, problems: Problems
) -> None:
    """Whether what the checkpoint lacks can begin, and captions become its ids."""
    model, layers = config.model, source.clip["text_layers"]
    begins = not source.has_temporal and model.temporal == "seqTransf"
    if begins and "model.temporal_layers" in chosen.all and model.temporal_layers > layers:
        problems.add(
            f"config.model.temporal_layers {model.temporal_layers}: the text tower that they start "
            f"from, of config.init_from {source.directory}, has {layers} layers"
        )
    if source.tokenizer and _TOKENIZER in chosen.commanded:
        name = config.data.tokenizer
        with problems.noted():
            kind = source.clip["tokenizer"]
            if read_tokenizer(name, kind).sha256 != load_tokenizer(source.tokenizer).sha256:
                raise UserError(
                    f"config.data.tokenizer {name} is another than that of config.init_from "
                    f"{source.directory}: leave it out"
                )
    if not source.tokenizer and _TOKENIZER not in chosen.all:
        problems.add(
            f"config.init_from {source.directory} has no tokenizer: give its own with "
            "--config.data.tokenizer"
        )


def describe(source: Source, config: ConfigDict, model: GLSCLConfig) -> str:
    """A line on what a run starts from.

    Args:
      source: the checkpoint.
      config: resolved.
      model: its model.
    """
    clip = model.clip
    missing = [] if source.has_temporal or model.temporal == "None" else ["temporal module"]
    parts = ["LIM" if part == "lim" else part for part in learned_parts(model)]
    missing += [] if _HEAD in source.settings or source.left_head else parts
    rest = f"; it has no {' and no '.join(missing)}" if missing else ""
    if source.left_head:
        fresh = f"starts fresh ({', '.join(parts)})" if parts else "has nothing to learn"
        rest += f"; its head {source.left_head} is left behind, the head {model.head.name} {fresh}"
    return (
        f"starting from {source.directory}: {config.model.clip.variant or 'a CLIP of its own size'}"
        f", {clip.image_size} pixels, {clip.activation}, tokenizer {config.data.tokenizer}, "
        f"{config.data.num_words} words{rest}"
    )
