"""Opens the WebSocket to a relay: TLS, proxies, and the refusal to be led into our own networks."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from typing import Final

import attrs
import websockets.asyncio.client as ws
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxyStatus, InvalidStatus
from websockets.typing import Subprotocol

from tom_connect.addr import RelayUrl, SocketAddr, is_local
from tom_connect.exceptions import ConfigError, reason_of
from tom_relay.client.carrier import CarrierClosedError
from tom_relay.client.config import SCHEMES, RelayClientConfig
from tom_relay.client.standing import Standing, ask_standing
from tom_relay.errors import RelayUnreachableError, WireError
from tom_relay.wire import MAX_MESSAGE, SUBPROTOCOLS, Dialect
from tom_relay.wire.services import HEADER, decode_services

CONNECT_TIMEOUT: Final = 8.0
"""Seconds for name, TCP, proxy, TLS and upgrade together: ten round trips over a satellite."""
WRITE_BUFFER: Final = 128 << 10
"""Bytes that wait in our process; with as many in the kernel a ping is not delayed for seconds on a slow line."""
NOT_SENT: Final = 128 << 10


class WebSocketCarrier:
    """A WebSocket (`Carrier`)."""

    proven = False

    def __init__(self, websocket: ws.ClientConnection, dialect: Dialect, services: Mapping[str, int] | None) -> None:
        self.dialect = dialect
        self.services = services
        self._websocket = websocket

    async def receive(self) -> bytes:
        """See `Carrier`."""
        try:
            message = await self._websocket.recv()
        except ConnectionClosed as exc:
            raise CarrierClosedError(exc.rcvd.reason if exc.rcvd is not None else "") from None
        if isinstance(message, str):
            raise WireError("malformed", "the relay sent a text message")
        return message

    async def send(self, message: bytes) -> None:
        """See `Carrier`."""
        try:
            await self._websocket.send(message)
        except (ConnectionClosed, OSError):
            raise CarrierClosedError("") from None

    async def close(self) -> None:
        """See `Carrier`."""
        try:
            await self._websocket.close()
        except (ConnectionClosed, OSError):
            pass

    def abort(self) -> None:
        """See `Carrier`."""
        self._websocket.transport.abort()

    def address_is_gone(self) -> bool:
        """See `Carrier`."""
        name = self._websocket.transport.get_extra_info("sockname")
        try:
            with socket.socket(socket.AF_INET6 if ":" in name[0] else socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((name[0], 0, *name[2:]))
        except OSError as exc:
            return exc.errno == errno.EADDRNOTAVAIL
        return False


class _Connect(ws.connect):
    """Follows no redirect: a relay is where its URL says, and neither our token nor a check goes elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@attrs.define
class WebSocketDialer:
    """Opens WebSockets as the user's options say. Raises ConfigError for a file of certificates that can't be read."""

    config: RelayClientConfig
    allow_local: bool
    dialects: tuple[str, ...] = SUBPROTOCOLS
    authorities: bytes | None = None
    """The certificates of `ca_file`, PEM."""
    _tls: ssl.SSLContext | None = None

    def __attrs_post_init__(self) -> None:
        if self.config.ca_file is not None:
            self._context()
            self.authorities = self.config.ca_file.read_bytes()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self.config.ca_file is not None:
                try:
                    self._tls.load_verify_locations(self.config.ca_file)
                except (OSError, ssl.SSLError) as exc:
                    raise ConfigError(f"relay_client.ca_file: {self.config.ca_file}: {exc}") from None
        return self._tls

    async def open(self, url: RelayUrl, *, configured: bool, trusted: bool) -> WebSocketCarrier:
        """A WebSocket to a relay, with the dialect that it chose; raises RelayUnreachableError.

        `configured`: it gets our token. `trusted`: it may be in our own networks.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._open(url, configured=configured, trusted=trusted)
        except TimeoutError:
            raise RelayUnreachableError(f"no answer in {CONNECT_TIMEOUT:g} s") from None
        except InvalidProxyStatus as exc:
            raise RelayUnreachableError(f"the proxy refuses with HTTP status {exc.response.status_code}") from None
        except InvalidStatus as exc:
            raise RelayUnreachableError(f"it answers with HTTP status {exc.response.status_code}") from None
        except (OSError, ssl.SSLError, InvalidHandshake, EOFError, ValueError) as exc:
            raise RelayUnreachableError(reason_of(exc)) from None

    async def _open(self, url: RelayUrl, *, configured: bool, trusted: bool) -> WebSocketCarrier:
        scheme = SCHEMES[url.scheme]
        port = url.port or (443 if scheme == "wss" else 80)
        headers = {"Authorization": f"Bearer {self.config.token}"} if configured and self.config.token else {}
        proxy = self._proxy(url)
        place: dict[str, object] = {"server_hostname": url.host.strip("[]")} if scheme == "wss" else {}
        if not trusted and not self.allow_local and proxy is None:
            # What a record names is connected to directly and only in public networks; where a proxy is needed, the
            # proxy's own rules say where it leads.
            place["sock"] = await self._public_socket(url.host.strip("[]"), port)
        connection = await _Connect(
            f"{scheme}://{url.host}:{port}/relay",
            subprotocols=[Subprotocol(name) for name in self.dialects],
            additional_headers=headers,
            user_agent_header="tom-relay",
            compression=None,
            ssl=self._context() if scheme == "wss" else None,
            proxy=proxy,
            open_timeout=None,
            ping_interval=None,
            close_timeout=0.3,
            max_size=MAX_MESSAGE,
            max_queue=64,
            write_limit=WRITE_BUFFER,
            **place,  # type: ignore[arg-type]
        )
        try:
            dialect = Dialect(connection.subprotocol)
        except ValueError:
            connection.transport.abort()
            raise RelayUnreachableError("it speaks no dialect of the relay protocol that we know") from None
        sock_used = connection.transport.get_extra_info("socket")
        if sock_used is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock_used.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
        return WebSocketCarrier(connection, dialect, told_services(connection))

    async def standing(self, url: RelayUrl) -> Standing | None:
        """How a relay stands, as it says itself over a connection of its own; None if it does not say."""
        return await ask_standing(url, tls=self._context() if url.scheme == "https" else None, proxy=self._proxy(url))

    def _proxy(self, url: RelayUrl) -> str | None:
        """The URL of the proxy on the way to a relay, None if there is none."""
        if self.config.proxy is not None:
            return None if self.config.proxy == "none" else self.config.proxy
        from urllib.request import getproxies, proxy_bypass

        if proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host):
            return None
        proxies = getproxies()
        names = ("wss", "https") if url.scheme == "https" else ("ws", "https", "http")
        return next((proxies[name] for name in names if proxies.get(name)), None)

    @staticmethod
    async def _public_socket(host: str, port: int) -> socket.socket:
        """A socket connected to a public address of a host; raises OSError, RelayUnreachableError if it has none."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        public = [info for info in found if not is_local(SocketAddr(str(info[4][0]), port))]
        if not public:
            raise RelayUnreachableError(
                "its name leads into a private network, where records of others may not lead us"
            )
        error: OSError | None = None
        for family, kind, proto, _name, address in public[:4]:
            sock = socket.socket(family, kind, proto)
            try:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
            except OSError as exc:
                sock.close()
                error = exc
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        assert error is not None
        raise error


def told_services(connection: ws.ClientConnection) -> dict[str, int] | None:
    """The ports of the UDP services that a relay named when it was connected to, None if it said nothing."""
    response = connection.response
    values = [] if response is None else response.headers.get_all(HEADER)
    return decode_services(values[0] if values else None)
