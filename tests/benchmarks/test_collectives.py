"""Collectives read out of compiled text: by hand, and of functions whose traffic is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.scaling import chips, formulas
from benchmarks.scaling.compiled_step import TINY, Step
from glscl_jax.profiling import hlo
from glscl_jax.profiling.collectives import collectives, sent_by_axis
from glscl_jax.runtime import sharding

MESH = {"data": 2, "fsdp": 4}

# A loop of three turns around a gather over fsdp, a sum over data and, in a conditional, a shift.
TEXT = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %turn = s32[] get-tuple-element(%state), index=0
  %part = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %whole = f32[32,4]{1,0} all-gather(%part), replica_groups=[2,4]<=[8], dimensions={0}
  %square = f32[32,32]{1,0} dot(%whole, %whole), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %all = (f32[8,4]{1,0}, bf16[6]{0}) all-reduce(%part, %half), replica_groups=GROUPS, to_apply=%add
  ROOT %next = (s32[], f32[8,4]{1,0}) tuple(%turn, %part)
}

%while_turning (state.1: (s32[], f32[8,4])) -> pred[] {
  %state.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

%nothing (p: f32[8,4]) -> f32[8,4] {
  ROOT %p = f32[8,4]{1,0} parameter(0)
}

%shifted (q: f32[8,4]) -> f32[8,4] {
  %q = f32[8,4]{1,0} parameter(0)
  ROOT %shift = f32[8,4]{1,0} collective-permute(%q), source_target_pairs={{0,1},{1,0}}
}

ENTRY %main (x.1: f32[8,4], flag: pred[]) -> f32[8,4] {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %flag = pred[] parameter(1)
  %zero = s32[] constant(0)
  %begin = (s32[], f32[8,4]{1,0}) tuple(%zero, %x.1)
  %loop = (s32[], f32[8,4]{1,0}) while(%begin), condition=%while_turning, body=%bodyTRIPS
  %last = f32[8,4]{1,0} get-tuple-element(%loop), index=1
  ROOT %out = f32[8,4]{1,0} conditional(%flag, %last, %last), \
true_computation=%shifted, false_computation=%nothing
}
"""
TRIPS = ', backend_config={"known_trip_count":{"n":"3"}}'
# Three ways to write that devices 0 and 4, 1 and 5, ... take part together.
OVER_DATA = (
    "{{0,4},{1,5},{2,6},{3,7}}",
    "[4,2]<=[2,4]T(1,0)",
    "mesh['axis_0'=2,'axis_1'=4] {'axis_0'}",
    "mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}",
    "mesh['axis_0'=8] {'axis_0':(1)2}",
)


def module(groups=OVER_DATA[0], trips=TRIPS):
    text = TEXT.replace("GROUPS", groups).replace("TRIPS", trips)
    half = "  %half = bf16[6]{0} constant({1,1,1,1,1,1})\n"
    return hlo.Module(text.replace("  %all = ", f"{half}  %all = "))


@pytest.mark.parametrize("groups", OVER_DATA)
def test_a_module_by_hand(groups):
    gather, total, shift = collectives(module(groups), MESH)
    assert (gather.kind, gather.axes, gather.group, gather.times) == ("all-gather", "fsdp", 4, 3)
    assert (gather.operand_bytes, gather.result_bytes) == (128, 512)
    # Three quarters of what it ends with reach a device from others.
    assert gather.sent == 3 * 512 * 3 / 4
    assert (total.kind, total.axes, total.group, total.times) == ("all-reduce", "data", 2, 3)
    assert total.operand_bytes == 128 + 12
    assert total.sent == 3 * 2 * 140 / 2
    assert (shift.axes, shift.sent, shift.times) == ("fsdp", 128, 1)
    assert sent_by_axis([gather, total, total])["data", "all-reduce"] == 2 * total.sent
    assert hlo.flops(module(groups)) == 3 * 2 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("groups", "axes", "size"),
    [
        # As the compiler for TPUs wrote it of SigLIP 2 on data 2 x fsdp 8.
        ("[4,2]<=[2,2,2]T(1,0,2)", "fsdp", 2),
        ("{{0,2},{1,3},{4,6},{5,7}}", "fsdp", 2),
        ("{{0,1,4,5},{2,3,6,7}}", "data+fsdp", 4),
    ],
)
def test_groups_of_part_of_an_axis(groups, axes, size):
    (_, total, _) = collectives(module(groups), MESH)
    assert (total.axes, total.group) == (axes, size)
    assert total.sent == 3 * 2 * 140 * (size - 1) / size


@pytest.mark.parametrize(
    "groups",
    [
        "{{0,5},{1,4},{2,6},{3,7}}",  # across
        "{{0,1},{4,5}}",  # some devices in none
        "{{0,1},{2},{3},{4,5},{6},{7}}",  # some more than others
        "{{0,1},{1,2},{4,5},{6,7}}",  # one in two
    ],
)
def test_groups_that_are_no_parts_are_refused(groups):
    with pytest.raises(ValueError, match="do not lie along"):
        collectives(module(groups), MESH)


