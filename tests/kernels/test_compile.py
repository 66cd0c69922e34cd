"""The kernels pass the real compiler of every TPU, which libtpu holds: no TPU is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from videodit_kernels.attention.specs import SMALL
from videodit_kernels.schedule import CHIPS

# Beside the packages, not among them: with libtpu installed, JAX looks for a TPU whenever it starts.
ASIDE = Path(sys.prefix, "libtpu")

needs_libtpu = pytest.mark.skipif(
    not Path(ASIDE, "libtpu").exists() and importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed; `make test` puts it into .venv/libtpu on Linux x86_64",
)

PROGRAM = """
import json, sys
import jax, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from videodit_kernels.attention.specs import SMALL
from videodit_kernels.attention.tpu import op
from videodit_kernels.schedule import CHIPS

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


def compiled(chip: str, names: list[str], dtypes: list[str]) -> list:
    """What compiled, in a process of its own: libtpu takes one kind of chip."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "PYTHONPATH": os.pathsep.join([str(ASIDE), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps([chip, names, dtypes])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_libtpu
@pytest.mark.parametrize(
    ("chip", "name"), [("v5e", "packed cross"), ("v5p", "grouped"), ("v6e", "streaming"), ("tpu7x", "cross")]
)
def test_one_problem_compiles(chip, name):
    assert compiled(chip, [name], ["bfloat16"]) == [[name, "bfloat16", ["bwd", "fwd"]]]


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_every_problem_compiles(chip):
    names, dtypes = [spec.name for spec in SMALL], ["bfloat16", "float32"]
    want = [[name, dtype, ["bwd", "fwd"]] for name in names for dtype in dtypes]
    assert compiled(chip, names, dtypes) == want
