"""A checkpoint directory, converted or trained, back to what PyTorch's libraries load."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from convert import checkpoint_output
from convert.naming import families, rules
from convert.naming.name_map import Table
from convert.naming.published_names import (
    CLIP4CLIP,
    GLSCL,
    HUGGING_FACE,
    HUGGING_FACE_VIDEOPRISM,
    NPZ,
    OPEN_CLIP_TIMM,
    OPENAI,
    SIGLIP,
)
from convert.naming.sizes import HIDDEN
from convert.readers import hugging_face, videoprism
from glscl_jax.checkpoints.model_dir import LoadedModel, load_model, tokenizer_folder
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.input_pipeline.tokenizer_files import load_tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import learned_parts
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.models.heads.head import Head
from glscl_jax.models.heads.mean import MeanHead
from glscl_jax.models.heads.settings import names_of

FORMATS = ("pytorch", "huggingface", "npz")
# Of GLSCL's head what tensors show or training alone needs, and what is known here alone; for the
# rest `convert.glscl` has flags.
_SHOWN = ("queries", "lim_layers", "lim_feed_forward", "lim_dropout")
_SHOWN += ("share_queries", "share_decoder")
_OWN = ("gim_weight", "normalised", "mask_padding")
_BY_FLAG = [name for name in names_of(GLSCLHead) if name not in (*_SHOWN, *_OWN)]


def convert_back(path: str, out: str, to: str, whole: bool) -> None:
    """Writes a state dict (a file) or a Hugging Face directory, in float32.

    Args:
      path: a checkpoint directory; of a work directory the best step is taken.
      out: what to write.
      to: "pytorch" for a file that `torch.load` reads, with the original's names; "huggingface"
        for a directory that transformers' `from_pretrained` reads; "npz" for VideoPrism's own file.
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
        _check_hidden(loaded.config.clip, path)
    if to == "npz":
        videoprism.check_writable(loaded.config.clip, path)
    table = _table(loaded, path) if to == "pytorch" and whole else None
    params = loaded.params if table else {"clip": loaded.params["clip"]}
    table = table or _alone(loaded.config.clip, to)
    params = jax.tree.map(lambda x: np.asarray(x).astype(np.float32), params)
    tensors = rules.to_torch_names(params, table)
    left_out = sorted({*(loaded.params.keys() - params.keys()), *table.fresh})
    if table is not GLSCL and loaded.head.name != MeanHead.name:
        left_out.append(f"the head {loaded.head.name}, in the place of which the mean frame scores")
    with checkpoint_output.unfinished(out) as unfinished:
        if to == "pytorch":
            torch.save({name: torch.from_numpy(x) for name, x in tensors.items()}, unfinished)
        elif to == "npz":
            videoprism.write(unfinished, tensors, loaded.config.clip)
        else:
            tokenizer = _tokenizer(loaded.directory)
            hugging_face.write_directory(unfinished, tensors, loaded.config.clip, tokenizer)
    print(f"{out}: {len(tensors)} tensors, names of {table.title}")
    if left_out:
        print(f"left out, as it has no place there: {', '.join(left_out)}")
    if table is GLSCL and (unsaid := _differing(loaded.head, _BY_FLAG)):
        flags = " ".join(f"--{name}={value}" for name, value in unsaid.items())
        print(f"a state dict does not say its settings: to convert it again give {flags}")


def _alone(clip: CLIPConfig, to: str) -> Table:
    """The names of a CLIP alone: OpenAI's as far as they go, timm's for what only it has."""
    if to == "npz":
        return NPZ
    if to == "huggingface":
        tables = {"siglip": SIGLIP, "videoprism": HUGGING_FACE_VIDEOPRISM}
        return tables.get(hugging_face.kind_of(clip), HUGGING_FACE)
    if clip.patch_bias or clip.vision_projection != "matrix":
        return OPEN_CLIP_TIMM
    return OPENAI


def _check_hidden(clip: CLIPConfig, path: str) -> None:
    """Raises a `UserError` for settings that nobody can tell from a state dict."""
    if clip.is_video:
        raise UserError(f"{path} is a VideoPrism: give --to=huggingface, or --to=npz for its own")
    usual, hidden = CLIPConfig(), {}
    for name in HIDDEN:
        if "activation" not in name and name != "tokenizer":
            hidden[name] = getattr(usual, name)
    if clip.vision_pooling == "probe":
        hidden.pop("vision_pooling")
    try:
        known = families.with_hidden(dataclasses.replace(clip, **hidden), path)
    except UserError:
        known = dataclasses.replace(clip, **hidden)
    # Whose tokenizer it is changes nothing that is computed.
    known = dataclasses.replace(known, tokenizer=clip.tokenizer)
    if odd := [name for name in HIDDEN if getattr(known, name) != getattr(clip, name)]:
        name = odd[0]
        raise UserError(
            f"{path}: {name} is {getattr(clip, name)}, and a state dict does not say so; code "
            f"takes it for {getattr(known, name)}"
            + (": give --to=huggingface" if hugging_face.kind_of(clip) else "")
        )


def _table(loaded: LoadedModel, path: str) -> Table:
    """The names of a whole model.

    Raises:
      UserError: there are none for its head, or its code would compute another score.
    """
    head, way_out = loaded.head, "its CLIP alone goes by python -m convert.clip"
    if isinstance(head, GLSCLHead):
        for name, value in _differing(head, _OWN).items():
            raise UserError(f"{path}: head.{name} is {value}, unknown to the original: {way_out}")
        return GLSCL
    if learned_parts(loaded.model.config):
        raise UserError(
            f"{path} has the head {head.name}, and no names are known for it: {way_out}"
        )
    if "temporal" in loaded.params:
        return CLIP4CLIP
    raise UserError(f"{path} holds CLIP alone: use python -m convert.clip")


def _differing(head: Head, names: Sequence[str]) -> dict[str, object]:
    """Which of these settings of GLSCL's head are not what is taken where nobody says."""
    usual = GLSCLHead()
    given = {name: getattr(head, name) for name in names}
    return {name: value for name, value in given.items() if value != getattr(usual, name)}


def _tokenizer(directory: pathlib.Path) -> Tokenizer | None:
    folder = tokenizer_folder(directory)
    return load_tokenizer(folder) if folder else None


def _import_torch():
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "--to=pytorch takes PyTorch, which is not installed: "
            "pip install -r requirements-torch.txt"
        ) from error
    return torch
