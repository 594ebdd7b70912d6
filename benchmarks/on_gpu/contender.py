"""One contender of `on_gpu`, in a process of its own: it has the device's memory to itself."""

import dataclasses
import json
import os
import subprocess
import sys
import time

# Nobody else is on the device while this process runs; JAX itself would leave a quarter unused.
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
WARM_UP = 2  # Steps: the first compiles, and some libraries choose their kernels in the second.


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process is to do.

    Attributes:
      kind: a key of `KINDS`.
      variant, clips, frames: sizes of the model and the batch.
      steps: how many are timed.
      remat, scan, attention: this project's layout.
      compiled: whether PyTorch goes through torch.compile.
      checkpointing: whether PyTorch recomputes CLIP's layers.
    """

    kind: str
    variant: str = "tiny"
    clips: int = 4
    frames: int = 3
    steps: int = 2
    remat: str = "none"
    scan: bool = True
    attention: str = "auto"
    compiled: bool = False
    checkpointing: bool = False


class ContenderError(Exception):
    """A contender that did not get through; the text is the last line it wrote."""

    @property
    def out_of_memory(self) -> bool:
        text = str(self).lower()
        return any(x in text for x in ("out of memory", "outofmemory", "resource_exhausted"))


def in_process(task: Task, seconds: float | None = None) -> dict:
    """The result of `run` in a fresh process.

    Raises:
      ContenderError: the process failed, or took more than `seconds`.
    """
    try:
        process = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.on_gpu.contender",
                json.dumps(dataclasses.asdict(task)),
            ],
            capture_output=True,
            text=True,
            env=MEMORY | os.environ,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ContenderError(f"left out: not done in the {seconds:.0f} s that were left") from None
    if process.returncode:
        errors = [line for line in process.stderr.splitlines() if "Error" in line]
        last = errors or process.stderr.splitlines() or [f"status {process.returncode}"]
        raise ContenderError(last[-1].strip()[:300])
    return json.loads(process.stdout.splitlines()[-1])


def run(task: Task) -> dict:
    """What a task finds out, as JSON can hold it; see `KINDS`."""
    return KINDS[task.kind](task)


def _ceiling(task: Task) -> dict:
    """The machine, and FLOP/s of large bfloat16 products ([8192,8192]; on a CPU [512,512])."""
    import jax
    import jax.numpy as jnp

    from benchmarks.machine import machine
    from benchmarks.train_step.jax_glscl import matmul_ceiling

    platform = jax.default_backend()
    size = 512 if platform == "cpu" else 8192
    ceiling = max(matmul_ceiling(jnp.bfloat16, size) for _ in range(3))
    return {"machine": machine(), "platform": platform, "ceiling": ceiling, "size": size}


def _attention(task: Task) -> dict:
    """How far the fused kernel's values and gradients are from the formula's."""
    from benchmarks.on_gpu import attention

    return {"lines": attention.lines()}


def _jax(task: Task) -> dict:
    """Step times, seconds to compile, bytes at most, and the model's FLOPs in a step."""
    import jax

    from benchmarks.train_step.jax_glscl import WORDS, JaxStep, make_inputs
    from glscl_jax.models.encoders.variants import VARIANTS
    from glscl_jax.models.glscl import GLSCLConfig
    from glscl_jax.profiling.model_flops import training_flops

    config = GLSCLConfig(
        clip=VARIANTS[task.variant],
        dtype="bfloat16",
        remat=task.remat,
        scan=task.scan,
        attention=task.attention,
    )
    step = JaxStep(config, jax.device_put(make_inputs(task.clips, config.clip, task.frames)))
    began = time.perf_counter()
    step()
    compiling = time.perf_counter() - began
    times = _timed(step, task.steps)
    flops = training_flops(config, batch=task.clips, words=WORDS, frames=task.frames)
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {"seconds": times, "flops": task.clips * flops, "compiling": compiling, "peak": peak}


def _torch(task: Task) -> dict:
    """Step times under bfloat16 autocast, and bytes at most."""
    import torch

    from benchmarks.train_step.jax_glscl import make_inputs
    from benchmarks.train_step.torch_glscl import TorchStep
    from glscl_jax.models.encoders.variants import VARIANTS

    clip = VARIANTS[task.variant]
    on_gpu = torch.cuda.is_available()
    step = TorchStep(
        make_inputs(task.clips, clip, task.frames),
        clip,
        device="cuda" if on_gpu else "cpu",
        autocast=True,
        compiled=task.compiled,
        checkpointing=task.checkpointing,
    )
    times = _timed(step, task.steps)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return {"seconds": times, "device": step.device, "peak": peak}


def _scores(task: Task) -> dict:
    """10,000 texts ranked among 1,000,000 videos; on a CPU 100 among 1,000."""
    import jax

    from benchmarks.similarity import stream

    sizes = (100, 1000) if jax.default_backend() == "cpu" else (10_000, 1_000_000)
    return {"lines": stream.lines(*sizes)}


def _augment(task: Task) -> dict:
    """RandAugment of 128 clips of 12 frames of 224 x 224; on a CPU of 2 clips."""
    import jax

    from benchmarks.augmentation.clips import make_clips
    from benchmarks.timing import summary
    from glscl_jax.training import rand_augment

    clips = 2 if jax.default_backend() == "cpu" else 128
    frames = jax.device_put(make_clips(clips))
    drawn, run = rand_augment.draw(0, 0, clips), jax.jit(rand_augment.augment)
    times = _timed(lambda: jax.block_until_ready(run(frames, drawn)), 5)
    return {"lines": [f"RandAugment of {clips} clips: {summary(times)}"]}


def _timed(step, count: int) -> list[float]:
    from benchmarks.timing import seconds

    for _ in range(WARM_UP):
        step()
    return [seconds(step) for _ in range(count)]


KINDS = {
    "ceiling": _ceiling,
    "attention": _attention,
    "jax": _jax,
    "torch": _torch,
    "scores": _scores,
    "augment": _augment,
}

if __name__ == "__main__":
    print(json.dumps(run(Task(**json.loads(sys.argv[1])))))
