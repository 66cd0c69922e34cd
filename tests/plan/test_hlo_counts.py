"""Operations of compiled programs: against XLA's count where that is correct, and by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec as P

from videodit.models.conditioning import Conditioning
from videodit.models.dit import DiT, DiTConfig
from videodit.models.flops import dit_cost
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.plan.hlo import parse, trip_count
from videodit.plan.hlo_counts import Collective, count_operations


def compile_fn(fn, *shapes):
    return jax.jit(fn).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()


@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        (jnp.matmul, [(3, 5), (5, 7)]),
        (lambda a, b: jnp.einsum("blnh,bsnh->bnls", a, b), [(2, 6, 3, 4), (2, 5, 3, 4)]),
        (lambda a, b: jnp.einsum("bld,dnh->blnh", a, b), [(2, 6, 8), (8, 3, 4)]),
        *[
            (
                functools.partial(
                    lax.conv_general_dilated,
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    window_strides=s,
                    padding=p,
                    **d,
                ),
                [(2, 9, 8, 3), (3, 2, 3, 4)],
            )
            for s, p, d in [
                ((1, 1), [(1, 1), (0, 1)], {}),
                ((2, 3), [(1, 0), (1, 1)], {}),
                ((1, 1), [(2, 2), (1, 1)], {"lhs_dilation": (2, 3)}),
                ((1, 1), "VALID", {"rhs_dilation": (2, 1)}),
            ]
        ],
    ],
)
def test_flops_of_products_and_convolutions_are_xla_s_own(fn, shapes):
    program = compile_fn(fn, *shapes)
    assert count_operations(program.as_text()).matmul_flops == program.cost_analysis()["flops"]


def test_a_loop_counts_by_its_trip_count():
    def nested(x, w):
        def inner(x, _):
            return jnp.tanh(x @ w), None

        def outer(x, _):
            return lax.scan(inner, x, length=3)[0] @ w, None

        return lax.scan(outer, x, length=5)[0]

    counts = count_operations(compile_fn(nested, (4, 8), (8, 8)).as_text())
    assert counts.matmul_flops == 5 * (3 + 1) * 2 * 4 * 8 * 8


def test_a_loop_with_a_dynamic_trip_count_is_refused():
    program = compile_fn(lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, x), (3,)).as_text()
    with pytest.raises(ValueError, match="the trip count of a loop is not a constant of the program"):
        count_operations(program)


def test_the_most_expensive_branch_counts():
    def fn(x, w):
        return lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert count_operations(compile_fn(fn, (4, 8), (8, 8)).as_text()).matmul_flops == 2 * 2 * 4 * 8 * 8


def test_flops_of_a_transformer_are_those_counted_from_its_configuration():
    """Forward, every product; backward, two for each but those of the model's inputs."""
    cfg = DiTConfig(depth=3, width=24, num_heads=2, mlp_width=32, in_channels=3, text_width=5, time_freq_dim=8)
    graph, state = nnx.split(nnx.eval_shape(lambda: DiT(cfg, rngs=nnx.Rngs(0))))
    shapes = [(2, 2, 4, 4, 3), (2,), (2, 6, 5)]

    def velocity(state, x, t, text):
        return nnx.merge(graph, state)(x, t, Conditioning(text, jnp.ones(text.shape[:2], bool)))

    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    cost = 2 * dit_cost(cfg, tokens=8, text_tokens=6)  # two clips
    forward = count_operations(jax.jit(velocity).lower(state, *arrays).compile().as_text())
    assert forward.matmul_flops == cost.forward_flops
    gradient = jax.jit(jax.grad(lambda *args: jnp.sum(jnp.square(velocity(*args)))))
    # Patches, text and time frequencies need no gradient.
    skipped = 2 * 2 * (8 * cfg.patch_features * 24 + 6 * 5 * 24 + 8 * 24)
    assert (
        count_operations(gradient.lower(state, *arrays).compile().as_text()).matmul_flops == cost.train_flops - skipped
    )


def test_collectives_count_by_kind_bytes_and_groups():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))

    def fn(x):
        def step(x, _):
            gathered = lax.all_gather(x, "fsdp", tiled=True)
            x = x + lax.psum_scatter(gathered, "fsdp", tiled=True)
            x = x + lax.ppermute(x, "fsdp", [(i, (i + 1) % 4) for i in range(4)])
            x = x + lax.all_to_all(x, "fsdp", split_axis=1, concat_axis=1, tiled=True)
            return x + lax.psum(x, "data"), None

        return lax.scan(step, x, length=3)[0]

    sharded = jax.shard_map(fn, mesh=mesh, in_specs=P(("data", "fsdp")), out_specs=P(("data", "fsdp")), check_vma=False)
    counts = count_operations(compile_fn(sharded, (16, 8)).as_text())
    part = 2 * 8 * 4  # two rows of eight floats
    rows, columns = ((0, 1, 2, 3), (4, 5, 6, 7)), ((0, 4), (1, 5), (2, 6), (3, 7))
    counted = {(c.kind, c.operand, c.result): (times, c.groups) for c, times in counts.collectives.items()}
    assert counted["all-gather", part, 4 * part] == (3, rows)
    assert counted["reduce-scatter", 4 * part, part] == (3, rows)
    assert counted["all-to-all", part, part] == (3, rows)
    assert counted["all-reduce", part, part] == (3, columns)
    times, pairs = counted["collective-permute", part, part]
    assert times == 3 and set(pairs) == {(4 * row + i, 4 * row + (i + 1) % 4) for row in range(2) for i in range(4)}
    assert len(counted) == 5


