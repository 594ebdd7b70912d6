"""Training on many devices: the same numbers, what they send, and what follows at scale.

    python -m benchmarks.scaling           # runs the tiny model on forced CPU devices
    python -m benchmarks.scaling --table   # prints the tables of docs/scaling.md

Forced devices share the processor's cores: nothing here is a speed. Bytes and FLOPs are read from
the compiled module (`hlo`), the tables of real chips computed from formulas that are compared with
it (`formulas`, `chips`).

Takes 5 minutes, --table 2 minutes, on 2 cores of an Intel Xeon. What the compiler for TPUs says of
the same step on slices that exist is `benchmarks.compiled --only=v5e`.
"""

import dataclasses

import jax
from absl import flags

from benchmarks.machine import machine
from benchmarks.scaling import chips
from benchmarks.scaling.compiled_step import TINY, Counts, Step, counts, results
from benchmarks.scaling.formulas import blocks_of, cost, merge_axes, sizes
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.runtime import program

TABLE = flags.DEFINE_bool("table", False, "Print the tables of docs/scaling.md instead.")

CLIPS = 8  # A device's, of the tiny model.
TOLERANCE = 1e-5
MESHES = (
    (("data", 1),),
    (("data", 2),),
    (("fsdp", 2),),
    (("data", 4),),
    (("fsdp", 4),),
    (("data", 2), ("fsdp", 2)),
    (("data", 8),),
    (("fsdp", 8),),
    (("data", 4), ("fsdp", 2)),
    (("data", 2), ("fsdp", 2), ("tensor", 2)),
)

B32 = Step(GLSCLConfig(), frames=12, words=32, batch=0)
COMPILED = (
    ((("data", 8),), 512),
    ((("fsdp", 8),), 512),
    ((("data", 4), ("fsdp", 2)), 512),
    ((("data", 8), ("fsdp", 8)), 2048),
    ((("data", 64), ("fsdp", 8)), 8192),
)
# The model that the chips train: activations of products alone, in bfloat16.
REMAT = dataclasses.replace(B32, config=GLSCLConfig(dtype="bfloat16", remat="dots"))


def main(_):
    force_devices(512 if TABLE.value else 8)
    print(f"<!-- {machine()} -->" if TABLE.value else machine())
    if TABLE.value:
        print_tables()
    else:
        print_runs()


def force_devices(count: int) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)


def print_runs() -> None:
    """The tiny model, 8 clips a device: against one device, and what is sent."""
    print(f"tiny model, {CLIPS} clips a device, loss in blocks of 16 texts")
    print("| mesh | batch | loss | off | gradient norm | off | sent a device | MB held + taken |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    alone = {}
    for axes in MESHES:
        step = Step(TINY, frames=6, words=20, batch=0, axes=axes, loss_block=16)
        step = dataclasses.replace(step, batch=CLIPS * step.devices)
        found = results(step)
        line = format_counts(counts(step))
        if step.batch not in alone:
            one = dataclasses.replace(step, axes=MESHES[0])
            alone[step.batch] = found if one == step else results(one)
        off = check_against(found, alone[step.batch])
        print(f"| {mesh_name(axes)} | {step.batch} | {off} | {line} |")


def check_against(found: dict[str, float], expected: dict[str, float]) -> str:
    """Each figure, and its relative distance from one device's.

    Raises:
      UserError: that is more than `TOLERANCE`.
    """
    cells = []
    for name, value in found.items():
        off = abs(value / expected[name] - 1)
        if not off <= TOLERANCE:
            raise UserError(
                f"{name} is {value}, on one device {expected[name]}: these devices do not compute "
                "the same step, see tests/runtime/test_sharding.py"
            )
        cells.append(f"{value:.5f} | {off:.0e}")
    return " | ".join(cells)


def format_counts(found: Counts) -> str:
    """What moves, in MB by axes and kind, and memory."""
    moved = ", ".join(
        f"{axes} {kind} {value / 1e6:.2f}"
        for (axes, kind), value in sorted(found.sent.items())
        if value >= 5e3
    )
    return f"{moved or '-'} | {found.held / 1e6:.1f} + {found.temporary / 1e6:.1f}"


def mesh_name(axes) -> str:
    return " x ".join(f"{name} {size}" for name, size in axes)


def print_tables() -> None:
    print("\n### Formulas against compiled modules, ViT-B/32, float32, nothing recomputed\n")
    size = sizes(B32.config, B32.frames, B32.words)
    print(f"N = {size.layers / 1e6:.1f} M, E = {size.embedding / 1e6:.1f} M, ", end="")
    print(f"{size.clip_flops / 1e9:.1f} GFLOP a clip\n")
    print("Counted (formula, its error):\n")
    print("| mesh | batch | blocks | MB sent a device | all | GFLOP a device | GB a device |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    per_clip = activations(B32)
    for axes, batch in COMPILED:
        print(
            comparison_row(dataclasses.replace(B32, axes=axes, batch=batch), per_clip), flush=True
        )
    per_clip = activations(REMAT)
    print(f"\nActivations, bfloat16, products kept: {per_clip / 1e6:.0f} MB a clip.")
    for chip in (chips.H100, chips.V5E):
        print(f"\n### {chip.name}\n")
        print(chips.table(REMAT, chip, per_clip))


def comparison_row(step: Step, per_clip: float) -> str:
    """A row: what the compiled module says, and the formula's distance from it."""
    found, expected = counts(step), cost(step)
    formulas, by_axes = merge_axes(expected.sent, step), {}
    for (axes, _), value in found.sent.items():
        by_axes[axes] = by_axes.get(axes, 0.0) + value
    moved = "; ".join(
        f"{axes} {by_axes.get(axes, 0) / 1e6:,.0f} ({value / 1e6:,.0f})"
        for axes, value in formulas.items()
    )
    sent = sum(formulas.values()) / sum(by_axes.values()) - 1
    memory = expected.memory + per_clip * step.batch / step.devices
    cells = [
        mesh_name(step.axes),
        f"{step.batch:,}",
        f"{blocks_of(step)}",
        moved,
        f"{100 * sent:+.1f} %",
        with_error(found.flops / 1e9, expected.flops / 1e9, 0),
        with_error((found.held + found.temporary) / 1e9, memory / 1e9, 1),
    ]
    return "| " + " | ".join(cells) + " |"


def with_error(found: float, formula: float, digits: int) -> str:
    """A count, and the formula's with its error."""
    error = 100 * (formula / found - 1)
    return f"{found:,.{digits}f} ({formula:,.{digits}f}, {error:+.1f} %)"


def activations(step: Step) -> float:
    """Bytes that one more clip a device takes: the slope between 8 and 16 of them."""
    few, many = (
        counts(dataclasses.replace(step, axes=(("data", 8),), batch=batch)).temporary
        for batch in (64, 128)
    )
    return (many - few) / 8


if __name__ == "__main__":
    program.run(main)
