"""A source to a checkpoint directory: read, check, name anew, verify, write."""

import collections
import dataclasses
import datetime
import pathlib
from collections.abc import Callable, Iterable

import jax
import ml_dtypes
import numpy as np

import glscl_jax
from convert import agreement, checkpoint_output
from convert.naming import families, positions, rules
from convert.naming.name_map import Table
from convert.naming.sizes import clip_of
from convert.readers.foreign import refuse_foreign
from convert.readers.source import Source, open_source, sha256
from convert.verification import against_source
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.texts import TOKENIZERS, may_be
from glscl_jax.runtime import progress

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

# The vocabulary of every CLIP that OpenAI and most others published.
CLIP_VOCABULARY = 49_408
CLIP_TOKENIZER = "openai/clip-vit-base-patch32"


@dataclasses.dataclass(frozen=True)
class Options:
    """What the two programs' flags say; None leaves it to the source.

    Attributes:
      verify: whether to compute with both and compare.
      dtype: that parameters are written in, a key of `DTYPES`.
      tokenizer: a merges file, a Hugging Face directory or a name on its hub.
      activation: of the MLPs, "quick_gelu", "gelu" or "gelu_tanh".
      entry: the dictionary of a training checkpoint that is to be read, where several are models.
      image_size: in pixels, if another than the source's.
      allow_nonfinite: whether NaN and infinite weights are converted too.
      head: settings of `GLSCLHead` that tensors do not show, or that override what they show.
    """

    verify: bool = False
    dtype: str = "float32"
    tokenizer: str | None = None
    activation: str | None = None
    entry: str | None = None
    image_size: int | None = None
    allow_nonfinite: bool = False
    head: dict = dataclasses.field(default_factory=dict)


def convert_clip(path: str, out: str, options: Options = Options()) -> None:
    """Converts a CLIP; see `convert.clip`.

    Raises:
      UserError: the source is no CLIP that can be converted, or its conversion does not compute
        the same; nothing is written then.
    """
    origin, table = _begin(path, out, options)
    if table.parts != ("clip",):
        raise UserError(
            f"{path} is a {table.title} checkpoint: convert it with python -m convert.glscl"
        )
    shown = rules.infer_config(origin.tensors, table, str(path))
    config = agreement.settled(shown, origin, table, options.activation)
    _convert(origin, table, config, pathlib.Path(out), options)


def convert_glscl(path: str, out: str, options: Options = Options()) -> None:
    """Converts a whole GLSCL, or a CLIP4Clip's towers and temporal module.

    Raises:
      UserError: see `convert_clip`.
    """
    origin, table = _begin(path, out, options)
    if table.parts == ("clip",):
        raise UserError(f"{path} holds CLIP alone: convert it with python -m convert.clip")
    config = rules.infer_config(origin.tensors, table, str(path), options.head)
    clip = families.with_hidden(config.clip, str(path))
    config = dataclasses.replace(config, clip=clip)
    if "lim" not in table.parts:
        print(f"{path} has no LIM: training starts it fresh")
    head = dataclasses.replace(config.head, **options.head)
    config = dataclasses.replace(config, head=head)
    if config.clip.embed_dim % head.lim_heads:
        raise UserError(f"--lim_heads {head.lim_heads} does not divide {config.clip.embed_dim}")
    _convert(origin, table, config, pathlib.Path(out), options)


def _begin(path: str, out: str, options: Options) -> tuple[Source, Table]:
    """The source and its names, once it is sure that nothing else stands in the way."""
    checkpoint_output.check_free(pathlib.Path(out))
    if options.verify:
        against_source.import_torch()
    origin = open_source(path, options.entry)
    refuse_foreign(origin.tensors, path)
    table = rules.detect(origin.tensors, path)
    agreement.check_kind(origin, table)
    return origin, table


def _convert(origin: Source, table: Table, config, out: pathlib.Path, options: Options) -> None:
    tokenizer = open_tokenizer(options.tokenizer, origin, clip_of(config))
    _check_end(origin, tokenizer, clip_of(config))
    if tokenizer is not None:
        config = _with_clip(config, dataclasses.replace(clip_of(config), tokenizer=tokenizer.kind))
    converted = rules.from_torch_names(
        origin.tensors, table, config, str(origin.path), _shown("converting", "tensors")
    )
    nonfinite = _check_finite(converted.nonfinite, origin, options.allow_nonfinite)
    config = _resized(converted.params, config, options.image_size)
    params = jax.tree.map(lambda x: x.astype(DTYPES[options.dtype], copy=False), converted.params)
    if options.dtype != "float32":
        nonfinite = _check_finite(rules.nonfinite(params, table), origin, options.allow_nonfinite)
    if table.fresh:
        print(f"{origin.path.name} has no {', '.join(table.fresh)}: as a fresh model begins with")
    if assumed := against_source.assumptions(origin, table, clip_of(config)):
        print(f"assumed, as {origin.path.name} does not say it: {', '.join(assumed)}")
    figures = None
    if options.verify:
        figures = against_source.run(origin, converted, config, params, tokenizer)
    said = {
        "source": origin.path.absolute().name,
        "format": f"{origin.container}, names of {table.title}",
        "wrappers": origin.wrappers,
        "sha256": sha256(origin.files, _shown("hashing", "pieces")),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "converter": f"glscl-jax {glscl_jax.__version__}",
        "dtype": options.dtype,
        "parts": list(table.parts),
        "image_size": _image_size_said(clip_of(converted.config), clip_of(config)),
        "fresh": sorted(table.fresh),
        "unused": [origin.names[name] for name in converted.ignored],
        "nonfinite": nonfinite,
        "assumed": assumed,
        "verification": figures,
    }
    with checkpoint_output.unfinished(out) as directory:
        checkpoint_output.write_checkpoint(directory, params, config, tokenizer, said)
    _report(out, params, converted.ignored, said)


