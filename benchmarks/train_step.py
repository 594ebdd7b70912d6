"""One training step of ViT-B/32 GLSCL, beside the same model in PyTorch.

    python -m benchmarks.train_step

The two take turns in one run: forward, losses, backward and update of 4 clips of 12 frames. The
first step of a turn is not timed: it pays for memory that the other has just given back, and the
kernel clears each page of it. `make bench` asks glibc for large pages, for both. The
PyTorch model is transformers' CLIPModel with torch.nn.TransformerDecoder as the LIM and
torch.nn.TransformerEncoder as the temporal module, the same sizes and the same losses, updated
by torch.optim.AdamW. Beside the clock: the FLOPs of this project's step, counted by XLA in a
copy without the scan over layers (XLA counts a loop's body once), and on an accelerator the
share of what a large matrix product reaches there.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.machine import machine
from glscl_jax import program, steps
from glscl_jax.losses import LossWeights
from glscl_jax.models import transformer
from glscl_jax.models.glscl import GLSCL, GLSCLConfig
from glscl_jax.optim import OptimConfig, make_optimizer

CLIPS = flags.DEFINE_integer("clips", 4, "Clips in a batch.")
ROUNDS = flags.DEFINE_integer("rounds", 4, "Turns that each takes.")
REMAT = flags.DEFINE_enum("remat", "none", list(transformer.REMAT), "What is recomputed.")
DTYPE = flags.DEFINE_string("dtype", "float32", "Of this project's computation.")
TORCH = flags.DEFINE_bool("torch", True, "Whether PyTorch takes its turns.")

WORDS, FRAMES = 32, 12
TURN = 2  # Timed steps in a turn.


def main(_):
    inputs = make_inputs(CLIPS.value)
    config = GLSCLConfig(dtype=DTYPE.value, remat=REMAT.value)
    contenders = {"this project": JaxStep(config, inputs)}
    if TORCH.value:
        from benchmarks.torch_glscl import TorchStep

        contenders["PyTorch"] = TorchStep(inputs)
    times = take_turns(contenders)

    print(f"training step, ViT-B/32, {CLIPS.value} clips x {FRAMES} frames")
    print(f"{config.dtype}, remat {config.remat}")
    print(machine())
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        low, high = min(times[name]), max(times[name])
        print(
            f"{name:<14} {median:8.3f} s a step, "
            f"median of {len(times[name])} ({low:.3f} to {high:.3f})"
        )
    if TORCH.value:
        print(f"{'ratio':<14} {medians['this project'] / medians['PyTorch']:8.2f}")
        report_products()
    report_flops(contenders["this project"], medians["this project"])


def take_turns(contenders: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of the timed steps of each: `ROUNDS` turns of `TURN` steps and one to warm up."""
    times = {name: [] for name in contenders}
    for step in contenders.values():
        step()  # Compiles.
    for _ in range(ROUNDS.value):
        for name, step in contenders.items():
            step()
            for _ in range(TURN):
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
    return times


def make_inputs(clips: int) -> dict[str, np.ndarray]:
    """A random batch: captions of 6 to 30 words and full videos."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, WORDS + 1, clips)
    mask = (np.arange(WORDS) < lengths[:, None]).astype(np.int32)
    ids = rng.integers(1, 49_000, (clips, WORDS)).astype(np.int32) * mask
    ids[np.arange(clips), lengths - 1] = 49_407
    return {
        "text_ids": ids,
        "text_mask": mask,
        "frames": rng.integers(0, 256, (clips, FRAMES, 224, 224, 3)).astype(np.uint8),
        "frame_mask": np.ones((clips, FRAMES), np.int32),
    }


class JaxStep:
    """This project's train step, compiled."""

    def __init__(self, config: GLSCLConfig, inputs: dict[str, np.ndarray], run: bool = True):
        optim = OptimConfig()
        model, optimizer = GLSCL(config), make_optimizer(optim, 1000)
        self.config, self.inputs = config, inputs

        def state():
            return steps.init_state(steps.init_params(model, 0), optimizer, optim)

        self.state = jax.jit(state)() if run else jax.eval_shape(state)
        self.step = jax.jit(
            functools.partial(
                steps.train_step,
                model=model,
                optimizer=optimizer,
                optim=optim,
                weights=LossWeights(),
                seed=0,
            ),
            donate_argnums=0,
        )

    def __call__(self) -> None:
        self.state, metrics = self.step(self.state, self.inputs)
        jax.block_until_ready(metrics)
        jax.block_until_ready(self.state)


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
    flops = count_flops(step)
    print(
        f"{'FLOPs':<14} {flops / 1e9:8.1f} G a step by XLA's count, {flops / seconds / 1e9:.1f} G/s"
    )
    if jax.default_backend() != "cpu":
        ceiling = matmul_ceiling(jnp.dtype(step.config.dtype))
        print(
            f"{'utilisation':<14} {100 * flops / seconds / ceiling:8.1f} % of the "
            f"{ceiling / 1e12:.1f} TFLOP/s that a large matrix product reaches here"
        )


def count_flops(step: JaxStep) -> float:
    """FLOPs of one step by XLA's count.

    XLA counts the body of a loop once, however often it runs: the step is lowered again with
    every layer written out.
    """
    written_out = JaxStep(dataclasses.replace(step.config, scan=False), step.inputs, run=False)
    return written_out.step.lower(written_out.state, step.inputs).cost_analysis()["flops"]


def matmul_ceiling(dtype) -> float:
    """FLOP/s of a chain of large square matrix products."""
    size, repeats = 8192, 20
    x = jnp.ones((size, size), dtype)

    @jax.jit
    def chain(x):
        return jax.lax.fori_loop(0, repeats, lambda _, y: (y @ x) / size, x)

    chain(x).block_until_ready()
    start = time.perf_counter()
    chain(x).block_until_ready()
    return repeats * 2 * size**3 / (time.perf_counter() - start)


if __name__ == "__main__":
    program.run(main)
