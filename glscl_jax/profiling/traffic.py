"""Bytes that a compiled module moves to and from a device's large memory, instruction by one."""

from glscl_jax.profiling.hlo import Array, Instruction, Module

# They name what is there already.
FREE = ("parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "iota")


def bytes_moved(module: Module, instruction: Instruction) -> int:
    """Bytes that one run of a scheduled instruction reads and writes.

    Of an array that a fusion only cuts a slice of, or writes a slice into, the slice counts. What
    lies in a TPU's fast memory costs nothing.
    """
    if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
        return 0
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * _bytes(instruction.results)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _large(instruction.operands[1])
    if instruction.opcode == "custom-call":
        # Beside its results cuBLAS and cuDNN have room to work in, of which nobody knows the use.
        real = tuple(array for array in instruction.results if array.dtype not in ("s8", "u8"))
        return _bytes(instruction.operands) + _bytes(real)
    body = module.computations.get(next(iter(instruction.runs), ""), [])
    if instruction.opcode != "fusion" or not body:
        return _bytes(instruction.operands) + _bytes(instruction.results)
    return _read(instruction, body) + _written(instruction, body)


def total(module: Module) -> int:
    """Bytes of a whole call."""
    return sum(
        times * bytes_moved(module, instruction) for instruction, times in module.scheduled()
    )


def _bytes(arrays: tuple[Array, ...]) -> int:
    return sum(map(_large, arrays))


def _large(array: Array) -> int:
    return 0 if array.space else array.bytes


def _read(fusion: Instruction, body: list[Instruction]) -> int:
    """Of each of a fusion's operands what its body takes."""
    names = {int(x.inputs[0]): x.name for x in body if x.opcode == "parameter"}
    count = 0
    for place, array in enumerate(fusion.operands):
        users = [x for x in body if names.get(place) in x.inputs]
        if users and all(_cuts(user, names[place]) for user in users):
            sliced = sum(x.results[0].bytes for x in users if x.opcode != "dynamic-update-slice")
            count += min(sliced, array.bytes) if not array.space else 0
        else:
            count += _large(array)
    return count


def _cuts(user: Instruction, name: str) -> bool:
    return user.opcode in ("dynamic-slice", "slice", "gather", "dynamic-update-slice") and (
        user.inputs[0] == name and name not in user.inputs[1:]
    )


def _written(fusion: Instruction, body: list[Instruction]) -> int:
    """Of each of a fusion's results what is new."""
    named = {x.name: x for x in body}
    root = next((x for x in body if x.is_root), None)
    parts = [root]
    if root is not None and root.opcode == "tuple":
        parts = [named.get(name) for name in root.inputs]
    count = 0
    for place, array in enumerate(fusion.results):
        part = parts[place] if place < len(parts) else None
        while part is not None and part.opcode in ("bitcast", "copy") and part.inputs:
            part = named.get(part.inputs[0])
        if part is not None and part.opcode == "dynamic-update-slice":
            count += 0 if array.space else part.operands[1].bytes
        else:
            count += _large(array)
    return count
