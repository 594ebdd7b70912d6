"""A compiled module's text, read: its instructions, and how often each of them runs in one call.

XLA's own cost analysis counts the body of a loop once. Here an instruction counts as often as the
loops around it turn. The modules of three compilers are read: for CPUs, GPUs and TPUs.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

BYTES = {
    "pred": 1,
    **dict.fromkeys(("s4", "u4", "s8", "u8"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
    "c128": 16,
}
ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]*)\](?:\{[^}]*?S\((\d+)\)[^}]*\})?")
NAME = re.compile(r"%([\w.-]+)")
PARTITIONS = re.compile(r"\bnum_partitions=(\d+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# Attributes that name what an instruction runs. `to_apply` of anything but a call is a sum or the
# like of two numbers.
CALLS = re.compile(
    r"\b(?:calls|body|to_apply|true_computation|false_computation|(?:branch|called)_computations)"
    r"=(\{[^}]*\}|%[\w.-]+)"
)
RUNS = ("call", "fusion", "while", "conditional", "custom-call", "async-start")


@dataclasses.dataclass(frozen=True)
class Array:
    """A dtype as HLO writes it, a shape, and the memory it lies in: 0 is the device's large one."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

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
      inputs: the names of its operands; of a constant or a parameter what stands for them.
      computation: the name of that in which it stands.
      is_root: whether its result is the computation's.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[Array, ...]
    attributes: str
    inputs: tuple[str, ...] = ()
    computation: str = ""
    is_root: bool = False

    @property
    def runs(self) -> list[str]:
        """Names of the computations that it runs."""
        if self.opcode not in RUNS:
            return []
        return [name for found in CALLS.findall(self.attributes) for name in NAME.findall(found)]

    @property
    def cycles(self) -> int:
        """Those that the compiler for TPUs estimates; 0 where it says nothing."""
        found = CYCLES.search(self.attributes)
        return int(found[1]) if found else 0

    @property
    def source(self) -> str:
        """The operation it was made of, as JAX names it."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


class Module:
    """A compiled module: computations by name, each a list of `Instruction`s.

    Args:
      text: what `jax.stages.Compiled.as_text` returns.

    Attributes:
      partitions: devices that it is one program of; of several slices of a TPU those of one.
    """

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        found = PARTITIONS.search(text.partition("\n")[0])
        self.partitions = int(found[1]) if found else 1
        self._seen: dict[tuple[str, tuple[str, ...]], list[tuple[Instruction, int]]] = {}
        for line in text.splitlines():
            if line.startswith(("%", "ENTRY ")) and line.endswith("{"):
                current = NAME.search(line)[1]
                self.computations[current], arrays = [], {}
                if line.startswith("ENTRY"):
                    self.entry = current
            elif line.startswith("  ") and " = " in line:
                instruction = _instruction(line, arrays, current)
                arrays[instruction.name] = instruction.results
                self.computations[current].append(instruction)

    def executed(self) -> Iterator[tuple[Instruction, int]]:
        """Each instruction that runs in one call, with how often; none that only calls others."""
        return iter(self._found(self.entry, RUNS))

    def scheduled(self) -> Iterator[tuple[Instruction, int]]:
        """What the device starts one after the other, with how often: a fusion is one of them."""
        return iter(self._found(self.entry, ("call", "while", "conditional")))

    def _found(self, name: str, opened: tuple[str, ...]) -> list[tuple[Instruction, int]]:
        """The instructions of a computation and of those that its `opened` ones run."""
        if (name, opened) not in self._seen:
            self._seen[name, opened] = self._looked_through(name, opened)
        return self._seen[name, opened]

    def _looked_through(self, name: str, opened) -> list[tuple[Instruction, int]]:
        found = []
        for instruction in self.computations[name]:
            inner = instruction.runs if instruction.opcode in opened else []
            parts = [self._found(one, opened) for one in inner]
            if not parts:
                found.append((instruction, 1))
                continue
            # One branch of a conditional runs. The longest is taken to.
            parts = [max(parts, key=len)] if instruction.opcode == "conditional" else parts
            trips = self.trips(instruction) if instruction.opcode == "while" else 1
            found += [(one, trips * times) for part in parts for one, times in part]
        return found

    def trips(self, loop: Instruction) -> int:
        """How often a loop turns.

        The compilers for CPUs and GPUs write it down. That for TPUs does not: there it is the
        constant with which the loop's condition compares its counter, less where that starts, in
        steps of what a turn adds to it.

        Raises:
          ValueError: neither tells.
        """
        if found := TRIPS.search(loop.attributes):
            return int(found[1])
        condition = re.search(r"condition=%([\w.-]+)", loop.attributes)
        if condition and (found := self._bound(self.computations[condition[1]])):
            place, bound = found
            if step := self._step(loop, place):
                return -(-(bound - self._start(loop, place)) // step)
        raise ValueError(f"the loop {loop.name} does not say how often it turns")

    def _bound(self, condition: list[Instruction]) -> tuple[int, int] | None:
        """The place of the counter among what a loop carries, and the first value that ends it."""
        named = {instruction.name: instruction for instruction in condition}
        for compare in condition:
            if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
                continue
            counter, bound = (named.get(name) for name in compare.inputs)
            if counter and bound and bound.opcode == "constant":
                place = re.search(r"index=(\d+)", counter.attributes)
                return int(place[1]) if place else 0, int(bound.inputs[0])
        return None

    def _step(self, loop: Instruction, place: int) -> int:
        """What a turn adds to the counter; 0 where that is not a sum of constants."""
        body = re.search(r"body=%([\w.-]+)", loop.attributes)
        named = {x.name: x for x in self.computations[body[1]]} if body else {}
        root = next((x for x in named.values() if x.is_root), None)
        if root is None or root.opcode != "tuple":
            return 0
        step, value = 0, named.get(root.inputs[place])
        while value is not None and value.opcode != "get-tuple-element":
            inner = [named[name] for name in value.inputs if name in named]
            constants = [x for x in inner if x.opcode == "constant"]
            others = [x for x in inner if x.opcode != "constant"]
            known = ("add", "copy", "bitcast")
            if value.opcode not in known or len(constants) != (value.opcode == "add"):
                return 0
            step += sum(int(x.inputs[0]) for x in constants)
            value = others[0] if others else None
        return step if value is not None else 0

    def _start(self, loop: Instruction, place: int) -> int:
        """The counter's value before the first turn: 0 unless a constant says otherwise."""
        around = {x.name: x for x in self.computations[loop.computation]}
        carried = around.get(loop.inputs[0])
        if carried is None or carried.opcode != "tuple":
            return 0
        first = around.get(carried.inputs[place])
        while first is not None and first.opcode in ("copy", "bitcast"):
            first = around.get(first.inputs[0])
        return int(first.inputs[0]) if first is not None and first.opcode == "constant" else 0


