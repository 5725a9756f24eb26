"""Finding nodes by DNS at name servers that answer well, late, wrongly, too long or never."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import pytest_asyncio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tom_connect.abc import FoundAddr
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.exceptions import DiscoveryError
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import check_discovery
from tom_connect.testing.plugincontext import LentContext, plugin_context
from tom_pkarr.dns import plugin
from tom_pkarr.dns.config import DnsConfig
from tom_pkarr.dns.discovery import DnsDiscovery

NODE = SecretKey(bytes(31) + b"\x07").node_id
ORIGIN = "dns.example"
TIMEOUT = 20.0
Respond = Callable[[dns.message.Message], list[bytes]]


def answered(query: dns.message.Message, *texts: str, ttl: int = 30) -> bytes:
    """The answer that an honest server gives."""
    response = dns.message.make_response(query)
    if texts:
        name = str(query.question[0].name)
        response.answer.append(dns.rrset.from_text(name, ttl, "IN", "TXT", *(f'"{text}"' for text in texts)))
    return response.to_wire(max_size=65_535)


def honest(port: int = 1) -> Respond:
    return lambda query: [answered(query, f"addr=192.0.2.1:{port}")]


class NameServer(asyncio.DatagramProtocol):
    """A name server on one UDP and TCP port of loopback; `respond` gives the messages that answer a query."""

    def __init__(self, respond: Respond, respond_tcp: Respond | None = None) -> None:
        self.respond = respond
        self.respond_tcp = respond_tcp or respond
        self.udp_queries = 0
        self.tcp_queries = 0
        self.addr: SocketAddr

    async def open(self, serve: Any) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):  # the port that is free for TCP may not be so for UDP
            self.addr = await serve(self._tcp)
            with contextlib.suppress(OSError):
                self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.addr)
                return
        raise OSError("no port is free for TCP and UDP")

    def close(self) -> None:
        self._udp.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.udp_queries += 1
        for answer in self.respond(dns.message.from_wire(data)):
            self._udp.sendto(answer, addr)

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(2), "big")
            query = dns.message.from_wire(await reader.readexactly(size))
            self.tcp_queries += 1
            for answer in self.respond_tcp(query):
                writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()


@pytest_asyncio.fixture
async def name_server(serve: Any) -> AsyncIterator[Any]:
    """`await name_server(respond)`: a name server, closed with the test."""
    opened: list[NameServer] = []

    async def start(respond: Respond, respond_tcp: Respond | None = None) -> NameServer:
        server = NameServer(respond, respond_tcp)
        await server.open(serve)
        opened.append(server)
        return server

    yield start
    for server in opened:
        server.close()


@contextlib.asynccontextmanager
async def asking(lend: Any, clock: Any, *servers: object, **options: Any) -> AsyncIterator[DnsDiscovery]:
    texts = tuple(str(getattr(server, "addr", server)) for server in servers)
    config = DnsConfig(**{"origins": (ORIGIN,), "servers": texts, "timeout": 10.0, "stagger": 0.05, **options})
    discovery = DnsDiscovery(lend(config, clock=clock))
    await discovery.start()
    try:
        yield discovery
    finally:
        await discovery.aclose()


async def found(discovery: DnsDiscovery) -> list[FoundAddr]:
    async with asyncio.timeout(TIMEOUT):
        return [found async for found in discovery.resolve(NODE)]


def ports(results: list[FoundAddr]) -> list[int]:
    return [result.addr.direct_addrs[0].port for result in results]


async def failure(discovery: DnsDiscovery) -> str:
    with pytest.raises(DiscoveryError) as caught:
        await found(discovery)
    return str(caught.value)


async def test_an_answer_is_a_hint_and_kept_for_its_time(lend: Any, clock: Any, name_server: Any) -> None:
    """What DNS says has no timestamp, as the node did not sign it; within its TTL nobody is asked again."""
    server = await name_server(honest())
    async with asking(lend, clock, server) as discovery:
        (result,) = await found(discovery)
        assert (result.source, result.timestamp_us, ports([result])) == ("dns", None, [1])
        assert ports(await found(discovery)) == [1]
        assert server.udp_queries == 1
        clock.seconds += 31
        assert ports(await found(discovery)) == [1]
        assert server.udp_queries == 2


async def test_the_servers_of_the_system(
    lend: Any, clock: Any, name_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless others are named the system's are asked; where it names none, the error says what to set."""
    server = await name_server(honest())
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver {server.addr.host}\n")

    class Resolver(dns.asyncresolver.Resolver):
        def __init__(self) -> None:
            super().__init__(str(file))
            self.port = server.addr.port

    monkeypatch.setattr(dns.asyncresolver, "Resolver", Resolver)
    async with asking(lend, clock) as discovery:
        assert ports(await found(discovery)) == [1]
    file.write_text("")
    async with asking(lend, clock) as discovery:
        assert "dns.servers" in await failure(discovery)


