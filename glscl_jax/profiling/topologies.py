"""Devices that are not here: what a compiler needs to know of them, and what their makers publish.

v5e:16x16      a slice of 256 TPU v5e; v5p:4x4x4, v6e:4x4, v4:2x2x2 likewise
4xv5e:16x16    four such slices, joined by the data centre's network
h100x8         eight GPUs, and h200x16 two hosts of eight
"""

import dataclasses
import math
import os
import re
from importlib import metadata

import jax
from jax.experimental import topologies

from glscl_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip's figures as its maker publishes them.

    Attributes:
      name: as a topology has it.
      device_kind: as JAX names it.
      memory: bytes of it. Of a TPU what its compiler lets a program take.
      memory_rate: bytes a second to and from it.
      clock: Hz, at which a TPU's compiler counts cycles; 0 where it counts none.
      link: bytes a second that a chip sends along one mesh axis, inside a slice or host.
      outside: bytes a second that a chip sends to another slice or host.
      slices: topologies of one slice that can be rented; of a GPU none.
    """

    name: str
    device_kind: str
    memory: int
    memory_rate: float
    clock: float
    link: float
    outside: float
    slices: tuple[str, ...] = ()


_PLANE = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
# Google's pages on each version: links of a chip of 400 Gb/s (v5e), 800 (v6e and v5p) and of 50
# GB/s (v4), of which an axis has two; what leaves a slice is 6.4 Tb/s for 256 v5e, and taken to
# be as much a chip elsewhere. Clocks follow from the published peaks: with two FLOPs a cycle of
# each cell of matrix units of 128 x 128, of which v5e has 4, v4 and v5p 8, and v6e as much as 16.
# NVIDIA's data sheets: NVLink 900 GB/s both ways, one 400 Gb/s adapter a GPU.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "TPU v5 lite", int(15.75 * GIB), 819e9, 1.5e9, 100e9, 3.1e9, _PLANE),
        Chip("v6e", "TPU v6 lite", int(31.25 * GIB), 1640e9, 1.75e9, 200e9, 3.1e9, _PLANE),
        Chip("v5p", "TPU v5", int(95.74 * GIB), 2765e9, 1.75e9, 200e9, 3.1e9, _CUBE),
        Chip("v4", "TPU v4", int(30.75 * GIB), 1228e9, 1.05e9, 100e9, 3.1e9, _CUBE),
        Chip("h100", "NVIDIA H100 80GB HBM3", 84942979072, 3352e9, 0, 450e9, 50e9),
        Chip("h200", "NVIDIA H200", 150754820096, 4800e9, 0, 450e9, 50e9),
    )
}
_TPUS = [name for name, chip in CHIPS.items() if chip.slices]
_GPUS = [name for name, chip in CHIPS.items() if not chip.slices]
GPUS_A_HOST = 8

# What the compiler for TPUs asks the machine that it runs on, which is none: no metadata server, no
# other hosts, no lock that keeps a second process out, and nothing written to stderr or /tmp.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# Without a GPU nothing can be timed: no search for tiles, and no kernels that need one.
_GPU_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"

_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"

_GPU_CONFIG = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {rate}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{name}"
"""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind and how they are joined.

    Attributes:
      text: as it was asked for.
      chip: of each.
      shape: chips along each side of a slice; of GPUs hosts and GPUs in each.
      slices: how many; of GPUs 1.
    """

    text: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def is_tpu(self) -> bool:
        return bool(self.chip.slices)

    @property
    def size(self) -> int:
        """Chips in all."""
        return self.slices * math.prod(self.shape)

    @property
    def memory(self) -> int:
        """Bytes of a chip that programs have: of a GPU what JAX takes of it, which is told by
        XLA_PYTHON_CLIENT_MEM_FRACTION."""
        share = float(os.environ.get(_FRACTION) or 0.75)
        return self.chip.memory if self.is_tpu else int(share * self.chip.memory)

    @property
    def island(self) -> int:
        """Chips that the fast links join."""
        return math.prod(self.shape) if self.is_tpu else self.shape[-1]


def parse(text: str) -> Topology:
    """The topology that a name such as "v5e:4x4" means; see the module.

    Raises:
      UserError: it means none; lists the known ones.
    """
    tpu = re.fullmatch(r"(?:(\d+)x)?(v\w+):(\d+x\d+(?:x\d+)?)", text)
    if tpu and tpu[2] in _TPUS and tpu[3] in CHIPS[tpu[2]].slices and int(tpu[1] or 1) > 0:
        shape = tuple(map(int, tpu[3].split("x")))
        return Topology(text, CHIPS[tpu[2]], shape, int(tpu[1] or 1))
    gpu = re.fullmatch(r"([a-z]+\d+)x(\d+)", text)
    count = int(gpu[2]) if gpu and gpu[1] in _GPUS else 0
    if 0 < count <= GPUS_A_HOST or (count and count % GPUS_A_HOST == 0):
        own = min(count, GPUS_A_HOST)
        return Topology(text, CHIPS[gpu[1]], (count // own, own))
    raise UserError(f"{text!r} is no topology that is known: {known()}")


def known() -> str:
    """The topologies there are, in a line."""
    parts = [f"{name}: with {', '.join(CHIPS[name].slices)}" for name in _TPUS]
    gpus = f"{' or '.join(_GPUS)} with x1 to x8, or x16, x24, ... (hosts of 8)"
    return f"there are {'; '.join(parts)} (4xv5e:16x16 is four slices); and {gpus}"


def devices(topology: Topology) -> list[jax.Device]:
    """Its devices, for which programs can be compiled but not run.

    Changes the process's environment, for the compiler; to be called before anything of JAX runs.

    Raises:
      UserError: the compiler is not installed, or not the one that goes with this JAX.
    """
    jax.config.update("jax_platforms", "cpu")
    return list(_tpus(topology) if topology.is_tpu else _gpus(topology))


def _tpus(topology: Topology):
    check_compiler("libtpu", "tpu")
    for name, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options = {}
    if topology.size == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    name = f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}"
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"the compiler for TPUs does not know {topology.text}: {reason}") from error
    return found.devices


def _gpus(topology: Topology):
    check_compiler("jax-cuda13-plugin", "cuda13")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_GPU_FLAGS}".strip()
    chip, (hosts, own) = topology.chip, topology.shape
    config = _GPU_CONFIG.format(
        rate=int(chip.memory_rate), memory=chip.memory, name=chip.device_kind
    )
    try:
        found = topologies.get_topology_desc(
            platform="cuda", target_config=config, topology=f"1x{hosts}x{own}"
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"the compiler for CUDA does not take {topology.text}: {reason}") from error
    return found.devices


def check_compiler(package: str, extra: str) -> None:
    """Raises a `UserError` unless `package` is here, in a version that JAX's `extra` names."""
    bound = _bound(package, extra)
    command = f"pip install {_quoted(package, bound, extra)}"
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        line = f"{package}, the compiler for that device, is not installed: {command}"
        raise UserError(line) from None
    if bound and not _within(found, bound):
        raise UserError(
            f"{package} {found} does not go with JAX {jax.__version__}, which wants "
            f"{bound}: {command}"
        )


def _bound(package: str, extra: str) -> str:
    """JAX's word on `package`, such as "==0.0.42.*"; "" if it has none."""
    for line in metadata.requires("jax") or ():
        name = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*);.*extra == \"(\w+)\"", line)
        if name and name[1] == package and name[3] == extra:
            return name[2].strip()
    return ""


def _quoted(package: str, bound: str, extra: str) -> str:
    if extra == "tpu":
        return f'"{package}{bound}"'
    return f'"jax[{extra}]=={jax.__version__}"'


def _within(version: str, bound: str) -> bool:
    """Whether a version is one of `bound`: "==1.2.*", or "<=1.2,>=1.2"."""
    if found := re.fullmatch(r"==([\d.]+)\.\*", bound):
        return f"{version}.".startswith(f"{found[1]}.")
    exact = re.findall(r"[<>=]=([\d.]+)", bound)
    return version in exact if exact else True
