"""The counts that are kept as a table for the docs, one line a row."""

from collections.abc import Mapping

from benchmarks.compiled.counts import GIB, Counts
from benchmarks.compiled.rows import Row
from glscl_jax.profiling import topologies

HEAD = (
    "| model | devices, clips | layout | GiB a chip | TFLOP | GB moved, sent | estimate, sending "
    "left out | with it | bound |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def summary(rows: list[Row], kept: Mapping[str, Counts]) -> list[str]:
    """Markdown: what is kept of each row, and which rows nothing is kept of."""
    lines = list(HEAD) + [line(row, kept[row.name]) for row in rows if row.name in kept]
    if missing := [row.name for row in rows if row.name not in kept]:
        lines += ["", f"Not counted: {', '.join(missing)}."]
    return lines


def line(row: Row, x: Counts) -> str:
    """One row; where a device does not hold what was asked for, both that and what it holds."""
    room = topologies.parse(row.topology).memory / GIB
    gib = " + ".join(f"{part / GIB:.2f}" for part in (x.arguments, x.temporary) if part)
    gib = f"{gib} of {room:.2f}"
    if x.asked:
        gib = f"**{x.asked / GIB:.2f} does not fit**; {gib}"
    layout = f"{x.layout} (`{x.proposed}`)" if x.proposed else x.layout
    moved = ", ".join("-" if y is None else f"{y / 1e9:,.1f}" for y in (x.moved, x.sent))
    cells = [
        f"`{row.variant}`",
        f"{row.topology}, {row.clips}",
        layout,
        gib,
        "-" if x.flops is None else f"{x.flops / 1e12:.1f}",
        moved,
        *("-" if y is None else f"{1e3 * y:,.0f} ms" for y in (x.computing, x.seconds)),
        "-" if x.bound is None else f"{100 * x.bound:.1f} %",
    ]
    return "| " + " | ".join(cells) + " |"
