"""Cost of an import: file size, seconds and peak memory for a transformer of Wan's shape with random weights.

    .venv/bin/python experiments/bench/import_memory.py [LAYERS]

Writes a file of LAYERS layers (6 are 1.2 GB in float32), imports it in a process of its own over eight fake devices
and prints a row. On a CPU the devices' memory is the host's, so the model itself is a part of the peak.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from videodit.interop import mapping, safetensors, wan
from videodit.models.dit import DiT
from videodit.nn.state import abstract_module, split_model


def main() -> None:
    """Write the file, import it and print the row."""
    layers = int(sys.argv[1]) if sys.argv[1:] else 6
    cfg = wan.parse_config(
        wan.COMMON
        | {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": layers}
        | {"in_channels": 16, "out_channels": 16}
    )
    shapes = mapping.flatten(split_model(abstract_module(lambda rngs: DiT(cfg, rngs=rngs)))[1])
    rng, tensors = np.random.default_rng(0), {}
    for rule in wan.build_rules(cfg):
        shape = rule.their_shape(shapes[rule.ours].shape)
        draw_weights = lambda shape=shape: rng.standard_normal(shape, np.float32)  # noqa: E731
        names = rule.their_names(shapes[rule.ours].shape)
        tensors |= {name: safetensors.Output(np.dtype(np.float32), shape, draw_weights) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        (file,) = safetensors.write(Path(folder), "model", tensors)
        Path(folder, "config.json").write_text(json.dumps(wan.export_config(cfg)))
        flags = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "videodit.cli.main", "import", "--kind", "wan2.1-t2v"]
        start = time.perf_counter()
        subprocess.run([*command, "--from", folder, "--to", f"{folder}/ours"], env=flags, check=True)
        seconds = time.perf_counter() - start
        largest = max(tensor.nbytes for tensor in tensors.values())
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        gigabytes = [f"{size / 1e9:.2f}" for size in (file.stat().st_size, largest, peak)]
        print("| file, GB | largest tensor, GB | peak of memory, GB | seconds |")
        print(f"| {' | '.join(gigabytes)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
