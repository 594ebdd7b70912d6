"""One training step of ViT-B/32 GLSCL, beside the same model in PyTorch.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --layouts    recomputed or kept, scanned or written out

The two take turns in one run: forward, losses, backward and update of 4 clips of 12 frames.
`make bench` asks glibc for large pages, for both. The PyTorch model is transformers' CLIPModel
with torch.nn.TransformerDecoder as the LIM and torch.nn.TransformerEncoder as the temporal
module, the same sizes and the same losses, updated by torch.optim.AdamW. Beside the clock: the
FLOPs of this project's step by XLA's count, and on an accelerator the share of what a large
matrix product reaches there. `--layouts` instead times this project's step in every layout.

Takes PyTorch and transformers (--notorch leaves them out). The whole was not measured; a step takes
7 s, PyTorch's 6 s, on 2 cores of an Intel Xeon, and there are 13 of each.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.machine import machine
from benchmarks.timing import summary, take_turns
from benchmarks.train_step import layouts
from benchmarks.train_step.jax_glscl import (
    FRAMES,
    JaxStep,
    count_flops,
    make_inputs,
    matmul_ceiling,
)
from glscl_jax.models.encoders import transformer
from glscl_jax.models.encoders.variants import VARIANTS
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.runtime import program

CLIPS = flags.DEFINE_integer("clips", 4, "Clips in a batch.")
ROUNDS = flags.DEFINE_integer("rounds", 4, "Turns that each takes.")
REMAT = flags.DEFINE_enum("remat", "none", list(transformer.REMAT), "What is recomputed.")
DTYPE = flags.DEFINE_string("dtype", "float32", "Of this project's computation.")
LAYOUTS = flags.DEFINE_bool("layouts", False, "A table of memory and time by layout, instead.")
VARIANT = flags.DEFINE_enum("variant", "ViT-B/32", list(VARIANTS), "CLIP's sizes, of --layouts.")
TORCH = flags.DEFINE_bool("torch", True, "Whether PyTorch takes its turns.")


def main(_):
    if LAYOUTS.value:
        by_layout()
    else:
        beside_torch()


def by_layout() -> None:
    """Prints the table of layouts."""
    config = GLSCLConfig(clip=VARIANTS[VARIANT.value], dtype=DTYPE.value)
    lines = layouts.measure(config, CLIPS.value, ROUNDS.value)
    print(f"training step, {VARIANT.value}, {CLIPS.value} clips x {FRAMES} frames, {config.dtype}")
    print(machine())
    print("\n".join(lines))


def beside_torch() -> None:
    """Prints the times of this project's step and PyTorch's, and what the step computes."""
    inputs = make_inputs(CLIPS.value)
    config = GLSCLConfig(dtype=DTYPE.value, remat=REMAT.value)
    contenders = {"this project": JaxStep(config, inputs)}
    if TORCH.value:
        from benchmarks.train_step.torch_glscl import TorchStep

        contenders["PyTorch"] = TorchStep(inputs)
    times = take_turns(contenders, ROUNDS.value)

    print(f"training step, ViT-B/32, {CLIPS.value} clips x {FRAMES} frames")
    print(f"{config.dtype}, remat {config.remat}")
    print(machine())
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name in medians:
        print(f"{name:<14} {summary(times[name])}")
    if TORCH.value:
        print(f"{'ratio':<14} {medians['this project'] / medians['PyTorch']:8.2f}")
        report_products()
    report_flops(contenders["this project"], medians["this project"])


def report_products() -> None:
    """The step's largest matrix product alone: the share of the ratio that is XLA's library."""
    import torch

    x, kernel = np.ones((2400, 768), np.float32), np.ones((768, 3072), np.float32)
    product, mine = jax.jit(jnp.matmul), (jnp.asarray(x), jnp.asarray(kernel))
    theirs = (torch.from_numpy(x), torch.from_numpy(kernel))
    times = {"XLA": [], "PyTorch": []}
    for _ in range(20):
        start = time.perf_counter()
        product(*mine).block_until_ready()
        times["XLA"].append(time.perf_counter() - start)
        start = time.perf_counter()
        torch.matmul(*theirs)
        times["PyTorch"].append(time.perf_counter() - start)
    xla, other = (1e3 * statistics.median(values) for values in times.values())
    print(
        f"{'product alone':<14} [2400,768] @ [768,3072]: XLA {xla:.1f} ms, PyTorch {other:.1f} ms,"
        f" ratio {xla / other:.2f}"
    )


def report_flops(step: JaxStep, seconds: float) -> None:
    """XLA's count of a step, per second, and against a measured ceiling on an accelerator."""
    flops = count_flops(step.config, step.inputs)
    print(
        f"{'FLOPs':<14} {flops / 1e9:8.1f} G a step by XLA's count, {flops / seconds / 1e9:.1f} G/s"
    )
    if jax.default_backend() != "cpu":
        ceiling = matmul_ceiling(jnp.dtype(step.config.dtype))
        print(
            f"{'utilisation':<14} {100 * flops / seconds / ceiling:8.1f} % of the "
            f"{ceiling / 1e12:.1f} TFLOP/s that a large matrix product reaches here"
        )


if __name__ == "__main__":
    program.run(main)
