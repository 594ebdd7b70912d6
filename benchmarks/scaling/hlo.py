"""A compiled module's text, read: its instructions, and how often each of them runs in one call.

XLA's own cost analysis counts the body of a loop once. Here an instruction counts as often as the
loops around it turn.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {
    "pred": 1,
    **dict.fromkeys(("s4", "u4", "s8", "u8"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
    "c128": 16,
}
ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]*)\]")
NAME = re.compile(r"%([\w.-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# Attributes that name what an instruction runs. `to_apply` of anything but a call is a sum or the
# like of two numbers.
CALLS = re.compile(
    r"\b(?:calls|body|to_apply|true_computation|false_computation|(?:branch|called)_computations)"
    r"=(\{[^}]*\}|%[\w.-]+)"
)
RUNS = ("call", "fusion", "while", "conditional", "custom-call", "async-start")


@dataclasses.dataclass(frozen=True)
class Array:
    """A dtype as HLO writes it, and a shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return BYTES[self.dtype] * math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without its percent sign.
      opcode: such as "all-gather".
      results: arrays of its result; several of a tuple.
      operands: those of its operands, in order.
      attributes: the text behind the operands.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[Array, ...]
    attributes: str

    @property
    def runs(self) -> list[str]:
        """Names of the computations that it runs."""
        if self.opcode not in RUNS:
            return []
        return [name for found in CALLS.findall(self.attributes) for name in NAME.findall(found)]

    @property
    def trips(self) -> int:
        """How often a loop turns.

        Raises:
          ValueError: the compiler did not write it down.
        """
        if found := TRIPS.search(self.attributes):
            return int(found[1])
        raise ValueError(f"the loop {self.name} does not say how often it turns")


class Module:
    """A compiled module: computations by name, each a list of `Instruction`s.

    Args:
      text: what `jax.stages.Compiled.as_text` returns.
    """

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        self._found: dict[str, list[tuple[Instruction, int]]] = {}
        for line in text.splitlines():
            if line.startswith(("%", "ENTRY ")) and line.endswith("{"):
                current = NAME.search(line)[1]
                self.computations[current], arrays = [], {}
                if line.startswith("ENTRY"):
                    self.entry = current
            elif line.startswith("  ") and " = " in line:
                instruction = _instruction(line, arrays)
                arrays[instruction.name] = instruction.results
                self.computations[current].append(instruction)

    def executed(self) -> Iterator[tuple[Instruction, int]]:
        """Each instruction that runs in one call, with how often; none that only calls others."""
        return iter(self._executed(self.entry))

    def _executed(self, name: str) -> list[tuple[Instruction, int]]:
        if name not in self._found:
            self._found[name] = self._looked_through(name)
        return self._found[name]

    def _looked_through(self, name: str) -> list[tuple[Instruction, int]]:
        found = []
        for instruction in self.computations[name]:
            parts = [self._executed(inner) for inner in instruction.runs]
            if not parts:
                found.append((instruction, 1))
                continue
            # One branch of a conditional runs. The longest is taken to.
            parts = [max(parts, key=len)] if instruction.opcode == "conditional" else parts
            trips = instruction.trips if instruction.opcode == "while" else 1
            found += [(inner, trips * times) for part in parts for inner, times in part]
        return found


def _instruction(line: str, arrays: dict[str, tuple[Array, ...]]) -> Instruction:
    """`  %name = shape opcode(operands), attributes`; `arrays` are of the lines before it."""
    left, right = line.split(" = ", 1)
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    shape, rest = right[:end], right[end:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    # Operands stand there by name alone, or with their shapes before it.
    operands = NAME.findall(rest[start:end])
    return Instruction(
        NAME.search(left)[1],
        rest[:start],
        _arrays(shape),
        tuple(array for operand in operands for array in arrays.get(operand, ())),
        rest[end:],
    )


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` has been closed."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place + 1
    raise ValueError(f"a parenthesis is never closed: {text}")


def _arrays(shape: str) -> tuple[Array, ...]:
    return tuple(
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in ARRAY.findall(shape)
    )


def dot_flops(instruction: Instruction) -> int:
    """2 for each multiply-add of a matrix product; 0 of anything else."""
    if instruction.opcode != "dot":
        return 0
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    summed = math.prod(instruction.operands[0].shape[axis] for axis in axes)
    return 2 * math.prod(instruction.results[0].shape) * summed


def flops(module: Module) -> int:
    """FLOPs of all matrix products that one device computes in one call."""
    return sum(times * dot_flops(instruction) for instruction, times in module.executed())
