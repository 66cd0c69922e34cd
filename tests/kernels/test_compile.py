"""The kernels compile for every TPU with libtpu's compiler, which needs no TPU."""

import json
import subprocess
import sys

import pytest
from videodit_kernels.attention.specs import SMALL
from videodit_kernels.simulator import CHIPS

PROGRAM = """
import json, sys
import jax, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from videodit_kernels.attention.specs import SMALL
from videodit_kernels.attention.tpu import op
from videodit_kernels.simulator import CHIPS

chip, names, dtypes = json.loads(sys.argv[1])
devices = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip].topology).devices
mesh, whole = Mesh(np.array(devices[:1]), ("device",)), PartitionSpec()
for spec in SMALL:
    for dtype in dtypes if spec.name in names else []:
        def gradients(q, k, v, ids):
            def loss(q, k, v):
                out, lse = op.attention(q, k, v, mask=spec.mask, segments=ids, scale=0.1)
                return (out.astype("float32") ** 2).sum() + lse.sum()
            return jax.value_and_grad(loss, (0, 1, 2))(q, k, v)

        shapes = jax.eval_shape(lambda: (*spec.arrays(dtype), spec.segment_ids()))
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, whole)), shapes
        )
        fn = jax.shard_map(gradients, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
        text = jax.jit(fn).lower(*shapes).compile().as_text()
        found = sorted({name for name in ("fwd", "bwd") if f"videodit_attention_{name}" in text})
        print(json.dumps([spec.name, dtype, found]), flush=True)
"""


NORM = """
import sys
import jax, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from videodit_kernels.qknorm import tpu
from videodit_kernels.simulator import CHIPS

devices = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[sys.argv[1]].topology).devices
mesh, whole = Mesh(np.array(devices[:1]), ("device",)), PartitionSpec()

def loss(x, scale, cos, sin):
    return tpu.norm_rope(x, scale, cos, sin, 1e-6, False).astype("float32").sum()

for dim in (64, 80, 96, 128):
    for scale in ((dim,), (3, dim)):
        for dtype in ("bfloat16", "float32"):
            shapes = ((2, 300, 3, dim), dtype), (scale, "float32"), *[((2, 300, dim // 2), "float32")] * 2
            arrays = [jax.ShapeDtypeStruct(*shape, sharding=NamedSharding(mesh, whole)) for shape in shapes]
            gradients = jax.value_and_grad(loss, (0, 1))
            fn = jax.shard_map(gradients, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
            text = jax.jit(fn).lower(*arrays).compile().as_text()
            assert "videodit_qknorm_bwd" in text, (dim, scale, dtype)
            print("compiled", flush=True)
"""


def compile_specs(environment: dict[str, str], chip: str, names: list[str], dtypes: list[str]) -> list:
    """Compile specs by name; return the names, types, and kernels found in the programs."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([chip, names, dtypes])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("chip", "name"), [("v5e", "packed cross"), ("v5p", "grouped"), ("v6e", "streaming"), ("tpu7x", "cross")]
)
def test_one_problem_compiles(tpu_compiler, chip, name):
    assert compile_specs(tpu_compiler, chip, [name], ["bfloat16"]) == [[name, "bfloat16", ["bwd", "fwd"]]]


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_every_problem_compiles(tpu_compiler, chip):
    names, dtypes = [spec.name for spec in SMALL], ["bfloat16", "float32"]
    expected = [[name, dtype, ["bwd", "fwd"]] for name in names for dtype in dtypes]
    assert compile_specs(tpu_compiler, chip, names, dtypes) == expected


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_norm_and_rotation_compile(tpu_compiler, chip):
    done = subprocess.run([sys.executable, "-c", NORM, chip], env=tpu_compiler, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["compiled"] * 16
