"""Windows come to the devices in blocks, and stay there where there is room."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.search import blocks
from glscl_jax.search.blocks import WindowBlocks
from glscl_jax.search.scan import Scan, to_arrays, windows_of
from tests.builders import features, mesh_of

ROWS = np.arange(45)


class Counted:
    """An array that counts what is read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, []

    def __getitem__(self, what):
        found = self.array[what]
        self.reads.append(len(found))
        return found


def counted():
    return Counted(np.arange(90, dtype=np.float32).reshape(45, 2))


def blocks_of(array, **how):
    return WindowBlocks({"x": array}, mesh_of({"data": 2}), **{"size": 8, **how})


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (2 * 64 + 63, 2), (6 * 64, 6), (10**9, 6)])
def test_blocks_that_fit_are_read_once(room, kept):
    array = counted()
    made = blocks_of(array, kept_bytes=room)
    assert [block.kept for block in made.over(ROWS)] == [False] * 6
    # The last one ends with the windows, and is filled up by none that are copied.
    assert array.reads == [8] * 6
    again = list(made.over(ROWS))
    assert [block.kept for block in again] == [True] * kept + [False] * (6 - kept)
    assert array.reads[6:] == [8] * (6 - kept)
    real = [np.asarray(block.windows["x"])[block.real] for block in again]
    np.testing.assert_array_equal(np.concatenate(real), array.array)


@pytest.mark.parametrize("rows", [ROWS, ROWS[::2], ROWS[20:24], ROWS[[0, 44]]])
@pytest.mark.parametrize("room", [0, 10**9])
def test_places_lead_back_to_rows(rows, room):
    made = blocks_of(counted(), kept_bytes=room)
    found = []
    for block in made.over(rows):
        places = block.first + np.flatnonzero(block.real)
        numbers = made.rows_at(rows, places)
        np.testing.assert_array_equal(np.asarray(block.windows["x"])[block.real][:, 0], 2 * numbers)
        found += numbers.tolist()
    assert found == rows.tolist()


def test_few_windows_alone_are_read_and_of_kept_blocks_fewer_still():
    few, array = ROWS[[3, 9, 40]], counted()
    list(blocks_of(array, kept_bytes=0).over(few))
    assert array.reads == [3]
    array = counted()
    made = blocks_of(array, kept_bytes=10**9)
    assert len(list(made.over(few))) == 3
    assert array.reads == [8, 8, 8]


@pytest.mark.parametrize("room", [0, 2000, 10**9])
def test_what_is_kept_is_scored_to_the_same_bits(room):
    head, (text, video) = GLSCLHead(), features(3, 45)
    windows = windows_of(head, to_arrays(head, video))
    some = ROWS[1::2]
    plain = Scan(windows, head, block=8, kept_bytes=0)
    scan = Scan(windows, head, block=8, kept_bytes=room)
    for _ in range(2):
        for rows in (ROWS, some):
            one, other = plain.top(text, 5, rows), scan.top(text, 5, rows)
            np.testing.assert_array_equal(one.items, other.items)
            np.testing.assert_array_equal(one.scores, other.scores)
            np.testing.assert_array_equal(plain.scores(text, rows), scan.scores(text, rows))


def accelerator(free):
    """A mesh of two devices that are not there, with so much memory free."""
    devices = np.array(
        [
            SimpleNamespace(
                platform="gpu",
                memory_stats=lambda n=n: {"bytes_limit": 2**41, "bytes_in_use": 2**41 - n},
            )
            for n in free
        ]
    )
    names = ("data",)
    return SimpleNamespace(devices=devices, local_devices=devices, size=2, axis_names=names)


def test_what_is_free_decides(monkeypatch):
    """The fullest device does, as blocks are shared equally; and its size goes with that."""
    monkeypatch.setattr(blocks, "NamedSharding", lambda *_: None)
    mesh = accelerator([400, 300])
    made = WindowBlocks({"x": counted()}, mesh)
    assert made.kept_bytes == 480
    # An eighth of 600 bytes holds 9 windows of 8 bytes.
    assert made.size == 8
    assert WindowBlocks({"x": counted()}, mesh_of({"data": 2})).kept_bytes == 0


def test_on_a_cpu_half_precision_is_taken_in_smaller_blocks():
    wide, half = (jax.ShapeDtypeStruct((10**6, 4), x) for x in (np.float32, jnp.bfloat16))
    mask = jax.ShapeDtypeStruct((10**6,), np.int32)
    sizes = [WindowBlocks([x, mask], mesh_of({"data": 1})).size for x in (wide, half)]
    assert sizes == [4096, 1024]


def test_no_more_than_there_is_in_a_block(monkeypatch):
    monkeypatch.setattr(blocks, "NamedSharding", lambda *_: None)
    mesh = accelerator([2**40, 2**40])
    assert WindowBlocks({"x": counted()}, mesh).size == 64
    many = jax.ShapeDtypeStruct((10**6, 12, 512), np.float32)
    assert WindowBlocks({"x": many}, mesh).size == 65_536
    long = jax.ShapeDtypeStruct((10**6, 64, 1024), np.float32)
    assert WindowBlocks({"x": long}, mesh).size == 8192
