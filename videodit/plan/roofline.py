"""How long a step takes at best: its parts each at the speed of what binds them (Williams et al. 2009, roofline)."""

from collections import Counter
from dataclasses import dataclass

from videodit_kernels.attention.tpu.tuned import peak_share

from videodit.parallel.chips import Chip
from videodit.plan.count import Counts, Kernel
from videodit.plan.network import Network

ATTENTION = {"videodit_attention_fwd": ("forward", 2), "videodit_attention_bwd": ("backward", 5)}
"""Attention kernels by name: the pass, and how many products of queries and keys it makes."""


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step on every device, and what they are of.

    Attributes:
        matmul: products outside of kernels, each bound by its FLOPs or by its bytes.
        attention: attention kernels, at their simulated share of the peak, or bound by their bytes.
        hbm: everything else, which moves bytes.
        collectives: what devices send each other, by kind.
        host: what goes to the host's memory and back.
        hbm_busy: what the memory would take if it were all there was, matrices included.
    """

    matmul: float
    attention: float
    hbm: float
    collectives: dict[str, float]
    host: float
    hbm_busy: float

    @property
    def no_overlap(self) -> float:
        """One thing after another."""
        return self.matmul + self.attention + self.hbm + self.host + sum(self.collectives.values())

    @property
    def full_overlap(self) -> float:
        """Everything at once; the slowest of matrix unit, memory, links and the way to the host remains."""
        links = sum(self.collectives.values())
        return max(self.matmul + self.attention, self.hbm_busy, links, self.host)


def roofline(counts: Counts, chip: Chip, network: Network) -> Roofline:
    """What a program's counts mean on a chip."""
    peak, bandwidth = chip.flops / chip.devices, chip.hbm_bandwidth / chip.devices
    matmul = attention = 0.0
    moved = busy = counts.other_bytes
    for (flops, product_bytes), times in counts.products.items():
        matmul += times * max(flops / peak, product_bytes / bandwidth)
        busy += times * product_bytes
    for kernel, times in counts.kernels.items():
        kernel_bytes = sum(shape.bytes for shape in (*kernel.operands, *kernel.results) if not shape.memory)
        busy += times * kernel_bytes
        if kernel.name in ATTENTION:
            seconds = attention_flops(kernel) / (_attention_share(kernel, chip.name) * peak)
            attention += times * max(seconds, kernel_bytes / bandwidth)
        else:
            moved += times * kernel_bytes
    links: Counter[str] = Counter()
    for collective, times in counts.collectives.items():
        links[collective.kind] += times * network.seconds(collective)
    host = counts.host_bytes * chip.devices / chip.host_bandwidth
    return Roofline(matmul, attention, moved / bandwidth, dict(links), host, busy / bandwidth)


def hardware_flops(counts: Counts) -> int:
    """FLOPs that a device's matrix unit does, those of recomputation and of the padding of blocks included."""
    return counts.matmul_flops + sum(times * attention_flops(kernel) for kernel, times in counts.kernels.items())


def attention_flops(kernel: Kernel) -> int:
    """FLOPs of an attention kernel as it is called, whatever its mask skips; of another kernel, none."""
    if kernel.name not in ATTENTION:
        return 0
    batch, heads, queries, keys, dim = _attention_shape(kernel)
    return ATTENTION[kernel.name][1] * 2 * batch * heads * queries * keys * dim


def _attention_share(kernel: Kernel, chip: str) -> float:
    *_, queries, keys, dim = _attention_shape(kernel)
    return peak_share(chip, ATTENTION[kernel.name][0], dim, min(queries, keys))


def _attention_shape(kernel: Kernel) -> tuple[int, int, int, int, int]:
    """Batch, heads, queries, keys and head dim: tables of labels, of fewer dimensions, come before the operands."""
    q, k = [shape.dims for shape in kernel.operands if len(shape.dims) == 4][:2]
    batch, heads, queries, dim = q
    return batch, heads, queries, k[2], dim
