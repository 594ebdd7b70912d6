"""What a run tells: lines on the terminal, metrics.jsonl, TensorBoard.

Not `clu.metric_writers`: the writing itself is `tensorboardX`'s, and none of them takes back what
was logged after the checkpoint that a run resumes from.
"""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator

import jax

from glscl_jax.checkpoints.model_dir import BEST
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.files import write_text
from glscl_jax.profiling import memory
from glscl_jax.profiling.compilation import Compilation
from glscl_jax.profiling.utilisation import Utilisation
from glscl_jax.runtime import import_order, progress
from glscl_jax.training import steps
from glscl_jax.training.optim import warmup_cosine

# It imports PyTorch where that is installed: a third of the seconds that training starts in.
with import_order.absent("torch"):
    from tensorboardX import SummaryWriter
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]


class Logbook:
    """Figures by step, as JSON lines and for TensorBoard.

    A run that goes on from a checkpoint first forgets what was logged after it.
    """

    def __init__(self, workdir: Workdir, step: int):
        self._lines = _keep_until(workdir.metrics, step).open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir.path), purge_step=step + 1)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Adds scalars; a name may have a slash for TensorBoard's groups."""
        self._lines.write(_line({"step": step, **figures}))
        self._lines.flush()
        # Not by `add_scalar`, which would write another name where one has an "@" or a space.
        scalars = [Summary.Value(tag=name, simple_value=x) for name, x in figures.items()]
        writer = self._tensorboard.file_writer
        assert writer is not None
        writer.add_summary(Summary(value=scalars), step)
        self._tensorboard.flush()

    def close(self) -> None:
        self._lines.close()
        self._tensorboard.close()


def read_figures(path: str | os.PathLike) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl: "step" and the figures' names to numbers.

    Raises:
      ValueError: a line is no such line; the last one of a run that was killed may be unfinished.
    """
    return [_figures(line) for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]


def _figures(line: str) -> dict[str, float]:
    """What `_line` wrote."""
    try:
        said = json.loads(line)
        return {name: float(x) if isinstance(x, str) else x for name, x in said.items()}
    except AttributeError as error:
        raise ValueError(f"{line!r} is no line of figures") from error


def _line(figures: dict[str, float]) -> str:
    """A line of JSON, which has no number that is not finite: those are "NaN", "Infinity"."""
    told = {name: x if math.isfinite(x) else json.dumps(x) for name, x in figures.items()}
    return json.dumps(told, allow_nan=False) + "\n"


def _keep_until(path: pathlib.Path, step: int) -> pathlib.Path:
    """Drops the lines after `step`, and one that a killed run left unfinished."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            figures = _figures(line)
            if figures["step"] <= step:
                kept.append(_line(figures))
        except (ValueError, KeyError, TypeError):
            break
    write_text(path, "".join(kept))
    return path


