"""Milliseconds of every head's scores on this machine, and XLA's count of what it compiled.

Two programs a head, both from features and from what is prepared once a video, float32, on the
device: all pairs of 1,000 texts and 1,000 videos, and one text among 100,000 videos, which are
1,000 random ones over and over, each with memory of its own. An accelerator does either in one
call. On a CPU both are cut into blocks, as evaluation and search cut them: large temporaries would
go back to the kernel with every call.
"""

import concurrent.futures
import dataclasses
import json
import math
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from benchmarks.figure1.settings import NAMES, Setting, features, shapes_of
from benchmarks.heads import xla
from benchmarks.machine import machine
from benchmarks.timing import seconds
from glscl_jax.errors import UserError

FILE = pathlib.Path(__file__).with_name("costs.jsonl")
HOW = "python -m benchmarks.figure1 --costs --out benchmarks/figure1/costs.jsonl"
GALLERY = 100_000
# Of a program: so many calls are timed after one that is not, fewer where they take long.
CALLS, FEWEST, LONG = 20, 3, 1.0


class NoRoomError(Exception):
    """A gallery is larger than the memory that is free."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A head at a setting on a machine.

    Attributes:
      setting, head: names.
      gallery: videos that one text is scored against.
      blocks: in how many calls all pairs are scored, and in how many one text's are.
      xla_flops: XLA's count of all pairs, of the compiled program; None where it has none.
      all_pairs, one_text: milliseconds of each call that was timed.
      machine: see there.
    """

    setting: str
    head: str
    gallery: int
    blocks: tuple[int, int]
    xla_flops: float | None
    all_pairs: tuple[float, ...]
    one_text: tuple[float, ...]
    machine: str


def measure(
    settings: Sequence[Setting], gallery: int = GALLERY, on_cpu: bool | None = None
) -> Iterator[Measured]:
    """Yields every head at every setting; of what does not fit into the memory a line is printed.

    Args:
      settings: whose texts are four times some number, and whose videos divide `gallery`.
      gallery: see `Measured`.
      on_cpu: whether scores are cut into blocks; by default where the device is a CPU.
    """
    on_cpu = jax.default_backend() == "cpu" if on_cpu is None else on_cpu
    asked = [Programs(setting, name, gallery, on_cpu) for setting in settings for name in NAMES]
    # A program takes a second, and there are 48; they are ready before the first one is timed.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = [pool.submit(programs.compile) for programs in asked]
    for programs, made in zip(asked, compiled, strict=True):
        try:
            found = programs.run(made.result())
        except (jax.errors.JaxRuntimeError, NoRoomError) as error:
            # What does not fit into this machine is not to take the others along.
            print(f"left out: {programs.name}: {str(error).splitlines()[0]}", file=sys.stderr)
        else:
            yield found


