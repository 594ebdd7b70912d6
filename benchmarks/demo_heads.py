"""The demo's recipe under every head and variant, with five seeds: the runs end to end of figure 1.

    python -m benchmarks.demo_heads --data_dir demo/data --runs demo/figure1

Each is `python -m glscl_jax.train` and `python -m glscl_jax.evaluate`, as they are printed; --runs
keeps a work directory and a log of each. What is evaluated there is not run again, and a training
that was stopped goes on. A head whose seeds are all there is a line of --out: whose queries were
answered right, R@1, R@5, R@10 and median rank, and how alike its concepts are.

Seeds are the outer loop, so that what is stopped half way has few seeds of all heads. --at_once
runs share the cores out among them.

Takes 45 runs of some 5 minutes on one core of an AMD EPYC.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags

from benchmarks.figure1.results import FILE, RUNS
from benchmarks.lim_study import recipe
from benchmarks.machine import machine
from glscl_jax.errors import UserError
from glscl_jax.evaluation.rank_files import read_ranks
from glscl_jax.evaluation.run_card import RESULTS
from glscl_jax.files import read_json

PROTOCOL = "end_to_end"
# What a recipe can be behind its name and a colon, which figure 1 has no column for -> the head.
VARIANTS = {"lim_alone": "glscl", "lim_masked": "glscl"}
HEADS = RUNS | VARIANTS
# A line's columns -> what the run card calls them.
_FIGURES = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mdr": "MdR"}
CONCEPTS = {
    f"{column}_{side}": f"lim/{figure}/{side}"
    for side in ("text", "video")
    for column, figure in (
        ("concept_cosine", "concept_cosine"),
        ("effective", "effective_concepts"),
    )
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A head or a variant with a seed.

    Attributes:
      name: of `HEADS`.
      seed: of parameters and of the pairs' order.
      data: the prepared demo.
      runs: the folder of all runs.
      config: the recipe.
    """

    name: str
    seed: int
    data: pathlib.Path
    runs: pathlib.Path
    config: str = "configs/demo.py"

    @property
    def workdir(self) -> pathlib.Path:
        return self.runs / f"{self.name}-{self.seed}"

    @property
    def temporal(self) -> str:
        return "None" if self.name == "mean_pooling" else recipe.MODEL.temporal

    @property
    def is_done(self) -> bool:
        return (self.workdir / RESULTS).exists()

    def commands(self) -> list[list[str]]:
        """Training, and evaluation."""
        variant = f":{self.name}" if self.name in VARIANTS else ""
        recipe_flags = [f"--config={self.config}{variant}", f"--config.data.dir={self.data}"]
        model = [f"--config.model.head.name={HEADS[self.name]}"]
        if self.temporal != recipe.MODEL.temporal:
            model.append(f"--config.model.temporal={self.temporal}")
        seed = f"--config.seed={self.seed}"
        python = [sys.executable, "-m"]
        return [
            [*python, "glscl_jax.train", *recipe_flags, *model, seed, f"--workdir={self.workdir}"],
            [*python, "glscl_jax.evaluate", f"--checkpoint={self.workdir}", *recipe_flags],
        ]


def run(one: Run) -> None:
    """Trains and evaluates; what they say goes into a log beside the work directory.

    Raises:
      UserError: one of them ended with an error.
    """
    log = one.workdir.with_suffix(".log")
    with log.open("a", encoding="utf-8") as file:
        for command in one.commands():
            print(shlex.join(["python", *command[1:]]), flush=True)
            if status := subprocess.run(command, stdout=file, stderr=file).returncode:
                raise UserError(f"{one.workdir.name} ended with status {status}: see {log}")


def run_all(runs: Sequence[Run], at_once: int) -> None:
    """Runs what is not done, so many at once, each on its share of the cores.

    Raises:
      UserError: some came to nothing; all others are run all the same.
    """
    shares: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for share in _shares(at_once):
        shares.put(share)

    def settle() -> None:
        # Of this thread, and of the processes that it starts.
        os.sched_setaffinity(0, shares.get())

    failed = []
    with concurrent.futures.ThreadPoolExecutor(at_once, initializer=settle) as pool:
        futures = [pool.submit(run, one) for one in runs if not one.is_done]
        for future in concurrent.futures.as_completed(futures):
            if error := future.exception():
                failed.append(str(error))
    if failed:
        raise UserError("; ".join(failed))


