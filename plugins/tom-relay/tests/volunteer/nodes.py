"""Nodes on loopback that are relays for others, and nodes that know each other through them alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tom_connect import Connection, Endpoint, EndpointConfig
from tom_connect.addr import RelayUrl
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.testing import Testnet
from tom_relay.server.quic import QuicSessions
from tom_relay.volunteer.config import RelayForOthersConfig
from tom_relay.volunteer.service import Volunteer

from ..client.meeting import ALPN, home, meet, until  # noqa: TID252 - the folder has no name to import it by


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


__all__ = [
    "ALPN", "config", "dht_of", "home", "kinds", "meet", "passes", "sessions_of", "until", "volunteer_of",
    "volunteering",
]  # fmt: skip


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
