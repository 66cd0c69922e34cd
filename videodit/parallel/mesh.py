"""The mesh of devices a run uses."""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1 for as many devices as remain.

    Attributes:
        data: copies of the model, each on a part of the batch.
        fsdp: devices that share one copy of the parameters, each on a part of the batch too.
    """

    data: int = -1
    fsdp: int = 1


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes of `MeshConfig`, in that order, over `devices` (all by default).

    Raises:
        ValueError: when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dataclasses.asdict(cfg)
    named = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 for size in sizes.values() if size != -1):
        raise ValueError(f"mesh axes are positive sizes, at most one of them -1 for the rest; got {named}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % fixed or (not free and fixed != len(devices)):
        raise ValueError(f"a mesh of {named} does not fit {len(devices)} devices: the sizes must multiply to it")
    sizes |= dict.fromkeys(free, len(devices) // fixed)
    axis_types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=axis_types, devices=devices)
