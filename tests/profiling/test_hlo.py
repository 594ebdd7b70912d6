"""Modules as the compiler for TPUs writes them: loops, products, what is sent and moved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.profiling import collectives, estimate, hlo, topologies, traffic

# A loop of 12 turns from 2 on; a product in it; a gather that is started, carried on and ended; a
# sum of which each device keeps its half; a slice cut from a stack, and one written into it.
TPU = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter.1 (input: f32[8,128]) -> f32[4,128] {
  %input = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero.1 = s32[]{:T(128)} constant(0)
  %all-reduce.1 = f32[8,128]{1,0:T(8,128)} all-reduce(%input), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %half = f32[4,128]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %zero.1, %zero.1), dynamic_slice_sizes={4,128}
}

%start (w: bf16[64,128]) -> (bf16[64,128], bf16[128,128]) {
  %w = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[128,128]{1,0:T(8,128)(2,1)} all-gather(%w), replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %custom-call.1 = (bf16[64,128]{1,0}, bf16[128,128]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%carried_on (a: bf16[8,128], w.1: bf16[64,128], b: bf16[128,128]) -> bf16[8,128] {
  %a = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %w.1 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %b = bf16[128,128]{1,0:T(8,128)(2,1)} parameter(2)
  %all-gather.2 = bf16[128,128]{1,0:T(8,128)(2,1)} all-gather(%w.1), replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %convolution.1 = bf16[8,128]{1,0:T(8,128)(2,1)} convolution(%a, %b), dim_labels=bf_io->bf
}

%cut (stack.1: f32[12,8,128], i.1: s32[]) -> f32[8,128] {
  %stack.1 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %i.1 = s32[]{:T(128)} parameter(1)
  %zero.2 = s32[]{:T(128)} constant(0)
  %slice.1 = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%stack.1, %i.1, %zero.2, %zero.2), dynamic_slice_sizes={1,8,128}
  ROOT %flat.1 = f32[8,128]{1,0:T(8,128)} bitcast(%slice.1)
}

%body (carry: (s32[], f32[12,8,128], bf16[64,128], bf16[8,128])) -> (s32[], f32[12,8,128], bf16[64,128], bf16[8,128]) {
  %carry = (s32[]{:T(128)}, f32[12,8,128]{2,1,0:T(8,128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, /*index=3*/bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %stack = f32[12,8,128]{2,1,0:T(8,128)} get-tuple-element(%carry), index=1
  %weight = bf16[64,128]{1,0:T(8,128)(2,1)} get-tuple-element(%carry), index=2
  %x.1 = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%carry), index=3
  %begun = (bf16[64,128]{1,0}, bf16[128,128]{1,0}) fusion(%weight), kind=kCustom, calls=%start
  %whole = bf16[128,128]{1,0:T(8,128)(2,1)} get-tuple-element(%begun), index=1
  %product = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%x.1, %weight, %whole), kind=kOutput, calls=%carried_on, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %row = f32[8,128]{1,0:T(8,128)} fusion(%stack, %i), kind=kLoop, calls=%cut, backend_config={"window_config":{"estimated_cycles":"500"}}
  %mine = f32[4,128]{1,0:T(8,128)} fusion(%row), kind=kCustom, calls=%all-reduce-scatter.1
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  ROOT %out = (s32[]{:T(128)}, f32[12,8,128]{2,1,0:T(8,128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[8,128]{1,0:T(8,128)(2,1)}) tuple(%next, %stack, %weight, %product)
}

%condition (carry.1: (s32[], f32[12,8,128], bf16[64,128], bf16[8,128])) -> pred[] {
  %last = s32[]{:T(128)} constant(12)
  %carry.1 = (s32[]{:T(128)}, f32[12,8,128]{2,1,0:T(8,128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%carry.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.2, %last), direction=LT
}

ENTRY %main (p0: f32[12,8,128], p1: bf16[64,128], p2: bf16[8,128]) -> (s32[], f32[12,8,128], bf16[64,128], bf16[8,128]) {
  %p0 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %p1 = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %p2 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(2)
  %two = s32[]{:T(128)} constant(2)
  %first = s32[]{:T(128)} copy(%two)
  %begin = (s32[]{:T(128)}, f32[12,8,128]{2,1,0:T(8,128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[8,128]{1,0:T(8,128)(2,1)}) tuple(%first, %p0, %p1, %p2)
  ROOT %while.1 = (s32[]{:T(128)}, f32[12,8,128]{2,1,0:T(8,128)}, bf16[64,128]{1,0:T(8,128)(2,1)}, bf16[8,128]{1,0:T(8,128)(2,1)}) while(%begin), condition=%condition, body=%body
}
"""  # noqa: E501
MESH = {"data": 2, "fsdp": 2, "tensor": 1}
TURNS = 10


