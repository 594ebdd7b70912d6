"""The study's order: what runs together, what first, and compiling ahead of it."""

import concurrent.futures
import dataclasses
import json
import pathlib
import time
import traceback
from collections.abc import Callable, Collection, Sequence

import jax
import numpy as np

from benchmarks.lim_study import recipe, results
from benchmarks.lim_study.base import towers_name
from benchmarks.lim_study.clips import Clips
from benchmarks.lim_study.lanes import Lanes, Length, lanes_of
from benchmarks.lim_study.trainer import Program, Split, features, pixels
from benchmarks.lim_study.variants import Shape, Variant
from glscl_jax.models.glscl import GLSCL, init_params

# Variants of one shape that are trained at once, where nothing else is asked for.
TOGETHER = 10
# Whose towers the features are of: the plainest.
BASE = Shape("mean", temporal="None")


@dataclasses.dataclass(frozen=True)
class Job:
    """What runs at once.

    Attributes:
      program: what is compiled.
      variants: of its shape, whatever their number is.
      width: how many variants the program is compiled for; what is missing is filled up.
    """

    program: Program
    variants: tuple[Variant, ...]
    width: int

    @property
    def compiled(self) -> tuple[Program, int]:
        """Jobs with the same are run by one compiled program."""
        return self.program, self.width

    def filled(self) -> list[Variant]:
        """So many variants as the program takes."""
        return [*self.variants, *[self.variants[0]] * (self.width - len(self.variants))]


def jobs_of(
    variants: Sequence[Variant],
    lengths: dict[str, Length],
    together: int = TOGETHER,
    there: Collection[tuple[str, str]] = (),
) -> list[Job]:
    """Jobs in the order of their first variants, end to end before from features.

    What has a program for few variants alone, a LIM of another shape, is last.

    Args:
      variants: what is trained.
      lengths: of each protocol that is run.
      together: variants of one shape that are trained at once.
      there: protocols and names of what is not to be run again.
    """
    by_shape: dict[Shape, list[Variant]] = {}
    for variant in variants:
        by_shape.setdefault(variant.shape, []).append(variant)
    place = {variant.name: number for number, variant in enumerate(variants)}
    order = {protocol: number for number, protocol in enumerate(lengths)}
    found = []
    for protocol, length in lengths.items():
        for shape, of_shape in by_shape.items():
            own = [x for x in of_shape if (protocol, x.name) not in there]
            # Of all, done or not: what goes on runs the program that was compiled before.
            width = min(len(of_shape), together)
            program = Program(shape, protocol, length)
            for start in range(0, len(own), width):
                found.append(Job(program, tuple(own[start : start + width]), width))

    def rank(job: Job):
        shape = job.program.shape
        last = shape.has_lim and shape != Shape()
        return last, order[job.program.protocol], place[job.variants[0].name]

    return sorted(found, key=rank)


@dataclasses.dataclass(frozen=True)
class Study:
    """What all jobs share.

    Attributes:
      train, test: the clips.
      seeds: of every variant.
      out: the file to which lines are added.
      deadline: of `time.monotonic`, after which nothing is begun.
      threads: that compile.
      say: prints a line.
      base: parameters of which features are; None where a job makes them.
    """

    train: Clips
    test: Clips
    seeds: Sequence[int]
    out: pathlib.Path
    deadline: float
    threads: int
    say: Callable[[str], None]
    base: dict | None = None

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs jobs in their order; one that fails is told of, and the next one begun."""
        # Tracing holds Python's lock: by many threads at once, all would be done last.
        tracing = concurrent.futures.ThreadPoolExecutor(1)
        compiling = concurrent.futures.ThreadPoolExecutor(self.threads)
        futures = {}
        for job in jobs:
            if job.compiled not in futures:
                traced = tracing.submit(self._lower, job)
                futures[job.compiled] = compiling.submit(self._compile, job, traced)
        splits = {
            recipe.END_TO_END: tuple(jax.device_put(pixels(x)) for x in (self.train, self.test))
        }
        base, left = self.base, list(jobs)
        while left and time.monotonic() < self.deadline:
            if not (base or any(_makes_base(job) for job in left)):
                for job in [job for job in left if job.program.of_features]:
                    self.say(f"there are no features for {_called(job)}")
                    left.remove(job)
            # The first whose program is compiled: one that takes long holds up no other.
            job = next(
                (
                    job
                    for job in left
                    if futures[job.compiled].done() and (base or not job.program.of_features)
                ),
                None,
            )
            if job is None:
                time.sleep(0.1)
                continue
            left.remove(job)
            try:
                compiled = futures[job.compiled].result()
                if job.program.of_features and recipe.FROM_FEATURES not in splits:
                    splits[recipe.FROM_FEATURES] = tuple(
                        features(base, clips, BASE) for clips in (self.train, self.test)
                    )
                trained = self._train(job, compiled, splits[job.program.protocol], base)
            except Exception:
                self.say(f"{_called(job)} failed:\n{traceback.format_exc(limit=-3)}")
                continue
            if base is None and _makes_base(job):
                base = trained.params
        for job in left:
            self.say(f"no time is left for {_called(job)}")
        for pool in (tracing, compiling):
            pool.shutdown(wait=False, cancel_futures=True)

    def _lanes(self, job: Job) -> Lanes:
        return lanes_of(job.filled(), self.seeds, job.program.length, len(self.train.frames))

    def _lower(self, job: Job) -> jax.stages.Lowered:
        base = None
        splits = tuple(pixels(x) for x in (self.train, self.test))
        if job.program.of_features:
            base = _shapes(self.base) if self.base else jax.eval_shape(lambda: _fresh(BASE))
            splits = tuple(
                jax.eval_shape(lambda base, clips=clips: features(base, clips, BASE), base)
                for clips in (self.train, self.test)
            )
        begun = time.monotonic()
        lowered = jax.jit(job.program).lower(*_shapes((self._lanes(job), *splits, base)))
        self.say(f"  traced in {time.monotonic() - begun:.0f} s: {_called(job)}")
        return lowered

    def _compile(self, job: Job, traced: concurrent.futures.Future) -> jax.stages.Compiled:
        lowered, begun = traced.result(), time.monotonic()
        compiled = lowered.compile()
        self.say(f"  compiled in {time.monotonic() - begun:.0f} s: {_called(job)}")
        return compiled

    def _train(self, job: Job, compiled, splits: tuple[Split, Split], base):
        self.say(f"begins: {_called(job)}")
        begun = time.monotonic()
        if not job.program.of_features:
            base = None
        towers = None if base is None else towers_name(base)
        trained = jax.block_until_ready(compiled(self._lanes(job), *splits, base))
        seconds = time.monotonic() - begun
        params, trained = trained.params, jax.device_get(trained.replace(params={}))
        runs = (job.program, list(job.variants), list(self.seeds))
        found = results.lines(*runs, trained, seconds, towers)
        with self.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in found)
        self.say(f"{seconds:.1f} s: {_called(job)}")
        for line in found:
            self.say(f"    {line['name']}: R@1 {_mean(line['r1'])}")
        return trained.replace(params=params)


def _makes_base(job: Job) -> bool:
    """Whether features are of its towers."""
    return job.program.shape == BASE and not job.program.of_features


def _fresh(shape: Shape) -> dict:
    return init_params(GLSCL(shape.model_config()), 0)


def _shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _called(job: Job) -> str:
    names = [variant.name for variant in job.variants]
    return f"{job.program.protocol}, {names[0]}" + f" and {len(names) - 1} more" * (len(names) > 1)


def _mean(values: list) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f} of {len(known)}" if known else "-"
