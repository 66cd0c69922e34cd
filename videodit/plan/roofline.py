"""A lower bound on the time of a step: each part at the speed of its bottleneck (Williams et al. 2009, roofline)."""

from collections import Counter
from dataclasses import dataclass

from videodit_kernels.attention.tpu.tuned import peak_share

from videodit.parallel.chips import Chip
from videodit.plan.hlo_counts import Counts, Kernel
from videodit.plan.network import Network

ATTENTION = {"videodit_attention_fwd": ("forward", 2), "videodit_attention_bwd": ("backward", 5)}
"""Attention kernels by name: the pass, and the number of its products of the size of queries times keys."""


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step on every device, by part.

    Attributes:
        matmul: products outside of kernels, each bound by its FLOPs or by its bytes.
        attention: attention kernels, at their simulated share of the peak, or bound by their bytes.
        hbm: all other operations, bound by their bytes.
        collectives: communication between devices, by kind.
        host: transfers to and from the host's memory.
        hbm_busy: all memory traffic, that of products and kernels included.
    """

    matmul: float
    attention: float
    hbm: float
    collectives: dict[str, float]
    host: float
    hbm_busy: float

    @property
    def no_overlap(self) -> float:
        """Seconds if no part overlaps with another."""
        return self.matmul + self.attention + self.hbm + self.host + sum(self.collectives.values())

    @property
    def full_overlap(self) -> float:
        """Seconds if all parts overlap: those of the slowest of matrix unit, memory, links and host transfers."""
        links = sum(self.collectives.values())
        return max(self.matmul + self.attention, self.hbm_busy, links, self.host)


def compute_roofline(counts: Counts, chip: Chip, network: Network) -> Roofline:
    """Return the seconds of a program's operations on a chip."""
    peak, bandwidth = chip.flops / chip.devices, chip.hbm_bandwidth / chip.devices
    matmul = attention = 0.0
    moved = busy = counts.other_bytes
    for (flops, product_bytes), executions in counts.products.items():
        matmul += executions * max(flops / peak, product_bytes / bandwidth)
        busy += executions * product_bytes
    for kernel, executions in counts.kernels.items():
        kernel_bytes = sum(shape.bytes for shape in (*kernel.operands, *kernel.results) if not shape.memory)
        busy += executions * kernel_bytes
        if kernel.name in ATTENTION:
            seconds = attention_flops(kernel) / (_attention_share(kernel, chip.name) * peak)
            attention += executions * max(seconds, kernel_bytes / bandwidth)
        else:
            moved += executions * kernel_bytes
    links: Counter[str] = Counter()
    for collective, executions in counts.collectives.items():
        links[collective.kind] += executions * network.seconds(collective)
    host = counts.host_bytes * chip.devices / chip.host_bandwidth
    return Roofline(matmul, attention, moved / bandwidth, dict(links), host, busy / bandwidth)


def hardware_flops(counts: Counts) -> int:
    """Return the FLOPs of a device's matrix unit, including recomputation and padding."""
    attention = sum(executions * attention_flops(kernel) for kernel, executions in counts.kernels.items())
    return counts.matmul_flops + attention


def attention_flops(kernel: Kernel) -> int:
    """Return the FLOPs of an attention kernel without a mask; 0 for any other kernel."""
    if kernel.name not in ATTENTION:
        return 0
    batch, heads, queries, keys, dim = _attention_shape(kernel)
    return ATTENTION[kernel.name][1] * 2 * batch * heads * queries * keys * dim


def _attention_share(kernel: Kernel, chip: str) -> float:
    *_, queries, keys, dim = _attention_shape(kernel)
    return peak_share(chip, ATTENTION[kernel.name][0], dim, min(queries, keys))


def _attention_shape(kernel: Kernel) -> tuple[int, int, int, int, int]:
    """Return batch, heads, queries, keys and head dim; operands of fewer dimensions are tables of labels."""
    q, k = [shape.dims for shape in kernel.operands if len(shape.dims) == 4][:2]
    batch, heads, queries, dim = q
    return batch, heads, queries, k[2], dim
