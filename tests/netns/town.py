"""A lab with a DHT of libtorrent's nodes, to which any number of tests add homes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import attrs

from tests.interop.peers.process import LineProcess, python_module
from tests.netns.dht import DhtNet
from tom_connect.testing.natlab import Host, Lab, Nat, Router, Wire

#: With the same at the DHT, 50 ms from home to home and from home to the DHT and back, on which 2% are lost.
UPLINK = Wire(delay=0.0125, loss=0.005)


@attrs.define(eq=False)
class Town:
    """The lab and its DHT. Homes have numbers, so that tests need no names for them."""

    lab: Lab
    dht: DhtNet
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Iterator[Town]:
        """Build both; raises PeerMissing without libtorrent."""
        with Lab() as lab, DhtNet.start(lab, wire=UPLINK) as dht:
            yield cls(lab, dht)

    def router(self, kind: Nat = Nat.MODERATE, *, block_udp: bool = False, reject: bool = False) -> Router:
        """A router of its kind; `reject`: one that remembers packets which it turned away."""
        name = f"router{next(self._numbers)}"
        return self.lab.router(name, kind, wire=UPLINK, block_udp=block_udp, reject=reject)

    def homes(self, *kinds: Nat) -> tuple[list[Router], list[Host]]:
        """A router of each kind, and a machine behind each."""
        routers = [self.router(kind) for kind in kinds]
        return routers, [self.host(router) for router in routers]

    def host(self, router: Router | None = None) -> Host:
        """A machine behind a router, or on the internet."""
        return self.lab.host(f"host{next(self._numbers)}", router)


def child_on(host: Host, module: str) -> contextlib.closing[LineProcess]:
    """A child process on a machine, that runs a module and answers."""
    return contextlib.closing(LineProcess.start(host.command(python_module(module))))
