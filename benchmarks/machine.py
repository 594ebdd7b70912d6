"""What every table says of where it was measured."""

import os
import pathlib
import platform

import jax

from glscl_jax.runtime import jax_internals


def machine() -> str:
    """One line: devices, processor, cores, and the versions that matter."""
    jax_internals.forget_absent_tpu()  # Its errors would stand above every table.
    device = jax.devices()[0]
    return (
        f"{jax.device_count()} x {device.device_kind} ({device.platform}), {_processor()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, JAX {jax.__version__}"
    )


def _processor() -> str:
    try:
        with pathlib.Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
