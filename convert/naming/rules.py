"""From published names to Flax paths and back, strictly.

Both directions run through the rows of `tables` and the same comparison.
"""

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping

import ml_dtypes
import numpy as np
from flax import traverse_util

from convert.naming import long_clip, sharing, sizes, wrapping
from convert.naming.name_map import Place, Table, check_names
from convert.naming.published_names import FORMATS, GLSCL
from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import GLSCLConfig


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a state dict became.

    Attributes:
      params: nested dicts of float32 arrays, as `GLSCL.init` makes them; a CLIP alone lies
        under "clip".
      config: the sizes.
      table: the names the state dict had.
      ignored: its tensors that are not used, by name.
      nonfinite: those that are used and hold a NaN or an infinity once they are float32.
    """

    params: dict
    config: CLIPConfig | GLSCLConfig
    table: Table
    ignored: tuple[str, ...]
    nonfinite: tuple[str, ...] = ()


def detect(names: Iterable[str], source: str = "the state dict") -> Table:
    """The table that knows the most of these names, which are without wrappers.

    Raises:
      UserError: if no table knows any.
    """
    names = list(names)
    known = [sum(table.row(name) is not None for name in names) for table in FORMATS]
    if not any(known):
        titles = ", ".join(table.title for table in FORMATS)
        some = ", ".join(names[:3]) or "nothing"
        raise UserError(f"{source} has the names of no known format ({titles}); it holds {some}")
    return FORMATS[int(np.argmax(known))]


def infer_config(
    tensors: Mapping[str, np.ndarray],
    table: Table,
    source: str = "the state dict",
    given: Mapping[str, object] = types.MappingProxyType({}),
) -> CLIPConfig | GLSCLConfig:
    """The sizes of the model whose state dict this is, from names, shapes and traces of training.

    The original saves a second set of queries and a second decoder whether or not it uses them.
    They are taken to be in use if they have been trained.

    Args:
      tensors: the state dict.
      table: its names.
      source: what to call it in a message.
      given: settings of `GLSCLHead` that are known.

    Raises:
      UserError: if a tensor that the sizes are read from is not there, or whether the second set
        and the second decoder are in use is neither given nor told by the tensors.
    """
    shapes = table.flax_shapes({name: np.shape(tensor) for name, tensor in tensors.items()})
    try:
        config = table.sizes(shapes)
    except KeyError as error:
        name = next(row.torch for row in table.rows if row.flax == error.args[0])
        raise UserError(
            f"{source} has no {name}, or one of another rank, without which the sizes of the "
            "model cannot be told"
        ) from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    if "lim" not in table.parts:
        return config
    head = dataclasses.replace(config.head, **sharing.infer(tensors, given, source))
    return dataclasses.replace(config, head=head)


def from_torch_names(
    tensors: Mapping[str, np.ndarray],
    table: Table | None = None,
    config: CLIPConfig | GLSCLConfig | None = None,
    source: str = "the state dict",
    track: Callable[[list], Iterable] = iter,
) -> Converted:
    """PyTorch names and layouts to Flax.

    Args:
      tensors: the state dict: anything that has a shape and becomes a NumPy array when asked;
        each is asked once. Half precision is widened to float32, wrappers' words left out.
      table: its names; by default the table that `detect` finds.
      config: of the model; by default what `infer_config` reads off.
      source: what to call the state dict in a message.
      track: passes the list of tensors through, to show progress.

    Raises:
      NameMismatch: naming all tensors that are missing, unexpected or misshaped.
      UserError: if format or sizes cannot be told, the format lacks a part of the model, or a
        tensor is not of a floating type.
    """
    tensors = long_clip.merge(wrapping.unwrap(tensors, source), source)
    table = table or detect(tensors, source)
    config = config or infer_config(tensors, table, source)
    shapes = sizes.parameter_shapes(config, table.parts)
    places = table.places(shapes)
    if nameless := _nameless(table, shapes, places.values()):
        raise UserError(
            f"{source} is taken for a model with {', '.join(nameless)}, and {table.title} has no "
            "name for that: its tensors are of two models"
        )
    found = {name: np.shape(tensor) for name, tensor in tensors.items()}
    expected = {
        name: place.view(np.broadcast_to(0, shapes[place.path])).shape
        for name, place in places.items()
    }
    ignored = check_names(source, found, expected, table.ignores)
    arrays = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
    for path, value in table.fresh.items():
        arrays[path][...] = value
    nonfinite = []
    for name, place in track(list(places.items())):
        values = np.asarray(tensors[name])
        if values.dtype.kind != "f" and values.dtype != ml_dtypes.bfloat16:
            raise UserError(
                f"{source}: {name} is of type {values.dtype}, which is not converted (quantized "
                "weights, for one): save it in float16 or wider"
            )
        written = place.view(arrays[place.path])
        # Float64 that float32 has no place for becomes infinite, and is named with the others.
        with np.errstate(over="ignore"):
            written[...] = values
        if not np.isfinite(written).all():
            nonfinite.append(name)
    params = traverse_util.unflatten_dict(arrays, sep="/")
    return Converted(params, config, table, ignored, tuple(nonfinite))


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
    check_names("the parameters", shapes, sizes.parameter_shapes(config, table.parts))
    arrays = {path: np.asarray(array) for path, array in arrays.items()}
    places = table.places(shapes)
    if nameless := _nameless(table, shapes, places.values()):
        raise UserError(f"{table.title} has no name for {', '.join(nameless)}")
    return {name: place.view(arrays[place.path]).copy() for name, place in places.items()}


def _nameless(table: Table, shapes: Mapping, places: Iterable[Place]) -> list[str]:
    """Flax paths that neither a name of the table nor its fresh values fill."""
    return sorted(shapes.keys() - {place.path for place in places} - table.fresh.keys())


def nonfinite(params: Mapping, table: Table) -> tuple[str, ...]:
    """The table's names of what holds a NaN or an infinity."""
    arrays = traverse_util.flatten_dict(params, sep="/")
    places = table.places({path: np.shape(array) for path, array in arrays.items()})
    odd = {path for path, array in arrays.items() if not np.isfinite(array).all()}
    return tuple(
        name
        for name, place in places.items()
        if place.path in odd and not np.isfinite(place.view(arrays[place.path])).all()
    )
