"""What a conversion writes: all of it, or nothing.

Beside the models this needs the library's writers of what a checkpoint directory holds, so that
converted and trained ones are read alike: `model_dir.save_params`, `files.write_json` and
`Tokenizer.save`.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator

from glscl_jax.checkpoints.model_dir import ORIGIN, TOKENIZER, save_params
from glscl_jax.errors import UserError
from glscl_jax.files import place, write_json
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import GLSCLConfig, learned_parts, model_settings
from glscl_jax.models.model_file import MODEL

# Settings of a GLSCL that belong to its LIM or its score.
_OF_TEMPORAL = ("temporal", "temporal_layers")


def check_free(out: pathlib.Path) -> None:
    """Raises a `UserError` if something is there already."""
    if os.path.lexists(out):
        raise UserError(f"{out} is there already: name another OUT, or remove it")


@contextlib.contextmanager
def unfinished(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write a file or directory at, which becomes `out` if nothing was raised.

    It lies beside `out`, so that the last step is a rename; otherwise it is removed.

    Raises:
      UserError: it cannot be written.
    """
    out = out.absolute()
    # Of this process: a killed one's remains do not stand in the way.
    folder = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True)
        yield folder / out.name
        check_free(out)
        place(folder / out.name, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_checkpoint(
    directory: pathlib.Path,
    params: dict,
    config: CLIPConfig | GLSCLConfig,
    tokenizer: Tokenizer | None,
    origin: dict,
) -> None:
    """Writes params/, model.json, tokenizer/ and origin.json.

    Raises:
      OSError: one of them cannot be written.
    """
    try:
        save_params(directory, params)
    except Exception as error:
        # Orbax raises many kinds of exception for a write that failed; what the disk said is last.
        raise OSError(str(error).splitlines()[0].rsplit(": ", 1)[-1]) from error
    write_json(directory / MODEL, settings(config, tuple(params)))
    if tokenizer is not None:
        clip = config if isinstance(config, CLIPConfig) else config.clip
        # CLIP's own is as it always was; others are cut to the model's places there, too.
        length = None if tokenizer.kind == "clip" else clip.context_length
        tokenizer.save(directory / TOKENIZER, length)
    write_json(directory / ORIGIN, origin)


def settings(config: CLIPConfig | GLSCLConfig, parts: tuple[str, ...]) -> dict:
    """What model.json says: the settings of the parts that are there, and of no others.

    Of a CLIP alone that is `clip`; `glscl_jax.training.warm_start` starts a GLSCL from it. A head
    is there if all is that it has learned; one that learns nothing always is.
    """
    if isinstance(config, CLIPConfig):
        return {"clip": dataclasses.asdict(config)}
    whole = model_settings(config)
    if set(learned_parts(config)) <= set(parts):
        return whole
    return {key: value for key, value in whole.items() if key in ("clip", *_OF_TEMPORAL)}