class Log:
    """What the terminal, metrics.jsonl and TensorBoard are told of a run.

    Speeds leave out the first step, which compiles, and the time of validations and saving.
    """

    def __init__(
        self,
        config,
        logbook: Logbook | None,
        first: int,
        total: int,
        utilisation: Utilisation,
    ):
        """Begins.

        Args:
          config: the run's.
          logbook: where figures go. None says nothing anywhere: of several processes one speaks.
          first: steps done before.
          total: steps of the whole run.
          utilisation: what clips a second are measured against.
        """
        self._config, self._logbook, self._utilisation = config, logbook, utilisation
        self._first, self._done, self._total = first, first, total
        self._schedule = warmup_cosine(total, config.optim.warmup)
        self._pending = None
        self._reset()

    def _reset(self):
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def watch(self, batches):
        """Yields the batches, timing how long each one was waited for, with a bar on a terminal."""

        def timed():
            iterator = iter(batches)
            while True:
                before = time.perf_counter()
                batch = next(iterator, None)
                self._waited += time.perf_counter() - before
                if batch is None:
                    return
                yield batch

        if self._logbook is None:
            return timed()
        size, clips = self._config.batch_size, (self._total - self._first) * self._config.batch_size
        return progress.track(timed(), "training", clips, each=size, plain=False)

    def write_compiled(self, compilation: Compilation) -> None:
        """Says what the step took to compile, and what its speed will be measured against."""
        if self._logbook is None:
            return
        use, plan = self._utilisation, compilation.memory
        figures = {
            "start/compile_seconds": compilation.seconds,
            "start/clip_flops": float(use.clip_flops),
            "start/peak_flops": use.peak.flops,
        }
        if plan is not None:
            figures["start/planned_gib"] = plan.peak / memory.GIB
        self._logbook.write(self._done, figures)
        print(
            f"compiled in {compilation.seconds:.1f} s{f'; {plan}' if plan else ''}\n"
            f"{use.clip_flops / 1e9:,.4g} GFLOP a clip, forward and backward; peak {use.peak}",
            flush=True,
        )

    def add(self, figures: steps.StepMetrics) -> int:
        """Takes a step's figures, logs every so many; returns the number of steps done."""
        # One step may be under way while the next is prepared, no more: what is waited for is
        # then the input, and not the device.
        if self._pending is not None:
            jax.block_until_ready(self._pending)
        self._pending = figures
        self._done += 1
        self._steps += 1
        if self._done == self._first + 1:
            jax.block_until_ready(figures)
            self._reset()
        elif self._done % self._config.log_every == 0 or self._done == self._total:
            figures = jax.block_until_ready(figures)
            if self._logbook is not None:
                self._write(jax.device_get(figures))
            self._reset()
        return self._done

    def _write(self, figures: steps.StepMetrics):
        elapsed = time.perf_counter() - self._since
        rate = self._steps / elapsed
        # The schedule counts updates, and steps that were not applied are none.
        factor = float(self._schedule(max(0, self._done - 1 - int(figures.nonfinite))))
        learning_rate = self._config.optim.learning_rate * factor
        losses = figures.losses
        values = {
            "loss/total": losses.total,
            "loss/contrastive": losses.contrastive,
            **{f"loss/{name}": value for name, value in losses.own.items()},
            "gradient_norm": figures.grad_norm,
            "logit_scale": figures.logit_scale,
            "learning_rate/new": learning_rate,
            "learning_rate/clip": learning_rate * self._config.optim.coef_lr,
            **self._speed(rate * self._config.batch_size, self._waited / elapsed),
        }
        values = {name: float(value) for name, value in values.items()}
        assert self._logbook is not None
        self._logbook.write(self._done, values)
        left = progress.duration((self._total - self._done) / rate)
        own = "".join(f", {name} {value:.2e}" for name, value in losses.own.items())
        print(
            f"step {self._done}/{self._total}  loss {losses.total:.4f} "
            f"(contrastive {losses.contrastive:.4f}{own})  "
            f"lr {values['learning_rate/new']:.2e} clip {values['learning_rate/clip']:.2e}  "
            f"scale {figures.logit_scale:.1f}  {_speed_line(values)}, {left} left",
            flush=True,
        )

    def _speed(self, clips_per_second: float, input_wait: float) -> dict[str, float]:
        use, used = self._utilisation, memory.used()
        figures = {
            "speed/clips_per_second": clips_per_second,
            "speed/clips_per_second_per_device": clips_per_second / use.devices,
            "speed/input_wait": input_wait,
            "speed/mfu": use.of(clips_per_second),
        }
        if used is not None:
            figures[f"memory/{used.place}_peak_gib"] = used.peak / memory.GIB
        return figures

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around something that the speeds leave out."""
        jax.block_until_ready(self._pending)  # Still the step's own time.
        before = time.perf_counter()
        yield
        self._since += time.perf_counter() - before

    def write_validation(self, scores: dict[str, float]):
        if self._logbook is None:
            return
        self._logbook.write(
            self._done, {f"validation/{name}": value for name, value in scores.items()}
        )
        print(
            f"step {self._done}/{self._total}  validation: "
            + "  ".join(f"{name} {scores[name]:.1f}" for name in (BEST, "R@5", "R@10", "v2t R@1"))
            # What a head says of its features has its part's name before it.
            + "".join(f"  {name} {x:.3f}" for name, x in scores.items() if "/" in name),
            flush=True,
        )

    def close(self):
        if self._logbook is None:
            return
        self._logbook.close()
        if self._done > self._first and (used := memory.used()) is not None:
            print(f"most memory in use: {used}", flush=True)


def _speed_line(values: dict[str, float]) -> str:
    rates = (values["speed/clips_per_second"], values["speed/clips_per_second_per_device"])
    clips, by_device = (f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in rates)
    return (
        f"{clips} clips/s, {by_device} clips/s/device, "
        f"{100 * values['speed/input_wait']:.0f}% waiting for input, "
        f"{100 * values['speed/mfu']:.1f}% MFU"
    )
