"""A model directory: what `train` or `convert` wrote, as what encodes and scores reads it.

model.json        sizes and settings of the model
params/           its parameters; of a run they are in checkpoints/STEP/params
tokenizer/        captions to ids
origin.json       of a converted one: from which file
config.json       of a run: what it was made with
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Sharding
from orbax.checkpoint import v1 as ocp

from glscl_jax.checkpoints.checksums import checked
from glscl_jax.errors import UserError
from glscl_jax.files import read_json
from glscl_jax.models.glscl import (
    GLSCL,
    GLSCLConfig,
    config_of,
    in_sections,
    model_settings,
)
from glscl_jax.models.heads.head import Head
from glscl_jax.models.model_file import read_model_config
from glscl_jax.runtime import mirror, processes
from glscl_jax.runtime.bucket_copy import Copy, Marked

BEST = "R@1"

# What lies in the directory; these names stand here alone, and that of `MODEL` where it is read.
CONFIG, ORIGIN = "config.json", "origin.json"
TOKENIZER, PARAMS, CHECKPOINTS = "tokenizer", "params", "checkpoints"
_METADATA = "_CHECKPOINT_METADATA"
# A step counts once Orbax's own word on it is there.
STEPS = Marked(rf"{CHECKPOINTS}/\d+/", _METADATA)
# What is large, of every step, and what no model is read from.
_LARGE = re.compile(rf"{CHECKPOINTS}/\d+/(?!metrics/)\w+/|profile/|events\.out|metrics\.jsonl$")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """What a checkpoint directory holds for encoding.

    Attributes:
      config: of the model.
      params: parameters.
      step: of the run that trained them; None for converted ones.
      directory: where its `tokenizer/` and `config.json` are.
    """

    config: GLSCLConfig
    params: dict
    step: int | None
    directory: pathlib.Path

    @property
    def model(self) -> GLSCL:
        """What encodes with the parameters that there are."""
        return GLSCL(config_of(self.config, self.params))

    @property
    def head(self) -> Head:
        """What scores its features."""
        return self.model.config.head


def load_model(
    directory: str | os.PathLike,
    sharding: Sharding,
    step: int | None = None,
    *,
    encodes: bool = True,
) -> LoadedModel:
    """Reads a checkpoint directory, converted or trained.

    Args:
      directory: a work directory, or what `convert` wrote.
      sharding: where the parameters go. Of several processes all call this together, but for a
        sharding over devices of one alone, which reads by itself.
      step: of a work directory; without one the best by validation R@1, else the latest.
      encodes: whether it must have encoders, and not a head alone, under another's features.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    if jax.process_count() == 1:
        found = _found(directory, step, encodes)
        return dataclasses.replace(found, params=_load_params(_params_of(found), sharding))

    def found_alone():
        with _alone():
            return _found(directory, step, encodes)

    if sharding.is_fully_addressable:
        found = found_alone()
        with _alone():
            return dataclasses.replace(found, params=_load_params(_params_of(found), sharding))
    # Reading another model, or nothing at all, one would keep the others waiting.
    found = processes.by_all(found_alone)
    told = {"step": found.step, "model": model_settings(found.config)}
    processes.check_same({"checkpoint": told})
    return dataclasses.replace(found, params=_load_params(_params_of(found), sharding))


def _found(directory: str | os.PathLike, step: int | None, encodes: bool) -> LoadedModel:
    """What `load_model` is to read, without the parameters."""
    with at_hand(directory, step) as folder:
        found = _look(folder.absolute(), step)
    if encodes and not found.config.towers:
        raise UserError(
            f"{directory} has no encoders of its own, it was trained from another's features: "
            "evaluate it with --features"
        )
    return found


def at_hand(
    directory: str | os.PathLike, step: int | None = None, name: str = "the checkpoint"
) -> contextlib.AbstractContextManager[pathlib.Path]:
    """A checkpoint directory on this machine's disks, for the body; see `mirror.fetched`.

    Of one in a bucket the parameters of a single step are fetched.

    Args:
      directory: a path, or an address in a bucket.
      step: as of `load_model`.
      name: of the flag or argument, for messages.
    """

    def fetch(copy: Copy) -> None:
        copy.fetch(lambda name: not _LARGE.match(name))
        if steps := steps_on_disk(copy.path / CHECKPOINTS):
            wanted = _best(copy.path / CHECKPOINTS) if step is None else step
            if wanted in steps:
                copy.fetch(lambda name: name.startswith(f"{CHECKPOINTS}/{wanted}/{PARAMS}/"))

    return mirror.fetched(directory, name, [STEPS], fetch)


def _look(directory: pathlib.Path, step: int | None) -> LoadedModel:
    config = read_model_config(directory)
    if (directory / PARAMS).is_dir():
        if step is not None:
            raise UserError(f"{directory} was converted and has no steps: leave step {step} out")
        return LoadedModel(config, {}, None, directory)
    steps = steps_on_disk(directory / CHECKPOINTS)
    if not steps:
        raise UserError(f"{directory} holds no complete checkpoint: has its run saved one yet?")
    if step is None:
        step = _best(directory / CHECKPOINTS)
    if step not in steps:
        raise UserError(f"{directory} has no step {step}: there are {', '.join(map(str, steps))}")
    return LoadedModel(config, {}, step, directory)


