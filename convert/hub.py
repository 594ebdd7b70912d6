"""A model directory on the hub of Hugging Face, and back: arrays and JSON, and nothing that runs.

params.safetensors  the parameters, by their paths
model.json          sizes and settings
tokenizer/          captions to ids
config.json         of a run: how many words and frames it read, and no more of it
origin.json         where the parameters came from
"""

import contextlib
import datetime
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
from flax import traverse_util
from safetensors import numpy as safetensors

from convert import checkpoint_output
from convert.readers import safetensors_file
from glscl_jax.checkpoints.model_dir import (
    CONFIG,
    ORIGIN,
    TOKENIZER,
    LoadedModel,
    load_model,
    parameters_sha256,
    read_origin,
    read_run_config,
    save_params,
    tokenizer_folder,
)
from glscl_jax.errors import UserError
from glscl_jax.files import read_json, write_json
from glscl_jax.models.glscl import GLSCL, config_of, init_params
from glscl_jax.models.model_file import MODEL, read_model_config

WEIGHTS = "params.safetensors"
# Of a tokenizer what is read, and is no code.
_TOKENIZER_FILES = tuple(f"{TOKENIZER}/*{suffix}" for suffix in (".json", ".txt", ".model"))
FILES = (WEIGHTS, MODEL, CONFIG, ORIGIN, *_TOKENIZER_FILES)
# Of a run's config, which tells of folders and of what else was trained, what reading needs.
_READ = ("num_words", "num_frames", "frame_rate")
_WAY_IN = "log in with hf auth login, or set HF_TOKEN"
# What the hub itself puts into a new repository.
_HUBS_OWN = (".gitattributes", "README.md")


def push(path: str | os.PathLike, repo: str, *, public: bool = False, step: int | None = None):
    """Uploads a model directory into a repository of its own, which is made if it is not there.

    Args:
      path: a work directory or what `convert` wrote.
      repo: "user/name".
      public: whether everybody may read it.
      step: of a work directory; the best by validation R@1.

    Raises:
      UserError: the directory cannot be read, the repository holds something or is public, or the
        hub does not answer or lets nobody in.
    """
    import huggingface_hub

    loaded = load_model(path, jax.sharding.SingleDeviceSharding(jax.devices()[0]), step)
    api = huggingface_hub.HfApi()
    with _told(repo):
        _make_repository(api, repo, public)
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        _write(folder, loaded)
        with _told(repo):
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="A GLSCL-JAX model")
        size = (folder / WEIGHTS).stat().st_size
    print(f"{repo}: {size / 1e6:,.1f} MB of parameters, {'public' if public else 'private'}")


def pull(repo: str, out: str | os.PathLike, *, revision: str | None = None) -> None:
    """Downloads what `push` uploaded into a model directory.

    Args:
      repo: "user/name".
      out: the directory, which is not there yet.
      revision: a branch, tag or commit; what is newest.

    Raises:
      UserError: there is something at `out`, no such repository, it holds no such model, or the
        hub does not answer.
    """
    import huggingface_hub

    out = pathlib.Path(out)
    checkpoint_output.check_free(out)
    with tempfile.TemporaryDirectory() as got:
        folder = pathlib.Path(got)
        with _told(repo):
            huggingface_hub.snapshot_download(
                repo, revision=revision, local_dir=folder, allow_patterns=list(FILES)
            )
        for name in (WEIGHTS, MODEL):
            if not (folder / name).is_file():
                raise UserError(f"{repo} has no {name}: it holds no model that push uploaded")
        params = _read(folder, repo)
        with checkpoint_output.unfinished(out) as made:
            save_params(made, params)
            for name in (MODEL, CONFIG, ORIGIN):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, made / name)
            if tokenizer_folder(folder):
                shutil.copytree(folder / TOKENIZER, made / TOKENIZER)
    print(f"{out}: {sum(x.size for x in jax.tree.leaves(params)):,} parameters, from {repo}")


def _make_repository(api, repo: str, public: bool) -> None:
    """Makes it, unless an empty one is there."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        there = api.repo_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not public)
        return
    names = [one.rfilename for one in there.siblings or []]
    if held := sorted(set(names) - set(_HUBS_OWN)):
        raise UserError(f"{repo} holds something already ({held[0]}): name another REPO")
    if not there.private and not public:
        raise UserError(f"{repo} is public: add --public if that is meant")


def _write(folder: pathlib.Path, loaded: LoadedModel) -> None:
    """What is uploaded."""
    params = jax.tree.map(np.asarray, loaded.params)
    safetensors.save_file(traverse_util.flatten_dict(params, sep="/"), folder / WEIGHTS)
    write_json(folder / MODEL, read_json(loaded.directory / MODEL))
    if run := read_run_config(loaded.directory):
        data = {name: run["data"][name] for name in _READ if name in run.get("data", {})}
        write_json(folder / CONFIG, {"data": data})
    origin = read_origin(loaded.directory) or {
        "source": loaded.directory.name,
        "format": f"a work directory of train, step {loaded.step}",
        "sha256": parameters_sha256(params),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / ORIGIN, origin)
    if tokenizer := tokenizer_folder(loaded.directory):
        for pattern in _TOKENIZER_FILES:
            for file in loaded.directory.glob(pattern):
                target = folder / file.relative_to(loaded.directory)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)
        assert tokenizer.name == TOKENIZER


def _read(folder: pathlib.Path, repo: str) -> dict:
    """The parameters, of the shapes that model.json says."""
    flat = {name: np.asarray(x) for name, x in safetensors_file.read(folder / WEIGHTS).items()}
    params = traverse_util.unflatten_dict(flat, sep="/")
    config = config_of(read_model_config(folder), params)
    shapes = jax.eval_shape(lambda: init_params(GLSCL(config), 0))
    known = {name: x.shape for name, x in traverse_util.flatten_dict(shapes, sep="/").items()}
    for name in sorted(known.keys() | flat.keys()):
        told = flat[name].shape if name in flat else None
        # Parts that a model has and this head has no use for stay with it.
        if known.get(name, told) != told:
            raise UserError(f"{repo} is damaged: {WEIGHTS} has {name} {told}, not {known[name]}")
    return params


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """What the hub's client raises, of many kinds, in a line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if said := _said(error):
            raise UserError(f"{repo}: {said}") from error
        raise


def _said(error: BaseException) -> str | None:
    """What went wrong at the hub; None for something else."""
    from huggingface_hub import errors

    # A download that was refused says that nothing is kept here, because it was.
    chain = [error]
    while chain[-1].__cause__:
        chain.append(chain[-1].__cause__)
    for one in chain:
        if isinstance(one, errors.RepositoryNotFoundError):
            return f"there is no such repository, or it is private: {_WAY_IN}"
        if isinstance(one, errors.LocalTokenNotFoundError):
            return f"the hub does not know who asks: {_WAY_IN}"
        response = getattr(one, "response", None)
        if isinstance(one, errors.HfHubHTTPError) and response is not None:
            refused = response.status_code in (401, 403)
            return f"the hub answers {response.status_code}: {_WAY_IN if refused else _line(one)}"
    # By names, as the library below the client changes.
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    if names & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "TransportError"}:
        return (
            f"the hub cannot be reached ({_line(chain[-1])}): it takes the network, and"
            " HF_HUB_OFFLINE not set"
        )
    # Of a name that is none.
    return _line(error) if isinstance(error, errors.HFValidationError) else None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