async def test_nothing_there(lend: Any, clock: Any, name_server: Any) -> None:
    """A name that does not exist is no failure."""

    def nothing(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        return [response.to_wire()]

    async with asking(lend, clock, await name_server(nothing)) as discovery:
        assert await found(discovery) == []


async def test_a_silent_server_costs_the_stagger_alone(lend: Any, clock: Any, name_server: Any) -> None:
    """The next server is asked while the first is silent."""
    silent, good = await name_server(lambda query: []), await name_server(honest())
    async with asking(lend, clock, silent, good) as discovery:
        assert ports(await found(discovery)) == [1]
    assert (silent.udp_queries, good.udp_queries) == (1, 1)


async def test_a_server_that_fails_is_passed_at_once(lend: Any, clock: Any, name_server: Any) -> None:
    """SERVFAIL makes the next server be asked without waiting; alone it is told."""

    def fails(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        return [response.to_wire()]

    broken, good = await name_server(fails), await name_server(honest())
    async with asking(lend, clock, broken, good, stagger=10.0) as discovery:
        started = time.monotonic()
        assert ports(await found(discovery)) == [1]
        assert time.monotonic() - started < 8.0
    async with asking(lend, clock, broken) as discovery:
        text = await failure(discovery)
    assert str(broken.addr) in text and "SERVFAIL" in text and ORIGIN in text


async def test_a_truncated_answer_is_fetched_by_tcp(lend: Any, clock: Any, name_server: Any) -> None:
    """What does not fit a datagram comes by TCP: of hundreds of addresses as many as are taken."""

    def truncated(query: dns.message.Message) -> list[bytes]:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    texts = [f"addr=192.0.2.{n % 250}:{n + 1}" for n in range(700)]
    server = await name_server(truncated, lambda query: [answered(query, *texts)])
    async with asking(lend, clock, server) as discovery:
        (result,) = await found(discovery)
    assert len(result.addr.direct_addrs) == 64
    assert (server.udp_queries, server.tcp_queries) == (1, 1)


async def test_spoofed_answers_are_passed_over(lend: Any, clock: Any, name_server: Any) -> None:
    """Answers with another id, to another question, that are queries or noise do not hide the real one."""

    def spoofed(query: dns.message.Message) -> list[bytes]:
        real = answered(query, "addr=192.0.2.1:1")
        other_id = answered(query, "addr=192.0.2.66:66")
        other_id = bytes([other_id[0] ^ 1]) + other_id[1:]
        elsewhere = dns.message.make_query("_iroh.evil.example.", "TXT", id=query.id)
        other_question = answered(elsewhere, "addr=192.0.2.66:66")
        return [other_id, other_question, query.to_wire(), b"\xff" * 50, b"", real]

    async with asking(lend, clock, await name_server(spoofed)) as discovery:
        assert ports(await found(discovery)) == [1]


async def test_answers_from_elsewhere_are_passed_over(lend: Any, clock: Any, name_server: Any) -> None:
    """A perfect answer that comes from another address than was asked does not count."""
    server = await name_server(honest())
    loop = asyncio.get_running_loop()
    attacker, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    genuine = server.datagram_received

    def received(data: bytes, addr: Any) -> None:
        attacker.sendto(answered(dns.message.from_wire(data), "addr=192.0.2.66:66"), addr)
        # Once the attacker's is under way, and so before ours.
        loop.call_later(0.05, genuine, data, addr)

    server.datagram_received = received
    try:
        async with asking(lend, clock, server) as discovery:
            assert ports(await found(discovery)) == [1]
    finally:
        attacker.close()


@pytest.mark.parametrize("what", ["noise", "silence", "a length without its message", "a hang-up"])
async def test_broken_answers_by_tcp(what: str, lend: Any, clock: Any, serve: Any, name_server: Any) -> None:
    """Whatever a server sends by TCP, it is told, and an honest server beside it is heard."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if what == "noise":
            writer.write(b"\x00\x20" + b"\xff" * 32)
        elif what == "a length without its message":
            writer.write(b"\xff\xff" + b"x" * 100)
        if what != "a hang-up":
            await writer.drain()
            await asyncio.Event().wait()

    broken = f"tcp://{await serve(answer)}"
    good = await name_server(honest())
    async with asking(lend, clock, broken, f"tcp://{good.addr}") as discovery:
        assert ports(await found(discovery)) == [1]
    async with asking(lend, clock, broken, timeout=1.5) as discovery:
        assert broken in await failure(discovery)


async def test_several_origins(lend: Any, clock: Any, name_server: Any) -> None:
    """Each origin domain is asked for, and one that fails hides no other."""

    def by_origin(query: dns.message.Message) -> list[bytes]:
        if "one" in str(query.question[0].name):
            return [answered(query, "addr=192.0.2.1:1")]
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.REFUSED)
        return [response.to_wire()]

    async with asking(lend, clock, await name_server(by_origin), origins=("one.example", "two.example")) as discovery:
        assert ports(await found(discovery)) == [1]


async def test_closing_the_search_ends_it(lend: Any, clock: Any, name_server: Any, eventually: Any) -> None:
    """A search that is closed leaves no task and no socket (which the test's fixtures check)."""
    silent = await name_server(lambda query: [])
    async with asking(lend, clock, silent) as discovery:
        results = discovery.resolve(NODE)
        first = asyncio.ensure_future(anext(results))
        await eventually(lambda: silent.udp_queries == 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await results.aclose()  # type: ignore[attr-defined]


def certificate(directory: Path) -> ssl.SSLContext:
    """Write ca.pem, cert.pem and key.pem for dns.example and 127.0.0.1; a server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dns")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("dns.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


async def test_dns_over_tls(lend: Any, clock: Any, tmp_path: Path) -> None:
    """An answer comes over TLS (RFC 7858); a certificate of another name, or that nobody vouches for, is refused."""
    server = NameServer(honest())
    context = certificate(tmp_path)
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await server._tcp(reader, writer)
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    place = f"tls://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    ca_file = tmp_path / "cert.pem"
    try:
        for text in (place, f"{place}#dns.example"):
            async with asking(lend, clock, text, ca_file=ca_file) as discovery:
                assert ports(await found(discovery)) == [1]
        async with asking(lend, clock, f"{place}#other.example", ca_file=ca_file) as discovery:
            assert "certificate" in (await failure(discovery)).lower()
        async with asking(lend, clock, place) as discovery:
            assert "certificate" in (await failure(discovery)).lower()
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def test_dns_over_https(lend: Any, clock: Any, tmp_path: Path) -> None:
    """An answer comes over HTTPS (RFC 8484); an error, a redirect, an endless body and noise are told."""
    path = "/dns-query"
    seen: list[dns.message.Message] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        query = dns.message.from_wire(await request.read())
        seen.append(query)
        match request.path.rpartition("/")[2]:
            case "error":
                return web.Response(status=500)
            case "elsewhere":
                return web.Response(status=302, headers={"Location": path})
            case "noise":
                return web.Response(body=b"\xff" * 30)
            case "other":
                return web.Response(body=answered(dns.message.make_query("x.", "TXT", id=0), "addr=192.0.2.66:66"))
            case "endless":
                return web.Response(body=bytes(200_000))
        return web.Response(body=answered(query, "addr=192.0.2.1:1"), content_type="application/dns-message")

    app = web.Application()
    app.router.add_post("/{name}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate(tmp_path))
        await site.start()
        base = f"https://127.0.0.1:{runner.addresses[0][1]}"
        ca_file = tmp_path / "cert.pem"
        async with asking(lend, clock, base + path, ca_file=ca_file) as discovery:
            assert ports(await found(discovery)) == [1]
        assert [query.id for query in seen] == [0]
        for name, words in (("error", "HTTP status 500"), ("elsewhere", "HTTP status 302"), ("noise", "can't be read"),
                            ("other", "another question"), ("endless", "larger than")):  # fmt: skip
            async with asking(lend, clock, f"{base}/{name}", ca_file=ca_file) as discovery:
                assert words in await failure(discovery)
    finally:
        await runner.cleanup()


async def test_discovery_keeps_its_contract(name_server: Any) -> None:
    """With a name server that holds a zone, everything that the core relies on holds; what it gives is not signed."""
    zone: dict[str, NodeAddr] = {}

    async def publish(record: SignedRecord) -> None:
        zone[record.node_id.z32()] = record.addr

    def respond(query: dns.message.Message) -> list[bytes]:
        addr = zone.get(query.question[0].name.labels[1].decode())
        return [answered(query, *(f"addr={direct}" for direct in addr.direct_addrs) if addr else ())]

    server = await name_server(respond)

    def context(servers: tuple[str, ...], timeout: float = 10.0) -> LentContext:
        return plugin_context(DnsConfig(origins=(ORIGIN,), servers=servers, timeout=timeout), name="dns")

    await check_discovery(
        plugin.tom_discovery,
        publish=publish,
        context=lambda: context((str(server.addr),)),
        unreachable=lambda: context(("127.0.0.1:9",), 0.5),
        signed=False,
    )