@pytest.fixture(scope="module")
def module() -> hlo.Module:
    return hlo.Module(TPU)


def test_a_loop_turns_from_its_first_value_to_the_one_that_ends_it(module):
    (loop,) = (x for x in module.computations["main"] if x.opcode == "while")
    assert module.trips(loop) == TURNS


def test_a_counter_may_rise_by_more_than_one_a_turn():
    # Products that are gathered while they run take two parts a turn.
    two = TPU.replace("%one = s32[]{:T(128)} constant(1)", "%one = s32[]{:T(128)} constant(2)")
    twice = TPU.replace(
        "%next = s32[]{:T(128)} add(%i, %one)",
        "%more = s32[]{:T(128)} add(%i, %one)\n  %next = s32[]{:T(128)} add(%one, %more)",
    )
    odd = two.replace("%last = s32[]{:T(128)} constant(12)", "%last = s32[]{:T(128)} constant(11)")
    for text in (two, twice, odd):
        assert hlo.flops(hlo.Module(text)) == 5 * 2 * 8 * 128 * 128


@pytest.mark.parametrize(
    ("said", "instead"),
    [("direction=LT", "direction=NE"), ("add(%i, %one)", "multiply(%i, %one)")],
)
def test_a_loop_that_does_not_say_is_an_error(said, instead):
    text = TPU.replace(said, instead)
    with pytest.raises(ValueError, match=r"while\.1 does not say how often"):
        list(hlo.Module(text).executed())


def test_products_are_convolutions_there(module):
    assert hlo.flops(module) == TURNS * 2 * 8 * 128 * 128
    assert hlo.flops_by_dtype(module) == {"bf16": hlo.flops(module)}


def _convolution(shapes: tuple, attributes: str) -> int:
    left, right, result = (hlo.Array("bf16", shape) for shape in shapes)
    return hlo.product_flops(
        hlo.Instruction("x", "convolution", (result,), (left, right), attributes)
    )


def test_padding_and_dilation_are_no_products():
    # A batch of 48 x 2 products of [5,64] and [64,5], as the compiler writes them.
    batched = _convolution(
        ((48, 2, 5, 64), (48, 5, 2, 64), (48, 2, 5, 5)),
        ", window={size=48x2 stride=47x1 lhs_dilate=48x2}, dim_labels=01bf_0o1i->01bf",
    )
    assert batched == 2 * 48 * 2 * 5 * 5 * 64
    # Contracted over two axes at once.
    both = _convolution(
        ((4, 512, 128), (4, 512, 384), (128, 384, 1)),
        ", window={size=4}, dim_labels=0fb_0io->bf0",
    )
    assert both == 2 * 4 * 512 * 128 * 384
    # One that is a convolution: 3 x 1 with a border of zeros.
    padded = _convolution(
        ((1, 8, 3), (3, 3, 5), (1, 8, 5)), ", window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f"
    )
    assert padded == 2 * 3 * 5 * (3 * 8 - 2)


def test_what_is_started_in_one_place_and_ended_in_another_is_sent_once(module):
    found = {x.kind: x for x in collectives.collectives(module, MESH)}
    assert set(found) == {"all-gather", "reduce-scatter"}
    gather, scatter = found["all-gather"], found["reduce-scatter"]
    assert (gather.axes, gather.asynchronous, gather.times) == ("fsdp", True, TURNS)
    assert gather.sent == TURNS * 128 * 128 * 2 / 2
    assert (scatter.axes, scatter.asynchronous, scatter.times) == ("fsdp", False, TURNS)
    assert scatter.sent == TURNS * 8 * 128 * 4 / 2


def test_of_a_stack_the_slice_counts(module):
    body = {x.name: x for x in module.computations["body"]}
    assert traffic.bytes_moved(module, body["row"]) == 4 + 2 * 8 * 128 * 4
    assert traffic.bytes_moved(module, body["product"]) == 2 * (2 * 8 * 128 + 64 * 128 + 128 * 128)
    in_fast_memory = TPU.replace("%row = f32[8,128]{1,0:T(8,128)}", "%row = f32[8,128]{1,0:S(1)}")
    fast = hlo.Module(in_fast_memory)
    body = {x.name: x for x in fast.computations["body"]}
    assert traffic.bytes_moved(fast, body["row"]) == 4 + 8 * 128 * 4


# As the compiler for GPUs writes a product: a call of cuBLAS, with room to work in.
GPU = """HloModule jit_step

ENTRY %main (p0: bf16[120,512], p1: bf16[512,128]) -> bf16[120,128] {
  %p0 = bf16[120,512]{1,0} parameter(0)
  %p1 = bf16[512,128]{1,0} parameter(1)
  %gemm = (bf16[120,128]{1,0}, s8[33554432]{0}) custom-call(%p0, %p1), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  ROOT %out = bf16[120,128]{1,0} get-tuple-element(%gemm), index=0
}
"""  # noqa: E501


