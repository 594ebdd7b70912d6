"""What a run tells: lines on the terminal, metrics.jsonl, TensorBoard."""

import json
import pathlib
import time

import jax
from tensorboardX import SummaryWriter

from glscl_jax import progress, steps
from glscl_jax.checkpoint import BEST
from glscl_jax.optim import warmup_cosine
from glscl_jax.workdir import Workdir


class Logbook:
    """Figures by step, as JSON lines and for TensorBoard.

    A run that goes on from a checkpoint first forgets what was logged after it.
    """

    def __init__(self, workdir: Workdir, step: int):
        self._lines = _keep_until(workdir.metrics, step).open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir.path), purge_step=step + 1)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Adds scalars; a name may have a slash for TensorBoard's groups."""
        self._lines.write(json.dumps({"step": step, **figures}) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            self._tensorboard.add_scalar(name, value, step)
        self._tensorboard.flush()

    def close(self) -> None:
        self._lines.close()
        self._tensorboard.close()


def _keep_until(path: pathlib.Path, step: int) -> pathlib.Path:
    """Drops the lines after `step`, and one that a killed run left unfinished."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            break
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text("".join(kept), encoding="utf-8")
    return unfinished.replace(path)


class Log:
    """What the terminal, metrics.jsonl and TensorBoard are told of a run.

    Speeds leave out the first step, which compiles, and the time of validations.
    """

    def __init__(self, config, logbook: Logbook, first: int, total: int):
        self._config, self._logbook = config, logbook
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

        size, clips = self._config.batch_size, (self._total - self._first) * self._config.batch_size
        return progress.track(timed(), "training", clips, each=size, plain=False)

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
            self._write(jax.device_get(figures))
        return self._done

    def _write(self, figures: steps.StepMetrics):
        elapsed = time.perf_counter() - self._since
        rate = self._steps / elapsed
        factor = float(self._schedule(self._done - 1))
        learning_rate = self._config.optim.learning_rate * factor
        losses = figures.losses
        values = {
            "loss/total": losses.total,
            "loss/contrastive": losses.contrastive,
            "loss/diversity": losses.diversity,
            "loss/consistency": losses.consistency,
            "gradient_norm": figures.grad_norm,
            "logit_scale": figures.logit_scale,
            "learning_rate/new": learning_rate,
            "learning_rate/clip": learning_rate * self._config.optim.coef_lr,
            "speed/clips_per_second": rate * self._config.batch_size,
            "speed/input_wait": self._waited / elapsed,
        }
        values = {name: float(value) for name, value in values.items()}
        self._logbook.write(self._done, values)
        left = progress.duration((self._total - self._done) / rate)
        print(
            f"step {self._done}/{self._total}  loss {losses.total:.4f} "
            f"(contrastive {losses.contrastive:.4f}, diversity {losses.diversity:.2e}, "
            f"consistency {losses.consistency:.2e})  "
            f"lr {values['learning_rate/new']:.2e} clip {values['learning_rate/clip']:.2e}  "
            f"scale {figures.logit_scale:.1f}  "
            f"{values['speed/clips_per_second']:,.0f} clips/s, "
            f"{100 * values['speed/input_wait']:.0f}% waiting for input, {left} left",
            flush=True,
        )
        self._reset()

    def pause(self, work):
        """Does something that the speeds leave out; returns what it returns."""
        before = time.perf_counter()
        jax.block_until_ready(self._pending)
        result = work()
        self._since += time.perf_counter() - before
        return result

    def write_validation(self, scores: dict[str, float]):
        self._logbook.write(
            self._done, {f"validation/{name}": value for name, value in scores.items()}
        )
        print(
            f"step {self._done}/{self._total}  validation: "
            + "  ".join(f"{name} {scores[name]:.1f}" for name in (BEST, "R@5", "R@10", "v2t R@1")),
            flush=True,
        )

    def close(self):
        self._logbook.close()
