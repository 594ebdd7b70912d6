"""What every table says of where it was measured."""

import os
import pathlib
import platform

import jax


def machine() -> str:
    """One line: devices, processor, cores, and the versions that matter."""
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