def test_what_cannot_be_read_is_said():
    with pytest.raises(ValueError, match="loop does not say how often"):
        collectives(module(trips=""), MESH)
    with pytest.raises(ValueError, match="has no groups"):
        collectives(module("odd"), MESH)


def test_groups_of_all_and_of_one():
    (_, total, _) = collectives(module("{}"), MESH)
    assert (total.axes, total.group) == ("data+fsdp", 8)
    assert len(collectives(module("[8,1]<=[8]"), MESH)) == 2  # Nothing leaves a device.


def compiled(function, *arguments, where):
    """`function` of arrays of (shape, axes)."""
    mesh = sharding.make_mesh(jax.devices()[:8], {"data": 2, "fsdp": 4})

    def place(axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    arrays = [
        jax.ShapeDtypeStruct(shape, np.float32, sharding=place(axes)) for shape, axes in arguments
    ]
    jitted = jax.jit(function, out_shardings=place(where))
    return hlo.Module(jitted.lower(*arrays).compile().as_text()), dict(mesh.shape)


def test_a_gradient_over_two_axes_in_a_loop():
    # Five layers: each gathers its weights over fsdp forward and backward.
    def loss(weights, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)
        return jnp.sum(x**2)

    batch = (("data", "fsdp"), None)
    weights = ((5, 64, 64), (None, "fsdp", None))
    module, mesh = compiled(jax.grad(loss), weights, ((512, 64), batch), where=weights[1])
    layer, sent = 64 * 64 * 4, sent_by_axis(collectives(module, mesh))
    gathers = sum(value for (axes, kind), value in sent.items() if kind == "all-gather")
    assert gathers == 2 * 5 * layer * 3 / 4
    # Summed over fsdp whole and over data the quarter that is kept, or over both at once.
    sums = sum(value for (axes, kind), value in sent.items() if kind == "all-reduce")
    apart = 5 * layer * 2 * (3 / 4 + 1 / 2 / 4)
    at_once = 5 * layer * 2 * 7 / 8
    assert any(sums == pytest.approx(way, abs=64) for way in (apart, at_once))
    # One product forward and two backward, of 64 rows a device.
    assert hlo.flops(module) == 5 * 3 * 2 * 64 * 64 * 64


def test_a_sum_over_one_axis():
    module, mesh = compiled(lambda x: x.sum(0), ((16, 32), ("data", "fsdp")), where=(None,))
    sent = sent_by_axis(collectives(module, mesh))
    assert sent["data", "all-reduce"] == 2 * 8 * 4 / 2
    assert sent["fsdp", "all-gather"] == 32 * 4 * 3 / 4
    assert len(sent) == 2


def test_formulas_by_hand():
    step = Step(TINY, 6, 20, 64, (("data", 4), ("fsdp", 2)), loss_block=16)
    size, found = formulas.sizes(TINY, 6, 20), formulas.cost(step)
    assert size.embedding == 1024 * 128
    assert formulas.blocks_of(step) == 4
    assert found.sent["data"] == 4 * (size.layers + size.embedding) / 2 * 2 * 3 / 4
    # Layers are gathered twice and their gradient is summed; of the token embedding rows are sent,
    # 16 texts' for each place along data, and their slopes.
    assert found.sent["fsdp"] == 1 / 2 * 4 * (4 * size.layers + 2 * 16 * 20 * 128)
    # Texts are gathered once, and each device gets the sum of its own texts' gradient.
    row = (1 + 8) * 128 * 4
    assert found.sent["data+fsdp"] == 7 / 8 * 64 * row * 2
    # Micro-batches sum the gradient over data once, and over fsdp as often as there are.
    halves = formulas.cost(Step(TINY, 6, 20, 64, step.axes, 32, 16))
    assert halves.sent["data"] == found.sent["data"]
    assert halves.sent["fsdp"] == 1 / 2 * 4 * (10 * size.layers + 3 * 16 * 20 * 128)


def test_a_chip_s_links():
    step = Step(TINY, 6, 20, 512, (("data", 8), ("fsdp", 8)))
    rates = {axes: chips.rate(chips.H100, step, axes) for axes in ("data", "fsdp", "data+fsdp")}
    # One adapter a GPU; a ring through all of a machine's GPUs has eight.
    assert rates == {"data": 50e9, "fsdp": 450e9, "data+fsdp": 400e9}
    found = chips.outlook(step, chips.H100, per_clip=1e10)
    # Eight clips a chip of 10 GB each do not fit into 80 GB, four do.
    assert found.clips_at_once == 256
    assert math.isclose(found.encoder, found.cost.encoder_flops / (0.4 * 989e12))
