"""The device that a program is traced for, and the implementation of a kernel that serves it.

The device is that of the current abstract mesh, attached or not, else the first of this process.
"""

from typing import Literal, get_args

import jax

Implementation = Literal["reference", "tpu", "tpu_interpret"]


def get_platform() -> str:
    """Return "cpu", "tpu" or "gpu"."""
    name = _device().platform
    return "gpu" if name in ("cuda", "rocm") else name


def get_device_kind() -> str:
    """Return JAX's name of the device, such as "TPU v6 lite"."""
    return _device().device_kind


def choose_implementation(implementation: str | None, obstacle: str | None = None) -> str:
    """Return the `Implementation` that serves a call: by default the kernel, on a TPU, unless there is an `obstacle`.

    Raises:
        ValueError: for one that is unknown or cannot serve the call.
    """
    device = get_platform()
    name = implementation or ("tpu" if device == "tpu" and not obstacle else "reference")
    if name not in get_args(Implementation):
        raise ValueError(f"implementation is one of {', '.join(get_args(Implementation))}, got {implementation!r}")
    if name == "tpu" and device != "tpu":
        obstacle = f"needs a TPU, and the device is a {device.upper()}"
    if name != "reference" and obstacle:
        raise ValueError(f"implementation {name!r} {obstacle}; 'reference' serves the call")
    return name


def _device():
    return jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
