"""The tables: names of published checkpoints, each beside its Flax path.

Both directions run through the same rows and the same strict comparison.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
from flax import traverse_util

from convert import sizes
from convert.table import Row, Table, compare
from glscl_jax.errors import UserError
from glscl_jax.models.clip import CLIPConfig
from glscl_jax.models.glscl import GLSCLConfig

_NORM = (("weight", "scale"), ("bias", "bias"))


def _norm(torch: str, flax: str) -> tuple[Row, ...]:
    return tuple(Row(f"{torch}.{theirs}", f"{flax}/{ours}") for theirs, ours in _NORM)


def _linear(torch: str, flax: str) -> tuple[Row, ...]:
    return Row(f"{torch}.weight", f"{flax}/kernel", "linear"), Row(f"{torch}.bias", f"{flax}/bias")


def _attention(torch: str, flax: str) -> tuple[Row, ...]:
    """torch.nn.MultiheadAttention, whose three projections are one tensor as here."""
    return (
        Row(f"{torch}.in_proj_weight", f"{flax}/qkv_kernel", "linear"),
        Row(f"{torch}.in_proj_bias", f"{flax}/qkv_bias"),
        *_linear(f"{torch}.out_proj", f"{flax}/out"),
    )


def _blocks(torch: str, flax: str) -> tuple[Row, ...]:
    """OpenAI's stack of residual attention blocks."""
    torch, flax = f"{torch}.resblocks.{{layer}}", f"{flax}/transformer/blocks"
    return (
        *_attention(f"{torch}.attn", f"{flax}/attention"),
        *_norm(f"{torch}.ln_1", f"{flax}/ln_1"),
        *_norm(f"{torch}.ln_2", f"{flax}/ln_2"),
        *_linear(f"{torch}.mlp.c_fc", f"{flax}/mlp_in"),
        *_linear(f"{torch}.mlp.c_proj", f"{flax}/mlp_out"),
    )


def _decoder(torch: str, flax: str) -> tuple[Row, ...]:
    """torch.nn.TransformerDecoder."""
    torch = f"{torch}.layers.{{layer}}"
    return (
        *_attention(f"{torch}.self_attn", f"{flax}/self_attention"),
        *_attention(f"{torch}.multihead_attn", f"{flax}/cross_attention"),
        *_linear(f"{torch}.linear1", f"{flax}/linear_1"),
        *_linear(f"{torch}.linear2", f"{flax}/linear_2"),
        *_norm(f"{torch}.norm1", f"{flax}/norm_1"),
        *_norm(f"{torch}.norm2", f"{flax}/norm_2"),
        *_norm(f"{torch}.norm3", f"{flax}/norm_3"),
    )


OPENAI = Table(
    title="OpenAI CLIP",
    rows=(
        Row("logit_scale", "clip/logit_scale"),
        Row("visual.conv1.weight", "clip/vision/patch_embedding", "convolution"),
        Row("visual.class_embedding", "clip/vision/class_embedding"),
        Row("visual.positional_embedding", "clip/vision/positional_embedding"),
        *_norm("visual.ln_pre", "clip/vision/ln_pre"),
        *_blocks("visual.transformer", "clip/vision"),
        *_norm("visual.ln_post", "clip/vision/ln_post"),
        Row("visual.proj", "clip/vision/projection"),
        Row("token_embedding.weight", "clip/text/token_embedding"),
        Row("positional_embedding", "clip/text/positional_embedding"),
        *_blocks("transformer", "clip/text"),
        *_norm("ln_final", "clip/text/ln_final"),
        Row("text_projection", "clip/text/projection"),
    ),
    # OpenAI's archives carry their sizes as entries of their own, some copies the causal mask.
    ignored=("input_resolution", "context_length", "vocab_size", "*attn_mask"),
    sizes=sizes.clip_config,
)

GLSCL = Table(
    title="GLSCL",
    rows=(
        *OPENAI.under("clip.").rows,
        Row("frame_position_embeddings.weight", "temporal/positional_embedding"),
        *_blocks("transformerClip", "temporal"),
        Row("lstm_visual.weight_ih_l0", "temporal/input_kernel", "linear"),
        Row("lstm_visual.weight_hh_l0", "temporal/recurrent_kernel", "linear"),
        Row("lstm_visual.bias_ih_l0", "temporal/input_bias"),
        Row("lstm_visual.bias_hh_l0", "temporal/recurrent_bias"),
        Row("spatial_queries", "lim/queries"),
        Row("noun_queries", "lim/text_queries"),
        *_decoder("transformer_decoder_noun", "lim/decoder"),
        *_decoder("transformer_decoder_spatial", "lim/video_decoder"),
    ),
    ignored=(
        # Never used.
        "weight_fc.*",
        "decoder_layer_noun.*",
        "decoder_layer_spatial.*",
        # Saved always, used only where sharing is off.
        "noun_queries",
        "transformer_decoder_spatial.*",
        # Saved with the LSTM too, which has no use for it.
        "frame_position_embeddings.weight",
    ),
    sizes=sizes.glscl_config,
)

