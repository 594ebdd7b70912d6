"""One contender of `gpu_step`, in a process of its own: it has the device's memory to itself."""

import dataclasses
import json
import os
import subprocess
import sys

# Nobody else is on the device while this process runs; JAX itself would leave a quarter unused.
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
WARM_UP = 2  # Steps: the first compiles, and some libraries choose their kernels in the second.


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process is to do.

    Attributes:
      kind: "ceiling", "jax" or "torch".
      variant, clips, frames: sizes of the model and the batch.
      steps: how many are timed.
      remat, scan: this project's layout.
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
    compiled: bool = False
    checkpointing: bool = False


class ContenderError(Exception):
    """A contender that did not get through; the text is the last line it wrote."""

    @property
    def out_of_memory(self) -> bool:
        text = str(self).lower()
        return any(x in text for x in ("out of memory", "outofmemory", "resource_exhausted"))


def in_process(task: Task) -> dict:
    """The result of `run` in a fresh process.

    Raises:
      ContenderError: the process failed.
    """
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_contender", json.dumps(dataclasses.asdict(task))],
        capture_output=True,
        text=True,
        env=MEMORY | os.environ,
    )
    if process.returncode:
        errors = [line for line in process.stderr.splitlines() if "Error" in line]
        last = errors or process.stderr.splitlines() or [f"status {process.returncode}"]
        raise ContenderError(last[-1].strip()[:300])
    return json.loads(process.stdout.splitlines()[-1])


def run(task: Task) -> dict:
    """What a task finds out, as JSON can hold it; see the three."""
    return {"ceiling": _ceiling, "jax": _jax, "torch": _torch}[task.kind](task)


def _ceiling(task: Task) -> dict:
    """The machine, and FLOP/s of large bfloat16 products ([8192,8192]; on a CPU [512,512])."""
    import jax
    import jax.numpy as jnp

    from benchmarks.jax_glscl import matmul_ceiling
    from benchmarks.machine import machine

    platform = jax.default_backend()
    size = 512 if platform == "cpu" else 8192
    ceiling = max(matmul_ceiling(jnp.bfloat16, size) for _ in range(3))
    return {"machine": machine(), "platform": platform, "ceiling": ceiling, "size": size}


def _jax(task: Task) -> dict:
    """Step times, and the model's FLOPs in a step."""
    import jax

    from benchmarks.jax_glscl import WORDS, JaxStep, make_inputs
    from glscl_jax.model_flops import training_flops
    from glscl_jax.models.clip import VARIANTS
    from glscl_jax.models.glscl import GLSCLConfig

    config = GLSCLConfig(
        clip=VARIANTS[task.variant], dtype="bfloat16", remat=task.remat, scan=task.scan
    )
    inputs = jax.device_put(make_inputs(task.clips, config.clip, task.frames))
    times = _timed(JaxStep(config, inputs), task.steps)
    flops = training_flops(config, batch=task.clips, words=WORDS, frames=task.frames)
    return {"seconds": times, "flops": task.clips * flops}


def _torch(task: Task) -> dict:
    """Step times under bfloat16 autocast."""
    import torch

    from benchmarks.jax_glscl import make_inputs
    from benchmarks.torch_glscl import TorchStep
    from glscl_jax.models.clip import VARIANTS

    clip = VARIANTS[task.variant]
    step = TorchStep(
        make_inputs(task.clips, clip, task.frames),
        clip,
        device="cuda" if torch.cuda.is_available() else "cpu",
        autocast=True,
        compiled=task.compiled,
        checkpointing=task.checkpointing,
    )
    return {"seconds": _timed(step, task.steps), "device": step.device}


def _timed(step, count: int) -> list[float]:
    from benchmarks.timing import seconds

    for _ in range(WARM_UP):
        step()
    return [seconds(step) for _ in range(count)]


if __name__ == "__main__":
    print(json.dumps(run(Task(**json.loads(sys.argv[1])))))
