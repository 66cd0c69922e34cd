"""The device that a program is traced for: that of the mesh in force, be it here or not, else this process's first."""

import jax


def platform() -> str:
    """One of "cpu", "tpu" and "gpu"."""
    name = _device().platform
    return "gpu" if name in ("cuda", "rocm") else name


def kind() -> str:
    """What JAX calls the device, such as "TPU v6 lite"."""
    return _device().device_kind


def _device():
    return jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