def open_tokenizer(name: str | None, origin: Source, clip: CLIPConfig) -> Tokenizer | None:
    """The tokenizer of a source: the one asked for, its own, or CLIP's.

    Raises:
      UserError: there is none, it has more ids than the model, or it is another family's.
    """
    is_left = name is None and origin.tokenizer is None
    if is_left and clip.tokenizer != "clip":
        print(
            f"the model takes {TOKENIZERS[clip.tokenizer]}, and there is none beside it: none is "
            "written; give it with --tokenizer"
        )
        return None
    if is_left and clip.vocab_size != CLIP_VOCABULARY:
        print(
            f"the model has {clip.vocab_size:,} token ids, CLIP's tokenizer {CLIP_VOCABULARY:,}: "
            "none is written; give the model's own with --tokenizer"
        )
        return None
    name = name or origin.tokenizer or CLIP_TOKENIZER
    try:
        tokenizer = read_tokenizer(name, clip.tokenizer, origin.tokenizer_options)
    except UserError as error:
        way_out = "give --tokenizer, for CLIP's own OpenAI's bpe_simple_vocab_16e6.txt.gz"
        raise UserError(f"{error}: {way_out}" if name == CLIP_TOKENIZER else str(error)) from error
    if tokenizer.vocab_size > clip.vocab_size:
        raise UserError(
            f"{name} has {tokenizer.vocab_size:,} ids, the model {clip.vocab_size:,}: give the "
            "model's own with --tokenizer"
        )
    # What lies beside the weights is theirs, and said where it is not their family's.
    if name == origin.tokenizer:
        _say_if_other(tokenizer, origin)
    elif not may_be(tokenizer.kind, clip.tokenizer):
        raise UserError(
            f"{name} is of another vocabulary: it has {TOKENIZERS[tokenizer.kind]}, and the model "
            f"takes {TOKENIZERS[clip.tokenizer]}: give the model's own with --tokenizer"
        )
    return tokenizer


def _say_if_other(tokenizer: Tokenizer, origin: Source) -> None:
    """Prints whose tokenizer lies beside the weights, where their config is of another family."""
    kind, usual = tokenizer.kind, origin.settings.get("tokenizer", tokenizer.kind)
    # A tokenizer.json of which no more is known may be the family's, and most often is not.
    if kind == usual or (kind != "json" and may_be(kind, usual)):
        return
    print(
        f"{origin.path}: its tokenizer is {TOKENIZERS[kind]}, where models of its family take "
        f"{TOKENIZERS[usual]}: it is taken as the model's own, as it lies beside the weights; "
        "--tokenizer gives another"
    )


def _check_end(origin: Source, tokenizer: Tokenizer | None, clip: CLIPConfig) -> None:
    """Raises a `UserError` if the source takes a sentence from another token than its last."""
    end = tokenizer.end_id if tokenizer else clip.vocab_size - 1
    if clip.text_pooling == "end" and tokenizer and tokenizer.end_id != clip.end_id:
        raise UserError(
            f"{origin.path} takes a sentence from token {clip.end_id} and its tokenizer ends "
            f"captions with {tokenizer.end_id}: give the model's own with --tokenizer"
        )
    highest = tokenizer.vocab_size - 1 if tokenizer else end
    if clip.text_pooling == "highest" and end != highest:
        raise UserError(
            f"{origin.path} takes a sentence from a caption's highest id, and its tokenizer, which "
            f"ends captions with {end}, has ids up to {highest}: give the model's own with "
            "--tokenizer"
        )
    if origin.end_id not in (None, end):
        whose = f"its tokenizer ends captions with {end}" if tokenizer else "it has no tokenizer"
        raise UserError(
            f"{origin.path} takes a sentence from token {origin.end_id} (text_config.eos_token_id) "
            f"and {whose}: give the model's own with --tokenizer, or mend its config"
        )


def _check_finite(names: tuple[str, ...], origin: Source, allowed: bool) -> list[str]:
    """What these are called in the file; a `UserError` if there are any and none is allowed."""
    called = [origin.names.get(name, name) for name in names]
    if called and not allowed:
        raise UserError(
            f"{origin.path} has NaN or infinite weights in {', '.join(called)}, or such as are "
            "beyond the type that is written: --allow_nonfinite converts them as they are"
        )
    return called


def _resized(params: dict, config, size: int | None):
    """Interpolates the patches' positions in place; returns the config of that image size."""
    if size is None:
        return config
    return _with_clip(config, positions.resize_images(params["clip"], clip_of(config), size))


def _with_clip(config, clip: CLIPConfig):
    """The same model with other towers."""
    return clip if isinstance(config, CLIPConfig) else dataclasses.replace(config, clip=clip)


def _image_size_said(source: CLIPConfig, here: CLIPConfig) -> dict:
    if source == here:
        return {"source": source.image_size}
    how = "bicubic interpolation of the patches' positions"
    return {"source": source.image_size, "here": here.image_size, "by": how}


def _shown(label: str, unit: str) -> Callable[[list], Iterable]:
    return lambda items: progress.track(items, label, len(items), unit)


def _report(out: pathlib.Path, params: dict, ignored: tuple[str, ...], said: dict) -> None:
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{out}: {count:,} parameters in {said['dtype']}, from {said['format']}")
    if ignored:
        groups = collections.Counter(name.split(".")[0] for name in ignored)
        listed = ", ".join(f"{name} ({number})" for name, number in groups.items())
        print(f"saved in the source but never used: {listed}; origin.json has every name")
    if said["nonfinite"]:
        print(f"NaN or infinite: {', '.join(said['nonfinite'])}")