MODULE = """HloModule m, is_scheduled=true

%slice_of_a_stack (param_0: f32[40,16], param_1: s32[]) -> f32[16] {
  %param_0 = f32[40,16]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,16]{1,0} dynamic-slice(%param_0, %param_1, %zero), dynamic_slice_sizes={1,16}
  ROOT %flat = f32[16]{0} bitcast(%slice)
}

%into_a_stack (param_0.1: f32[40,16], param_1.1: f32[16], param_2: s32[]) -> f32[40,16] {
  %param_0.1 = f32[40,16]{1,0} parameter(0)
  %param_1.1 = f32[16]{0} parameter(1)
  %param_2 = s32[] parameter(2)
  %row = f32[1,16]{1,0} bitcast(%param_1.1)
  %zero.1 = s32[] constant(0)
  ROOT %update = f32[40,16]{1,0} dynamic-update-slice(%param_0.1, %row, %param_2, %zero.1)
}

%scattered (input: bf16[8,4]) -> bf16[2,4] {
  %input = bf16[8,4]{1,0} parameter(0)
  %sum = bf16[8,4]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
  %id = u32[] partition-id()
  %none = u32[] constant(0)
  ROOT %mine = bf16[2,4]{1,0} dynamic-slice(%sum, %id, %none), dynamic_slice_sizes={2,4}
}

ENTRY %main (stack: f32[40,16], at: s32[], gradient: bf16[8,4]) -> (f32[40,16], bf16[2,4], f32[16]) {
  %stack = f32[40,16]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %gradient = bf16[8,4]{1,0} parameter(2)
  %one = f32[16]{0} fusion(%stack, %at), kind=kLoop, calls=%slice_of_a_stack
  %copied = (f32[16]{0:S(5)}, f32[16]{0}, u32[]) copy-start(%one)
  %there = f32[16]{0:S(5)} copy-done(%copied)
  %next = f32[40,16]{1,0} fusion(%stack, %one, %at), kind=kLoop, calls=%into_a_stack
  %room = f32[40,16]{1,0:S(5)} custom-call(), custom_call_target="AllocateBuffer"
  %zero.2 = s32[]{:S(1)} constant(0)
  %far = f32[40,16]{1,0:S(5)} dynamic-update-slice(%room, %one, %zero.2, %zero.2)
  %mine.1 = bf16[2,4]{1,0} fusion(%gradient), kind=kCustom, calls=%scattered
  %kernel_fwd.2 = f32[16]{0} custom-call(%one), custom_call_target="tpu_custom_call"
  ROOT %all = (f32[40,16]{1,0}, bf16[2,4]{1,0}, f32[16]{0}) tuple(%next, %mine.1, %kernel_fwd.2)
}
"""


def test_bytes_moved_are_those_that_a_fusion_reads_and_writes():
    """A layer of a stack counts, not the stack; a TPU's reduce-scatter is a fusion; host memory is not HBM."""
    counts = count_operations(MODULE)
    layer, index = 16 * 4, 4
    # Read and write the layer; copy it out; read it and write it into the stack; the index, twice; read it to send it.
    assert counts.other_bytes == 2 * layer + index + layer + 2 * layer + index + layer
    assert counts.host_bytes == 2 * layer
    assert dict(counts.collectives) == {Collective("reduce-scatter", ((0, 1, 2, 3),), 64, 16): 1}
    ((kernel, times),) = counts.kernels.items()
    assert (kernel.name, times, [shape.dims for shape in kernel.operands]) == ("kernel_fwd", 1, [(16,)])


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups=[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
    ],
)
def test_every_notation_of_groups_is_parsed(attributes, groups):
    text = f"""ENTRY %m (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %y = f32[8]{{0}} all-reduce(%x), {attributes}
}}
"""
    ((collective, _),) = count_operations(text).collectives.items()
    assert collective.groups == groups


def test_trip_counts_are_found_in_fusions():
    text = """%compared (a: s32[], b: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %b = s32[] constant(7)
  ROOT %less = pred[] compare(%a, %b), direction=LT
}

%condition (s: (s32[], f32[])) -> pred[] {
  %s = (s32[], f32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %go = pred[] fusion(%i), kind=kLoop, calls=%compared
}
"""
    computations, _ = parse(text)
    assert trip_count(computations["condition"], computations) == 7


