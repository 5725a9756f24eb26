"""The view of the magic socket that datagram protocols of plugins get."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tom_connect.addr import SocketAddr


class SharedUdp:
    """Sends datagrams from the endpoint's UDP ports; `tom_connect.abc.SharedSocket`."""

    __slots__ = ("_local", "_send")

    def __init__(
        self, send: Callable[[bytes, SocketAddr], bool], local_addrs: Callable[[], Sequence[SocketAddr]]
    ) -> None:
        self._send = send
        self._local = local_addrs

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        """Send one datagram now; False if it was dropped (no socket of that family, or buffers full). Never raises."""
        return self._send(data, addr)

    @property
    def local_addrs(self) -> Sequence[SocketAddr]:
        """The addresses that the sockets are bound to, one a family; hosts may be wildcards."""
        return self._local()
