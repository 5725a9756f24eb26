"""Asks one name server: UDP with TCP behind it, TCP, TLS (RFC 7858) or HTTPS (RFC 8484)."""

from __future__ import annotations

import asyncio
import pathlib
import ssl
from types import TracebackType
from typing import TYPE_CHECKING, Self

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message

from tom_connect.exceptions import ConfigError, reason_of
from tom_connect.keys import NodeId
from tom_pkarr.core.txt import DnsAnswer, DnsRefusal, question, read_answer
from tom_pkarr.dns.servers import NameServer

if TYPE_CHECKING:
    import aiohttp

MAX_MESSAGE = 65_535
"""Bytes of a DNS message; over HTTPS nothing else bounds it."""
_MEDIA_TYPE = "application/dns-message"


def system_servers() -> tuple[NameServer, ...]:
    """The name servers that the system is configured with; empty if that can't be told."""
    try:
        resolver = dns.asyncresolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return ()
    return tuple(NameServer("udp", str(host), resolver.port) for host in resolver.nameservers if isinstance(host, str))


class DnsClient:
    """Asks name servers; `async with DnsClient(...)`. `timeout`: seconds that one has for its answer.

    Raises ConfigError for a file of certificates that can't be read.
    """

    def __init__(self, timeout: float, ca_file: pathlib.Path | None = None) -> None:
        self._timeout = timeout
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        if ca_file is not None:
            self._context()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self._ca_file is not None:
                try:
                    self._tls.load_verify_locations(self._ca_file)
                except (OSError, ssl.SSLError) as exc:
                    raise ConfigError(f"dns.ca_file: {self._ca_file}: {exc}") from None
        return self._tls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, server: NameServer, node_id: NodeId, origin: str) -> DnsAnswer | DnsRefusal:
        """What a name server knows of a node under an origin domain; every failure is a DnsRefusal with its reason."""
        query = question(node_id, origin)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._exchange(query, server)
                return read_answer(node_id, response)
        except TimeoutError:
            return DnsRefusal(f"no answer in {self._timeout:g} s")
        except dns.exception.DNSException as exc:
            return DnsRefusal(f"its answer can't be read: {type(exc).__name__}")
        except (OSError, EOFError, ssl.SSLError, ValueError) as exc:
            return DnsRefusal(reason_of(exc))

    async def _exchange(self, query: dns.message.QueryMessage, server: NameServer) -> dns.message.Message:
        match server.protocol:
            case "udp":
                # What comes from elsewhere, or answers another question, is passed over: the real answer may follow.
                response, _used_tcp = await dns.asyncquery.udp_with_fallback(
                    query, server.host, port=server.port, ignore_unexpected=True, ignore_errors=True
                )
                return response
            case "tcp":
                return await dns.asyncquery.tcp(query, server.host, port=server.port)
            case "tls":
                return await dns.asyncquery.tls(
                    query,
                    server.host,
                    port=server.port,
                    ssl_context=self._context(),
                    server_hostname=server.name or server.host,
                )
        return await self._https(query, server)

    async def _https(self, query: dns.message.QueryMessage, server: NameServer) -> dns.message.Message:
        import aiohttp  # only for those who ask by HTTPS

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=8, ssl=self._context()),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": _MEDIA_TYPE, "Accept-Encoding": "identity", "User-Agent": "tom-pkarr"},
                auto_decompress=False,
                trust_env=True,
            )
        assert server.url is not None
        query.id = 0  # for caches on the way (RFC 8484 section 4.1); TLS says who answers
        try:
            async with self._session.post(
                server.url, data=query.to_wire(), headers={"Content-Type": _MEDIA_TYPE}, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise ValueError(f"HTTP status {response.status}")
                body = bytearray()
                while chunk := await response.content.read(MAX_MESSAGE + 1 - len(body)):
                    body += chunk
                    if len(body) > MAX_MESSAGE:
                        response.close()
                        raise ValueError("its answer is larger than a DNS message can be")
        except aiohttp.ClientError as exc:
            raise OSError(reason_of(exc)) from None
        message = dns.message.from_wire(bytes(body))
        if not query.is_response(message):
            raise ValueError("its answer is to another question")
        return message
