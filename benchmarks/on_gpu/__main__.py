"""What a GPU makes of this project: training steps, fused attention, scores, augmentation.

    python -m benchmarks.on_gpu                     on a GPU: within 8 minutes
    python -m benchmarks.on_gpu --minutes=20 --only=step --variants=ViT-L/14 --clips=64
    python -m benchmarks.on_gpu --only=step         on a CPU: a tiny model, to show that it works

The step is a whole one in bfloat16: both towers, temporal module, LIM, losses, backward pass and
optimiser. PyTorch's beside it has autocast to bfloat16, torch.compile, fused attention and a fused
AdamW, and recomputes layers only where it would not fit otherwise. Each row is a process of its
own with the whole device to itself; what the minutes do not suffice for is named and left out.

Utilisation is the model's FLOPs (`model_flops.py`: matrix products without recomputation) over
time, as a share of what a chain of 8192 x 8192 products reaches in the same run. Of a row that
`benchmarks.compiled` has counted it is said how far that estimate was off.

Takes 8 minutes on an NVIDIA H100 (--minutes), after which nothing new is begun. Needs jax, flax,
optax, orbax and absl, torch and transformers for PyTorch's rows, which are left out without;
nothing that reads videos, recipes or data sets.
"""

import dataclasses

from absl import app, flags

from benchmarks.on_gpu.contender import Task, in_process
from benchmarks.on_gpu.steps import Clock, Size, steps
from glscl_jax.models.encoders.variants import VARIANTS

PARTS = ("attention", "step", "scores", "augment")
FULL = Size(("ViT-B/16", "ViT-B/32"), 128, 12, 10)
SMALL = Size(("tiny",), 4, 3, 2)


def main(_):
    clock = Clock(flags.FLAGS.minutes)
    ceiling = in_process(Task("ceiling"))
    on_cpu = ceiling["platform"] == "cpu"
    size = chosen(SMALL if on_cpu else FULL)
    print(ceiling["machine"])
    if on_cpu:
        print("there is no GPU here: what follows shows that the program works, and no more")
    square = f"{ceiling['size']} x {ceiling['size']}"
    print(f"ceiling: {ceiling['ceiling'] / 1e12:.2f} TFLOP/s in {square} bfloat16 products")
    parts = flags.FLAGS.only or PARTS
    if "attention" in parts:
        print("\nfused attention against written out, float32 on the same numbers", flush=True)
        show(clock.run("attention", Task("attention")))
    if "step" in parts:
        steps(clock, size, ceiling, compiled=not on_cpu)
    for part in ("scores", "augment"):
        if part in parts:
            print(f"\n{part}", flush=True)
            show(clock.run(part, Task(part)))


def chosen(usual: Size) -> Size:
    """`usual` with what the flags change."""
    given = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Size)}
    given["variants"] = tuple(given["variants"] or ())
    return dataclasses.replace(usual, **{name: value for name, value in given.items() if value})


def show(found: dict | None) -> None:
    """Prints what a task says line by line."""
    for line in (found or {}).get("lines", ()):
        print(f"  {line}", flush=True)


def _define_flags() -> None:
    flags.DEFINE_float("minutes", 8.0, "After which nothing new is begun.", lower_bound=0.1)
    flags.DEFINE_multi_enum("only", None, PARTS, "These parts alone; repeatable.")
    flags.DEFINE_list("variants", None, "CLIP's sizes.")
    flags.DEFINE_integer("clips", None, "Clips in a batch.", lower_bound=2)
    flags.DEFINE_integer("frames", None, "Frames a clip.", lower_bound=1)
    flags.DEFINE_integer("steps", None, "Timed steps of a row.", lower_bound=1)
    flags.register_validator(
        "variants",
        lambda names: all(name in VARIANTS for name in names or ()),
        f"there are {', '.join(VARIANTS)}",
    )


if __name__ == "__main__":
    _define_flags()
    # Not `program.run`, which reads recipes: it would need ml_collections.
    app.run(main)
