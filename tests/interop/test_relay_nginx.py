"""nginx before a relay, configured as the documentation says: it ends TLS and passes WebSockets on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.interop.peers import IrohPeer, PeerMissing
from tests.interop.relayed import flowing, meet, node_at
from tom_connect import Endpoint, EndpointConfig
from tom_connect.keys import SecretKey
from tom_relay.server import RelayServer, RelayServerConfig
from tom_relay.wire import ClientHandshake, Dialect, ReceivedDatagrams, SendDatagrams, decode_from_server, encode

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "host-a-relay.md"
DIALECT = Dialect.IROH_V2
START_TIMEOUT = 20.0


def certificate(directory: Path) -> ssl.SSLContext:
    """Write cert.pem and key.pem for 127.0.0.1; a client's context that trusts them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (directory / "cert.pem").write_bytes(pem)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "key.pem").write_bytes(text)
    return ssl.create_default_context(cadata=pem.decode())


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def nginx(directory: Path, relay: RelayServer, *, tls: bool, client: str = "$remote_addr") -> Iterator[str]:
    """Run nginx with the documented server block before a relay; its URL. `client`: what it says of its clients."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if program is None:
        pytest.skip("needs nginx: apt-get install nginx-light")
    found = re.search(r"^server \{.*?^\}\n", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    port = free_port()
    block = found[0].replace("http://127.0.0.1:3340", f"http://{relay.addrs[0]}")
    block = block.replace("$remote_addr", client)
    block = block.replace("/etc/letsencrypt/live/relay.example.org/fullchain.pem", str(directory / "cert.pem"))
    block = block.replace("/etc/letsencrypt/live/relay.example.org/privkey.pem", str(directory / "key.pem"))
    block = block.replace("listen 443 ssl;", f"listen 127.0.0.1:{port}{' ssl' if tls else ''};")
    if not tls:
        block = re.sub(r"^ *ssl_.*\n", "", block, flags=re.MULTILINE)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log {directory}/errors;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{block}}}\n"
    )
    command = [program, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(directory / "errors")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                    break
                assert time.monotonic() < deadline, f"nginx did not listen within {START_TIMEOUT} s"
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
                    raise AssertionError(process.stderr and process.stderr.read())
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


async def joined(
    session: aiohttp.ClientSession, url: str, context: ssl.SSLContext
) -> tuple[SecretKey, aiohttp.ClientWebSocketResponse]:
    """A client that the relay has let in."""
    key = SecretKey.generate()
    websocket = await session.ws_connect(url + "/relay", protocols=(DIALECT.value,), ssl=context)
    handshake = ClientHandshake(DIALECT, key.node_id, key.sign)
    while not handshake.done:
        if answer := handshake.receive(await websocket.receive_bytes(timeout=10)):
            await websocket.send_bytes(answer)
    return key, websocket


async def test_a_relay_behind_nginx_serves_over_tls(tmp_path: Path) -> None:
    """Sessions go through, frames of all sizes arrive whole, and /stats is not shown to those whom nginx passes on."""
    context = certificate(tmp_path)
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay, aiohttp.ClientSession() as session:
        with nginx(tmp_path, relay, tls=True) as url:
            for path, status in (("/ping", 200), ("/healthz", 200), ("/generate_204", 204), ("/stats", 403)):
                async with session.get(url + path, ssl=context) as response:
                    assert response.status == status
            (a, from_a), (b, to_b) = await joined(session, url, context), await joined(session, url, context)
            for size in (1, 1200, 60_000):
                data = os.urandom(size)
                await from_a.send_bytes(encode(SendDatagrams(b.node_id.raw, data, 1, 1200), DIALECT))
                message = await to_b.receive_bytes(timeout=10)
                assert decode_from_server(message, DIALECT) == ReceivedDatagrams(a.node_id.raw, data, 1, 1200)
            await from_a.close()
            await to_b.close()


async def test_our_nodes_meet_through_nginx(tmp_path: Path) -> None:
    """Two nodes that trust nginx's certificate by `relay_client.ca_file` exchange streams and datagrams through it."""
    certificate(tmp_path)
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay:
        with nginx(tmp_path, relay, tls=True) as url:
            trust = {"ca_file": tmp_path / "cert.pem"}
            async with node_at(url, **trust) as a, node_at(url, **trust) as b:
                assert [str(home) for home in b.node_addr().relay_urls] == [url + "/"]
                dialed, accepted = await meet(a, b)
                accepted.send_datagram(b"hello")
                assert await asyncio.wait_for(dialed.read_datagram(), 30) == b"hello"
                async with flowing(dialed, accepted) as flows:
                    for flow in flows:
                        await flow.more(1_000_000, within=60)
                    for flow in flows:
                        await flow.end()
                assert {path.kind for path in (*dialed.paths(), *accepted.paths())} == {"relay"}
                assert relay.hub.counters.relayed.bytes > 2_000_000


async def test_a_node_that_does_not_know_the_authority_refuses_nginx(tmp_path: Path) -> None:
    """Without the authority's file our client does not use the relay, and says that it is for the certificate."""
    certificate(tmp_path)
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay:
        with nginx(tmp_path, relay, tls=True) as url:
            config = EndpointConfig(bind=("127.0.0.1:0",), persist=False, plugins=("relay",), relay=(url,))
            async with Endpoint.bind(config) as stranger, asyncio.timeout(30):
                while (problem := stranger.relays()[0].problem) is None:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
                assert "certificate" in problem.lower()
        assert relay.sessions.counters.upgrades == 0


@pytest.mark.parametrize("trusted", [True, False], ids=["named", "unnamed"])
async def test_addresses_that_nginx_tells_count_if_it_is_named(tmp_path: Path, trusted: bool) -> None:
    """The relay vouches for the address in nginx's X-Forwarded-For if `trust_forwarded` names nginx; else for none."""
    context = certificate(tmp_path)
    proxies = ("127.0.0.1",) if trusted else ()
    options = RelayServerConfig.dev(listen=("127.0.0.1:0",), trust_forwarded=proxies)
    async with RelayServer(options) as relay, aiohttp.ClientSession() as session:
        with nginx(tmp_path, relay, tls=True, client="198.51.100.7") as url:
            _, websocket = await joined(session, url, context)
            (client,) = relay.hub.clients()
            assert client.address == (ipaddress.ip_address("198.51.100.7") if trusted else None)
            await websocket.close()


async def test_iroh_nodes_meet_through_nginx(tmp_path: Path) -> None:
    """Two iroh nodes use the relay behind nginx (without TLS, as iroh takes no certificate that is not public)."""
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay:
        with nginx(tmp_path, relay, tls=False) as url, contextlib.ExitStack() as stack:
            peers = []
            for _ in range(2):
                try:
                    start = IrohPeer.start
                    peers.append(stack.enter_context(await asyncio.to_thread(start, relays=(url,))))
                except PeerMissing as missing:
                    pytest.skip(str(missing))
            for peer in peers:
                await peer.online()
            dialed = await peers[0].dial(peers[1].node_id, [], relay=url)
            data = os.urandom(300_000)
            assert await peers[0].stream(dialed, data) == data
            assert relay.hub.counters.relayed.packets > 5