ASYNC = """%start (x: bf16[2,4]) -> (bf16[2,4], bf16[8,4], u32[]) {
  %x = bf16[2,4]{1,0} parameter(0)
  %all-gather.1 = bf16[8,4]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %began = (bf16[2,4]{1,0}, bf16[8,4]{1,0}, u32[]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (x.1: bf16[2,4], y: bf16[8,4], a: bf16[3,5], b: bf16[5,7]) -> (bf16[3,7], bf16[2,4], bf16[8,4]) {
  %x.1 = bf16[2,4]{1,0} parameter(0)
  %y = bf16[8,4]{1,0} parameter(1)
  %a = bf16[3,5]{1,0} parameter(2)
  %b = bf16[5,7]{1,0} parameter(3)
  %product = bf16[3,7]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %all-gather.2 = bf16[8,4]{1,0} all-gather(%x.1), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %both = (bf16[3,7]{1,0}, bf16[2,4]{1,0}, bf16[8,4]{1,0}) tuple(%product, %x.1, %y)
}

%done (x.2: bf16[2,4], y.1: bf16[8,4]) -> bf16[8,4] {
  %x.2 = bf16[2,4]{1,0} parameter(0)
  %y.1 = bf16[8,4]{1,0} parameter(1)
  %all-gather.3 = bf16[8,4]{1,0} all-gather(%x.2), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %ended = bf16[8,4]{1,0} custom-call(%x.2, %y.1, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%offloaded (g: f32[8,4]) -> f32[8,4] {
  %g = f32[8,4]{1,0} parameter(0)
  ROOT %sum = f32[8,4]{1,0} all-reduce(%g), replica_groups={{0,1,2,3}}, to_apply=%add
}, execution_thread="sparsecore"

%offload_call (g.0: f32[8,4]) -> f32[8,4] {
  %g.0 = f32[8,4]{1,0} parameter(0)
  ROOT %there = f32[8,4]{1,0} custom-call(%g.0), custom_call_target="other", called_computations={%offloaded}
}, execution_thread="sparsecore"

ENTRY %main (p: bf16[2,4], q: bf16[3,5], r: bf16[5,7], s: f32[8,4]) -> bf16[8,4] {
  %p = bf16[2,4]{1,0:S(1)} parameter(0)
  %q = bf16[3,5]{1,0} parameter(1)
  %r = bf16[5,7]{1,0} parameter(2)
  %s = f32[8,4]{1,0} parameter(3)
  %start.1 = (bf16[2,4]{1,0}, bf16[8,4]{1,0}, u32[]) fusion(%p), kind=kCustom, calls=%start
  %p.1 = bf16[2,4]{1,0} get-tuple-element(%start.1), index=0
  %p.2 = bf16[8,4]{1,0} get-tuple-element(%start.1), index=1
  %overlapped = (bf16[3,7]{1,0}, bf16[2,4]{1,0}, bf16[8,4]{1,0}) fusion(%p.1, %p.2, %q, %r), kind=kOutput, calls=%async_collective_fusion.1
  %g.1 = ((f32[8,4]{1,0}), f32[8,4]{1,0}, u32[]) custom-call-start(%s), called_computations={%offload_call}, custom_call_target="other"
  %g.2 = ((f32[8,4]{1,0}), f32[8,4]{1,0}, u32[]) custom-call-update(%g.1)
  %g.3 = f32[8,4]{1,0} custom-call-done(%g.2)
  %part = ((f32[8,4]{1,0}), f32[2,4]{1,0:S(1)}, s32[]) slice-start(%g.3), slice={[0:2], [0:4]}
  %part.1 = f32[2,4]{1,0:S(1)} slice-done(%part)
  ROOT %end = bf16[8,4]{1,0} fusion(%p.1, %p.2), kind=kCustom, calls=%done
}
"""  # noqa: E501


def test_an_asynchronous_collective_counts_once():
    """TPUs repeat it in every fusion that it overlaps, or run it on another core."""
    counts = count_operations(ASYNC)
    group = ((0, 1, 2, 3),)
    assert dict(counts.collectives) == {
        Collective("all-gather", group, 16, 64): 1,
        Collective("all-reduce", group, 128, 128): 1,
    }
    assert dict(counts.products) == {(2 * 3 * 5 * 7, 2 * (15 + 35 + 21)): 1}
    assert counts.other_bytes == 2 * 4 * 4  # the slice, read into the chip


def test_an_element_of_a_tuple_is_not_the_tuple():
    """`%tuple#1`, which newer XLA writes without a get-tuple-element instruction."""
    text = """ENTRY %m (p: (f32[1000], f32[8])) -> f32[64] {
  %p = (f32[1000]{0}, f32[8]{0}) parameter(0)
  ROOT %g = f32[64]{0} all-gather(%p#1), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
}"""
    ((collective, times),) = count_operations(text).collectives.items()
    assert (collective.operand, collective.result, times) == (32, 256, 1)
