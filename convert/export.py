"""A checkpoint directory, converted or trained, back to what PyTorch's libraries load."""

import pathlib

import jax
import numpy as np

from convert import checkpoint_output
from convert.naming import rules
from convert.naming.name_map import Table
from convert.naming.published_names import CLIP4CLIP, GLSCL, HUGGING_FACE, OPENAI
from convert.readers import hugging_face
from glscl_jax.checkpoints.model_dir import LoadedModel, load_model, tokenizer_folder
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig

FORMATS = ("pytorch", "huggingface")


def convert_back(path: str, out: str, to: str, whole: bool) -> None:
    """Writes a state dict (a file) or a Hugging Face directory, in float32.

    Args:
      path: a checkpoint directory; of a work directory the best step is taken.
      out: what to write.
      to: "pytorch" for a file that `torch.load` reads, with the original's names; "huggingface"
        for a directory that `CLIPModel.from_pretrained` reads.
      whole: whether the state dict is to have all of a GLSCL, or CLIP alone with OpenAI's names.

    Raises:
      UserError: the checkpoint cannot be read, or lacks what is asked for; or PyTorch is missing.
    """
    out = pathlib.Path(out)
    checkpoint_output.check_free(out)
    if to == "pytorch":
        torch = _import_torch()
    loaded = load_model(path, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    if to == "pytorch":
        _check_heads(loaded.config.clip, path)
    table = _table(loaded, path) if to == "pytorch" and whole else None
    params = loaded.params if table else {"clip": loaded.params["clip"]}
    table = table or (OPENAI if to == "pytorch" else HUGGING_FACE)
    params = jax.tree.map(lambda x: np.asarray(x).astype(np.float32), params)
    tensors = rules.to_torch_names(params, table)
    left_out = sorted(loaded.params.keys() - params.keys())
    with checkpoint_output.unfinished(out) as unfinished:
        if to == "pytorch":
            torch.save({name: torch.from_numpy(x) for name, x in tensors.items()}, unfinished)
        else:
            tokenizer = _tokenizer(loaded.directory)
            hugging_face.write_directory(unfinished, tensors, loaded.config.clip, tokenizer)
    print(f"{out}: {len(tensors)} tensors, names of {table.title}")
    if left_out:
        print(f"left out, as it has no place there: {', '.join(left_out)}")


def _check_heads(clip: CLIPConfig, path: str) -> None:
    """Raises a `UserError` for heads that nobody can tell from a state dict."""
    usual = CLIPConfig()
    for name in ("vision_head_width", "text_head_width"):
        if getattr(clip, name) != getattr(usual, name):
            raise UserError(
                f"{path}: {name} is {getattr(clip, name)}, and a state dict does not say so; code "
                f"takes heads for {getattr(usual, name)} wide: give --to=huggingface"
            )


def _table(loaded: LoadedModel, path: str) -> Table:
    if "lim" in loaded.params:
        return GLSCL
    if "temporal" in loaded.params:
        return CLIP4CLIP
    raise UserError(f"{path} holds CLIP alone: use python -m convert.clip")


def _tokenizer(directory: pathlib.Path) -> Tokenizer | None:
    folder = tokenizer_folder(directory)
    return Tokenizer.load(folder) if folder else None


def _import_torch():
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "--to=pytorch takes PyTorch, which is not installed: "
            "pip install -r requirements-torch.txt"
        ) from error
    return torch
