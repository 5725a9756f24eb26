"""Asks STUN servers over the endpoint's own socket, so that the answer is the address at which QUIC is reachable."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from tom_connect.abc import Clock, DatagramProtocol, SharedSocket
from tom_connect.addr import SocketAddr
from tom_connect.netreport.stun import BindingTransaction, Reflexive, StunFailedError, is_stun

MAX_ASKED = 64
"""Requests that may be under way: a few relays of two families each."""


class StunClient(DatagramProtocol):
    """Claims the STUN datagrams of a shared socket: `await client.ask(server)`.

    `socket` and `clock` are those of a PluginContext. `counters`: "unexpected" counts datagrams that answer nothing.
    """

    name = "stun"

    def __init__(self, socket: SharedSocket, clock: Clock) -> None:
        self.counters: Counter[str] = Counter()
        self._socket = socket
        self._clock = clock
        self._asked: dict[bytes, tuple[BindingTransaction, asyncio.Event]] = {}
        self._closed = False

    async def ask(self, server: SocketAddr, *, timeout: float = 3.0) -> Reflexive:
        """Our address as `server` sees it; raises StunFailedError for an error, silence, or `timeout` seconds."""
        if self._closed or len(self._asked) >= MAX_ASKED:
            raise StunFailedError("the STUN client is closed" if self._closed else "too many STUN requests at once")
        transaction = BindingTransaction(server)
        changed = asyncio.Event()
        self._asked[transaction.transaction_id] = transaction, changed
        try:
            async with asyncio.timeout(timeout):
                request: bytes | None = transaction.start(self._clock.monotonic())
                while not transaction.done:
                    if request is not None:
                        self._socket.send(request, server)
                    await self._due(transaction, changed)
                    request = transaction.handle_timer(self._clock.monotonic())
        except TimeoutError:
            raise StunFailedError(f"the STUN server {server} did not answer within {timeout:g} s") from None
        finally:
            del self._asked[transaction.transaction_id]
        if transaction.result is None:
            raise transaction.error or StunFailedError("the STUN client is closed")
        return transaction.result

    async def _due(self, transaction: BindingTransaction, changed: asyncio.Event) -> None:
        at = transaction.get_timer()
        assert at is not None
        try:
            async with asyncio.timeout(max(0.0, at - self._clock.monotonic())):
                await changed.wait()
        except TimeoutError:
            return
        if not transaction.done:
            raise StunFailedError("the STUN client is closed")

    def claims(self, head: bytes) -> bool:
        """Whether a datagram is STUN."""
        return is_stun(head)

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        """Take answers; everything else is counted and dropped."""
        now = self._clock.monotonic()
        for data, source in datagrams:
            transaction, changed = self._asked.get(data[8:20], (None, None))
            if transaction is None or changed is None or not transaction.receive(data, source, now):
                self.counters["unexpected"] += 1
            else:
                changed.set()

    async def aclose(self) -> None:
        """End every `ask` with StunFailedError."""
        self._closed = True
        for _, changed in self._asked.values():
            changed.set()
