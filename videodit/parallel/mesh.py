"""The mesh of devices a run uses: real ones, or those of a TPU topology that is not here."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1 for as many devices as remain.

    Attributes:
        data: copies of the model, each on a part of the batch. Over several TPU slices it is a multiple of their
            number: only gradients cross between slices.
        fsdp: devices that share one copy of the parameters, each on a part of the batch too (ZeRO-3, arXiv:1910.02054).
        context: devices that share a row of tokens, in a ring (ring attention, arXiv:2310.01889).
        ulysses: devices that share a row of tokens, and exchange it for heads around attention (arXiv:2309.14509). With
            `context` they divide a row over both: all-to-all inside, rings across.
        tensor: devices that share heads and feed-forward channels (arXiv:1909.08053), and between those the tokens
            (arXiv:2205.05198).
    """

    data: int = -1
    fsdp: int = 1
    context: int = 1
    ulysses: int = 1
    tensor: int = 1


AXES = tuple(field.name for field in dataclasses.fields(MeshConfig))


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes of `MeshConfig`, in that order, over `devices` (all by default).

    Neighbours on an axis are neighbours in the machine, the more so the later the axis.

    Raises:
        ValueError: when the sizes do not multiply to the number of devices, or `data` to that of slices.
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
    return Mesh(_arranged(tuple(sizes.values()), devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _arranged(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    data, *inner = shape
    if data % slices:
        raise ValueError(f"mesh axis data={data} does not divide over {slices} slices: only it goes across them")
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *inner), (slices, *[1] * len(inner)), devices, allow_split_physical_axes=True
    )
