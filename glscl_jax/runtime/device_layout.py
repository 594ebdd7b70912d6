"""Which device lies where in a mesh: tensor within a host, fsdp within a slice, data across slices.

A slice is what TPUs' own links join; between slices there is the data centre's network, which
carries one sum of gradients a step and nothing more often. A host reads its own part of a batch,
so that devices which work on the same examples (along `tensor`) have to be its own.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from glscl_jax.errors import UserError


def arrange(devices: Sequence[jax.Device], sizes: tuple[int, int, int]) -> np.ndarray:
    """The devices as an array [data, fsdp, tensor].

    Args:
      devices: as many as `sizes` multiply to.
      sizes: devices along each axis.

    Raises:
      UserError: the axes cannot lie as the module says; names sizes that can.
    """
    data, fsdp, tensor = sizes
    slices = _slices(devices)
    each = min(len(part) for part in slices)
    if len(slices) * each != len(devices):
        found = " + ".join(str(len(part)) for part in slices)
        raise UserError(f"the slices have {found} devices: a mesh is of slices of the same size")
    if data % len(slices):
        raise UserError(
            f"{_shown(sizes)} does not lie on {len(slices)} slices of {each} devices: "
            "fsdp and tensor stay within a slice, data goes across them: "
            f"give {_shown(_nearest(slices, sizes))}"
        )
    own = math.gcd(*(len(part) for part in _hosts(devices)))
    if own % tensor and len(_hosts(devices)) > 1:
        raise UserError(
            f"config.mesh.tensor {tensor} goes over hosts of {own} devices: take a divisor of "
            f"that, and fsdp or data for the rest: {_shown(_nearest(slices, sizes))}"
        )
    shape = (data // len(slices), fsdp, tensor)
    return np.concatenate([_slice_laid_out(part, shape) for part in slices])


def _shown(sizes: Sequence[int]) -> str:
    return "config.mesh " + " x ".join(
        f"{name} {size}" for name, size in zip(("data", "fsdp", "tensor"), sizes, strict=True)
    )


def _nearest(slices: list[list], sizes: Sequence[int]) -> tuple[int, int, int]:
    """Sizes near `sizes` that can be laid out: as much of tensor and fsdp as there is room for."""
    devices = [device for part in slices for device in part]
    hosts = [len(part) for part in _hosts(devices)]
    tensor = math.gcd(sizes[2], *hosts)
    fsdp = math.gcd(sizes[1], *(len(part) // tensor for part in slices))
    return len(devices) // (fsdp * tensor), fsdp, tensor


def nearest(devices: Sequence[jax.Device], sizes: Sequence[int]) -> str:
    """What to give instead of `sizes`, as a message has it."""
    return _shown(_nearest(_slices(devices), sizes))


def _slices(devices: Sequence[jax.Device]) -> list[list]:
    """The devices by slice. Only TPUs are told apart: a GPU's "slice" is a host."""
    if devices[0].platform != "tpu":
        return [list(devices)]
    return _grouped(devices, lambda device: getattr(device, "slice_index", 0))


def _hosts(devices: Sequence[jax.Device]) -> list[list]:
    return _grouped(devices, lambda device: device.process_index)


def _grouped(devices, key) -> list[list]:
    return [list(part) for _, part in itertools.groupby(sorted(devices, key=key), key)]


def _slice_laid_out(devices: list, shape: tuple[int, int, int]) -> np.ndarray:
    """The devices of one slice as an array of `shape`."""
    if devices[0].platform == "gpu":
        devices = sorted(devices, key=lambda device: device.id)
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(shape)
    data, fsdp, tensor = shape
    if tensor == 1:
        # JAX's own way has the rings of small slices; splitting the torus allows every shape.
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    blocks = _blocks(devices, tensor)
    where = mesh_utils.create_device_mesh((data, fsdp), blocks, allow_split_physical_axes=True)
    rows = [block.devices for block in where.flat]
    return np.asarray(rows).reshape(shape)


@dataclasses.dataclass(frozen=True)
class _Block:
    """Neighbouring devices of a host, as one device of a coarser torus.

    The attributes but the first are those by which `mesh_utils` lays devices out.
    """

    devices: tuple
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "block"


def _blocks(devices: list, count: int) -> list[_Block]:
    """The devices in blocks of `count`, each the same brick of chips, within a host."""
    hosts = _hosts(devices)
    size = _brick(hosts[0], count)
    found = {}
    for device in sorted(devices, key=lambda device: (*device.coords[::-1], device.core_on_chip)):
        place = tuple(x // side for x, side in zip(device.coords, size, strict=True))
        found.setdefault(place, []).append(device)
    return [_Block(tuple(part), place) for place, part in found.items()]


def _brick(host: list, count: int) -> tuple[int, ...]:
    """The most cubic brick of `count` chips that a host's chips are made of."""
    coords = np.array([device.coords for device in host])
    bounds = coords.max(0) - coords.min(0) + 1
    cores = len(host) // math.prod(bounds.tolist())
    chips = count // cores if count % cores == 0 else 0
    sides = [[side for side in range(1, x + 1) if x % side == 0] for x in bounds.tolist()]
    fitting = [brick for brick in itertools.product(*sides) if math.prod(brick) == chips]
    if not fitting:
        raise UserError(
            f"config.mesh.tensor {count} is no brick of a host's {len(host)} devices: take another "
            "divisor of that, and fsdp or data for the rest"
        )
    return min(fitting, key=lambda brick: (max(brick), brick))
