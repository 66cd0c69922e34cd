"""Machines to plan for, which need not be here: TPU slices by name, or fake CPU devices."""

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
    """Chips in a grid, as many times as there are slices.

    Attributes:
        name: `v5p:4x4x4`, `2*v5e:16x16` for two slices joined by DCN, or `cpu:8` for fake devices.
        kind: a TPU of the table of chips, or "cpu".
        shape: chips of a slice along each side.
    """

    name: str
    kind: str
    slices: int
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """The machine of that name; `ValueError` for one that is none."""
        found = _FORM.fullmatch(name)
        slices, kind, sides = found.groups() if found else ("", "", "")
        shape = tuple(map(int, sides.split("x"))) if sides else ()
        known = kind in _NAMES or (kind == "cpu" and len(shape) == 1 and not slices)
        if not known or 0 in shape or slices == "0":
            raise ValueError(
                f"there is no topology '{name}': write CHIP:SIDExSIDE, like v5e:2x4, v5p:4x4x4 or 2*v6e:16x16 (two "
                f"slices), CHIP one of {', '.join(_NAMES)}; or cpu:8"
            )
        return cls(name, kind, int(slices or 1), shape)

    @property
    def chip(self) -> Chip | None:
        """What its chips can do; None for CPUs."""
        return next((chip for chip in CHIPS if chip.name == self.kind), None)

    @property
    def num_devices(self) -> int:
        """As JAX counts them."""
        return self.slices * math.prod(self.shape) * (self.chip.devices if self.chip else 1)

    @property
    def num_chips(self) -> int:
        """Those that one pays for."""
        return self.num_devices // (self.chip.devices if self.chip else 1)

    def environment(self) -> dict[str, str]:
        """Of a process in which `devices` works: libtpu takes one kind of chip a process, and no TPU is looked for.

        Raises:
            ValueError: when libtpu, which compiles for TPUs, is not installed.
        """
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        if self.kind == "cpu":
            count = f"--xla_force_host_platform_device_count={self.num_devices}"
            return environment | {"XLA_FLAGS": f"{environment.get('XLA_FLAGS', '')} {count}"}
        aside = Path(sys.prefix, "libtpu")  # where `make test` puts it
        if not Path(aside, "libtpu").exists() and importlib.util.find_spec("libtpu") is None:
            raise ValueError(
                "planning for TPUs needs their compiler, libtpu, which is not installed: pip install libtpu"
            )
        return environment | {
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "PYTHONPATH": os.pathsep.join([str(aside), *filter(None, [environment.get("PYTHONPATH")])]),
        }

    def devices(self) -> Sequence[jax.Device]:
        """Its devices, to compile for; in a process with this `environment`.

        Raises:
            ValueError: for a shape that the chip does not come in.
        """
        if self.kind == "cpu":
            return jax.devices()
        from jax.experimental import topologies

        name = f"{self.kind}:{'x'.join(map(str, self.shape))}"
        slices = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.kind == "v4":  # one device a chip, as JAX has it there
            slices["chip_config_name"] = "megacore"
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=name, **slices).devices
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(f"libtpu has no topology {name}: {' '.join(str(error).split())[:200]}") from error
