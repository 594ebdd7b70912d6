"""Which parameters are trained, and at what rate: patterns on the names of tensors.

The layers of a stack lie in one array, `clip/text/transformer/blocks/mlp_in/kernel` [12,D,4D].
In PyTorch each is a tensor of its own, and so it is to a pattern: the fourth is named
`clip/text/transformer/blocks/3/mlp_in/kernel`. `config.model.scan` changes nothing of this:
written out or not, the layers lie in one array.
"""

import dataclasses
import re
from collections.abc import Mapping

import jax
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.models.encoders.parameters import (
    is_below_blocks,
    stack_end,
    stage_of,
    tower_of,
)
from glscl_jax.training.optim_config import OptimConfig
from glscl_jax.trees import path_name


@dataclasses.dataclass(frozen=True)
class Group:
    """How one parameter, or one stack of layers, is trained.

    Attributes:
      label: "frozen", "clip" or "new".
      rows: the layers that train, of a stack where others do not; else None.
      decays: whether weight decay pulls it.
      factor: on its learning rate; of a stack float32 [layers that train], else [1].
    """

    label: str
    rows: slice | np.ndarray | None
    decays: bool
    factor: np.ndarray


def tensor_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """The names of the tensors in the parameter `name`: one, or one a layer of a stack."""
    end = stack_end(name)
    if end is None:
        return [name]
    return [f"{name[:end]}{layer}/{name[end:]}" for layer in range(shape[0])]


def all_tensors(params) -> list[str]:
    """The names of all tensors in `params`, or in anything of their paths and shapes."""
    shapes = _shapes(params)
    return [tensor for name in shapes for tensor in tensor_names(name, shapes[name])]


def heights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """How many steps below the top of its CLIP tower each tensor lies.

    Of a tower of n blocks, block i (from 0, next to the input) lies n - i below; what comes
    before the blocks, which is the embeddings and the vision tower's `ln_pre`, n + 1. Where a
    tower has several stacks its blocks are counted through all of them, and what lies between two
    stacks is as high as the block below it. Everything else lies at the top: 0 for what follows
    the blocks, the logit scale, and all that is not of CLIP. The rate at height h is multiplied by
    `layer_decay ** h`: the count is that of BEiT's fine-tuning (Bao et al., 2022), after ELECTRA's
    (Clark et al., 2020).

    Args:
      shapes: of the parameters, by their names.

    Returns:
      By the same names: int [layers] of a stack, else [1].
    """
    layers = {
        (tower, stage_of(name)): shape[0]
        for name, shape in shapes.items()
        if (tower := tower_of(name)) and stack_end(name)
    }

    def above(tower, stage):
        return sum(n for (one, other), n in layers.items() if one == tower and other > stage)

    def height(name, shape):
        tower, stage, tensors = tower_of(name), stage_of(name), len(tensor_names(name, shape))
        if tower and stack_end(name):
            return above(tower, stage) + tensors - np.arange(tensors)
        if tower and is_below_blocks(name):
            return np.full(tensors, above(tower, -1) + 1)
        if stage >= 0 and (over := above(tower, stage)):
            return np.full(tensors, over + 1)
        return np.full(tensors, 0)

    return {name: height(name, shape) for name, shape in shapes.items()}


def groups_of(params, config: OptimConfig) -> dict[str, Group]:
    """The group of each parameter, by its name.

    Args:
      params: the parameters, or anything of their paths and shapes.
      config: see there.

    Raises:
      UserError: `clip_group` or `no_decay` matches some layers of a stack and not others.
    """
    shapes = _shapes(params)
    height = heights(shapes)

    def group(name, shape):
        tensors = tensor_names(name, shape)
        trained = ~_frozen(tensors, config)
        rows = _rows(trained) if trained.any() and not trained.all() else None
        label = "clip" if _all_or_none("clip_group", tensors, config) else "new"
        factor = np.float32(config.layer_decay) ** height[name]
        return Group(
            label=label if trained.any() else "frozen",
            rows=rows,
            decays=not _all_or_none("no_decay", tensors, config),
            factor=(factor if rows is None else factor[rows]).astype(np.float32),
        )

    return {name: group(name, shape) for name, shape in shapes.items()}


def check_patterns(params, config: OptimConfig) -> None:
    """Finds what of `config` does not suit `params` (or anything of their paths and shapes).

    Raises:
      UserError: a pattern of `frozen` matches nothing, all match everything, or as `groups_of`.
    """
    tensors = all_tensors(params)
    for pattern in config.frozen:
        if not any(re.search(pattern, tensor) for tensor in tensors):
            layer = next(filter(stack_end, tensors), tensors[0])
            raise UserError(
                f"config.optim.frozen: {pattern!r} matches no parameter; they have names like "
                f"{layer}"
            )
    if _frozen(tensors, config).all():
        raise UserError("config.optim.frozen matches every parameter: there is nothing to train")
    groups_of(params, config)


def trained_layers(params, config: OptimConfig) -> dict[str, str]:
    """What the optimiser's state of each parameter is of, by its name: "frozen", or its group and,
    of a stack that trains in part, the layers that do ("clip, layers 2 3").
    """

    def describe(name, shape, group):
        if group.rows is None:
            return group.label
        rows = np.arange(shape[0])[group.rows]
        return f"{group.label}, layers {' '.join(map(str, rows))}"

    shapes, groups = _shapes(params), groups_of(params, config)
    return {name: describe(name, shapes[name], group) for name, group in groups.items()}


def train_part(leaf, group: Group):
    """Of a parameter, or its gradient, the layers that train."""
    return leaf if group.rows is None else leaf[group.rows]


def map_groups(function, groups: Mapping[str, Group], tree, *others):
    """`function(leaf, ..., group)` over trees of parameters' paths."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(*leaves, groups[path_name(path)]), tree, *others
    )


def _shapes(params) -> dict[str, tuple[int, ...]]:
    return {
        path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _frozen(tensors: list[str], config: OptimConfig) -> np.ndarray:
    """bool [tensors]."""
    return np.array([any(re.search(x, tensor) for x in config.frozen) for tensor in tensors])


def _all_or_none(field: str, tensors: list[str], config: OptimConfig) -> bool:
    pattern = getattr(config, field)
    found = [bool(re.search(pattern, tensor)) for tensor in tensors]
    if any(found) and not all(found):
        raise UserError(
            f"config.optim.{field}: {pattern!r} matches {tensors[found.index(True)]} and not "
            f"{tensors[found.index(False)]}: it must match all layers of a stack or none"
        )
    return all(found)


def _rows(trained: np.ndarray) -> slice | np.ndarray:
    """Where a bool [layers] is true; as a slice, which costs no gather, where that can be said."""
    rows = np.flatnonzero(trained)
    first, end = int(rows[0]), int(rows[-1]) + 1
    return slice(first, end) if len(rows) == end - first else rows
