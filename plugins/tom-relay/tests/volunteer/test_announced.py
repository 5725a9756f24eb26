"""`tom-connect relay --announce`: a relay server that is a node as well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tom_connect import Endpoint, NodeAddr
from tom_connect.addr import RelayUrl
from tom_dht_mainline.testing import Testnet
from tom_relay.client.config import RelayClientConfig
from tom_relay.server import RelayServer, RelayServerConfig
from tom_relay.server.access import DenyList
from tom_relay.volunteer.announced import Announcing
from tom_relay.volunteer.config import RelayForOthersConfig
from tom_relay.wire.quic import CloseCode

from .nodes import config, dht_of, home, meet, passes, until

COMMAND = (sys.executable, "-m", "tom_connect", "relay", "--announce", "--dev", "--json", "--listen", "127.0.0.1:0")


@contextlib.asynccontextmanager
async def relay_process(*options: str, cwd: Path) -> AsyncIterator[asyncio.StreamReader]:
    """The command, with its events."""
    environ = {**os.environ, "HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd), "XDG_DATA_HOME": str(cwd)}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=cwd, env=environ
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def event(events: asyncio.StreamReader, name: str) -> dict[str, Any]:
    """The next event of a name."""
    async with asyncio.timeout(60):
        while line := await events.readline():
            told: dict[str, Any] = json.loads(line)
            if told["event"] == name:
                return told
    raise AssertionError(f"no event {name!r}")


async def test_a_relay_is_found_through_the_dht(tmp_path: Path) -> None:
    """Nodes that know nothing but the DHT find a relay server, and meet there; it says how it is found."""
    async with Testnet(12, seed=2) as net:
        options = ("--bind", "127.0.0.2:0", "--allow-local", *(f"--bootstrap={node}" for node in net.bootstrap))
        async with relay_process(*options, cwd=tmp_path) as events:
            told = await event(events, "announced")
            sections = {"dht": dht_of(net), "relay_client": RelayClientConfig(volunteers="always")}
            plugins = {"plugins": ("relay", "dht"), "plugin_configs": sections}
            async with Endpoint.bind(config(**plugins)) as one, Endpoint.bind(config(**plugins)) as other:
                assert str((await home(one)).relay_urls[0]) == told["url"]
                here, there = await meet(other, one)
                await passes(here, there, b"found" * 100)
                await here.close()


async def test_a_relay_that_strangers_do_not_reach_says_why(tmp_path: Path) -> None:
    """Without an address that may be told to everyone there is nothing to announce."""
    async with relay_process("--bind", "127.0.0.1:0", cwd=tmp_path) as events:
        assert "not_announced" in (await event(events, "not_announced"))["event"]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--no-direct", "--announce needs direct packets; leave --no-direct out"),
        ("--no-relay-for-others-announce", "--announce says the opposite of announce = false"),
    ],
)
async def test_options_that_contradict_it_are_refused_first(option: str, reason: str, tmp_path: Path) -> None:
    """What can't be announced is told before the relay serves anybody, and not silently done or left."""
    async with relay_process(option, cwd=tmp_path) as events, asyncio.timeout(60):
        first = json.loads(await events.readline())
        assert (first["event"], await events.read()) == ("error", b"") and reason in first["message"]


async def metrics_of(server: RelayServer) -> set[str]:
    """The lines of its /metrics."""
    async with aiohttp.ClientSession() as session, session.get(server.url + "/metrics") as response:
        return set((await response.text()).splitlines())


async def test_one_hub_serves_both_kinds_of_clients() -> None:
    """A node at the server's WebSocket and one at its QUIC are clients of one relay: one access list, one /metrics."""
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as server:
        announcing = Announcing(server, RelayForOthersConfig(enabled=True, announce=False))
        fields = {"bind": ("127.0.0.2:0",), "addr_deny": (), "plugins": (), "extra_plugins": (announcing,)}
        async with Endpoint.bind(config(**fields)) as node:
            url = RelayUrl.of_node(node.node_id, node.local_addrs[0])
            async with Endpoint.bind(config(server.url)) as old, Endpoint.bind(config(url)) as new:
                await home(old)
                await home(new)
                assert len(server.hub) == 2 and len(server.quic) == 1
                assert {
                    "tom_relay_clients 2.0",
                    "tom_relay_quic_sessions 1.0",
                    'tom_relay_quic_events_total{outcome="let in"} 1.0',
                } <= await metrics_of(server)
                here, there = await meet(new, old, NodeAddr(old.node_id, (url,)))
                await passes(here, there, b"both" * 1000)
                await here.close()
                client = next(client for client in server.hub.clients() if client not in server.gate.proven)
                assert server.quic.end(client, CloseCode.SILENT, "for the test")
                await until(lambda: client not in list(server.hub.clients()))
                await server.set_access(DenyList([new.node_id]))
                assert await server.sessions.refusal(new.node_id) is not None
                assert await server.sessions.refusal(old.node_id) is None
