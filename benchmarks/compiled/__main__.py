"""Training steps by the compilers of TPUs and GPUs, against the counts that are kept.

    python -m benchmarks.compiled                             all rows
    python -m benchmarks.compiled --only=v5e:2x2 --only=L/14  rows whose names have one of these
    python -m benchmarks.compiled --keep                      and writes counts.json anew
    python -m benchmarks.compiled --of=families               each family of encoders instead
    python -m benchmarks.compiled --of=families --kept        what is kept; compiles nothing

Each row is `python -m glscl_jax.train --compile_for`, as it is printed; the table has what that
writes, beside the old counts (before the first change for a compiler) and the last ones that were
kept. A row that computes, holds or sends 2 % more than the last is an error. Compilers are of
`make aot` and requirements-aot.txt; rows whose compiler is not installed are named and left out.

No device is used. Cycles and bytes are the compilers'; seconds are an estimate (`estimate.py`).

Takes 2 to 4 minutes a row on 2 cores of an Intel Xeon, and as much again for each layout that does
not fit; 3 GB of memory. Families: 3 to 6 minutes of a core of an AMD EPYC, 4 to 5 GB.
"""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable

import jax
from absl import flags

from benchmarks.compiled import counts
from benchmarks.compiled.counts import Counts
from benchmarks.compiled.families import FAMILIES
from benchmarks.compiled.rows import OLD, ROWS, Row
from benchmarks.compiled.summary import summary
from glscl_jax.errors import UserError
from glscl_jax.files import read_json
from glscl_jax.profiling.topologies import check_compiler
from glscl_jax.runtime import program

TABLES = {"steps": ROWS, "families": FAMILIES}
flags.DEFINE_multi_string("only", [], "Rows whose name has this in it; repeatable.")
flags.DEFINE_enum(
    "of", "steps", sorted(TABLES), "Steps that changes are held against, or encoders by family."
)
flags.DEFINE_bool("kept", False, "Print what counts.json has, and compile nothing.")
flags.DEFINE_bool("keep", False, "Write what was counted to counts.json.")

HEAD = (
    "| step | | GiB a chip | TFLOP | GB moved | GB sent | computing | with sending | bound |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def main(_):
    rows = choose(TABLES[flags.FLAGS.of], flags.FLAGS.only)
    kept, found, more = counts.read(), {}, []
    if flags.FLAGS.kept:
        print("\n".join(summary(rows, kept[counts.LAST])))
        return
    for row in rows:
        try:
            check_compiler(*row.package)
        except UserError as error:
            print(f"{row.name}: left out: {error}", flush=True)
            continue
        found[row.name] = counted = compile_row(row)
        more += counts.regressions(row.name, counted, kept[counts.LAST].get(row.name))
        if flags.FLAGS.keep:
            counts.keep({row.name: counted})
    if found:
        print(f"\nJAX {jax.__version__}")
        print("\n".join(table(rows, found, kept)))
    if more and not flags.FLAGS.keep:
        raise UserError("; ".join(more) + ": --keep if that is meant")


def choose(there: Iterable[Row], only: list[str]) -> list[Row]:
    """Those of the rows that are asked for.

    Raises:
      UserError: there is none.
    """
    there = list(there)
    rows = [row for row in there if not only or any(part in row.name for part in only)]
    if not rows:
        names = ", ".join(row.name for row in there)
        raise UserError(f"--only={only[0]}: there are {names}")
    return rows


def compile_row(row: Row) -> Counts:
    """What `train --compile_for` says of a row, in a process of its own.

    Raises:
      UserError: it did not get through; what it wrote is above.
    """
    print(f"\npython -m glscl_jax.train {' '.join(row.arguments)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "glscl_jax.train", f"--workdir={folder}", *row.arguments]
        if status := subprocess.run(command).returncode:
            raise UserError(f"{row.name}: train --compile_for ended with status {status}")
        (written,) = pathlib.Path(folder).glob("compiled-*.json")
        return counts.of_report(read_json(written))


def table(rows: list[Row], found: dict[str, Counts], kept: dict) -> list[str]:
    """Markdown: of each row the old counts, the last ones and the new ones, and its aims."""
    lines = list(HEAD)
    newest = kept[counts.LAST] | found
    for row in (row for row in rows if row.name in found):
        states = (OLD, kept[OLD]), ("last", kept[counts.LAST]), ("now", found)
        lines += [line(row, name, x[row.name]) for name, x in states if row.name in x]
    lines.append("")
    for row in (row for row in rows if row.name in found):
        lines += [
            f"- {row.name}: {counts.aim_result(row, aim, newest, kept[OLD])}" for aim in row.aims
        ]
        if flag := found[row.name].proposed:
            lines.append(f"- {row.name}: fits with {flag}")
    return lines


def line(row: Row, state: str, x: Counts) -> str:
    cells = [
        f"{row.name} clips, {state}",
        x.layout,
        f"{x.arguments / counts.GIB:.2f} + {x.temporary / counts.GIB:.2f}"
        if x.arguments
        else f"{x.gib:.2f}",
        "-" if x.flops is None else f"{x.flops / 1e12:.1f}",
        *("-" if value is None else f"{value / 1e9:,.1f}" for value in (x.moved, x.sent)),
        *("-" if value is None else f"{1e3 * value:,.0f} ms" for value in (x.computing, x.seconds)),
        "-" if x.bound is None else f"{100 * x.bound:.1f} %",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    program.run(main)
