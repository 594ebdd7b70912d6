"""What is known of parameters by the ends of their names: each module states it of its own.

The layers of a stack lie in one array, `clip/text/transformer/blocks/mlp_in/kernel` [12,D,4D]. An
optimiser's moments end in the same names, so what is said of a parameter holds for them, too.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

# The mesh's axes (see `runtime.sharding`): batches are split over the first two, parameters over
# the second, heads and hidden units over the third.
DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")
BATCH = (DATA, FSDP)


@dataclasses.dataclass(frozen=True)
class Traits:
    """What a module knows of its parameters and activations.

    Attributes:
      split: end of a parameter's name -> mesh axes of its last axes.
      otherwise: the same, where those of `split` do not divide the parameter.
      activations: end of a module's path -> mesh axes of its input and of its output.
      stacks: modules whose parameters have a leading axis of layers, each a tensor in PyTorch.
      towers: beginning of a tower's names -> ends of the names of what lies below its blocks.
      stages: of a tower of several stacks, beginning of its names -> from the bottom to the top
        what each stack's names have after it, and ends of the names of what lies on the stack.
      half: (beginning, end) of the names of what the released code keeps in float16 on a GPU.
    """

    split: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    otherwise: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    activations: Mapping[str, tuple[tuple, tuple]] = dataclasses.field(default_factory=dict)
    stacks: tuple[str, ...] = ()
    towers: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = dataclasses.field(
        default_factory=dict
    )
    half: tuple[tuple[str, str], ...] = ()


_KNOWN: list[Traits] = []


def state(traits: Traits) -> Traits:
    """Makes known what a module states of its own."""
    if traits not in _KNOWN:
        _KNOWN.append(traits)
    return traits


def split_of(name: str) -> tuple:
    """Mesh axes of a parameter's last axes: as stated, else the last one over `FSDP`."""
    return next((axes for end, axes in _all("split") if name.endswith(end)), (FSDP,))


def otherwise_of(name: str) -> tuple | None:
    """The same where those do not divide it; None if nothing is stated."""
    return next((axes for end, axes in _all("otherwise") if name.endswith(end)), None)


def activations_of(path: str) -> tuple[tuple, tuple] | None:
    """Mesh axes of a module's input and output [B,L,D]; None where nothing is stated."""
    return next((axes for end, axes in _all("activations") if path.endswith(end)), None)


def stack_end(name: str) -> int | None:
    """Where in a parameter's name that of its stack ends, the slash included; None without one."""
    stacks = {stack for traits in _KNOWN for stack in traits.stacks}
    parts, end = name.split("/"), 0
    for number, part in enumerate(parts[:-1]):
        end += len(part) + 1
        if number and part in stacks:
            return end
    return None


def tower_of(name: str) -> str | None:
    """How the names of the parameter's tower begin; None of one that belongs to no tower."""
    return next((start for start, _ in _all("towers") if name.startswith(start)), None)


def is_below_blocks(name: str) -> bool:
    """Whether a tower's parameter lies before its blocks."""
    ends = next((ends for start, ends in _all("towers") if name.startswith(start)), ())
    return name.endswith(ends) if ends else False


def stage_of(name: str) -> int:
    """Which of its tower's stacks a parameter lies in or on, from the bottom; -1 for none.

    All parameters of a tower of one stack that lie in it have the same.
    """
    tower = tower_of(name)
    stacks = [stack for start, stacks in _all("stages") if start == tower for stack in stacks]
    for number, (stack, ends) in enumerate(stacks):
        if name.startswith(f"{tower}{stack}") or name.endswith(ends):
            return number
    return 0 if tower and stack_end(name) else -1


def is_half(name: str) -> bool:
    """Whether the released code keeps this parameter in float16 on a GPU."""
    pairs = (pair for traits in _KNOWN for pair in traits.half)
    return any(name.startswith(start) and name.endswith(end) for start, end in pairs)


def _all(what: str) -> Iterator[tuple[str, Any]]:
    return (item for traits in _KNOWN for item in getattr(traits, what).items())
