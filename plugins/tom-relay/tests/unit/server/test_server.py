"""The server's life: starting, TLS, stopping with a word to its clients, and its command."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tom_connect.cli.main import run as run_command
from tom_connect.cli.options import Surroundings
from tom_connect.plugins import InstalledPlugin, PluginCatalog
from tom_relay.errors import RelayServerError
from tom_relay.server import RelayServer, RelayServerConfig, plugin
from tom_relay.server.cli import configured
from tom_relay.wire import Dialect, Health, ReceivedDatagrams, Restarting


def write_certificate(directory: pathlib.Path, name: str) -> ssl.SSLContext:
    """Write cert.pem and key.pem for 127.0.0.1 with a common name; a client's context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / "cert.pem").write_bytes(pem)
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ssl.create_default_context(cadata=pem.decode())


async def common_name(relay: RelayServer, context: ssl.SSLContext) -> str:
    """Whose certificate the relay shows."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", relay.addrs[0].port, ssl=context)
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    await writer.wait_closed()
    return str(subject[0][0][1])


async def test_tls_follows_its_files(run: Any, clients: Any, tmp_path: pathlib.Path) -> None:
    """Over TLS all works; a new certificate counts for new connections, a broken one not, and old sessions live on."""
    first = write_certificate(tmp_path, "first")
    async with run(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem") as relay:
        assert relay.url.startswith("https://127.0.0.1:")
        a, b = [await clients.open(relay.url, ssl=first) for _ in range(2)]
        assert await common_name(relay, first) == "first"
        (tmp_path / "key.pem").write_text("broken")
        await relay.reload()
        assert await common_name(relay, first) == "first"
        second = write_certificate(tmp_path, "second")
        await relay.reload()
        assert await common_name(relay, second) == "second"
        await a.send(b.node_id, b"over the old certificate")
        assert await b.read() == ReceivedDatagrams(a.node_id.raw, b"over the old certificate")


async def test_a_client_that_never_ends_its_tls_handshake_is_ended(run: Any, raw: Any, tmp_path: pathlib.Path) -> None:
    """Half a TLS handshake holds a connection no longer than a whole one."""
    write_certificate(tmp_path, "x")
    options = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem", "handshake_timeout": 0.5}
    async with run(**options) as relay:
        reader, writer = await raw(relay)
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        async with asyncio.timeout(10):
            assert await reader.read() == b""


async def test_certificates_that_do_not_fit_stop_the_start(run: Any, tmp_path: pathlib.Path) -> None:
    """A missing, a wrong and an unreadable certificate are named."""
    files = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    with pytest.raises(RelayServerError, match=r"cert.pem: No such file"):
        await run(**files).start()
    write_certificate(tmp_path, "one")
    key = (tmp_path / "key.pem").read_bytes()
    write_certificate(tmp_path, "two")
    (tmp_path / "key.pem").write_bytes(key)
    with pytest.raises(RelayServerError, match="not a certificate and its key"):
        await run(**files).start()


async def test_a_taken_port_is_named(relay: RelayServer) -> None:
    """A server that can't listen says where, and leaves nothing behind."""
    second = RelayServer(RelayServerConfig.dev(listen=(str(relay.addrs[0]),)))
    with pytest.raises(RelayServerError, match=f"can't listen on {relay.addrs[0]}: Address already in use$"):
        await second.start()
    await second.stop()


async def test_a_stop_is_announced(run: Any, clients: Any) -> None:
    """What waits is delivered, every client is told Restarting in its dialect, and sessions end with 1001."""
    server = run(reconnect_in=1.0, try_for=7.0)
    await server.start()
    opened = [await clients.open(server.url, dialect=dialect) for dialect in Dialect]
    await opened[0].send(opened[1].node_id, b"the last word")
    assert await opened[1].read() == ReceivedDatagrams(opened[0].node_id.raw, b"the last word")
    stopping = asyncio.ensure_future(server.stop())
    for client in opened:
        frame = await client.read()
        while not isinstance(frame, Restarting):
            assert not isinstance(frame, Health)
            frame = await client.read()
        assert 1000 <= frame.reconnect_in_ms < 1500
        assert frame.try_for_ms == 7000
        assert await client.closed() == (1001, "the relay restarts")
    await stopping
    with pytest.raises(aiohttp.ClientConnectionError):
        await clients.upgrade(server.url)
    await server.stop()  # twice does no harm


async def test_clients_that_hang_do_not_hold_a_stop(run: Any, clients: Any) -> None:
    """A client that reads nothing delays a stop by the drain time and no more."""
    server = run(drain=0.3)
    await server.start()
    a, b = await clients.open(server.url), await clients.open(server.url)
    b.websocket._response.connection.transport.pause_reading()
    async with asyncio.timeout(10):
        while not server.hub.counters.dropped["queue_full"]:
            await a.send(b.node_id, bytes(60_000), segment_size=1000)
    began = asyncio.get_running_loop().time()
    await server.stop()
    assert asyncio.get_running_loop().time() - began < 10


# The command


