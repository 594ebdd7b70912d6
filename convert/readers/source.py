"""What a SOURCE is, told by looking into it: a file or directory of published weights."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from convert.naming import long_clip, videoprism_names, wrapping
from convert.naming.published_names import OPENAI_MARKS
from convert.readers import (
    flax_file,
    hugging_face,
    npz_file,
    open_clip,
    safetensors_file,
    shards,
    torch_file,
    torchscript,
    videoprism,
)
from glscl_jax.errors import UserError

_HASHED_AT_ONCE = 1 << 24
_NPZ = "npz file"


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights as they were published.

    Attributes:
      path: as the user gave it; messages call the source so.
      container: what kind of file or directory it is.
      files: what is read of it for the model.
      tensors: name -> what has a shape and becomes a NumPy array when asked; without the words
        that wrappers put before names.
      names: what each is called in the file.
      settings: of the towers, by their names in `CLIPConfig`, that the source says; none of a file.
      end_id: the token whose place has the sentence; None if it is the highest of a caption.
      tokenizer: the directory, if the tokenizer's files are in it.
      tokenizer_options: how open_clip uses it, as `read_tokenizer` takes them.
      kind: the `model_type` of a Hugging Face directory; None of anything else.
      keys: where a directory's config says a setting, for messages.
    """

    path: pathlib.Path
    container: str
    files: tuple[pathlib.Path, ...]
    tensors: Mapping[str, np.ndarray]
    names: Mapping[str, str]
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    end_id: int | None = None
    tokenizer: pathlib.Path | None = None
    tokenizer_options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    kind: str | None = None
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def activation(self) -> str | None:
        """Of the MLPs, where the source says it."""
        return self.settings.get("activation")

    @property
    def is_openais(self) -> bool:
        """Whether the tensors are of OpenAI's own code, or of Long-CLIP's, which is built on it.

        What names and shapes leave open is known then: the activation, the heads, the pooling.
        """
        return not self.tensors.keys().isdisjoint(OPENAI_MARKS) or long_clip.is_long(self.tensors)

    @property
    def wrappers(self) -> list[str]:
        """The words that the file's names have and the tensors' here do not."""
        return wrapping.wrappers(self.names.values())


def open_source(path: str | pathlib.Path, entry: str | None = None) -> Source:
    """Looks into a file or directory, whatever its name is.

    Args:
      path: of it.
      entry: which dictionary of a training checkpoint, where several are models.

    Raises:
      UserError: it is not there, empty, cut short, or nothing that is known.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _open_directory(path, entry)
    if not path.is_file():
        raise UserError(f"{path}: no such file or directory")
    tensors, container = _read_weights(path, entry)
    if container == _NPZ:
        videoprism.check(tensors, path)
        said = videoprism.settings(tensors, path)
        return _source(path, container, (path,), videoprism.fold(tensors), settings=said)
    source = _source(path, container, (path,), tensors)
    if any(name.startswith(videoprism_names.MARK) for name in source.tensors):
        raise UserError(
            f"{path} is a VideoPrism of transformers, and does not say how wide its heads are: "
            "convert the directory with its config"
        )
    if not source.is_openais:
        return source
    return dataclasses.replace(source, settings={"activation": "quick_gelu"})


def _open_directory(path: pathlib.Path, entry: str | None) -> Source:
    has_tokenizer = hugging_face.has_tokenizer(path)
    for kind, library in (("Hugging Face", hugging_face), ("open_clip", open_clip)):
        weights = library.find_weights(path)
        if (path / library.CONFIG).is_file() and weights:
            # Before the weights, so that another kind of model is called by its name.
            said = library.read_config(path)
            return _source(
                path,
                f"{kind} directory",
                (path / library.CONFIG, *_files(weights)),
                _read_weights(weights, entry)[0],
                settings=said.settings,
                end_id=said.end_id,
                tokenizer=path if has_tokenizer else None,
                tokenizer_options=said.tokenizer_options,
                kind=said.kind,
                keys=said.keys,
            )
    raise UserError(
        f"{path}: neither a Hugging Face directory ({hugging_face.CONFIG} and one of "
        f"{', '.join(hugging_face.WEIGHTS)}) nor an open_clip one ({open_clip.CONFIG} and one of "
        f"{', '.join(open_clip.WEIGHTS)})"
    )


def _source(path: pathlib.Path, container: str, files, tensors: Mapping, **options) -> Source:
    unwrapped = wrapping.unwrap(tensors, str(path))
    names = dict(zip(unwrapped, tensors, strict=True))
    return Source(path, container, files, unwrapped, names, **options)


def _read_weights(path: pathlib.Path, entry: str | None) -> tuple[Mapping, str]:
    """The tensors of a file, and what kind of file it is."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; copy or download it again")
        if shards.is_index(path):
            return shards.read(path, lambda file: _read_weights(file, entry)[0]), "sharded files"
        if safetensors_file.is_safetensors(path):
            return _whole(safetensors_file.read(path), path, entry), "safetensors file"
        if flax_file.is_msgpack(path):
            return _whole(flax_file.read(path), path, entry), "Flax file"
        if npz_file.is_npz(path):
            return _whole(npz_file.read(path), path, entry), _NPZ
        if torchscript.is_archive(path):
            return _whole(torchscript.read(path), path, entry), "TorchScript archive"
        return torch_file.read_state_dict(path, entry), "PyTorch file"
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def _whole(tensors: Mapping, path: pathlib.Path, entry: str | None) -> Mapping:
    """Tensors of a kind of file that has no dictionaries to choose from."""
    if entry is not None:
        raise UserError(f"{path} has no --entry={entry}: it has no dictionary in it")
    return tensors


def _files(weights: pathlib.Path) -> tuple[pathlib.Path, ...]:
    return (weights, *(shards.files(weights).values() if shards.is_index(weights) else ()))


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
