"""One way to ask for a mapping, whichever protocol it is."""

from __future__ import annotations

import random
from collections import Counter

from tom_connect.abc import Clock
from tom_connect.addr import SocketAddr
from tom_portmap.core.asking import NatPmpAsking, PcpAsking
from tom_portmap.core.eligible import IP
from tom_portmap.core.values import Candidate, Grant, Probed
from tom_portmap.errors import SilentError
from tom_portmap.igd import IgdAsking
from tom_portmap.udp import ask


class Asker:
    """Asks one gateway by one protocol for one of our ports; every method raises PortmapError."""

    def __init__(
        self,
        candidate: Candidate,
        port: int,
        nonce: bytes,
        *,
        clock: Clock,
        rng: random.Random,
        malformed: Counter[str],
    ) -> None:
        """`nonce`: 12 random bytes that stay the same for a mapping (PCP); `malformed` counts what is ignored."""
        self._local = candidate.local
        self._clock = clock
        self._asking: PcpAsking | NatPmpAsking | IgdAsking
        if candidate.protocol == "pcp":
            self._asking = PcpAsking(candidate, port, nonce, malformed)
        elif candidate.protocol == "nat-pmp":
            self._asking = NatPmpAsking(candidate, port, malformed)
        else:
            self._asking = IgdAsking(candidate, port, clock=clock, rng=rng, malformed=malformed)

    async def probe(self, held: Grant | None) -> Probed:
        """What the gateway says of itself, and of the mapping `held`."""
        if isinstance(self._asking, IgdAsking):
            return await self._asking.probe(held)
        return await ask(self._asking.probe(), self._local, self._clock)

    async def map(self, external: IP | None, suggested: SocketAddr | None, lifetime: int) -> Grant:
        """Ask for the mapping or prolong it. `external`: the gateway's external address, as a probe told."""
        if isinstance(self._asking, PcpAsking):
            return await ask(self._asking.map(suggested, lifetime), self._local, self._clock)
        if external is None:
            raise SilentError("its external address is not known")
        if isinstance(self._asking, NatPmpAsking):
            return await ask(self._asking.map(external, suggested, lifetime), self._local, self._clock)
        return await self._asking.map(external, suggested, lifetime)

    async def release(self, grant: Grant) -> None:
        """Give a mapping back."""
        if isinstance(self._asking, IgdAsking):
            await self._asking.release(grant)
        else:
            await ask(self._asking.release(), self._local, self._clock)