def test_a_gpu_s_products_are_calls_of_libraries():
    module = hlo.Module(GPU)
    assert hlo.flops(module) == 2 * 120 * 512 * 128
    assert traffic.total(module) == 2 * (120 * 512 + 512 * 128 + 120 * 128)
    topology, mesh = topologies.parse("h100x1"), {"data": 1, "fsdp": 1, "tensor": 1}
    found = estimate.estimate(module, [], topology, mesh, 989e12)
    assert found.seconds == pytest.approx(traffic.total(module) / 3352e9)


def test_the_estimate_is_cycles_over_the_clock_and_what_is_waited_for(module):
    topology = topologies.parse("v5e:2x2")
    moved = collectives.collectives(module, MESH)
    found = estimate.estimate(module, moved, topology, MESH, 197e12)
    assert found.computing == pytest.approx(TURNS * 1500 / 1.5e9)
    assert found.waiting == pytest.approx(TURNS * 2048 / 100e9)
    assert found.behind == pytest.approx(TURNS * 16384 / 100e9)
    assert found.seconds == found.computing + found.waiting


# As the compiler for TPUs writes a sum over two slices of four chips: within each a sum of which a
# chip keeps its part, that part's sum with the other slice's by the hosts, and a gather.
SLICES = """HloModule jit_step, is_scheduled=true, num_partitions=4

ENTRY %main (p0: f32[8,128]) -> f32[8,128] {
  %p0 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %mine = f32[2,128]{1,0:T(8,128)} reduce-scatter(%p0), replica_groups={{0,1,2,3}}, dimensions={0}
  %token = token[] after-all()
  %recv.1 = (f32[2,128]{1,0:T(8,128)}, u32[], token[]) recv(%token), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-reduce.7_0",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send.1 = (f32[2,128]{1,0:T(8,128)}, u32[], token[]) send(%mine, %token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-reduce.7_0",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %work = f32[8,128]{1,0:T(8,128)} negate(%p0), backend_config={"window_config":{"estimated_cycles":"1000"}}
  %sent = token[] send-done(%send.1), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-reduce.7_0"}
  %here = (f32[2,128]{1,0:T(8,128)}, token[]) recv-done(%recv.1), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="all-reduce.7_0"}
  %part = f32[2,128]{1,0:T(8,128)} get-tuple-element(%here), index=0
  ROOT %whole = f32[8,128]{1,0:T(8,128)} all-gather(%part), replica_groups={{0,1,2,3}}, dimensions={0}
}
"""  # noqa: E501


@pytest.mark.parametrize("hidden", [True, False])
def test_what_goes_from_slice_to_slice_is_told_apart(hidden):
    text = SLICES if hidden else SLICES.replace("estimated_cycles", "none")
    mesh, two = {"data": 4, "fsdp": 2, "tensor": 1}, topologies.parse("2xv5e:2x2")
    moved = collectives.collectives(hlo.Module(text), mesh)
    found = {x.kind: x for x in moved}
    within = [found["reduce-scatter"], found["all-gather"]]
    assert [(x.axes, x.group, x.outside) for x in within] == 2 * [("data+fsdp", 4, False)]
    outside = found["all-reduce"]
    assert (outside.axes, outside.group, outside.outside) == ("data", 2, True)
    assert (outside.sent, outside.asynchronous) == (2 * 128 * 4, hidden)
    # Each chip of a slice passes on its own part, at its share of what leaves the slice.
    guess = estimate.estimate(hlo.Module(text), moved, two, mesh, 197e12)
    seconds = guess.behind if hidden else guess.waiting - sum(x.sent for x in within) / 100e9
    assert seconds == pytest.approx(2 * 128 * 4 / 3.1e9)


def test_what_leaves_a_host_is_slower():
    four = topologies.parse("h100x32")
    mesh = {"data": 8, "fsdp": 4, "tensor": 1}
    assert estimate.rate(four, mesh, "fsdp") == 450e9
    assert estimate.rate(four, mesh, "data") == 2 * 50e9
    assert estimate.rate(four, mesh, "data+fsdp") == 8 * 50e9


def test_the_cpu_s_modules_are_read_as_before():
    def loop(x, stack):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, stack)[0]

    x, stack = np.ones((8, 32), np.float32), np.ones((5, 32, 32), np.float32)
    module = hlo.Module(jax.jit(loop).lower(jnp.asarray(x), stack).compile().as_text())
    assert hlo.flops(module) == 5 * 2 * 8 * 32 * 32
