"""What a node lets itself be asked for."""

from __future__ import annotations

from typing import Final

import attrs

from tom_campaign.core.control import Ask, Connect, Ping, Ready, Resolve, Transfer
from tom_campaign.core.errors import ControlError
from tom_campaign.nodes.acceptor import BLOCK

MIB: Final = 1 << 20


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on each request, for responders; None: no bound beyond that of the channel."""

    max_seconds: float | None = None
    """That a measurement may last."""
    max_mib: float | None = None
    """That a transfer, or the messages of a measurement, may come to; also what a peer may send on a connection."""
    max_rate: float | None = None
    """Messages a second."""

    @property
    def max_bytes(self) -> int | None:
        """`max_mib`, in bytes."""
        return None if self.max_mib is None else int(self.max_mib * MIB)

    def check(self, ask: Ask) -> None:
        """Raise ControlError for a request that is beyond them, saying which option of the responder allows more."""
        seconds, size = 0.0, 0
        if isinstance(ask, (Connect, Ready, Resolve, Transfer)):
            seconds = ask.timeout + (ask.direct_wait if isinstance(ask, Connect) else 0.0)
        if isinstance(ask, Transfer):
            size = ask.blocks * BLOCK
        if isinstance(ask, Ping):
            seconds, size = ask.count * ask.interval + ask.timeout, ask.count * ask.size
            if self.max_rate is not None and 1 / ask.interval > self.max_rate * 1.001:
                raise ControlError(f"more than {self.max_rate:g} messages a second are not allowed here (--max-rate)")
        if self.max_seconds is not None and seconds > self.max_seconds:
            raise ControlError(f"more than {self.max_seconds:g} s are not allowed here (--max-seconds)")
        if self.max_bytes is not None and size > self.max_bytes:
            raise ControlError(f"more than {self.max_mib:g} MiB are not allowed here (--max-mib)")
