"""Peak arithmetic, memory and links of accelerators, from their makers' data sheets.

TPUs: docs.cloud.google.com/tpu/docs, pages tpu7x (the table that compares v5p, v6e and tpu7x; its two cores, and their
link of six times one between chips) and v5e; v4 and the way to the host as in jax-ml.github.io/scaling-book. NVIDIA:
the data sheets of A100, H100 and H200, dense bfloat16.
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
        name: name of the chip in `--topology`.
        kinds: how `device_kind` of its JAX devices begins.
        flops: peak dense bfloat16, FLOP/s.
        hbm_bytes, hbm_bandwidth: memory, and bytes per second.
        links, link_bandwidth: to neighbours in the torus (or, for GPUs, all to the switch at once), and bytes per
            second of each in one direction.
        dcn_bandwidth: to other slices or machines, bytes per second in one direction.
        devices: JAX devices of a chip, which share all of that evenly.
        core_bandwidth: between those, bytes per second in one direction.
        host_bandwidth: to the host's memory, bytes per second in one direction.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    links: int
    link_bandwidth: float
    dcn_bandwidth: float
    devices: int = 1
    core_bandwidth: float = 600e9
    host_bandwidth: float = 15e9


CHIPS = (
    Chip("v4", ("TPU v4",), 275e12, 32 * GIB, 1228e9, 6, 45e9, 25e9 / 8),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * GIB, 819e9, 4, 50e9, 25e9 / 8),
    Chip("v5p", ("TPU v5",), 459e12, 95 * GIB, 2765e9, 6, 100e9, 50e9 / 8),
    Chip("v6e", ("TPU v6",), 918e12, 32 * GIB, 1638e9, 4, 100e9, 100e9 / 8),
    Chip("tpu7x", ("TPU7",), 2307e12, 192 * GIB, 7380e9, 6, 100e9, 100e9 / 8, devices=2),
    Chip("a100", ("NVIDIA A100",), 312e12, 80 * GIB, 2039e9, 1, 300e9, 25e9),
    Chip("h100-pcie", ("NVIDIA H100 PCIe",), 756e12, 80 * GIB, 2000e9, 1, 300e9, 50e9),
    Chip("h100", ("NVIDIA H100",), 989e12, 80 * GIB, 3350e9, 1, 450e9, 50e9),
    Chip("h200", ("NVIDIA H200",), 989e12, 141 * 10**9, 4800e9, 1, 450e9, 50e9),
)


def find_chip(device_kind: str) -> Chip | None:
    """Find the chip of a JAX device by its `device_kind`, the longest match; None for one that is not in the table."""
    matches = [(len(kind), chip) for chip in CHIPS for kind in chip.kinds if device_kind.startswith(kind)]
    return max(matches, key=lambda match: match[0])[1] if matches else None