def _shares(count: int) -> list[set[int]]:
    """The cores of this process, shared out; where there are fewer, shares are the same ones."""
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[number::count]) or set(cores) for number in range(count)]


def line(runs: Sequence[Run]) -> dict[str, Any]:
    """What a head came to, as `benchmarks.lim_study` has it from features; its runs are done."""
    cards = [read_json(one.workdir / RESULTS) for one in runs]
    hits = [read_ranks(one.workdir)["t2v"].ranks.mean <= 1 for one in runs]
    figures = [card["t2v"]["mean"] for card in cards]
    concepts = [(card["head"] or {}).get("figures", {}) for card in cards]
    first = runs[0]
    return {
        "name": first.name,
        "protocol": PROTOCOL,
        "head": HEADS[first.name],
        "temporal": first.temporal,
        "settings": {},
        "seeds": [one.seed for one in runs],
        "steps": cards[0]["checkpoint"]["step"],
        "towers": None,
        **{key: [x[told] for x in figures] for key, told in _FIGURES.items()},
        **{key: [x.get(told) for x in concepts] for key, told in CONCEPTS.items()},
        "hits1": ["".join("01"[int(hit)] for hit in of_seed) for of_seed in hits],
        "device": jax.devices()[0].device_kind,
    }


def keep(out: pathlib.Path, made: Sequence[dict[str, Any]]) -> None:
    """Puts lines into a file, in the place of those of the same heads end to end."""
    there = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    names = {one["name"] for one in made}
    left = [
        text
        for text in there
        if (plain := json.loads(text))["protocol"] != PROTOCOL or plain["name"] not in names
    ]
    part = out.with_name(f"{out.name}.part")
    part.write_text("".join(f"{text}\n" for text in (*left, *map(json.dumps, made))), "utf-8")
    part.replace(out)


def main(arguments: list[str]) -> int | None:
    try:
        if arguments[1:]:
            raise UserError(f"unexpected argument {arguments[1]!r} (--help lists the flags)")
        begin()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2


def begin() -> None:
    """Runs what flags ask for, and keeps the lines of the heads whose seeds are all there."""
    values, begun = flags.FLAGS, time.monotonic()
    data, runs = (pathlib.Path(x).expanduser().resolve() for x in (values.data_dir, values.runs))
    if not data.is_dir():
        raise UserError(f"--data_dir {data} is not there: `make demo` prepares demo/data")
    runs.mkdir(parents=True, exist_ok=True)
    names, seeds = values.only or list(HEADS), [int(seed) for seed in values.seeds]
    asked = [Run(name, seed, data, runs) for seed in seeds for name in names]
    print(machine(), flush=True)
    try:
        run_all(asked, values.at_once)
    finally:
        groups = [[one for one in asked if one.name == name] for name in names]
        whole = [line(group) for group in groups if _done(group)]
        keep(pathlib.Path(values.out).expanduser(), whole)
        print(f"{len(whole)} of {len(names)} heads have all seeds; {values.out} has their lines")
        print(f"took {time.monotonic() - begun:.0f} s", flush=True)


def _done(group: Sequence[Run]) -> bool:
    return all(one.is_done for one in group)


def _define_flags() -> None:
    flags.DEFINE_string("data_dir", "demo/data", "The demo's prepared clips.")
    flags.DEFINE_string("runs", "demo/figure1", "Where work directories and logs are.")
    flags.DEFINE_string("out", str(FILE), "The file of lines.")
    flags.DEFINE_multi_enum("only", None, list(HEADS), "What is run; repeatable; all by default.")
    flags.DEFINE_list("seeds", [str(seed) for seed in recipe.SEEDS], "Of every head.")
    flags.DEFINE_integer("at_once", 2, "Runs beside each other.", lower_bound=1)


if __name__ == "__main__":
    _define_flags()
    app.run(main)
