"""A table of names, and the strict comparison that every conversion goes through.

A row says which PyTorch tensors make up one Flax array. Everything else follows from it: the
names to expect, the shape each must have, and where its values lie in the Flax array.
"""

import dataclasses
import difflib
import fnmatch
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from glscl_jax.errors import UserError

Shape = tuple[int, ...]

# The axes of a Flax array in PyTorch's order, None for one of length 1 that Flax has not. Only the
# order differs between the two, so one entry serves both directions.
LAYOUTS: dict[str, tuple[int | None, ...]] = {
    "same": (),
    # torch.nn.Linear keeps [out, in], Flax [in, out].
    "linear": (1, 0),
    # torch.nn.Conv2d keeps [out, in, height, width], Flax [height, width, in, out].
    "convolution": (3, 2, 0, 1),
    # Batch and place of a token by itself, and the batch of positions.
    "token": (None, None, 0),
    "positions": (None, 0, 1),
    # [out, in] of each layer of a stack.
    "stacked_linear": (0, 2, 1),
    # A vector as a matrix of one row.
    "row": (None, 0),
    # torch.nn.Conv3d over one image at a time.
    "tubelets": (3, 2, None, 0, 1),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One Flax array and the PyTorch tensors in it.

    Attributes:
      torch: name pattern. `{layer}` stands for a layer's number: the layers are stacked along
        the Flax array's first axis. `{part}` stands for each of `parts` in turn.
      flax: path, such as "clip/text/projection".
      layout: of a single layer, a key of `LAYOUTS`.
      parts: names of the tensors that lie side by side on the Flax array's last axis, where
        PyTorch keeps apart what is fused here.
      shares: how much of that axis each of them has; none for all the same.
    """

    torch: str
    flax: str
    layout: str = "same"
    parts: tuple[str, ...] = ()
    shares: tuple[int, ...] = ()

    @property
    def pieces(self) -> dict[str | None, tuple[int, int, int]]:
        """Part -> from where to where of how many equal pieces of the last axis it lies."""
        parts = self.parts or (None,)
        ends = list(itertools.accumulate(self.shares or (1,) * len(parts)))
        return {
            part: (start, end, ends[-1])
            for part, start, end in zip(parts, [0, *ends], ends, strict=False)
        }

    @functools.cached_property
    def pattern(self) -> re.Pattern:
        """Matches the row's PyTorch names, with a group `layer` where they have one."""
        text = re.escape(self.torch)
        # No model has a thousand layers; a damaged name must not ask for a billion.
        text = text.replace(re.escape("{layer}"), r"(?P<layer>0|[1-9]\d{0,2})")
        parts = f"(?P<part>{'|'.join(self.parts)})"
        return re.compile(text.replace(re.escape("{part}"), parts))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the values of one PyTorch tensor lie.

    Attributes:
      path: of the Flax array.
      layer: index on its first axis, None where layers are not stacked.
      layout: a key of `LAYOUTS`.
      piece: from where to where of how many equal pieces of its last axis.
    """

    path: str
    layer: int | None
    layout: str
    piece: tuple[int, int, int] = (0, 1, 1)

    def view(self, array: np.ndarray) -> np.ndarray:
        """The tensor inside the Flax array, in PyTorch's layout and without a copy."""
        if self.layer is not None:
            array = array[self.layer]
        start, end, pieces = self.piece
        if pieces > 1:
            width = array.shape[-1] // pieces
            array = array[..., start * width : end * width]
        if not (axes := LAYOUTS[self.layout]):
            return array
        array = array.transpose([axis for axis in axes if axis is not None])
        return np.expand_dims(array, [place for place, axis in enumerate(axes) if axis is None])


@dataclasses.dataclass(frozen=True)
class Table:
    """The names of one format.

    Attributes:
      title: of the format, for messages.
      rows: what the model uses; rows for arrays that a given model lacks are left out.
      ignored: name patterns (`*` is a wildcard) of tensors that may be there without being used.
      sizes: Flax shapes by path -> the config of a model with them.
      parts: of a GLSCL that the format has: "clip", "temporal", "lim".
      fresh: Flax path -> value of the numbers that the format has not and the model begins with.
    """

    title: str
    rows: tuple[Row, ...]
    ignored: tuple[str, ...]
    sizes: Callable
    parts: tuple[str, ...] = ("clip",)
    fresh: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)

    def ignores(self, name: str) -> bool:
        """Whether a tensor of this name may be left unused."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.ignored)

    def row(self, name: str) -> Row | None:
        """The row of a PyTorch name."""
        return next((row for row in self.rows if row.pattern.fullmatch(name)), None)

    def places(self, shapes: Mapping[str, Shape]) -> dict[str, Place]:
        """Every PyTorch name of a model with Flax arrays of these shapes -> where it lies."""
        found = {}
        for row in self.rows:
            if row.flax not in shapes:
                continue
            layers = range(shapes[row.flax][0]) if "{layer}" in row.torch else [None]
            for layer in layers:
                for part, piece in row.pieces.items():
                    name = row.torch.format(layer=layer, part=part)
                    found[name] = Place(row.flax, layer, row.layout, piece)
        return found

    def flax_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Flax shapes by path, as far as PyTorch names and shapes tell them.

        Tensors that may be left unused tell nothing.
        """
        layers, found = {}, {}
        for name, shape in shapes.items():
            row = self.row(name)
            axes = LAYOUTS[row.layout] if row else ()
            if row is None or self.ignores(name) or (axes and len(axes) != len(shape)):
                continue
            if axes:
                own = dict(zip(axes, shape, strict=True))
                shape = tuple(own[axis] for axis in sorted(own.keys() - {None}))
            if row.parts:
                start, end, pieces = row.pieces[row.pattern.fullmatch(name)["part"]]
                shape = (*shape[:-1], shape[-1] // (end - start) * pieces)
            if "{layer}" in row.torch:
                layer = int(row.pattern.fullmatch(name)["layer"])
                layers[row.flax] = max(layers.get(row.flax, 0), layer + 1)
                shape = (layers[row.flax], *shape)
            found[row.flax] = shape
        return found


class NameMismatch(UserError):
    """Names or shapes that do not fit, all of them; one line each after the first.

    Attributes:
      missing: names that are expected and absent.
      unexpected: name that nothing expects -> the nearest expected one, or None.
      misshaped: name -> (its shape, the expected one).
    """

    def __init__(self, source: str, missing, unexpected, misshaped):
        self.missing, self.unexpected, self.misshaped = missing, unexpected, misshaped
        lines = [
            f"{source} does not fit: {len(missing)} missing, {len(unexpected)} unexpected, "
            f"{len(misshaped)} misshaped"
        ]
        lines += [f"missing: {name}" for name in missing]
        lines += [
            f"unexpected: {name}" + (f" (nearest expected: {near})" if near else "")
            for name, near in unexpected.items()
        ]
        lines += [
            f"misshaped: {name} is {list(shape)}, expected {list(expected)}"
            for name, (shape, expected) in misshaped.items()
        ]
        super().__init__("\n  ".join(lines))


def check_names(
    source: str,
    found: Mapping[str, Shape],
    expected: Mapping[str, Shape],
    ignores: Callable[[str], bool] = lambda name: False,
) -> tuple[str, ...]:
    """Holds names and shapes against those expected; returns the ignored names, sorted.

    Raises:
      NameMismatch: naming everything that is missing, unexpected or misshaped.
    """
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    ignored = tuple(name for name in extra if ignores(name))
    unexpected = {
        name: _nearest(name, missing) or _nearest(name, expected)
        for name in extra
        if name not in ignored
    }
    misshaped = {
        name: (tuple(found[name]), tuple(shape))
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    }
    if missing or unexpected or misshaped:
        raise NameMismatch(source, missing, unexpected, misshaped)
    return ignored


def _nearest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)
