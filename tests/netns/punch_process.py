"""A node inside a namespace: `listen RELAY OPTIONS` or `dial RELAY OPTIONS TICKET`; prints lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tom_connect import Connection, Endpoint, EndpointConfig, Incoming, NetworkError, NodeAddr
from tom_connect.netreport.report import Mapping
from tom_connect.tickets import encode_ticket, parse_ticket

ALPN = "punch/1"
HOPELESS = ("symmetric_both", "port_probing_off")


def told(**words: Any) -> None:
    print(json.dumps(words), flush=True)


async def known(endpoint: Endpoint) -> str:
    """Wait until the node is at its relay and its network report is done; how its NAT maps."""
    async with asyncio.timeout(60):
        async for addr in endpoint.watch_addr():
            if addr.relay_urls:
                break
        async for report in endpoint.net_report():
            if report.complete and report.ipv4.mapping is not Mapping.UNKNOWN:
                return str(report.ipv4.mapping)
    raise AssertionError


async def listen(endpoint: Endpoint) -> None:
    mapping = await known(endpoint)
    told(ticket=encode_ticket(endpoint.node_addr()), mapping=mapping)
    async with asyncio.TaskGroup() as group:
        async for incoming in endpoint.accept():
            group.create_task(echo(incoming))


async def echo(incoming: Incoming) -> None:
    async with await incoming.accept() as connection:
        with contextlib.suppress(NetworkError):
            stream = await connection.accept_bi()
            while data := await stream.read(1024):
                stream.write(data)


async def dial(endpoint: Endpoint, ticket: str, patience: float) -> None:
    """Dial, talk, and tell when it was connected, direct, and heard the other over the direct path."""
    mapping = await known(endpoint)
    began = time.monotonic()
    addr = parse_ticket(ticket)
    connection = await endpoint.connect(NodeAddr(addr.node_id, addr.relay_urls), ALPN, timeout=60)
    connected = time.monotonic() - began
    async with connection:
        try:
            async with asyncio.timeout(patience):
                direct = await until_direct(connection, began)
        except TimeoutError:
            direct = None
        stats = connection.stats()
        told(
            mapping=mapping,
            connected=connected,
            direct=direct,
            why=stats.why_relayed,
            path=str(stats.path.addr) if stats.path else None,
        )


async def until_direct(connection: Connection, began: float) -> float | None:
    """When traffic went directly, and ten words and answers after it; None once it is known that it can't."""
    stream = await connection.open_bi()
    while True:
        stream.write(b"x" * 32)
        await stream.read(1024)
        stats = connection.stats()
        if stats.why_relayed in HOPELESS:
            return None
        path = stats.path
        if path is not None and path.kind == "direct":
            at = time.monotonic() - began
            for _ in range(10):
                stream.write(b"y" * 32)
                await stream.read(1024)
            return at


async def main(role: str, relay: str, options: str, *rest: str) -> None:
    config = EndpointConfig(alpns=(ALPN,), relay=(relay,), persist=False, plugins=("relay",), **json.loads(options))
    async with Endpoint.bind(config) as endpoint:
        if role == "listen":
            await listen(endpoint)
        else:
            await dial(endpoint, rest[0], float(rest[1]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