# In this order: of two tables that know as many names, the first is the narrower.
TABLES = (OPENAI, OPENAI.under("clip."), GLSCL)


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a state dict became.

    Attributes:
      params: nested dicts of float32 arrays, as `GLSCL.init` makes them; a CLIP alone lies
        under "clip".
      config: the sizes.
      table: the names the state dict had.
      ignored: its tensors that are not used, by name.
    """

    params: dict
    config: CLIPConfig | GLSCLConfig
    table: Table
    ignored: tuple[str, ...]


def detect(names: Iterable[str], source: str = "the state dict") -> Table:
    """The table that knows the most of these names.

    Raises:
      UserError: if no table knows any.
    """
    names = list(names)
    known = [sum(table.row(name) is not None for name in names) for table in TABLES]
    if not any(known):
        titles = ", ".join(table.title for table in TABLES)
        some = ", ".join(names[:3]) or "nothing"
        raise UserError(f"{source} has the names of no known format ({titles}); it holds {some}")
    return TABLES[int(np.argmax(known))]


def infer_config(
    tensors: Mapping[str, np.ndarray], table: Table, source: str = "the state dict"
) -> CLIPConfig | GLSCLConfig:
    """The sizes of the model whose state dict this is, from names and shapes alone.

    The original saves a second set of queries and a second decoder whether or not it uses
    them, so the names cannot tell: sharing is on, as in every published recipe.

    Raises:
      UserError: if a tensor that the sizes are read from is not there.
    """
    shapes = table.flax_shapes({name: np.shape(tensor) for name, tensor in tensors.items()})
    try:
        return table.sizes(shapes)
    except KeyError as error:
        name = next(row.torch for row in table.rows if row.flax == error.args[0])
        raise UserError(
            f"{source} has no {name}, or one of another rank, without which the sizes of the "
            "model cannot be told"
        ) from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def from_torch_names(
    tensors: Mapping[str, np.ndarray],
    table: Table | None = None,
    config: CLIPConfig | GLSCLConfig | None = None,
    source: str = "the state dict",
) -> Converted:
    """PyTorch names and layouts to Flax.

    Args:
      tensors: the state dict; half precision is widened to float32.
      table: its names; by default the table that `detect` finds.
      config: of the model; by default what `infer_config` reads off. Needed where sharing is
        off, or the LIM's heads are not 8.
      source: what to call the state dict in a message.

    Raises:
      NameMismatch: naming all tensors that are missing, unexpected or misshaped.
      UserError: if format or sizes cannot be told, or if sharing is taken to be on and the
        decoder that would then be unused has been trained.
    """
    table = table or detect(tensors, source)
    if config is None:
        config = infer_config(tensors, table, source)
        _check_sharing(tensors, source)
    shapes = sizes.parameter_shapes(config)
    places = table.places(shapes)
    found = {name: np.shape(tensor) for name, tensor in tensors.items()}
    expected = {
        name: place.view(np.broadcast_to(0, shapes[place.path])).shape
        for name, place in places.items()
    }
    ignored = compare(source, found, expected, table.ignores)
    arrays = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
    for name, place in places.items():
        place.view(arrays[place.path])[...] = tensors[name]
    return Converted(traverse_util.unflatten_dict(arrays, sep="/"), config, table, ignored)


def to_torch_names(params: Mapping, table: Table = GLSCL) -> dict[str, np.ndarray]:
    """Flax arrays to PyTorch names and layouts: the inverse of `from_torch_names`.

    Gradients go the same way. Arrays keep their dtype; each is a copy, contiguous.

    Args:
      params: nested dicts, of a CLIP alone {"clip": ...}.
      table: the names wanted.

    Raises:
      NameMismatch: naming all Flax paths that are missing, unexpected or misshaped.
      UserError: if the sizes cannot be told.
    """
    arrays = traverse_util.flatten_dict(params, sep="/")
    shapes = {path: np.shape(array) for path, array in arrays.items()}
    try:
        config = table.sizes(shapes)
    except KeyError as error:
        raise UserError(f"the parameters have no {error.args[0]}") from error
    compare("the parameters", shapes, sizes.parameter_shapes(config))
    arrays = {path: np.asarray(array) for path, array in arrays.items()}
    return {
        name: place.view(arrays[place.path]).copy() for name, place in table.places(shapes).items()
    }


def _check_sharing(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """An unused decoder's layers are copies of one; trained ones are not."""
    name = "transformer_decoder_spatial.layers.{}.linear1.weight"
    first, second = (tensors.get(name.format(layer)) for layer in (0, 1))
    if first is None or second is None or np.array_equal(first, second):
        return
    raise UserError(
        f"{source} has a trained transformer_decoder_spatial, so videos had a decoder of their "
        "own: convert it with share_decoder off"
    )
