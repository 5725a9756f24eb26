"""The child that runs one endpoint with `dht_only` on a lab's machine: a volunteer, a lying one, or a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.serverless.tom_process import ALPN, Node
from tests.interop.peers.lines import serve
from tom_connect import Connection, Endpoint, EndpointConfig, NodeId, RelayUrl
from tom_connect.exceptions import DiscoveryError
from tom_connect.plugins import PluginState
from tom_connect.rendezvous import service
from tom_dht_mainline.config import DhtConfig
from tom_relay.client.transport import Relays
from tom_relay.client.volunteers import seeker
from tom_relay.server.hub import RelayClient
from tom_relay.volunteer.config import RelayForOthersConfig
from tom_relay.volunteer.service import Volunteer

#: Seconds of a connection after which a volunteer that lies later passes nothing on to it.
LIES_AFTER = 2.5


class RelayedNode(Node):
    """One endpoint with the plugins `dht`, `relay` and `relay-volunteer`."""

    async def start(
        self,
        bootstrap: Sequence[str],
        *,
        volunteer: bool = False,
        lies: str = "",
        trusting: bool = False,
        hasty: bool = False,
        avoiding: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Open an endpoint; `volunteer`: be a relay for others; `lies`: "always" or "later" pass nothing on.

        `trusting`: volunteers that passed a first test while they are used are not tested again for minutes; `hasty`:
        whether a caller came is known sooner than usual; `avoiding`: URLs of volunteers that are not to be used.
        """
        await self.unbind()
        if trusting:
            seeker.CHECKS = (1.0, 240.0)  # type: ignore[misc, assignment]
        if hasty:
            seeker.KNOWN_AFTER = 1.0  # type: ignore[misc]
            service.ANSWER_FOR = 3.0  # type: ignore[misc]
        self.endpoint = await Endpoint.bind(
            EndpointConfig(
                alpns=(ALPN,),
                bind=("0.0.0.0:0",),
                persist=False,
                dht_only=True,
                plugins=("dht", "relay", "relay-volunteer"),
                plugin_configs={
                    "dht": DhtConfig(bootstrap=tuple(bootstrap), ipv6=False),
                    "relay_for_others": RelayForOthersConfig(enabled=volunteer),
                },
            )
        )
        failed = [info for info in self.endpoint.plugins if info.state is PluginState.FAILED]
        assert not failed, failed
        if lies:
            self._lie(later=lies == "later")
        for url in map(RelayUrl.parse, avoiding):
            found = await self._seeker()
            assert url.node_addr is not None
            found._candidates.failed(url.node_addr, time.monotonic())
        self.accepting = asyncio.create_task(self._accept(self.endpoint))
        return {"node_id": str(self.endpoint.node_id)}

    async def lie(self, about: str = "") -> dict[str, Any]:
        """Pass nothing on from now on; `about`: pass on what that node's own IP address sends or gets, and all else."""
        if about:
            self._lie_about(NodeId.parse(about).raw)
        else:
            self._lie(later=False)
        return {}

    async def tested(self) -> dict[str, Any]:
        """Wait until two volunteers are in use and have been tested there."""
        seeker = await self._seeker()
        async with asyncio.timeout(60):
            while sum(used.passed > 0 for used in seeker._used.values()) < 2:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        return {}

    def _volunteer(self) -> Volunteer:
        volunteer = self._bound._contexts("relay-volunteer").shared["volunteer"]
        assert isinstance(volunteer, Volunteer)
        return volunteer

    async def _seeker(self) -> seeker.VolunteerSeeker:
        """What looks for volunteers, which is loaded a moment after the start."""
        relays = self._relays()
        async with asyncio.timeout(60):
            while relays.seeker is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        return relays.seeker

    def _relays(self) -> Relays:
        transport = self._bound._contexts("relay").shared["transport"]
        assert isinstance(transport, Relays)
        return transport

    def _lie(self, *, later: bool) -> None:
        hub = self._volunteer().hub
        honest = hub._forward

        def forward(client: RelayClient, frame_type: int, message: bytes, now: float) -> None:
            target = hub._active.get(message[1:33])
            if later and (target is None or now - target.connected_at < LIES_AFTER):
                honest(client, frame_type, message, now)

        hub._forward = forward  # type: ignore[method-assign]

    def _lie_about(self, key: bytes) -> None:
        hub = self._volunteer().hub
        honest = hub._forward

        def forward(client: RelayClient, frame_type: int, message: bytes, now: float) -> None:
            target = hub._active.get(message[1:33])
            here = None if target is None else target.address
            if key not in (message[1:33], client.node_id.raw) or here == client.address:
                honest(client, frame_type, message, now)

        hub._forward = forward  # type: ignore[method-assign]

    async def announced(self) -> dict[str, Any]:
        """Wait until the volunteer has announced itself."""
        began = time.monotonic()
        volunteer = self._volunteer()
        async with asyncio.timeout(60):
            while not sum(volunteer.announced.values()):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        return {"seconds": time.monotonic() - began, "url": str(volunteer.url)}

    async def why_not(self) -> dict[str, Any]:
        """Say why the volunteer is not announced."""
        return {"why_not": self._volunteer().why_not, "announced": len(self._volunteer().announced)}

    async def relayed(self, other_than: str = "", wait: float = 60.0) -> dict[str, Any]:
        """Wait until there is a home relay but `other_than`, and until the DHT says so; the seconds for both."""
        endpoint = self._bound
        began = time.monotonic()
        async with asyncio.timeout(wait):
            async for addr in endpoint.watch_addr():
                if addr.relay_urls and str(addr.relay_urls[0]) != other_than:
                    break
            home, found_at = str(addr.relay_urls[0]), time.monotonic() - began
            while True:
                async with endpoint.look_up(endpoint.node_id) as lookup:
                    async for found in lookup:
                        if home in [str(url) for url in found.addr.relay_urls]:
                            seconds = time.monotonic() - began
                            return {"home": home, "found": found_at, "published": seconds, **await self.relays()}
                await asyncio.sleep(0.2)

    async def relays(self) -> dict[str, Any]:
        """Say which relays are published, and how many addresses were tried so far."""
        seeker = await self._seeker()
        return {
            "urls": [str(url) for url in self._bound.node_addr().relay_urls],
            "tried": seeker.tried,
            "problem": seeker.problem,
        }

    async def meet(self, node_id: str, wait: float) -> dict[str, Any]:
        """Dial a node by its key and stay connected; the seconds, and the kind of path.

        Where a look-up finds nothing it is begun again: a DHT that loses answers does not fail this.
        """
        began = time.monotonic()
        while True:
            try:
                connection = await self._bound.connect(NodeId.parse(node_id), ALPN, timeout=wait)
                break
            except DiscoveryError:
                if time.monotonic() - began > wait:
                    raise
        self.connections.append(connection)
        stream = await connection.open_bi()
        stream.write(b"are you there?")
        assert await stream.read(4096) == b"are you there?"
        self.stream = stream
        return {"seconds": time.monotonic() - began, "kinds": _kinds(connection)}

    async def talk(self, seconds: float) -> dict[str, Any]:
        """Send a byte every 50 ms over the connection and wait for each; the longest wait."""
        longest = 0.0
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            self.stream.write(b"x")
            async with asyncio.timeout(60):
                await self.stream.readexactly(1)
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(0.05)
        return {"longest": longest, "kinds": _kinds(self.connections[-1])}


def _kinds(connection: Connection) -> list[str]:
    return sorted({path.kind for path in connection.paths() if path.active})


async def main(level: str = "ERROR") -> None:
    """Answer until standard input ends."""
    logging.basicConfig(level=level, format="%(asctime)s.%(msecs)03d %(name)s %(message)s", datefmt="%M:%S")
    node = RelayedNode()
    names = (
        "start",
        "announced",
        "lie",
        "tested",
        "why_not",
        "published",
        "relayed",
        "relays",
        "meet",
        "talk",
        "unbind",
    )
    try:
        await serve({name: getattr(node, name) for name in (*names, "unbind")})
    finally:
        with contextlib.suppress(Exception):
            await node.unbind()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
