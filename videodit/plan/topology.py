"""Target topologies of plans: TPU slices by name, or fake CPU devices."""

import importlib.util
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from videodit.parallel.chips import CHIPS, Chip

_NAMES = [chip.name for chip in CHIPS if chip.kinds[0].startswith("TPU")]
_FORM = re.compile(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+){0,2})")


@dataclass(frozen=True)
class Topology:
    """Slices of chips in a grid.

    Attributes:
        name: `v5p:4x4x4`, `2*v5e:16x16` for two slices joined by DCN, or `cpu:8` for fake devices.
        kind: the name of a TPU in the table of chips, or "cpu".
        slices: the number of slices.
        shape: chips of a slice along each axis.
    """

    name: str
    kind: str
    slices: int
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """Return the topology of a name; ValueError if there is none."""
        match = _FORM.fullmatch(name)
        slices, kind, sizes = match.groups() if match else ("", "", "")
        shape = tuple(map(int, sizes.split("x"))) if sizes else ()
        valid = kind in _NAMES or (kind == "cpu" and len(shape) == 1 and not slices)
        if not valid or 0 in shape or slices == "0":
            raise ValueError(
                f"there is no topology '{name}': write CHIP:NxN, like v5e:2x4, v5p:4x4x4 or 2*v6e:16x16 (two slices), "
                f"CHIP one of {', '.join(_NAMES)}; or cpu:8"
            )
        return cls(name, kind, int(slices or 1), shape)

    @property
    def chip(self) -> Chip | None:
        """The specification of its chips; None for CPUs."""
        return next((chip for chip in CHIPS if chip.name == self.kind), None)

    @property
    def num_devices(self) -> int:
        """The number of JAX devices."""
        return self.slices * math.prod(self.shape) * (self.chip.devices if self.chip else 1)

    @property
    def num_chips(self) -> int:
        """The number of chips."""
        return self.num_devices // (self.chip.devices if self.chip else 1)

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that calls `devices`: libtpu serves one kind of chip per process.

        Raises:
            ValueError: if libtpu, the compiler for TPUs, is not installed.
        """
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        if self.kind == "cpu":
            count = f"--xla_force_host_platform_device_count={self.num_devices}"
            return environment | {"XLA_FLAGS": f"{environment.get('XLA_FLAGS', '')} {count}"}
        libtpu_folder = Path(sys.prefix, "libtpu")  # `make test` installs it there
        if not Path(libtpu_folder, "libtpu").exists() and importlib.util.find_spec("libtpu") is None:
            raise ValueError("planning for TPUs needs the compiler libtpu, which is not installed: pip install libtpu")
        # libtpu stops at flags that only the compiler for CPUs knows.
        flags = [flag for flag in environment.get("XLA_FLAGS", "").split() if not flag.startswith("--xla_cpu_")]
        return environment | {
            "XLA_FLAGS": " ".join(flags),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "PYTHONPATH": os.pathsep.join([str(libtpu_folder), *filter(None, [environment.get("PYTHONPATH")])]),
        }

    def devices(self) -> Sequence[jax.Device]:
        """Return its devices, to compile for, in a process with `environment`.

        Raises:
            ValueError: if there is no slice of that shape.
        """
        if self.kind == "cpu":
            return jax.devices()
        from jax.experimental import topologies

        name = f"{self.kind}:{'x'.join(map(str, self.shape))}"
        options = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.kind == "v4":  # one JAX device per chip
            options["chip_config_name"] = "megacore"
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(f"libtpu has no topology {name}: {' '.join(str(error).split())[:200]}") from error
