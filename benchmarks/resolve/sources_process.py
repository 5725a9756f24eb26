"""The child that is every source but the DHT: Pkarr relays, DNS, signaling, as they should be, slow, dead or lying.

`python -m benchmarks.resolve.sources_process COUNT NOW_US DELAY`; `DELAY`: seconds that a request takes on its
way, both ways. A relay that is as it should be is our own behind that delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from typing import Any, cast

import dns.flags
import dns.message
import dns.rrset

from benchmarks.resolve.nodes import Target, targets
from tests.interop.peers.lines import serve
from tom_connect.addr import SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.endpoint import Endpoint
from tom_connect.record import SignedRecord
from tom_pkarr.core.http import PKARR_TYPE
from tom_pkarr.core.rules import Packet
from tom_pkarr.server import PkarrRelay, PkarrServerConfig
from tom_pkarr.server.store import PutOrder
from tom_signaling_legacy.client.config import SignalingConfig
from tom_signaling_legacy.server import SignalingServer, SignalingServerConfig

SLOW = 2.0
"""Seconds that a slow source takes."""
ORIGIN = "nodes.test"
_Answer = Callable[[str], bytes]


class Delayed:
    """Passes TCP connections on, what is said in either direction later by half of the delay."""

    def __init__(self, host: str, port: int, delay: float) -> None:
        self._to = host, port
        self._half = delay / 2

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        there, back = await asyncio.open_connection(*self._to)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass(reader, back))
            group.create_task(self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(65_536):
                loop.call_later(self._half, writer.write, data)
        finally:
            loop.call_later(self._half, writer.close)


class Liar:
    """A Pkarr relay that answers with what it likes."""

    def __init__(self, answer: _Answer, delay: float) -> None:
        self._answer = answer
        self._delay = delay

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer GETs."""
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = self._answer(head.split(b" ")[1].decode().strip("/"))
            await asyncio.sleep(self._delay)
            writer.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: {PKARR_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    while await reader.read(65_536):
        pass


class NameServer(asyncio.DatagramProtocol):
    """A name server by UDP that knows the nodes' TXT records."""

    def __init__(self, texts: dict[str, str], delay: float) -> None:
        self._texts = texts
        self._delay = delay
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See DatagramProtocol."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer a query."""
        query = dns.message.from_wire(data)
        name = query.question[0].name
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        text = self._texts.get(name.to_text().lower().rstrip("."))
        if text is not None:
            response.answer.append(dns.rrset.from_text(name, 30, "IN", "TXT", f'"{text}"'))
        asyncio.get_running_loop().call_later(self._delay, self._transport.sendto, response.to_wire(), addr)


def forged(record: SignedRecord) -> bytes:
    """A record with another address and the signature of the right one."""
    payload = bytearray(record.relay_payload())
    payload[-1] ^= 1
    return bytes(payload)


class Sources:
    """What is started; `places` says where each is."""

    def __init__(self, nodes: list[Target], delay: float) -> None:
        self._nodes = nodes
        self._delay = delay
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self.places: dict[str, str] = {}

    async def __aenter__(self) -> Sources:
        await self._pkarr()
        await self._dns()
        await self._signaling()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _listen(self, handle: Callable[[Any, Any], Coroutine[Any, Any, None]]) -> SocketAddr:
        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = cast("asyncio.Task[None]", asyncio.current_task())
            self._tasks.add(task)
            try:
                await handle(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ExceptionGroup):
                pass
            finally:
                self._tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(guarded, "127.0.0.1", 0)
        self._stack.callback(server.close)
        return SocketAddr(*server.sockets[0].getsockname()[:2])

    async def _pkarr(self) -> None:
        config = PkarrServerConfig.dev(listen=("127.0.0.1:0",), get_rate=0.0)
        relay = await self._stack.enter_async_context(PkarrRelay(config))
        by_name = {node.key.node_id.z32(): node for node in self._nodes}
        for z32, node in by_name.items():
            await relay.shelf.put(PutOrder(Packet.of(node.record), z32))
        first = self._nodes[0]
        handlers = {
            "pkarr": Delayed("127.0.0.1", relay.addrs[0].port, self._delay).handle,
            "pkarr slow": Delayed("127.0.0.1", relay.addrs[0].port, SLOW).handle,
            "pkarr dead": silent,
            "pkarr forged": Liar(lambda z32: forged(by_name[z32].record), self._delay).handle,
            "pkarr foreign": Liar(lambda z32: first.record.relay_payload(), self._delay).handle,
            "pkarr older": Liar(lambda z32: by_name[z32].old.relay_payload(), self._delay).handle,
        }
        for name, handle in handlers.items():
            self.places[name] = f"http://{await self._listen(handle)}"

    async def _dns(self) -> None:
        texts = {f"_iroh.{n.key.node_id.z32()}.{ORIGIN}": f"addr={n.place}" for n in self._nodes}
        loop = asyncio.get_running_loop()
        for name, delay in (("dns", self._delay), ("dns slow", SLOW), ("dns dead", 1e6)):

            def make(delay: float = delay) -> NameServer:
                return NameServer(texts, delay)

            transport, _ = await loop.create_datagram_endpoint(make, local_addr=("127.0.0.1", 0))
            self._stack.callback(transport.close)
            self.places[name] = "{}:{}".format(*transport.get_extra_info("sockname")[:2])
        # A socket that says nothing is a dead DHT node as well.
        self.places["dht dead"] = self.places["dns dead"]

    async def _signaling(self) -> None:
        config = SignalingServerConfig.dev(listen=("127.0.0.1:0",), connect_rate=0.0)
        server = await self._stack.enter_async_context(SignalingServer(config))
        addr = await self._listen(Delayed("127.0.0.1", server.addrs[0].port, self._delay).handle)
        self.places["signaling"] = f"ws://{addr}"
        # One node is there, and answers by itself; the way to it is as long as that to the server.
        first = self._nodes[0]
        endpoint = await self._stack.enter_async_context(
            Endpoint.bind(
                EndpointConfig(
                    bind=("127.0.0.1:0",),
                    secret_key=first.key,
                    allow_local=True,
                    persist=False,
                    watch_network=False,
                    plugins=("signaling",),
                    plugin_configs={"signaling": SignalingConfig(urls=(self.places["signaling"],), phase=1)},
                )
            )
        )
        async with asyncio.timeout(20):
            while not endpoint.watch_published().value:
                await endpoint.watch_published().other_than(endpoint.watch_published().value)
        self.places["signaled"] = str(endpoint.node_addr().direct_addrs[0])


async def main(count: int, now_us: int, delay: float) -> None:
    """Serve until stdin ends."""
    async with Sources(targets(count, now_us), delay) as sources:
        await serve({}, places=sources.places)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
