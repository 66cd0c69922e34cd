"""Checkpoints on the accelerator of this machine: seconds of checksums, saves and restores, and whether they agree.

python experiments/gpu/checkpoint_speed.py
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from timing import Rows, median_seconds

from videodit.checkpoint.checkpoints import Checkpoints
from videodit.checkpoint.checksums import compute_checksums

SHAPES = ((1536, 1536), (1536, 8960), (1536,), (1, 1536))  # of a block of Wan's 1.3B


def main() -> None:
    """Add one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="file that results are appended to, one JSON object per line")
    parser.add_argument("--tiny", action="store_true", help="a small state")
    args = parser.parse_args()
    rows, blocks = Rows(args.rows), 1 if args.tiny else 30
    keys = jax.random.split(jax.random.key(0), blocks)
    state = {f"block{i}": [jax.random.normal(key, shape) for shape in SHAPES] for i, key in enumerate(keys)}
    state["bfloat16"] = jnp.arange(1000).astype(jnp.bfloat16)
    jax.block_until_ready(state)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checksums = compute_checksums(state)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder) / "checkpoints", 1) as checkpoints:
        start = time.perf_counter()
        checkpoints.save(1, state, None)
        blocked = time.perf_counter()
        checkpoints.latest_step()
        saved = time.perf_counter()
        restored = jax.block_until_ready(checkpoints.restore(abstract)[0])
        ended = time.perf_counter()
    rows.add(
        bytes=sum(x.nbytes for x in jax.tree.leaves(state)),
        agrees_with_host=checksums == compute_checksums(jax.device_get(state)),
        survives=compute_checksums(restored) == checksums,
        checksums_s=median_seconds(lambda: compute_checksums(state), lambda sums: sums, 3),
        save_blocking_s=blocked - start,
        save_s=saved - start,
        restore_s=ended - saved,
    )


if __name__ == "__main__":
    main()
