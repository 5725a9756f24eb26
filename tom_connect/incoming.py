"""Connections that others made to us, before the application has taken them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from tom_connect.abc import PathInfo
from tom_connect.connection import Connection
from tom_connect.exceptions import ConnectionClosedError, LocalError
from tom_connect.keys import NodeId

if TYPE_CHECKING:
    from tom_connect.quic.link import Link


class Incoming:
    """A peer whose key is proven and who waits to be accepted, refused or ignored.

    The handshake itself runs before, within bounds of its own, so that a peer which never finishes one holds up nobody.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._decided = False

    @property
    def remote_node_id(self) -> NodeId:
        """The peer's proven key."""
        return self._link.peer

    @property
    def alpn(self) -> str:
        """The application protocol that it wants to speak."""
        return self._link.alpn

    def paths(self) -> list[PathInfo]:
        """Where it comes from; the active path first."""
        return self._link.paths()

    async def accept(self) -> Connection:
        """Take it; raises ConnectionError if it has ended meanwhile, LocalError if it was decided already."""
        self._decide()
        if self._link.error is not None:
            raise self._link.error
        connection = Connection(self._link)
        self._link.accept()
        return connection

    def refuse(self, reason: str = "refused") -> None:
        """Tell the peer that it is not wanted: its `connect` raises ConnectionRefusedError."""
        self._decide()
        if self._link.error is None:
            self._link.refuse(reason)

    def ignore(self) -> None:
        """Forget the peer without a word: its `connect` ends in a time-out."""
        self._decide()
        self._link.driver.drop(self._link, ConnectionClosedError(0, "ignored", by_peer=False, is_application=False))

    def _decide(self) -> None:
        if self._decided:
            raise LocalError("this incoming connection was already accepted, refused or ignored")
        self._decided = True

    def __repr__(self) -> str:
        return f"<Incoming from {self._link.peer.short()} for {self._link.alpn!r}>"


class Accepting(AsyncIterator[Incoming]):
    """Incoming connections as `take` gives them, until it gives None."""

    # A class and not an async generator, so that one abandoned in the middle leaves nothing to be closed.

    def __init__(self, take: Callable[[], Awaitable[Incoming | None]]) -> None:
        self._take = take

    async def __anext__(self) -> Incoming:
        incoming = await self._take()
        if incoming is None:
            raise StopAsyncIteration
        return incoming
