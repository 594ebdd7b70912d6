"""PyTorch's files to arrays by name, without running anything that is in them."""

import pathlib
import pickle
import zipfile

import numpy as np

from convert import torchscript
from glscl_jax.errors import UserError


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a `.pt` file by name.

    OpenAI's CLIP files are TorchScript archives, which need no PyTorch here; a file written by
    `torch.save` does. Where that is a training checkpoint with an entry `state_dict`, as open_clip
    writes them, the tensors are that entry's.

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
    return {name: _array(tensor) for name, tensor in _load(path).items()}


def _load(path: pathlib.Path) -> dict:
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
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    others = [str(name) for name, value in loaded.items() if not torch.is_tensor(value)]
    if others:
        raise UserError(
            f"{path}: not all of it is tensors ({', '.join(others[:5])}): save the model's "
            "state_dict() alone"
        )
    return loaded


def _array(tensor) -> np.ndarray:
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.detach().numpy()