def _instruction(line: str, arrays: dict[str, tuple[Array, ...]], computation: str) -> Instruction:
    """`  %name = shape opcode(operands), attributes`; `arrays` are of the lines before it."""
    left, right = line.split(" = ", 1)
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    shape, rest = right[:end], right[end:].lstrip()
    start = rest.index("(")
    end = _closing(rest, start)
    opcode, inner = rest[:start], rest[start + 1 : end - 1]
    # Operands stand there by name alone, or with their shapes before it.
    literal = opcode in ("constant", "parameter", "iota")
    inputs = (inner,) if literal else tuple(NAME.findall(inner))
    return Instruction(
        NAME.search(left)[1],
        opcode,
        _arrays(shape),
        tuple(array for operand in inputs for array in arrays.get(operand, ())),
        rest[end:],
        inputs,
        computation,
        left.lstrip().startswith("ROOT"),
    )


PARENTHESES = re.compile(r"[()]")


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` has been closed."""
    depth = 0
    for found in PARENTHESES.finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.end()
    raise ValueError(f"a parenthesis is never closed: {text}")


def _arrays(shape: str) -> tuple[Array, ...]:
    return tuple(
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size), int(space or 0))
        for dtype, sizes, space in ARRAY.findall(shape)
    )


def product_flops(instruction: Instruction) -> int:
    """2 for each multiply-add of a matrix product; 0 of anything else.

    The compiler for TPUs makes convolutions of most, that for GPUs calls of cuBLAS and cuDNN.
    """
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        return _dot_flops(instruction, axes)
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction)
    if instruction.opcode == "custom-call":
        return _call_flops(instruction)
    return 0


def _dot_flops(instruction: Instruction, axes: list[int]) -> int:
    summed = math.prod(instruction.operands[0].shape[axis] for axis in axes)
    return 2 * math.prod(instruction.results[0].shape) * summed


def _call_flops(instruction: Instruction) -> int:
    """Of a library's product or fused attention, by what its configuration says."""
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    if not target:
        return 0
    if "gemm" in target[1] or "matmul" in target[1]:
        config = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        axes = [int(axis) for axis in re.findall(r"\d+", config[1])] if config else [1]
        return _dot_flops(instruction, axes)
    if "fmha" in target[1]:
        return _attention_flops(instruction, backward="Backward" in target[1])
    return 0


def _attention_flops(instruction: Instruction, backward: bool) -> int:
    """Two products forward, five backward (one of them again): queries [B,H,Q,D], keys [B,H,M,D].

    `intermediate_tensor_shape` is that of the weights that are never held.
    """
    weights = re.search(
        r'"intermediate_tensor_shape":\{[^}]*"dimensions":\[([^\]]*)\]', (instruction.attributes)
    )
    if not weights:
        return 0
    pairs = math.prod(int(size) for size in re.findall(r"\d+", weights[1]))
    return 2 * (5 if backward else 2) * pairs * instruction.operands[0].shape[-1]


def _convolution_flops(instruction: Instruction) -> int:
    """Those of which neither factor is padding or the filling of a dilated array.

    Batched products are convolutions whose dilation leaves one pair of factors in a window.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    left, right = (operand.shape for operand in instruction.operands[:2])
    result = instruction.results[0].shape
    groups = {
        name: int(found[1])
        for name in ("feature_group_count", "batch_group_count")
        if (found := re.search(rf"{name}=(\d+)", instruction.attributes))
    }
    batch = left[labels[1].index("b")] // groups.get("batch_group_count", 1)
    features = left[labels[1].index("f")] // groups.get("feature_group_count", 1)
    count = batch * features * right[labels[2].index("o")]
    window = _window(instruction.attributes)
    for axis in filter(str.isdigit, labels[1]):
        sizes = (left[labels[1].index(axis)], right[labels[2].index(axis)])
        sizes += (result[labels[3].index(axis)],)
        count *= _pairs(*sizes, *(part[int(axis)] for part in window))
    return 2 * count


def _window(attributes: str) -> tuple[list[int], ...]:
    """Stride, low padding, and dilation of the left and of the right side, by spatial axis."""
    text = re.search(r"window=\{([^}]*)\}", attributes)
    parts = dict(part.split("=") for part in text[1].split()) if text else {}
    axes = len(parts.get("size", "").split("x"))

    def numbers(name, default):
        if name not in parts:
            return [default] * axes
        return [int(part.split("_")[0]) for part in parts[name].split("x")]

    return (
        numbers("stride", 1),
        numbers("pad", 0),
        numbers("lhs_dilate", 1),
        numbers("rhs_dilate", 1),
    )


@functools.cache
def _pairs(length, window, results, stride, pad, left_dilation, right_dilation) -> int:
    """Along one axis, pairs of a place of the result and one of the window that meet an input."""
    places = np.arange(results)[:, None] * stride + np.arange(window) * right_dilation - pad
    inside = (places >= 0) & (places <= (length - 1) * left_dilation)
    return int(np.sum(inside & (places % left_dilation == 0)))


def flops(module: Module) -> int:
    """FLOPs of all matrix products that one device computes in one call."""
    return sum(times * product_flops(instruction) for instruction, times in module.executed())


def flops_by_dtype(module: Module) -> dict[str, int]:
    """The same by the dtype of the products' factors, as HLO writes it."""
    found = {}
    for instruction, times in module.executed():
        if count := product_flops(instruction):
            widest = max((x.dtype for x in instruction.operands[:2]), key=BYTES.get)
            found[widest] = found.get(widest, 0) + times * count
    return found
