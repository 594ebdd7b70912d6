"""Meshes of real pods: devices as the TPU's own compiler describes them, none of which is here."""

import collections
import os
from importlib import metadata

import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.profiling import topologies
from glscl_jax.runtime import sharding

# (topology, (data, fsdp, tensor)): the shapes of docs/scaling.md, and some of a tensor axis.
PODS = [
    ("v5e:1x1", (1, 1, 1)),
    ("v5e:2x2", (4, 1, 1)),
    ("v5e:2x2", (1, 1, 4)),
    ("v5e:2x4", (1, 8, 1)),
    ("v5e:4x4", (2, 8, 1)),
    ("v5e:4x4", (2, 2, 4)),
    ("v5e:4x4", (4, 2, 2)),
    ("v5e:4x8", (4, 8, 1)),
    ("v5e:4x8", (2, 4, 4)),
    ("v5e:8x8", (8, 8, 1)),
    ("v5e:8x16", (16, 8, 1)),
    ("v5e:16x16", (32, 8, 1)),
    ("v5e:16x16", (16, 4, 4)),
    ("v5p:2x2x1", (1, 4, 1)),
    ("v5p:2x2x2", (1, 8, 1)),
    ("v5p:2x2x4", (2, 8, 1)),
    ("v5p:4x4x4", (8, 8, 1)),
    ("v5p:4x4x4", (4, 4, 4)),
    ("v5p:4x4x4", (2, 16, 2)),
    ("v6e:2x4", (1, 8, 1)),
    ("v6e:16x16", (32, 8, 1)),
    ("v4:2x2x2", (2, 4, 1)),
    ("2xv5e:4x4", (4, 8, 1)),
    ("2xv5p:4x4x4", (16, 8, 1)),
    ("2xv5p:2x2x2", (4, 1, 4)),
    ("4xv5e:16x16", (128, 8, 1)),
    ("4xv5e:16x16", (64, 4, 4)),
]


@pytest.fixture(scope="module")
def pod():
    """Makes the mesh of a topology."""
    try:
        metadata.version("libtpu")
    except metadata.PackageNotFoundError:
        pytest.skip("libtpu, the compiler for TPUs, is not installed: make aot")
    before = dict(os.environ)
    yield lambda text, axes: sharding.make_mesh(
        topologies.devices(topologies.parse(text)), dict(zip(sharding.AXES, axes, strict=True))
    )
    os.environ.clear()
    os.environ.update(before)


def slice_of(device) -> int:
    return getattr(device, "slice_index", 0)


@pytest.mark.parametrize(("text", "axes"), PODS)
def test_tensor_lies_within_hosts_and_fsdp_within_slices(pod, text, axes):
    mesh = pod(text, axes)
    assert mesh.devices.shape == axes
    assert len(set(mesh.devices.flat)) == mesh.size
    for row in mesh.devices.reshape(-1, axes[2]):
        assert len({device.process_index for device in row}) == 1
    for part in mesh.devices:
        assert len({slice_of(device) for device in part.flat}) == 1
    # All slices share equally, each by neighbours along data.
    slices = [slice_of(part.flat[0]) for part in mesh.devices]
    assert slices == sorted(slices)
    assert len(set(collections.Counter(slices).values())) == 1


@pytest.mark.parametrize(("text", "axes"), PODS)
def test_devices_of_a_tensor_row_are_neighbours(pod, text, axes):
    for row in pod(text, axes).devices.reshape(-1, axes[2]):
        coords = np.array([device.coords for device in row])
        assert np.prod(np.ptp(coords, axis=0) + 1) == axes[2], coords.tolist()


@pytest.mark.parametrize(
    ("text", "axes", "told"),
    [
        ("v5e:4x4", (2, 1, 8), "tensor 8 goes over hosts of 4 .* data 4 x fsdp 1 x tensor 4"),
        ("v5p:4x4x4", (8, 1, 8), "tensor 8 goes over hosts of 4 .* data 16 x fsdp 1 x tensor 4"),
        ("2xv5p:2x2x2", (1, 16, 1), "2 slices of 8 devices.* data 2 x fsdp 8 x tensor 1"),
        ("4xv5e:16x16", (2, 512, 1), "4 slices of 256 devices.* data 4 x fsdp 256 x tensor 1"),
        ("v5e:4x4", (3, 8, 1), "there are 16.* data 2 x fsdp 8 x tensor 1"),
    ],
)
def test_a_shape_that_cannot_be_laid_out_names_one_that_can(pod, text, axes, told):
    with pytest.raises(UserError, match=told) as refused:
        pod(text, axes)
    assert "\n" not in str(refused.value)
    named = str(refused.value).rpartition("config.mesh ")[2]
    sizes = tuple(int(part.split()[1]) for part in named.split(" x "))
    assert pod(text, sizes).devices.shape == sizes
