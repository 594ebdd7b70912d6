"""What a compiler counted of one step, kept from run to run, and compared."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping

from benchmarks.compiled.rows import OLD, Aim, Row
from glscl_jax.files import read_json, write_text

FILE = pathlib.Path(__file__).with_name("counts.json")
LAST = "last"
GIB = 2**30
# More than compilers make of the same program, and less than anybody should overlook.
TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of one device and one step; what is not known of old ones is None.

    Attributes:
      layout: mesh, remat and micro-batches, as `train` had them or as it proposes them.
      proposed: flags that make it fit; "" where it did as it was asked.
      asked: bytes that it would take as it was asked, where a device does not hold that.
      fits: whether a device holds it.
      arguments, temporary: bytes; where the first is unknown the second is all.
      flops: of matrix products.
      moved: bytes to and from the large memory.
      sent: bytes to other devices.
      computing: seconds that the device computes.
      seconds: with what is sent and not hidden, by estimate.
      bound: of the utilisation.
    """

    layout: str
    fits: bool
    temporary: float
    computing: float
    arguments: float | None = None
    flops: float | None = None
    bound: float | None = None
    moved: float | None = None
    sent: float | None = None
    seconds: float | None = None
    proposed: str = ""
    asked: float | None = None

    @property
    def gib(self) -> float:
        """GiB at the peak."""
        return ((self.arguments or 0) + self.temporary) / GIB

    @property
    def cycles(self) -> float:
        """As many as the compiler expects, in seconds: of one chip the clock is the same."""
        return self.computing


def of_report(kept: Mapping) -> Counts:
    """What `train --compile_for` wrote: of the step as asked, or of the first layout that fits."""
    found = kept.get("fits") or kept["asked"]
    mesh = " x ".join(f"{axis} {size}" for axis, size in found["mesh"].items() if size > 1)
    layout = [mesh, f"remat {found['remat']}"]
    layout += [f"{found['microbatch']} at once"] if found["microbatch"] else []
    estimate = found["estimate"]
    return Counts(
        layout=", ".join(filter(None, layout)),
        proposed=found.get("flags", ""),
        fits=found["fits"],
        asked=used(kept["asked"]) if "fits" in kept else None,
        arguments=found["arguments"],
        # Results that do not take the place of an argument are the metrics, some bytes.
        temporary=found["temporary"] + found["results"],
        flops=found["flops"],
        moved=found["bytes_moved"],
        sent=sum(part["bytes"] for part in found["sent"]),
        computing=estimate["computing"],
        seconds=estimate["seconds"],
        bound=found["utilisation_at_most"],
    )


def used(found: Mapping) -> float:
    """Bytes of one compile, which the compiler for TPUs tells of in one number if they are too
    many."""
    if "used" in found:
        return found["used"]
    return found["arguments"] + found["results"] + found["temporary"]


def read(path: pathlib.Path = FILE) -> dict[str, dict[str, Counts]]:
    """What is kept: by state of the code, `OLD` and `LAST`, and by row."""
    return {
        state: {name: Counts(**found) for name, found in rows.items()}
        for state, rows in read_json(path).items()
    }


def keep(found: Mapping[str, Counts], path: pathlib.Path = FILE) -> None:
    """Puts new counts in place of the last ones; rows that were not counted stay."""
    kept = read_json(path)
    kept.setdefault(LAST, {}).update({n: dataclasses.asdict(x) for n, x in found.items()})
    write_text(path, json.dumps(kept, indent=1) + "\n")


def regressions(name: str, found: Counts, last: Counts | None) -> Iterator[str]:
    """What of a row is more than it was, in words."""
    if last is None:
        return
    if last.fits and not found.fits:
        yield f"{name} does not fit any more"
    for figure, unit, scale in (
        ("computing", "ms of computing", 1e3),
        ("seconds", "ms by estimate", 1e3),
        ("gib", "GiB", 1),
        ("sent", "MB sent", 1e-6),
    ):
        before, now = getattr(last, figure), getattr(found, figure)
        if before and now and now > before * (1 + TOLERANCE):
            yield (
                f"{name}: {now * scale:,.2f} {unit} where {before * scale:,.2f} were kept "
                f"({100 * (now / before - 1):+.1f} %)"
            )


def aim_result(row: Row, aim: Aim, found: Mapping[str, Counts], old: Mapping[str, Counts]) -> str:
    """Whether an aim is met, and what there is; `found` are this run's counts or the last ones."""
    value = getattr(found[row.name], aim.figure)
    other = old.get(row.name) if aim.of == OLD else found.get(aim.of)
    if aim.of and other is None:
        return f"{aim.figure}: {aim.of} was not counted"
    of = f" of {aim.of}'s" if aim.of else ""
    if value is None:
        return f"{aim.figure}: not known"
    value = value / getattr(other, aim.figure) if other else float(value)
    met = aim.least <= value <= aim.most
    bound = f"{aim.least:g} or more" if math.isinf(aim.most) else f"{aim.most:g} or less"
    return f"{'met' if met else 'MISSED'}: {aim.figure} {value:.3g}{of}, aim {bound}"
