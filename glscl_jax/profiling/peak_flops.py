"""What a device could compute at most: published where the device is known, else measured."""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.runtime import sharding


def _tensor_cores(half: float, tf32: float) -> dict[str, float]:
    return {"bfloat16": half, "float16": half, "float32": tf32}


def _tpu(bfloat16: float) -> dict[str, float]:
    return {"bfloat16": bfloat16, "float32": bfloat16}


# Whole device_kind as JAX gives it -> TFLOP/s of dense matrix products, by the model's dtype.
# NVIDIA's are from the product data sheets (half of what those state "with sparsity"), B200's
# from that of HGX B200; Google's from Cloud TPU's pages on each version, a chip of v2, v3 and
# TPU7x being two devices to JAX. Under "float32" stands what JAX's default precision makes of
# such products: TF32 on tensor cores that have it, bfloat16 on a TPU. A slice of a GPU (MIG)
# has the GPU's name and more, and is measured like all that is not here.
KNOWN = {
    r"Tesla V100-SXM2-\d+GB": {"float16": 125, "float32": 15.7},
    r"Tesla T4": {"float16": 65, "float32": 8.1},
    r"NVIDIA A100.*GB( PCIe)?": _tensor_cores(312, 156),
    r"NVIDIA L4": _tensor_cores(121, 60.5),
    r"NVIDIA L40S": _tensor_cores(362, 183),
    r"NVIDIA H100 PCIe": _tensor_cores(756, 378),
    r"NVIDIA (H100|H200) NVL": _tensor_cores(835, 417),
    r"NVIDIA (H100 80GB HBM3|H200|GH200 \d+GB)": _tensor_cores(989, 494),
    r"NVIDIA B200": _tensor_cores(2250, 1125),
    r"TPU v2": _tpu(46 / 2),
    r"TPU v3": _tpu(123 / 2),
    r"TPU v4": _tpu(275),
    r"TPU v5( lite|e)": _tpu(197),
    r"TPU v5p?": _tpu(459),
    r"TPU v6( lite|e)": _tpu(918),
    r"TPU7x": _tpu(2307 / 2),
}


@dataclasses.dataclass(frozen=True)
class Peak:
    """The ceiling of a device.

    Attributes:
      flops: FLOP/s of large matrix products on one device.
      dtype: of the products' factors, as the model's config names it.
      published: whether it is the maker's figure, or else what was reached here.
    """

    flops: float
    dtype: str
    published: bool

    def __str__(self) -> str:
        shown = f"{self.flops / 1e12:.3g} TFLOP/s a device in {self.dtype}"
        return f"{shown}, {'as published' if self.published else 'measured by a matrix product'}"


def find_peak(dtype: str, devices: Sequence[jax.Device] | None = None) -> Peak:
    """The peak of each of `devices`, which are alike and of this process; all of it by default.

    Args:
      dtype: "float32", "bfloat16" or "float16".
      devices: those that will be at work together.
    """
    devices = jax.local_devices() if devices is None else devices
    published = published_flops(devices[0].device_kind, dtype)
    if published is not None:
        return Peak(published, dtype, published=True)
    return Peak(measured_flops(dtype, devices), dtype, published=False)


def published_flops(device_kind: str, dtype: str) -> float | None:
    """FLOP/s by `KNOWN`; None of another device, or where float32's precision was raised."""
    if dtype == "float32" and jax.config.jax_default_matmul_precision not in (None, "default"):
        return None
    found = next((row for kind, row in KNOWN.items() if re.fullmatch(kind, device_kind)), {})
    return found[dtype] * 1e12 if dtype in found else None


@dataclasses.dataclass(frozen=True)
class Work:
    """What is timed to find a peak.

    Attributes:
      size: of the square matrices: large enough to keep every core busy.
      chain: products in a row, so that starting them does not count.
      seconds: rounds of such a chain are timed for so long, and three at least.
    """

    size: int
    chain: int
    seconds: float


CPU, ACCELERATOR = Work(1024, 2, 0.2), Work(8192, 16, 1.0)


def measured_flops(dtype: str, devices: Sequence[jax.Device]) -> float:
    """FLOP/s that each device reaches in products of square matrices, all of them at once.

    At once, because devices that a CPU is divided into share its cores.
    """
    work = CPU if devices[0].platform == "cpu" else ACCELERATOR
    chain = chain_of_products(work, dtype, devices)

    def seconds() -> float:
        before = time.perf_counter()
        chain().block_until_ready()
        return time.perf_counter() - before

    seconds()  # Compiles.
    times = []
    while len(times) < 3 or sum(times) < work.seconds:
        times.append(seconds())
    return work.chain * 2 * work.size**3 / min(times)


def chain_of_products(
    work: Work, dtype: str, devices: Sequence[jax.Device]
) -> Callable[[], jax.Array]:
    """What is timed: called, it begins `work.chain` products on every one of `devices`.

    Returns:
      A function that gives [len(devices) * size, size]: on each device the power chain + 1 of one
      and the same matrix.
    """
    mesh = sharding.make_mesh(devices)
    # Entries of variance 1 / size keep the scale of a chain of products. Not ones: a GPU draws
    # less power on those, and runs faster than it does on anything real.
    kernel = np.random.default_rng(0).standard_normal((work.size, work.size), np.float32)
    kernel = (kernel / np.float32(work.size**0.5)).astype(jnp.dtype(dtype))
    kernel, rows = jax.device_put(kernel, sharding.replicated(mesh)), sharding.by_batch(mesh)
    start = jax.jit(lambda x: jnp.tile(x, (len(devices), 1)), out_shardings=rows)(kernel)
    product = jax.jit(lambda y, x: y @ x, out_shardings=rows)

    def chain() -> jax.Array:
        y = start
        for _ in range(work.chain):
            y = product(y, kernel)
        return y

    return chain
