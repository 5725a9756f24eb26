"""Nodes on loopback that are relays for others, and nodes that know each other through them alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr
from tom_connect.addr import RelayUrl
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.testing import Testnet
from tom_relay.server.quic import QuicSessions
from tom_relay.volunteer.config import RelayForOthersConfig
from tom_relay.volunteer.service import Volunteer

ALPN = "relayed/1"


def dht_of(net: Testnet) -> DhtConfig:
    """The options by which a node joins a DHT on loopback."""
    return DhtConfig(bootstrap=net.bootstrap, ipv6=False)


def config(*relays: RelayUrl | str, volunteer: RelayForOthersConfig | None = None, **fields: Any) -> EndpointConfig:
    """A node on loopback that reaches volunteers, which are at 127.0.0.2, and no other node."""
    values: dict[str, Any] = {
        "alpns": (ALPN,),
        "bind": ("127.0.0.1:0",),
        "addr_deny": ("127.0.0.1/32",),
        "allow_local": True,
        "persist": False,
        "plugins": ("relay", "relay-volunteer"),
        "relay": tuple(map(str, relays)),
        "watch_network": False,
        "plugin_configs": {} if volunteer is None else {"relay_for_others": volunteer},
    }
    return EndpointConfig(**{**values, **fields})


@contextlib.asynccontextmanager
async def volunteering(**options: Any) -> AsyncIterator[tuple[Endpoint, RelayUrl]]:
    """A node that is a relay for others, with its URL."""
    wanted = RelayForOthersConfig(**{"enabled": True, **options})
    async with Endpoint.bind(config(volunteer=wanted, bind=("127.0.0.2:0",), addr_deny=())) as endpoint:
        yield endpoint, RelayUrl.of_node(endpoint.node_id, endpoint.local_addrs[0])


async def home(endpoint: Endpoint, *, other_than: tuple[RelayUrl, ...] = (), within: float = 30.0) -> NodeAddr:
    """The endpoint's address once it has a home relay that is none of `other_than`."""
    async with asyncio.timeout(within):
        async for addr in endpoint.watch_addr():
            if addr.relay_urls and addr.relay_urls[0] not in other_than:
                return addr
    raise AssertionError("the endpoint was closed")


async def meet(dialer: Endpoint, server: Endpoint, addr: NodeAddr | None = None) -> tuple[Connection, Connection]:
    """A connection from `dialer` to `server`, by its relays."""
    where = addr or NodeAddr(server.node_id, server.node_addr().relay_urls)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        dialing = group.create_task(dialer.connect(where, ALPN, timeout=10))

        async def accept() -> Connection:
            return await (await anext(server.accept())).accept()

        accepting = group.create_task(accept())
    return dialing.result(), accepting.result()


async def passes(here: Connection, there: Connection, data: bytes) -> None:
    """Check that a stream carries data from one end to the other and back."""
    async with asyncio.timeout(30):
        stream = await here.open_bi()
        stream.write(data)
        stream.finish()
        other = await there.accept_bi()
        assert await other.read() == data
        other.write(data[::-1])
        other.finish()
        assert await stream.read() == data[::-1]


async def until(condition: Callable[[], bool], *, within: float = 30.0) -> None:
    """Wait until something that tells nobody is so."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def kinds(connection: Connection) -> set[str]:
    """The kinds of the paths that carry a connection's traffic now."""
    return {path.kind for path in connection.paths() if path.active}


def volunteer_of(endpoint: Endpoint) -> Volunteer:
    """What serves others in an endpoint."""
    volunteer = endpoint._contexts("relay-volunteer").shared["volunteer"]
    assert isinstance(volunteer, Volunteer)
    return volunteer


def sessions_of(endpoint: Endpoint) -> QuicSessions:
    """Its sessions."""
    return volunteer_of(endpoint).sessions
