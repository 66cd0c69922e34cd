"""The mesh of devices of a run: attached ones, or those of the target topology."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Annotated

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from videodit.ranges import Count, Range, check_ranges

AxisSize = Annotated[int, Range(-1, 2**24, excluded=0)]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; one of the first four sizes may be -1 for as many devices as remain.

    Attributes:
        data: copies of the model, each on a part of the batch. Over several TPU slices it is a multiple of their
            number: only gradients cross between slices.
        fsdp: devices that share one copy of the parameters, each on a part of the batch too (ZeRO-3, arXiv:1910.02054).
        context: devices that share a sequence of tokens, and the parameters too.
        tensor: devices that share heads and feed-forward channels (arXiv:1909.08053), and between those the tokens
            (arXiv:2205.05198).
        ulysses: of `context`, how many neighbours exchange tokens for heads around attention (arXiv:2309.14509); keys
            and values travel in rings across those groups (arXiv:2310.01889). 0: as many as the heads allow.
    """

    data: AxisSize = -1
    fsdp: AxisSize = 1
    context: AxisSize = 1
    tensor: AxisSize = 1
    ulysses: Count = 0

    def __post_init__(self):
        check_ranges(self)


SIZES = "data", "fsdp", "context", "tensor"
AXES = "data", "fsdp", "ring", "ulysses", "tensor"  # `context` is ring x ulysses


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None, *, heads: int = 1) -> Mesh:
    """Make a mesh with the axes `AXES`, in that order, over `devices` (all by default).

    Neighbours on an axis are neighbours in the machine, the more so the later the axis.

    Args:
        heads: of the model's attention.

    Raises:
        ValueError: when the sizes do not multiply to the number of devices, `data` is not a multiple of that of slices,
            or the heads do not divide.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {name: getattr(cfg, name) for name in SIZES}
    named = ", ".join(f"{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ValueError(f"at most one of a mesh's sizes is -1, for the rest; got {named}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % fixed or (not free and fixed != len(devices)):
        raise ValueError(f"a mesh of {named} does not fit {len(devices)} devices: the sizes must multiply to it")
    data, fsdp, context, tensor = (sizes | dict.fromkeys(free, len(devices) // fixed)).values()
    group = _choose_group(context, cfg.ulysses, heads, tensor)
    shape = data, fsdp, context // group, group, tensor
    return Mesh(_arrange_devices(shape, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_sizes(mesh: Mesh) -> dict[str, int]:
    """Return the sizes of a mesh by the names of `MeshConfig`."""
    axes = dict(mesh.shape)
    return {name: axes[name] if name in axes else axes["ring"] * axes["ulysses"] for name in (*SIZES, "ulysses")}


def _choose_group(context: int, ulysses: int, heads: int, tensor: int) -> int:
    """Choose how many devices exchange tokens for heads."""
    most = math.gcd(context, heads // tensor) if heads % tensor == 0 else 1
    if ulysses and (context % ulysses or (heads > 1 and most % ulysses)):
        fits = ", ".join(str(n) for n in range(1, most + 1) if most % n == 0)
        raise ValueError(
            f"ulysses={ulysses} does not divide both context={context} and {heads} heads over tensor={tensor}; "
            f"{fits} would"
        )
    return ulysses or most


def _arrange_devices(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    data, *inner = shape
    if data % slices:
        raise ValueError(f"mesh axis data={data} does not divide over {slices} slices: only it goes across them")
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *inner), (slices, *[1] * len(inner)), devices, allow_split_physical_axes=True
    )


def parse_mesh(text: str) -> MeshConfig:
    """Return the mesh that `fsdp=16,context=4` means; `data` takes the remaining devices if it is not named.

    Raises:
        ValueError: for anything else, and for an axis that is named twice.
    """
    names = [field.name for field in dataclasses.fields(MeshConfig)]
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in names or name in sizes or not re.fullmatch(r"-?[0-9]+", size):
            raise ValueError(f"a mesh is AXIS=N,... with axes {', '.join(names)}, like fsdp=16,context=4; not '{text}'")
        sizes[name] = int(size)
    return MeshConfig(**sizes)
