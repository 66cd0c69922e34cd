"""The device that a program is traced for: that of the mesh in force, be it here or not, else this process's first.

And which implementation serves it, of kernels that have one besides the formulas.
"""

from typing import Literal, get_args

import jax

Implementation = Literal["reference", "tpu", "tpu_interpret"]


def platform() -> str:
    """One of "cpu", "tpu" and "gpu"."""
    name = _device().platform
    return "gpu" if name in ("cuda", "rocm") else name


def kind() -> str:
    """What JAX calls the device, such as "TPU v6 lite"."""
    return _device().device_kind


def choose(implementation: str | None, unable: str | None = None) -> str:
    """The `Implementation` that serves a call: by default the kernel, on a TPU, unless it is `unable`, which says why.

    Raises:
        ValueError: for one that is unknown or cannot serve the call.
    """
    device = platform()
    name = implementation or ("tpu" if device == "tpu" and not unable else "reference")
    if name not in get_args(Implementation):
        raise ValueError(f"implementation is one of {', '.join(get_args(Implementation))}, got {implementation!r}")
    if name == "tpu" and device != "tpu":
        unable = f"needs a TPU, and the device is a {device.upper()}"
    if name != "reference" and unable:
        raise ValueError(f"implementation {name!r} {unable}; 'reference' serves the call")
    return name


def _device():
    return jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
