"""Tests run on eight CPU devices, which JAX must be told before it is imported.

Those of sharding use all of them, the others one. Most of the time would go into compiling programs
that run once: optimisation is left out, loops are written by the emitters that take half as long,
and all of a program is one module of LLVM's.
"""

import os
from importlib import metadata

import glscl_jax  # noqa: F401  Before any other library: it keeps their order (import_order).

QUICK_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
# Later ones have the other emitters alone, and end a process that names a flag they do not know.
if metadata.version("jaxlib").startswith("0.10."):  # that of Python 3.11
    QUICK_COMPILE += " --xla_cpu_use_fusion_emitters=false"

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK_COMPILE}"
os.environ["JAX_PLATFORMS"] = "cpu"
