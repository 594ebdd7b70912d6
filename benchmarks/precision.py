"""The demo's recipe in three precisions: losses step by step, and what they come to.

    make demo                                               prepares demo/data
    python -m benchmarks.precision --out runs/precision
    python -m benchmarks.precision --out runs/precision --runs=float32 --seeds=1

Each run is `glscl_jax.train` on configs/demo.py for 300 steps, in a work directory of its own
under --out; one that has ended is not run again. The figures of all are printed, and drawn into
--out as precision.svg.

Takes the demo's prepared data and matplotlib, and trains three times. How long was not measured.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
from absl import flags

from benchmarks import pictures
from benchmarks.machine import machine
from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.runtime import program
from glscl_jax.training.logbook import read_figures

RUNS = {
    "float32": (),
    "bfloat16": ("--config.model.dtype=bfloat16",),
    "float16_reference": ("--config.optim.clip_numerics=float16_reference",),
}
LABELS = {
    "float32": "float32",
    "bfloat16": "bfloat16 compute, float32 parameters and scores",
    "float16_reference": "float16 CLIP weights and moments, as released",
}
COLOURS = {
    "float32": pictures.BLUE,
    "bfloat16": pictures.ORANGE,
    "float16_reference": pictures.VIOLET,
}
WINDOW = 20  # Steps that are averaged for the curve.


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a run logged.

    Attributes:
      steps: int [N], from 2: the first is not logged.
      losses: float64 [N], total.
      recall: R@1 of the last validation, text-to-video, percent.
      seconds: a step, median.
    """

    steps: np.ndarray
    losses: np.ndarray
    recall: float
    seconds: float

    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Last steps and mean losses of windows of `WINDOW` steps; a part of one is left out."""
        number = (self.steps - 1) // WINDOW
        ends = WINDOW * np.arange(1, self.steps[-1] // WINDOW + 1)
        means = [self.losses[number == window].mean() for window in range(len(ends))]
        return ends, np.array(means)


def main(_):
    out = pathlib.Path(flags.FLAGS.out)
    names = [(name, seed) for seed in flags.FLAGS.seeds for name in flags.FLAGS.runs]
    for name, seed in names:
        train(out, name, int(seed))
    curves = {(name, seed): read_curve(workdir(out, name, int(seed))) for name, seed in names}
    print(f"configs/demo.py, {flags.FLAGS.steps} steps")
    print(machine())
    print("\n".join(table(curves)))
    first = {name: curves[name, flags.FLAGS.seeds[0]] for name in flags.FLAGS.runs}
    draw(first, out / "precision.svg")
    print(f"drawn in {out / 'precision.svg'}")


def workdir(out: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Of one run."""
    return out / f"{name}-{seed}"


def train(out: pathlib.Path, name: str, seed: int) -> None:
    """Trains, or goes on with, one run, whose lines go to train.log beside it.

    Raises:
      UserError: it failed.
    """
    path = workdir(out, name, seed)
    path.mkdir(parents=True, exist_ok=True)
    steps = flags.FLAGS.steps
    log = path.with_suffix(".log")
    command = [
        *(sys.executable, "-m", "glscl_jax.train", "--config", "configs/demo.py"),
        f"--workdir={path}",
        f"--config.seed={seed}",
        f"--config.num_steps={steps}",
        f"--config.validate_every={steps}",
        "--config.log_every=1",
        f"--config.data.dir={flags.FLAGS.data_dir}",
        *RUNS[name],
        *flags.FLAGS.also,
    ]
    print(f"{path.name} ...", flush=True)
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        last = log.read_text(encoding="utf-8").splitlines()[-1:]
        raise UserError(f"the run {path.name} failed ({' '.join(last)}): {log} says more")


def read_curve(path: pathlib.Path) -> Curve:
    """The curve of a work directory's metrics.jsonl, which was logged at every step."""
    records = read_figures(path / "metrics.jsonl")
    losses = [x for x in records if "loss/total" in x]
    speeds = [x["speed/clips_per_second"] for x in losses]
    batch = json.loads((path / "config.json").read_text(encoding="utf-8"))["batch_size"]
    return Curve(
        steps=np.array([x["step"] for x in losses]),
        losses=np.array([x["loss/total"] for x in losses]),
        recall=[x["validation/R@1"] for x in records if "validation/R@1" in x][-1],
        seconds=float(batch / np.median(speeds)),
    )


def table(curves: dict[tuple[str, str], Curve]) -> list[str]:
    """Its lines: mean losses of five windows, the recall, and the time of a step."""
    ends, _ = next(iter(curves.values())).windows()
    shown = np.unique(np.linspace(0, len(ends) - 1, 5).astype(int))
    heads = "".join(f"{f'to {ends[i]}':>9}" for i in shown)
    lines = [f"mean total loss of the {WINDOW} steps up to each", f"{'':<26}{heads}{'R@1':>9}"]
    lines[1] += f"{'s a step':>10}"
    for (name, seed), curve in curves.items():
        _, means = curve.windows()
        row = "".join(f"{means[i]:>9.4f}" for i in shown)
        label = f"{name}, seed {seed}"
        lines.append(f"{label:<26}{row}{curve.recall:>9.1f}{curve.seconds:>10.3f}")
    return lines


def draw(curves: dict[str, Curve], target: pathlib.Path) -> None:
    """Losses in windows, and below them each run's difference from the first one's."""
    from matplotlib import pyplot as plt

    pictures.settle()
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7.2, 4.6), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    steps, first = next(iter(curves.values())).windows()
    for name, curve in curves.items():
        _, means = curve.windows()
        style = {"color": COLOURS[name], "linewidth": 1.6, "label": LABELS[name]}
        upper.plot(steps, means, **style)
        lower.plot(steps, means - first, **style)
    upper.set_ylabel(f"total loss, mean of {WINDOW} steps")
    lower.set_ylabel(f"minus {next(iter(curves))}'s")
    lower.set_xlabel("step")
    upper.legend(frameon=False, labelcolor=pictures.GREY)
    for axes in (upper, lower):
        pictures.on_any_background(axes)
    pictures.save(figure, target)


def _define_flags() -> None:
    paths.define("out", "runs/precision", "Where the runs and the picture go.")
    paths.define("data_dir", "demo/data", "The demo's prepared data.")
    flags.DEFINE_integer("steps", 300, "Of each run.", lower_bound=2 * WINDOW)
    flags.DEFINE_list("seeds", ["42"], "One run for each; the first is drawn.")
    flags.DEFINE_multi_enum("runs", list(RUNS), list(RUNS), "Which; repeatable.")
    flags.DEFINE_multi_string("also", [], "Further flags of train; repeatable.")


if __name__ == "__main__":
    _define_flags()
    program.run(main)
