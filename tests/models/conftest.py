"""Reference weights and activations, where this checkout has them beside it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

GOLDENS = Path(__file__).parents[3] / "shared" / "goldens"
TYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "BOOL": np.bool_}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[first:last], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


@pytest.fixture
def golden() -> Callable[[str], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Weights and inputs/outputs of a reference case by its name."""

    def load(case: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        folder = GOLDENS / case
        if not folder.is_dir():
            pytest.skip(f"the reference case {folder} is not on this machine")
        return read_safetensors(folder / "weights.safetensors"), read_safetensors(folder / "io.safetensors")

    return load
