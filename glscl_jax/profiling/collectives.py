"""What devices send each other in one call of a compiled module, told apart by the mesh's axes."""

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from glscl_jax.profiling.hlo import Instruction, Module

# Bytes that a device sends for each byte of the larger of operand and result, in a group of n: the
# least that any algorithm can do, which rings reach (Thakur et al., 2005).
SENT = {
    "all-gather": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}

LISTS = r"\{((?:\{[\d,]+\},?)*)\}"
RANGE = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
OWN_MESH = (
    r"replica_groups=@?\w*mesh\[([^\]]*)\]"
    rf"(?:, ?device_ids=\((?:([\d,]+)|{RANGE})\))? *\{{([^}}]*)\}}"
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction that moves data between devices.

    Attributes:
      kind: a key of `SENT`.
      axes: the mesh's axes that it runs along, "data" or "data+fsdp"; "" for none.
      group: n, devices that take part in it together: all along `axes`, or an equal part of them.
      operand_bytes: what one device puts in.
      result_bytes: what one device gets out.
      times: how often it runs in one call.
      source: the operation it was made of, as JAX names it.
      asynchronous: whether the device computes while it runs.
      outside: whether it joins slices of a TPU, one device of each.
    """

    kind: str
    axes: str
    group: int
    operand_bytes: int
    result_bytes: int
    times: int
    source: str
    asynchronous: bool = False
    outside: bool = False

    @property
    def sent(self) -> float:
        """Bytes that one device sends in one call."""
        largest = max(self.operand_bytes, self.result_bytes)
        return SENT[self.kind](self.group) * largest * self.times


def collectives(module: Module, mesh: Mapping[str, int]) -> list[Collective]:
    """All of `module` that join more than one device.

    Args:
      module: compiled for the devices of a mesh.
      mesh: the mesh's axes and their sizes, in order. Of several slices of a TPU the module is
        that of one, and the first axis goes on through all of them.

    Raises:
      ValueError: groups that are neither all along some axes nor equal parts of that.
    """
    found = between_slices(module, mesh)
    started = _started(module)
    if slices := _slices(module, mesh):
        first = next(iter(mesh))
        mesh = {**mesh, first: mesh[first] // slices}
    for instruction, times in module.executed():
        kind = instruction.opcode.removesuffix("-start")
        if kind not in SENT or _goes_on(instruction, started):
            continue
        groups = _groups(instruction, math.prod(mesh.values()))
        axes = _axes(groups, mesh, kind == "collective-permute")
        size = max(map(len, groups))
        if size < 2:
            continue
        # An asynchronous start's result holds its operands, too.
        count = len(instruction.operands)
        is_start = instruction.opcode.endswith("-start")
        results = instruction.results[count : 2 * count] if is_start else instruction.results
        results = results or instruction.results
        operand, result = (sum(x.bytes for x in side) for side in (instruction.operands, results))
        if kind == "all-reduce" and instruction.computation.startswith("all-reduce-scatter"):
            # So the compiler for TPUs writes it: a sum of which each device keeps its part.
            kind = "reduce-scatter"
        found.append(
            Collective(
                kind,
                axes,
                size,
                operand,
                result,
                times,
                instruction.source,
                is_start or instruction.name in started,
            )
        )
    return found


def _slices(module: Module, mesh: Mapping[str, int]) -> int:
    """Of how many slices of a TPU the module is one's; 0 where it is that of all devices."""
    devices = math.prod(mesh.values())
    return devices // module.partitions if 1 < module.partitions < devices else 0


def between_slices(module: Module, mesh: Mapping[str, int]) -> list[Collective]:
    """What a device of one slice sends to those in its place in the others.

    The compiler for TPUs makes of each such sum or gather a `send` to the host, which passes it on
    over the data centre's network, and a `recv` of what comes of it; attributes name the collective
    that it was.
    """
    first, found = next(iter(mesh)), []
    arrived = {_meeting(x): x for x, _ in module.executed() if x.opcode == "recv" and _meeting(x)}
    for instruction, times in module.executed():
        if instruction.opcode != "send" or not _meeting(instruction):
            continue
        kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
        joined = re.search(r'_xla_megascale_target="\{([\d,]+)\}', instruction.attributes)
        back = arrived.get(_meeting(instruction))
        if not kind or not joined or back is None:
            raise ValueError(f"{instruction.name} does not say what it sends: {instruction}")
        found.append(
            Collective(
                kind[1].lower().replace("_", "-"),
                first,
                len(_numbers(joined[1])),
                # Beside what is sent stand a number and a token.
                instruction.operands[0].bytes,
                back.results[0].bytes,
                times,
                instruction.source,
                _computes_between(module, instruction),
                outside=True,
            )
        )
    return found


def _meeting(instruction: Instruction) -> str:
    """The name under which a send between slices and what answers it find each other; or ""."""
    if "xla_megascale_runtime" not in instruction.attributes:
        return ""
    found = re.search(r'_xla_host_transfer_rendezvous="([^"]+)"', instruction.attributes)
    return found[1] if found else ""


def _computes_between(module: Module, send: Instruction) -> bool:
    """Whether the device does something that takes cycles before it takes the answer."""
    body = module.computations[send.computation]
    after = body[body.index(send) + 1 :]
    answers = [x.opcode == "recv-done" and _meeting(x) == _meeting(send) for x in after]
    return any(x.cycles for x in after[: answers.index(True) if True in answers else 0])


def _started(module: Module) -> set[str]:
    """Names of collectives that a TPU starts in one fusion and ends in another."""
    return {
        name
        for instructions in module.computations.values()
        for instruction in instructions
        if 'custom_call_target="AsyncCollectiveStart"' in instruction.attributes
        for name in instruction.inputs
    }


def _goes_on(instruction: Instruction, started: set[str]) -> bool:
    """Whether this is one of the places where a TPU carries on what it has started elsewhere."""
    return "async_collective_fusion_config" in instruction.attributes and (
        instruction.name not in started
    )


def sent_by_axis(found: list[Collective]) -> Counter:
    """Bytes that a device sends in one call, by (axes, kind)."""
    total = Counter()
    for collective in found:
        total[collective.axes, collective.kind] += collective.sent
    return total


def _groups(instruction: Instruction, devices: int) -> list[tuple[int, ...]]:
    """Devices that take part together, by their places in the mesh.

    XLA writes groups out, `{{0,1},{2,3}}`, or as the rows of a transposed range,
    `[4,2]<=[2,4]T(1,0)`, or as axes of a mesh of its own naming, `mesh['a'=2,'b'=4] {'b'}`.
    """
    attributes = instruction.attributes
    if found := re.search(rf"(?:source_target_pairs|replica_groups)={LISTS}", attributes):
        return _lists(found[1]) or [tuple(range(devices))]
    if found := re.search(rf"replica_groups=\[([\d,]+)\]<={RANGE}", attributes):
        return _range(*found.groups()[1:]).reshape(_numbers(found[1])).tolist()
    if found := re.search(OWN_MESH, attributes):
        axes, ids, range_axes, order, chosen = found.groups()
        places = _range(range_axes, order) if range_axes else ids and np.array(_numbers(ids))
        return _along_own_axes(axes, chosen, places)
    raise ValueError(f"{instruction.name} has no groups that can be read: {attributes}")


def _along_own_axes(axes: str, chosen: str, places: np.ndarray | None) -> list[tuple[int, ...]]:
    """Groups along `chosen` axes, such as `'b'` or `'b':(2)4`: of b the 4 parts inside of 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    split = {name: [1, 1, size] for name, size in sizes.items()}
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen):
        before, size = int(before or 1), int(size or sizes[name])
        split[name] = [before, size, sizes[name] // (before * size)]
    named = {name for name, _, _ in re.findall(r"'([^']+)'(:\((\d+)\))?", chosen)}
    shape = [size for parts in split.values() for size in parts]
    # The middle one of an axis's three parts is its chosen one.
    together = [3 * place + 1 for place, name in enumerate(split) if name in named]
    apart = [axis for axis in range(len(shape)) if axis not in together]
    places = np.arange(math.prod(shape)) if places is None else places
    places = places.reshape(shape).transpose(*apart, *together)
    return places.reshape(-1, math.prod(shape[axis] for axis in together)).tolist()


def _range(axes: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... as an array of `axes`, transposed."""
    axes = _numbers(axes)
    return np.arange(math.prod(axes)).reshape(axes).transpose(_numbers(order or "") or None)


def _lists(text: str) -> list[tuple[int, ...]]:
    return [tuple(_numbers(part)) for part in re.findall(r"\{([\d,]+)\}", text)]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _axes(groups: list[tuple[int, ...]], mesh: Mapping[str, int], permuted: bool) -> str:
    """The axes along which `groups` run; of a permutation, any that something moves along.

    Groups may be equal parts of all that lie along them: of fsdp 8 XLA also splits arrays in four.
    """
    names, shape = list(mesh), tuple(mesh.values())
    places = [np.array(np.unravel_index(group, shape)) for group in groups]
    # Of each group and axis, how many places it takes there.
    spread = [[len(set(axis)) for axis in place.tolist()] for place in places]
    along = [
        name
        for name, counts in zip(names, zip(*spread, strict=True), strict=True)
        if max(counts) > 1
    ]
    whole = all(
        math.prod(counts) == len(group) for counts, group in zip(spread, groups, strict=True)
    )
    once = sorted(itertools.chain(*groups)) == list(range(math.prod(shape)))
    if not permuted and not (whole and once and len(set(map(len, groups))) == 1):
        raise ValueError(f"groups {groups[:2]}... do not lie along {along} of the mesh {mesh}")
    return "+".join(along)