_PROGRAM = """
import sys
from tom_connect.cli.main import run
from tom_connect.cli.options import Surroundings
from tom_connect.plugins import InstalledPlugin, PluginCatalog
from tom_relay.server import plugin
catalog = PluginCatalog(lambda: [InstalledPlugin("relay-server", None, None, lambda: plugin)])
sys.exit(run(sys.argv[1:], Surroundings(catalog=catalog)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_serves_until_a_signal(clients: Any, tmp_path: pathlib.Path, number: int) -> None:
    """`relay --dev` says where it is, relays, and tells its clients when a signal ends it, which takes no time-out."""
    environ = os.environ | {
        "TOM_CONNECT_DATA_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TOM_CONNECT_RELAY_SERVER_LISTEN": "127.0.0.1:0",
    }
    command = [sys.executable, "-c", _PROGRAM, "relay", "--dev", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:  # noqa: ASYNC220
        try:
            assert process.stdout is not None
            serving = json.loads(await asyncio.to_thread(process.stdout.readline))
            assert serving["event"] == "serving"
            assert serving["url"].startswith("http://127.0.0.1:")
            client = await clients.open(serving["url"])
            began = asyncio.get_running_loop().time()
            process.send_signal(number)
            assert isinstance(await client.read(), Restarting)
            assert (await client.closed())[0] == 1001
            assert await asyncio.to_thread(process.wait, 30) == 130
            # A second is promised, but not to a machine that others load.
            assert asyncio.get_running_loop().time() - began < 8
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--access", "maybe"], "--access"),
        (["--access", "allow"], "access: mode allow"),
        (["--max-clients", "many"], "--max-clients"),
        (["--listen", "nowhere"], "listen"),
        (["--tls-cert", "x"], "tls_cert, tls_key"),
        (["--allow", "xyz"], "allow"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, arguments: list[str], words: str
) -> None:
    """Wrong options end with exit code 2 and one line that names them."""
    catalog = PluginCatalog(lambda: [InstalledPlugin("relay-server", "tom-relay", "0.1.0", lambda: plugin)])
    environ = {"TOM_CONNECT_DATA_DIR": str(tmp_path)}
    assert run_command(["relay", "--dev", *arguments], Surroundings(environ=environ, catalog=catalog)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
    assert "Traceback" not in error


def test_a_taken_port_is_exit_1(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    """What the system refuses is a failure, not wrong usage."""
    catalog = PluginCatalog(lambda: [InstalledPlugin("relay-server", "tom-relay", "0.1.0", lambda: plugin)])
    environ = {"TOM_CONNECT_DATA_DIR": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code = run_command(["relay", "--dev", "--listen", where], Surroundings(environ=environ, catalog=catalog))
    assert code == 1
    assert f"can't listen on {where}" in capsys.readouterr().err


def test_options_lie_over_file_and_environment() -> None:
    """What the command line says wins; --dev only sets what nobody configured."""
    base = RelayServerConfig(listen=("127.0.0.1:1",), max_clients=5)
    changed = configured(
        base,
        {"relay_server_max_clients": "7", "relay_server_tokens": ()},
        dev=True,
        is_default=lambda name: name != "listen",
    )
    assert (changed.listen, changed.max_clients, changed.stun_listen) == (("127.0.0.1:1",), 7, ())
    assert configured(RelayServerConfig(), {}, dev=True, is_default=lambda _: True) == RelayServerConfig.dev()


async def test_udp_services_live_with_the_server(run: Any, clients: Any, tmp_path: pathlib.Path) -> None:
    """STUN answers where it is configured; address discovery over QUIC needs a certificate."""
    context = write_certificate(tmp_path, "relay")
    local = ("127.0.0.1:0",)
    async with run(stun_listen=local, qad_listen=local) as plain:
        assert set(plain.udp_addrs) == {"stun"}
    async with run(stun_listen=("localhost:0",)) as named:
        assert len(named.udp_addrs["stun"]) == 1
    files = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    async with run(stun_listen=local, qad_listen=local, **files) as relay:
        where = relay.udp_addrs
        assert set(where) == {"stun", "qad"}
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            host, _, port = where["stun"][0].rpartition(":")
            asking.connect((host, int(port)))
            await loop.sock_sendall(asking, b"\0\x01\0\0\x21\x12\xa4\x42" + b"transaction!")
            async with asyncio.timeout(5):
                answer = await loop.sock_recv(asking, 1000)
        assert answer[:2] == b"\x01\x01"
        async with clients.session.get(relay.url + "/relays", ssl=context) as response:
            (own,) = (await response.json())["relays"]
        assert own["stun_port"] == int(port)
        assert own["qad_port"] == int(where["qad"][0].rpartition(":")[2])
        async with clients.session.get(relay.url + "/metrics", ssl=context) as response:
            assert 'tom_relay_stun_datagrams_total{outcome="answered"} 1.0' in await response.text()
        write_certificate(tmp_path, "renewed")
        await relay.reload()
    for nowhere in ("192.0.2.1:3478", "no..host:3478"):
        with pytest.raises(RelayServerError):
            await run(stun_listen=(nowhere,)).start()
