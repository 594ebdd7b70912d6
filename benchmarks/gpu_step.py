"""Training steps of a full batch in bfloat16 on a GPU, beside PyTorch's and the device's ceiling.

    python -m benchmarks.gpu_step                          on a GPU: ViT-B/32 and ViT-B/16
    python -m benchmarks.gpu_step --variants=ViT-B/16 --layouts=full
    python -m benchmarks.gpu_step                          on a CPU: a tiny model

128 clips of 12 frames a step. First this project's step in each layout that fits into memory,
then the fastest of them and PyTorch in turns. PyTorch has autocast to bfloat16, torch.compile,
fused attention and a fused AdamW, and recomputes layers only where it would not fit otherwise.
Each turn is a process of its own with the whole device to itself.

Utilisation is the model's FLOPs (`model_flops.py`: matrix products without recomputation) over
time, as a share of what a chain of 8192 x 8192 products reaches in the same run.
"""

import dataclasses
import statistics
from collections.abc import Sequence

from absl import flags

from benchmarks.gpu_contender import ContenderError, Task, in_process
from benchmarks.timing import summary
from glscl_jax import program
from glscl_jax.models.clip import VARIANTS
from glscl_jax.models.transformer import REMAT

# The aims, on a GPU: the second is PyTorch's time over this project's.
UTILISATION, SPEED_UP = {"ViT-B/16": 0.40}, 1.2


@dataclasses.dataclass(frozen=True)
class Size:
    """What a run times: variants, a batch, and how many steps a turn."""

    variants: tuple[str, ...]
    clips: int
    frames: int
    steps: int


FULL = Size(("ViT-B/32", "ViT-B/16"), 128, 12, 10)
SMALL = Size(("tiny",), 4, 3, 2)


def main(_):
    ceiling = in_process(Task("ceiling"))
    on_cpu = ceiling["platform"] == "cpu"
    size = chosen(SMALL if on_cpu else FULL)
    print(f"training steps in bfloat16, {size.clips} clips x {size.frames} frames")
    print(ceiling["machine"])
    if on_cpu:
        print("there is no GPU here: what follows shows that the program works, and no more")
    square = f"{ceiling['size']} x {ceiling['size']}"
    print(f"{'ceiling':<28}{ceiling['ceiling'] / 1e12:8.2f} TFLOP/s in {square} bfloat16 products")
    compiled = flags.FLAGS.torch_compile if flags.FLAGS.torch_compile is not None else not on_cpu
    if not compiled:
        print("PyTorch without torch.compile (on a CPU minutes of C++; --torch_compile brings it)")
    for variant in size.variants:
        print(f"\n{variant}", flush=True)
        one = Task("jax", variant, size.clips, size.frames, size.steps, compiled=compiled)
        compare(one, ceiling, flags.FLAGS.rounds, flags.FLAGS.layouts)


def chosen(usual: Size) -> Size:
    """`usual` with what the flags change."""
    given = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Size)}
    given["variants"] = tuple(given["variants"] or ())
    return dataclasses.replace(usual, **{name: value for name, value in given.items() if value})


def compare(task: Task, ceiling: dict, rounds: int, layouts: Sequence[str]) -> None:
    """Prints the rows of one variant."""
    mine = fastest_layout(task, ceiling["ceiling"], layouts)
    other = torch_that_runs(dataclasses.replace(task, kind="torch"), ceiling["platform"])
    if mine is None:
        print("no layout got through: nothing to compare")
        return
    times = {"this project": [], "PyTorch": []}
    for _ in range(rounds):
        result = in_process(mine)
        times["this project"] += result["seconds"]
        if other is not None:
            times["PyTorch"] += in_process(other)["seconds"]
    print("in turns:")
    medians = {name: statistics.median(x) for name, x in times.items() if x}
    for name in medians:
        print(f"  {name:<26}{summary(times[name])}")
    share = result["flops"] / medians["this project"] / ceiling["ceiling"]
    aim = UTILISATION.get(task.variant)
    print(f"  {'utilisation':<26}{100 * share:8.1f} %{f' (aim {100 * aim:.0f})' if aim else ''}")
    if other is not None:
        ratio = medians["PyTorch"] / medians["this project"]
        print(f"  {'times as fast as PyTorch':<26}{ratio:8.2f} (aim {SPEED_UP})", flush=True)


def fastest_layout(task: Task, ceiling: float, layouts: Sequence[str]) -> Task | None:
    """Prints a row for each layout; the fastest, looped over layers or written out."""
    medians = {}

    def try_out(layout: Task):
        name = f"remat {layout.remat}, scan {'on' if layout.scan else 'off'}"
        try:
            result = in_process(layout)
        except ContenderError as error:
            told = "does not fit" if error.out_of_memory else f"failed: {error}"
            print(f"  {name:<26}{told}", flush=True)
            return
        medians[layout] = statistics.median(result["seconds"])
        share = result["flops"] / medians[layout] / ceiling
        print(f"  {name:<26}{summary(result['seconds'])}, {100 * share:.1f} %", flush=True)

    for remat in layouts:
        try_out(dataclasses.replace(task, remat=remat))
    if medians:
        # Written out, compiling takes several times as long: only where it may matter.
        try_out(dataclasses.replace(min(medians, key=medians.get), scan=False))
    return min(medians, key=medians.get, default=None)


def torch_that_runs(task: Task, platform: str) -> Task | None:
    """PyTorch's task, or the next best that gets through, with a line for each that does not."""
    attempts = [task, dataclasses.replace(task, checkpointing=True)]
    if task.compiled:
        eager = dataclasses.replace(task, compiled=False)
        attempts += [eager, dataclasses.replace(eager, checkpointing=True)]
    for attempt in attempts:
        try:
            result = in_process(dataclasses.replace(attempt, steps=1))
        except ContenderError as error:
            print(f"  {_torch_name(attempt):<26}failed: {error}", flush=True)
            continue
        if platform != "cpu" and result["device"] == "cpu":
            print("  PyTorch sees no GPU here and is left out")
            return None
        print(f"  {_torch_name(attempt)}", flush=True)
        return attempt
    return None


def _torch_name(task: Task) -> str:
    how = ["autocast", "fused attention"]
    how += ["compiled"] * task.compiled + ["layers recomputed"] * task.checkpointing
    return f"PyTorch: {', '.join(how)}"


def _define_flags() -> None:
    flags.DEFINE_list("variants", None, "CLIP's sizes.")
    flags.DEFINE_integer("clips", None, "Clips in a batch.", lower_bound=2)
    flags.DEFINE_integer("frames", None, "Frames a clip.", lower_bound=1)
    flags.DEFINE_integer("steps", None, "Timed steps in a turn.", lower_bound=1)
    flags.DEFINE_integer("rounds", 2, "Turns that each takes.", lower_bound=1)
    flags.DEFINE_multi_enum("layouts", list(REMAT), list(REMAT), "What to recompute; repeatable.")
    flags.DEFINE_bool("torch_compile", None, "Whether PyTorch compiles; by default on a GPU.")
    flags.register_validator(
        "variants",
        lambda names: all(name in VARIANTS for name in names or ()),
        f"there are {', '.join(VARIANTS)}",
    )


if __name__ == "__main__":
    _define_flags()
    program.run(main)