class Programs:
    """What is timed of a head: lowered when made, then compiled, then run.

    Args:
      setting, name, gallery: see `Measured`.
      on_cpu: whether scores are cut into blocks.

    Attributes:
      name: of both.
    """

    def __init__(self, setting: Setting, name: str, gallery: int, on_cpu: bool):
        self._setting, self._gallery = setting, gallery
        self.name = f"{setting.name} {name}"
        sizes, self._head = setting.sizes, setting.head(name)
        self._on_cpu, self._videos = on_cpu, sizes.videos
        self._at_once = sizes.texts // 4 if on_cpu else sizes.texts
        self._block = sizes.videos if on_cpu else gallery
        text, video, prepared = shapes_of(self._head, sizes)
        traced = jax.jit(self._head.score).trace(_first(text, self._at_once), video, prepared)
        self._further = xla.further_turns(traced.jaxpr.jaxpr)
        key = jax.eval_shape(lambda: jax.random.key(0))
        large = jax.eval_shape(self._repeated, (video, prepared))
        self._lowered = {
            "features": features.lower(self._head, sizes, key),
            "repeated": jax.jit(self._repeated).lower((video, prepared)),
            "all_pairs": traced.lower(),
            "one_text": jax.jit(self._head.score).lower(_first(text, 1), *large),
        }

    def compile(self) -> dict[str, jax.stages.Compiled]:
        """All of them."""
        return {name: lowered.compile() for name, lowered in self._lowered.items()}

    def run(self, compiled: Mapping[str, jax.stages.Compiled]) -> Measured:
        """Times them."""
        text, video, prepared = compiled["features"](jax.random.key(0))
        texts = self._setting.sizes.texts
        parts = [
            jax.tree.map(lambda x, n=start: x[n : n + self._at_once], text)
            for start in range(0, texts, self._at_once)
        ]
        score = compiled["all_pairs"]
        all_pairs = timed(lambda: [score(part, video, prepared) for part in parts])

        one = jax.tree.map(lambda x: x[:1], text)
        self._check_room((video, prepared))
        copies = range(self._gallery // self._block)
        blocks = [compiled["repeated"]((video, prepared)) for _ in copies]
        score = compiled["one_text"]
        one_text = timed(lambda: [score(one, *block) for block in blocks])
        return Measured(
            self._setting.name,
            self._head.name,
            self._gallery,
            (len(parts), len(blocks)),
            self._counted(compiled["all_pairs"], len(parts)),
            all_pairs,
            one_text,
            machine(),
        )

    def _check_room(self, tree) -> None:
        # A device refuses what it has no room for; of a CPU the kernel ends some program.
        needed = self._gallery // self._videos * sum(x.nbytes for x in jax.tree.leaves(tree))
        if self._on_cpu and needed > (room := free_memory()):
            needed, room = needed / 1e9, room / 1e9
            raise NoRoomError(f"{self._gallery:,} videos take {needed:.1f} GB, {room:.1f} are free")

    def _repeated(self, tree):
        """Videos [B,...] over and over, as many as a block has."""
        times = self._block // self._videos
        # Copied, even once: what is given back as it came would be the same memory.
        return jax.tree.map(lambda x: jnp.copy(jnp.tile(x, (times, *[1] * (x.ndim - 1)))), tree)

    def _counted(self, compiled: jax.stages.Compiled, calls: int) -> float | None:
        found = (compiled.cost_analysis() or {}).get("flops")
        return None if found is None else calls * (found + self._further)


def free_memory() -> float:
    """Bytes that programs may take without another's being ended; of no Linux without a bound."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    kib = {line.split()[0]: line.split()[1] for line in lines}
    return 1024 * int(kib["MemAvailable:"])


def _first(tree, count: int):
    """The shapes of so many items."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), tree)


def timed(call: Callable[[], object]) -> tuple[float, ...]:
    """Milliseconds of each of some calls, until the device is done."""

    def done():
        jax.block_until_ready(call())

    done()
    times, began = [], time.perf_counter()
    while len(times) < FEWEST or (len(times) < CALLS and time.perf_counter() - began < LONG):
        times.append(1000 * seconds(done))
    return tuple(times)


def told(measured: Measured) -> str:
    """A line for the terminal."""
    all_pairs, one_text = map(statistics.median, (measured.all_pairs, measured.one_text))
    calls = f"{len(measured.all_pairs)} and {len(measured.one_text)} times"
    return (
        f"{measured.setting:<6}{measured.head:<8}all pairs {all_pairs:10.3f} ms, one text among "
        f"{measured.gallery:,} videos {one_text:10.3f} ms; medians of {calls}"
    )


def line(measured: Measured) -> str:
    """A line of the file that keeps it."""
    plain = dataclasses.asdict(measured)
    for name in ("all_pairs", "one_text"):
        plain[name] = [round(x, 4) for x in plain[name]]
    return json.dumps(plain) + "\n"


def read(path: pathlib.Path) -> dict[tuple[str, str], Measured]:
    """What a file keeps, by setting and head.

    Raises:
      UserError: it is not there, or damaged.
    """
    if not path.exists():
        raise UserError(f"{path} is not there: make it ({HOW})")
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [_read_line(text, f"{path}, line {n}") for n, text in enumerate(lines, 1)]
    return {(x.setting, x.head): x for x in found}


def _read_line(text: str, where: str) -> Measured:
    try:
        plain = json.loads(text)
        for name in ("blocks", "all_pairs", "one_text"):
            plain[name] = tuple(plain[name])
        return Measured(**plain)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is damaged ({error}): make the file anew ({HOW})") from error
