"""Loudness of any part of a source (EBU R128, ITU-R BS.1770), from one pass through FFmpeg's `ebur128` filter.

The filter measures the loudness of each 400 ms block, one every 100 ms; a part's integrated loudness is the gated mean
of the blocks that lie in it.
"""

import av
import numpy as np
from av.filter import Graph

_STEP, _BLOCK = 0.1, 0.4  # seconds


class Loudness:
    """A meter that takes the packets of a sound stream in order and then returns the loudness of its parts.

    trouble: why decoding stopped, "" if it did not.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._ends: list[float] = []
        self._levels: list[float] = []
        self.trouble = ""

    def add_packet(self, packet: av.Packet) -> None:
        """Decode and measure the next packet; after one that cannot be decoded, further packets are ignored."""
        if self.trouble:
            return
        try:
            for frame in packet.decode():
                self._filter(frame)
            if packet.size == 0 and self._graph:
                self._filter(None)
        except (av.FFmpegError, ValueError) as error:
            at = f"{self._ends[-1]:.1f} s" if self._ends else "the start"
            self.trouble = f"the sound cannot be decoded from {at} on ({getattr(error, 'strerror', error)})"

    def _filter(self, frame: av.AudioFrame | None) -> None:
        if self._graph is None:
            self._graph = Graph()
            source = self._graph.add_abuffer(
                sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=frame.time_base
            )
            self._graph.link_nodes(source, self._graph.add("ebur128", "metadata=1"), self._graph.add("abuffersink"))
            self._graph.configure()
        self._graph.push(frame)
        while True:
            try:
                block = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            if (level := block.metadata.get("lavfi.r128.M")) is not None and block.time is not None:
                self._ends.append(block.time + block.samples / block.sample_rate)
                self._levels.append(float(level))

    def integrated(self, start: float, stop: float) -> float | None:
        """Return LUFS of the sound between two times (seconds of the stream); None if silent, too short or missing.

        Blocks under -70 LUFS do not count, then those 10 LU under the mean of the rest (BS.1770-4, annex 1).
        """
        ends, levels = np.array(self._ends), np.array(self._levels)
        inside = levels[(ends - _BLOCK >= start - _STEP / 2) & (ends <= stop + _STEP / 2) & (levels >= -70)]
        if not len(inside):
            return None
        loud = inside[inside >= _mean(inside) - 10]
        return _mean(loud)


def _mean(levels: np.ndarray) -> float:
    """Return the mean of levels, taken over energies."""
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))
