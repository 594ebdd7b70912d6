"""What a SOURCE is, told by looking into it: a file or directory of published weights."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from convert import hugging_face, open_clip, safetensors_file, torch_file, torchscript
from convert.tables import OPENAI_MARKS
from glscl_jax.errors import UserError

_HASHED_AT_ONCE = 1 << 24


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights as they were published.

    Attributes:
      path: as the user gave it; messages call the source so.
      container: what kind of file or directory it is.
      files: what is read of it for the model.
      tensors: name -> what has a shape and becomes a NumPy array when asked.
      activation: of the MLPs, where the source says it; None where it does not.
      tokenizer: the directory, if the tokenizer's files are in it.
    """

    path: pathlib.Path
    container: str
    files: tuple[pathlib.Path, ...]
    tensors: Mapping[str, np.ndarray]
    activation: str | None = None
    tokenizer: pathlib.Path | None = None


def open_source(path: str | pathlib.Path) -> Source:
    """Looks into a file or directory, whatever its name is.

    Raises:
      UserError: it is not there, empty, cut short, or nothing that is known.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or directory")
    tensors, container = _read_weights(path)
    marked = any(name.split(".")[-1] in OPENAI_MARKS for name in tensors)
    return Source(path, container, (path,), tensors, "quick_gelu" if marked else None)


def _open_directory(path: pathlib.Path) -> Source:
    weights = _first_file(path, hugging_face.WEIGHTS)
    if (path / hugging_face.CONFIG).is_file() and weights:
        has_tokenizer = _first_file(path, hugging_face.TOKENIZERS)
        return Source(
            path,
            "Hugging Face directory",
            (path / hugging_face.CONFIG, *_files(weights)),
            # Before the weights, so that another kind of model is called by its name.
            activation=hugging_face.read_activation(path),
            tensors=_read_weights(weights)[0],
            tokenizer=path if has_tokenizer else None,
        )
    weights = _first_file(path, open_clip.WEIGHTS)
    if (path / open_clip.CONFIG).is_file() and weights:
        return Source(
            path,
            "open_clip directory",
            (path / open_clip.CONFIG, weights),
            activation=open_clip.read_activation(path),
            tensors=_read_weights(weights)[0],
        )
    raise UserError(
        f"{path}: neither a Hugging Face directory ({hugging_face.CONFIG} and one of "
        f"{', '.join(hugging_face.WEIGHTS)}) nor an open_clip one ({open_clip.CONFIG} and one of "
        f"{', '.join(open_clip.WEIGHTS)})"
    )


def _read_weights(path: pathlib.Path) -> tuple[Mapping, str]:
    """The tensors of a file, and what kind of file it is."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; copy or download it again")
        if path.name.endswith(".index.json"):
            return safetensors_file.read_shards(path), "sharded safetensors"
        if safetensors_file.is_safetensors(path):
            return safetensors_file.read(path), "safetensors file"
        is_archive = torchscript.is_archive(path)
        tensors = torch_file.read_state_dict(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return tensors, "TorchScript archive" if is_archive else "PyTorch file"


def _files(weights: pathlib.Path) -> tuple[pathlib.Path, ...]:
    if weights.name == hugging_face.INDEX:
        return weights, *safetensors_file.shard_files(weights).values()
    return (weights,)


def _first_file(directory: pathlib.Path, names: Iterable[str]) -> pathlib.Path | None:
    return next((directory / name for name in names if (directory / name).is_file()), None)


def sha256(
    files: Iterable[pathlib.Path], track: Callable[[list], Iterable] = iter
) -> dict[str, str]:
    """SHA-256 of each file, by its name, in hexadecimal.

    Args:
      files: what to read.
      track: passes a list of (file, offset) pairs through, to show progress.
    """
    digests = {path: hashlib.sha256() for path in files}
    pieces = [
        (path, offset)
        for path in digests
        for offset in range(0, path.stat().st_size, _HASHED_AT_ONCE)
    ]
    for path, offset in track(pieces):
        with path.open("rb") as file:
            file.seek(offset)
            digests[path].update(file.read(_HASHED_AT_ONCE))
    return {path.name: digest.hexdigest() for path, digest in digests.items()}