def _params_of(found: LoadedModel) -> pathlib.Path:
    if found.step is None:
        return found.directory
    return found.directory / CHECKPOINTS / str(found.step)


def save_params(directory: pathlib.Path, params: dict) -> None:
    """Writes parameters alone, as `convert` does: `directory/params`.

    Takes hardly more memory than the parameters. Orbax's own settings take three times as much:
    it copies arrays first, and holds all that it has compressed until the end.
    """
    context = uncompressed()
    context.memory.deepcopy_host_arrays = False
    with context:
        ocp.save_checkpointables(directory.absolute(), {"params": params}, overwrite=True)


def uncompressed() -> ocp.Context:
    """Settings to save with: compression makes float32 weights smaller by 7 %, and takes most of
    the time of a save from the processors that prepare the next batches.
    """
    context = ocp.Context()
    context.array.saving.use_compression = False
    return checked(context)


def _alone() -> ocp.Context:
    """Settings to read with while the other processes do something else."""
    context, number = ocp.Context(), jax.process_index()
    context.multiprocessing_options.primary_host = number
    context.multiprocessing_options.active_processes = {number}
    context.multiprocessing_options.barrier_sync_key_prefix = f"process{number}"
    return context


def _load_params(path: pathlib.Path, sharding: Sharding) -> dict:
    try:
        # Asked for by name: Orbax would take the other directories for unreadable parts.
        stored = ocp.metadata(path, "params").metadata
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), stored
        )
        return ocp.load(path, abstract, checkpointable_name="params")
    except Exception as error:
        raise damaged(path, error) from error


def steps_on_disk(directory: pathlib.Path) -> list[int]:
    """Complete steps in a run's `checkpoints`, ascending."""
    names = (path.name for path in directory.iterdir()) if directory.is_dir() else ()
    return sorted(int(name) for name in names if name.isdigit())


def _best(directory: pathlib.Path) -> int:
    # Read as files: Orbax's own reader asks for all processes.
    steps = steps_on_disk(directory)
    files = {step: directory / str(step) / "metrics" / "metrics" for step in steps}
    scores = {step: read_json(path).get(BEST) for step, path in files.items() if path.exists()}
    judged = {step: score for step, score in scores.items() if score is not None}
    return max(judged, key=judged.get, default=steps[-1])


def damaged(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"the checkpoint {path} cannot be read ({_missing(path) or reason(error)}): move it away "
        "to use an earlier one"
    )


def _missing(path: pathlib.Path) -> str:
    """Which of the files that every checkpoint has is gone or no JSON, "" for none."""
    if not (path / _METADATA).exists():
        return f"{_METADATA} is gone"
    if not (path / PARAMS).is_dir():
        return "params is gone"
    for folder in (path / name for name in ("params", "progress") if (path / name).is_dir()):
        for name in ("_METADATA", "manifest.ocdbt"):
            if not (folder / name).exists():
                return f"{folder.name}/{name} is gone"
        try:
            json.loads((folder / "_METADATA").read_text(encoding="utf-8"))["tree_metadata"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{folder.name}/_METADATA is damaged"
    return ""


def reason(error: BaseException) -> str:
    """What the disk said, without the names that Orbax and its threads wrap around it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    text = str(error).strip().partition("\n")[0]
    text = text.split(" [tensorstore_spec")[0].split(" [os_error")[0]
    reason = text.split(": ")[-1]
    # Of a damaged array its name, of a damaged index the file.
    arrays = re.findall(r'"([^"]+)/c/[^"]*" in OCDBT', text)
    files = re.findall(r'local file "([^"]+)"', text)
    if (named := arrays or files) and named[-1] not in reason:
        reason = f"{named[-1]}: {reason}"
    return reason or type(error).__name__


def parameters_sha256(params: dict) -> str:
    """SHA-256 of the parameters: the path, type, shape and bytes of each, in order of the paths.

    It is of the numbers and not of files, so it is the same however and wherever they are stored.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(traverse_util.flatten_dict(params, sep="/").items()):
        array = np.asarray(jax.device_get(leaf))
        digest.update(f"{path} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_run_config(directory: pathlib.Path) -> dict | None:
    """A run's `config.json`, with settings where they are now; None of a converted directory.

    Raises:
      UserError: the file is damaged.
    """
    path = directory / CONFIG
    found = read_json(path) if path.exists() else None
    if found and "model" in found:
        return {**found, "model": in_sections(found["model"])}
    return found


def read_origin(directory: pathlib.Path) -> dict | None:
    """A converted directory's `origin.json`; None of a run's. Raises as `read_run_config`."""
    path = directory / ORIGIN
    return read_json(path) if path.exists() else None


def tokenizer_folder(directory: pathlib.Path) -> pathlib.Path | None:
    """Where a directory's tokenizer lies; None if it has none."""
    folder = directory / TOKENIZER
    return folder if folder.is_dir() else None
