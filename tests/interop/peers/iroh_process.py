"""The child that runs one iroh endpoint: it answers what connects to it, and dials what it is told to dial.

iroh's binding is typed in part only, so its objects are Any here and stay in this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import attrs
import iroh

from tests.interop.peers.lines import emit, serve

READ_SIZE = 1 << 16


async def open_endpoint(
    secret_key: bytes | None,
    bind: str,
    alpns: list[str],
    relays: list[str] | None = None,
    *,
    discovery: bool = False,
) -> Any:
    """Bind an endpoint with the given relays, and without anything else that leaves the machine unless `discovery`."""
    iroh.iroh_ffi.uniffi_set_event_loop(cast(Any, asyncio.get_running_loop()))
    options = iroh.EndpointOptions(
        preset=iroh.preset_n0_disable_relay() if discovery else iroh.preset_minimal(),
        bind_addr=bind,
        secret_key=secret_key,
        alpns=[alpn.encode() for alpn in alpns],
        relay_mode=iroh.RelayMode.custom_from_urls(relays) if relays else iroh.RelayMode.disabled(),
    )
    return await iroh.Endpoint.bind(options)


async def read_all(recv: Any, limit: int = 1 << 30) -> bytes:
    """Read a stream to its end."""
    return bytes(await recv.read_to_end(limit))


async def echo_stream(stream: Any) -> None:
    """Send back what comes on a bidirectional stream, as it comes."""
    recv, send = stream.recv(), stream.send()
    while chunk := await recv.read(READ_SIZE):
        await send.write_all(chunk)
    await send.finish()


async def swallow_stream(recv: Any, opened: Callable[[], Awaitable[Any]]) -> None:
    """Answer a unidirectional stream with one of ours that carries the SHA-256 of what came."""
    digest = hashlib.sha256(await read_all(recv)).digest()
    send = await opened()
    await send.write_all(digest)
    await send.finish()


async def echo_datagram(connection: Any, data: bytes) -> None:
    """Send a datagram back."""
    connection.send_datagram(data)


async def pump(source: Callable[[], Awaitable[Any]], answer: Callable[[Any], Awaitable[None]]) -> None:
    """Answer each thing that comes from the source in a task of its own until the connection ends."""
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                item = await source()
            except iroh.IrohError:
                return
            group.create_task(quiet(answer(item)))


async def quiet(work: Awaitable[None]) -> None:
    """Await work whose connection may end under it."""
    with contextlib.suppress(iroh.IrohError):
        await work


async def echo(connection: Any) -> None:
    """Echo streams and datagrams until the connection ends."""
    async with asyncio.TaskGroup() as group:
        group.create_task(pump(connection.accept_bi, echo_stream))
        group.create_task(pump(connection.accept_uni, lambda recv: swallow_stream(recv, connection.open_uni)))
        group.create_task(pump(connection.read_datagram, lambda data: echo_datagram(connection, data)))


@attrs.define(eq=False)
class Peer:
    """One endpoint, the connections that it dialed by number, and those that it accepted."""

    endpoint: Any
    connections: dict[int, Any] = attrs.field(factory=dict)
    accepted: list[dict[str, Any]] = attrs.field(factory=list)

    async def accept_forever(self) -> None:
        """Accept and echo until the endpoint closes."""
        async with asyncio.TaskGroup() as group:
            while (incoming := await self.endpoint.accept_next()) is not None:
                group.create_task(quiet(self._accept(incoming)))

    async def _accept(self, incoming: Any) -> None:
        accepting = await incoming.accept()
        connection = await accepting.connect()
        record = {"remote": str(connection.remote_id()), "alpn": connection.alpn().decode()}
        self.accepted.append(record)
        emit({"event": "accepted", **record})
        await echo(connection)
        record["reason"] = connection.close_reason()

    async def dial(self, node_id: str, addresses: list[str], alpn: str, relay: str | None = None) -> dict[str, Any]:
        """Connect to a node at given addresses, or through a relay."""
        address = iroh.EndpointAddr(iroh.EndpointId.from_string(node_id), relay, addresses)
        start = time.monotonic()
        try:
            connection = await self.endpoint.connect(address, alpn.encode())
        except iroh.IrohError as error:
            raise ConnectionError(error.message()) from error
        ms = (time.monotonic() - start) * 1000
        number = len(self.connections)
        self.connections[number] = connection
        return {
            "connection": number,
            "remote": str(connection.remote_id()),
            "alpn": connection.alpn().decode(),
            "ms": ms,
        }

    async def stream(self, connection: int, data: str) -> dict[str, Any]:
        """Send bytes on a new bidirectional stream and read the answer to its end."""
        stream = await self.connections[connection].open_bi()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(stream.send(), bytes.fromhex(data)))
            answer = group.create_task(read_all(stream.recv()))
        return {"data": answer.result().hex()}

    async def uni(self, connection: int, data: str) -> dict[str, Any]:
        """Send bytes on a unidirectional stream and read the one that the other side opens."""
        dialed = self.connections[connection]
        await self._send(await dialed.open_uni(), bytes.fromhex(data))
        return {"data": (await read_all(await dialed.accept_uni())).hex()}

    async def datagram(self, connection: int, data: str, wait: float = 5.0) -> dict[str, Any]:
        """Send a datagram, again each half second, until one comes back."""
        dialed = self.connections[connection]
        answer = asyncio.ensure_future(dialed.read_datagram())
        try:
            for _ in range(max(1, int(wait / 0.5))):
                dialed.send_datagram(bytes.fromhex(data))
                done, _ = await asyncio.wait({answer}, timeout=0.5)
                if done:
                    return {"data": bytes(answer.result()).hex()}
        finally:
            answer.cancel()
        raise TimeoutError(f"no datagram came back within {wait} s")

    async def hang_up(self, connection: int, code: int = 0, reason: str = "") -> dict[str, Any]:
        """Close a dialed connection."""
        self.connections[connection].close(code, reason.encode())
        return {}

    async def closed(self, connection: int) -> dict[str, Any]:
        """Wait until a dialed connection is closed and say why."""
        return {"reason": await self.connections[connection].closed()}

    async def online(self) -> dict[str, Any]:
        """Wait until a relay has let the endpoint in."""
        await self.endpoint.online()
        return {}

    async def paths(self, connection: int) -> dict[str, Any]:
        """Say by which paths a dialed connection goes: addresses, and whether each is a relay's and in use."""
        shown = self.connections[connection].paths()
        return {
            "paths": [{"addr": path.remote_addr, "relay": path.is_relay, "used": path.is_selected} for path in shown]
        }

    async def list_accepted(self) -> dict[str, Any]:
        """Say which connections were accepted: remote, alpn, and the reason once they are closed."""
        return {"accepted": self.accepted}

    @staticmethod
    async def _send(send: Any, data: bytes) -> None:
        await send.write_all(data)
        await send.finish()


async def main(options: dict[str, Any]) -> None:
    """Bind, say who and where we are, and answer until stdin ends."""
    secret = options["secret_key"]
    endpoint = await open_endpoint(
        bytes.fromhex(secret) if secret else None,
        options["bind"],
        options["alpns"],
        options["relays"],
        discovery=options["discovery"],
    )
    peer = Peer(endpoint)
    accepting = asyncio.create_task(peer.accept_forever())
    names = ("dial", "stream", "uni", "datagram", "hang_up", "closed", "list_accepted", "online", "paths")
    handlers = {name: getattr(peer, name) for name in names}
    try:
        await serve(handlers, node_id=str(endpoint.id()), addresses=endpoint.bound_sockets())
    finally:
        await endpoint.close()
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
