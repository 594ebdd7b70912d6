"""PyTorch's files to arrays by name, without running anything that is in them."""

import pathlib
import pickle
import zipfile

import numpy as np

from convert.naming import wrapping
from convert.readers import torchscript
from glscl_jax.errors import UserError


def read_state_dict(path: pathlib.Path, entry: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a `.pt` file by name.

    OpenAI's CLIP files are TorchScript archives, which need no PyTorch here; a file written by
    `torch.save` does. Where that is a training checkpoint, the tensors are those of the dictionary
    in it that is a model.

    Args:
      path: of the file.
      entry: which dictionary of a training checkpoint, where several are models.

    Returns:
      Arrays in the file's dtypes, except that bfloat16, which NumPy lacks, becomes float32.

    Raises:
      UserError: if there is no such file, PyTorch is not installed, or the file holds something
        else than named tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if torchscript.is_archive(path):
        return torchscript.read(path)
    return {name: _array(path, name, tensor) for name, tensor in _load(path, entry).items()}


def _load(path: pathlib.Path, entry: str | None) -> dict:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: reading it takes PyTorch, which is not installed: "
            "pip install -r requirements-torch.txt"
        ) from error
    try:
        # Mapped, so that the file's bytes are not held twice; files of old versions cannot be.
        mapped = zipfile.is_zipfile(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: no PyTorch file, or one that holds more than tensors, which is not opened "
            "because that could run code: save the model's state_dict() alone"
        ) from error
    except Exception as error:
        # PyTorch meets a damaged file with whatever its parser stumbles over.
        raise UserError(f"{path}: no complete PyTorch file; copy or download it again") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    tensors = wrapping.choose(loaded, entry, str(path), torch.is_tensor)
    others = [str(name) for name, value in tensors.items() if not torch.is_tensor(value)]
    if others:
        raise UserError(
            f"{path}: not all of it is tensors ({', '.join(others[:5])}): save the model's "
            "state_dict() alone"
        )
    return tensors


def _array(path: pathlib.Path, name: str, tensor) -> np.ndarray:
    if str(tensor.layout) != "torch.strided":
        raise UserError(f"{path}: {name} is a sparse tensor; save it dense (tensor.to_dense())")
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        # Eight bits and fewer, quantized, without data: NumPy has none of these.
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(
            f"{path}: {name} of type {kind} cannot be read; save it in float16 or wider"
        ) from error
