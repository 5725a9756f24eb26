"""Round-trip times of nodes and of all, and the time-outs that follow from them (after RFC 6298)."""

from __future__ import annotations

from collections import OrderedDict

from .address import Address
from .config import DhtConfig

_MAX_NODES = 4096


class _Estimate:
    __slots__ = ("least", "mean", "variation")

    def __init__(self, sample: float, share: float) -> None:
        self.mean = self.least = sample
        self.variation = sample * share

    def add(self, sample: float, gain: float) -> None:
        self.variation += gain * 2 * (abs(sample - self.mean) - self.variation)
        self.mean += gain * (sample - self.mean)
        self.least = min(self.least, sample)

    @property
    def timeout(self) -> float:
        return self.mean + 4 * self.variation


class RttTable:
    """RTT estimates, at most 4096 nodes, the longest unheard forgotten first."""

    def __init__(self, config: DhtConfig) -> None:
        self._config = config
        self._nodes: OrderedDict[Address, _Estimate] = OrderedDict()
        self._all: _Estimate | None = None

    def add(self, addr: Address, rtt: float) -> None:
        """Take a sample, in seconds, of a query that was sent once (Karn's rule)."""
        rtt = min(rtt, self._config.late_reply_window)
        known = self._nodes.get(addr)
        if known is None:
            # A first sample says little about variation: half, as RFC 6298 has it.
            self._nodes[addr] = _Estimate(rtt, 0.5)
            if len(self._nodes) > _MAX_NODES:
                self._nodes.popitem(last=False)
        else:
            known.add(rtt, 0.125)
            self._nodes.move_to_end(addr)
        if self._all is None:
            self._all = _Estimate(rtt, 0.5)
        else:
            # A small gain: this one stands for the spread over all nodes, not for one path.
            self._all.add(rtt, 0.04)

    def timeout(self, addr: Address) -> float:
        """Seconds after which nothing should wait for this node any longer."""
        config = self._config
        estimate = self._nodes.get(addr) or self._all
        if estimate is None:
            return config.initial_timeout
        return min(max(estimate.timeout, config.min_timeout), config.max_timeout)

    def mean(self, addr: Address) -> float | None:
        """The node's smoothed RTT in seconds, None if unknown."""
        estimate = self._nodes.get(addr)
        return estimate.mean if estimate else None

    def least(self, addr: Address) -> float | None:
        """The node's shortest RTT in seconds, which tells its distance and not how busy it or we were."""
        estimate = self._nodes.get(addr)
        return estimate.least if estimate else None

    def clear(self) -> None:
        """Forget all: the host has moved."""
        self._nodes.clear()
        self._all = None
