"""R@1 of all heads on the demo's data against what they cost: two tables, and a picture.

    python -m benchmarks.figure1                  the tables, and the picture into docs/
    python -m benchmarks.figure1 --table          the tables alone
    python -m benchmarks.figure1 --costs --out benchmarks/figure1/costs.jsonl

The runs are made by benchmarks.demo_heads and benchmarks.lim_study (docs/heads.md).
The first two read what is kept of them (--results) and of the last (--measured); of what nobody
has run yet a line says how to, and the tables have a dash. The last times every head's scores on
the machine that it runs on; a gallery that its memory has no room for is left out. It needs jax,
flax, numpy and absl alone.

Takes 4 minutes for --costs on 2 cores of an AMD EPYC with other programs on them: 48 programs are
compiled, and each is called for a second at most, or three times. The tables and the picture take
less than one.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import TypeVar

from absl import app, flags

from benchmarks.figure1 import costs
from benchmarks.figure1.settings import SETTINGS
from benchmarks.machine import machine
from glscl_jax.errors import UserError

PICTURE = "docs/figure1.svg"

Read = TypeVar("Read")


def main(arguments: list[str]) -> int | None:
    try:
        if arguments[1:]:
            raise UserError(f"unexpected argument {arguments[1]!r} (--help lists the flags)")
        return measure() if flags.FLAGS.costs else show()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2


def measure() -> None:
    """Times all heads; a line each on the terminal, and in --out."""
    if not flags.FLAGS.out:
        raise UserError("--out is missing: name the file that --costs is to write")
    out = pathlib.Path(flags.FLAGS.out).expanduser()
    try:
        file = out.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}") from error
    print(machine(), flush=True)
    with file:
        for measured in costs.measure([SETTINGS[name] for name in flags.FLAGS.at]):
            file.write(costs.line(measured))
            file.flush()
            print(costs.told(measured), flush=True)


def show() -> None:
    """Prints the tables; draws the picture where there are results."""
    # Here, for who measures has no need of them.
    from benchmarks.figure1 import picture, results, tables

    found = _read("results", results.FILE, results.read)
    print(tables.tables(found, _read("measured", costs.FILE, costs.read)))
    if flags.FLAGS.table or not found:
        return
    target = pathlib.Path(flags.FLAGS.picture).expanduser()
    try:
        picture.draw(found, target)
    except OSError as error:
        raise UserError(f"--picture {target} cannot be written: {error.strerror}") from error
    print(f"drawn in {target}", file=sys.stderr)


def _read(flag: str, kept: pathlib.Path, read: Callable[[pathlib.Path], Read]) -> Read | dict:
    """What a flag's file holds; of a kept one that is not there yet nothing, and a line."""
    given = flags.FLAGS[flag].value
    try:
        return read(pathlib.Path(given).expanduser() if given else kept)
    except UserError as error:
        if given or kept.exists():
            raise
        print(f"left out: {error}", file=sys.stderr, flush=True)
        return {}


def _define_flags() -> None:
    flags.DEFINE_bool("table", False, "The tables alone, no picture.")
    flags.DEFINE_string("results", None, "Lines of the runs; the ones that are kept by default.")
    flags.DEFINE_string("measured", None, "Lines that --costs wrote; likewise.")
    flags.DEFINE_string("picture", PICTURE, "Where the picture goes.")
    flags.DEFINE_bool("costs", False, "Time all heads on this machine.")
    flags.DEFINE_string("out", None, "The file that --costs writes.")
    flags.DEFINE_multi_enum("at", list(SETTINGS), list(SETTINGS), "Of --costs: sizes; repeatable.")


if __name__ == "__main__":
    _define_flags()
    # Not `program.run`, which reads recipes: it would need ml_collections.
    app.run(main)
