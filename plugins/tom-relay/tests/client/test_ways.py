"""Ways to a relay: TLS by an authority of one's own, proxies, and what is refused."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tom_connect import Endpoint
from tom_connect.plugins import PluginState
from tom_relay.client.config import RelayClientConfig
from tom_relay.server import RelayServer, RelayServerConfig

from .meeting import at_relay, config, home, kind, meet, until


@attrs.define
class Proxy:
    """A proxy that only knows CONNECT; `asked` keeps the first lines of requests."""

    url: str = ""
    asked: list[str] = attrs.Factory(list)
    authorization: str | None = None
    status: str = "200 OK"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            self.asked.append(head[0])
            self.authorization = next((h for h in head if h.lower().startswith("proxy-authorization:")), None)
            method, where, _ = head[0].split()
            if method != "CONNECT" or not self.status.startswith("200"):
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            host, _, port = where.rpartition(":")
            there_reader, there = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(self._copy(reader, there), self._copy(there_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy on loopback."""
    made = Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await made.serve(reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def certificate(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A certificate for 127.0.0.1 that only those trust who are told to, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, keyfile


def options(**fields: Any) -> dict[str, Any]:
    """`plugin_configs` of the relay client."""
    return {"relay_client": RelayClientConfig(**fields)}


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_tls_by_an_authority_of_ones_own(certificate: tuple[pathlib.Path, pathlib.Path]) -> None:
    """With the authority's file the relay is used over TLS; without it it is refused, and why is told."""
    cert, key = certificate
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",), tls_cert=cert, tls_key=key)) as relay:
        url = f"https://127.0.0.1:{relay.addrs[0].port}"
        async with (
            at_relay(url, plugin_configs=options(ca_file=cert)) as a,
            at_relay(url, plugin_configs=options(ca_file=cert)) as b,
        ):
            dialed, _ = await meet(a, b)
            assert kind(dialed) == "relay"
        async with Endpoint.bind(config(url)) as stranger:
            await until(lambda: stranger.relays()[0].problem is not None)
            assert "certificate" in str(stranger.relays()[0].problem).lower()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_through_a_proxy_with_connect(
    proxy: Proxy, certificate: tuple[pathlib.Path, pathlib.Path], secure: bool
) -> None:
    """Both plain and TLS relays are reached by CONNECT; the proxy gets the password that its URL has."""
    cert, key = certificate
    tls = {"tls_cert": cert, "tls_key": key} if secure else {}
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",), **tls)) as relay:
        url = f"{'https' if secure else 'http'}://127.0.0.1:{relay.addrs[0].port}"
        through = options(proxy=proxy.url.replace("://", "://user:pass@"), ca_file=cert)
        async with at_relay(url, plugin_configs=through) as a, at_relay(url, plugin_configs=through) as b:
            dialed, _ = await meet(a, b)
            assert kind(dialed) == "relay"
        connect = f"CONNECT 127.0.0.1:{relay.addrs[0].port} HTTP/1.1"
        # A plain relay's standing is asked for as any page is.
        assert connect in proxy.asked and set(proxy.asked) <= {connect, f"GET {url}/relays HTTP/1.1"}
        assert "Basic" in str(proxy.authorization)


async def test_the_environment_names_a_proxy(proxy: Proxy, relay: RelayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is followed, unless NO_PROXY names the relay or the options say none."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("https_proxy", proxy.url)
    async with at_relay(relay.url):
        assert proxy.asked
    proxy.asked.clear()
    async with at_relay(relay.url, plugin_configs=options(proxy="none")):
        assert not proxy.asked
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with at_relay(relay.url):
        assert not proxy.asked


async def test_a_proxy_that_refuses_is_told(proxy: Proxy, relay: RelayServer) -> None:
    """The proxy's status is in the problem, its password is not."""
    proxy.status = "407 Proxy Authentication Required"
    through = options(proxy=proxy.url.replace("://", "://user:pass@"))
    async with Endpoint.bind(config(relay.url, plugin_configs=through)) as endpoint:
        await until(lambda: endpoint.relays()[0].problem is not None)
        assert "407" in str(endpoint.relays()[0].problem)
        assert "pass" not in str(endpoint.relays()[0].problem)


async def test_a_map_is_used(relay: RelayServer, tmp_path: pathlib.Path) -> None:
    """The relays of a file are as good as those given one by one."""
    file = tmp_path / "relays.txt"
    file.write_text(f"{relay.url}\n")
    async with Endpoint.bind(config(plugin_configs=options(map=file))) as endpoint:
        await home(endpoint)
        assert endpoint.relays()[0].kind == "configured"


@pytest.mark.parametrize(
    "fields", [{"public_relays": ("nobody",)}, {"plugin_configs": options(map=pathlib.Path("/no"))}]
)
async def test_options_that_cannot_be_carried_out_are_reported(fields: dict[str, Any]) -> None:
    """The plugin is left out with the reason, and the endpoint works without it."""
    async with Endpoint.bind(config(**fields)) as endpoint:
        (info,) = [info for info in endpoint.plugins if info.name == "relay"]
        assert info.state is PluginState.FAILED
        assert "public_relays" in info.reason or "/no" in info.reason


async def test_public_relays_are_a_fall_back_and_shown_as_such(
    relay: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are connected to only while no relay of our own is, and are left again when one is."""
    from tom_relay.client import maps, transport

    monkeypatch.setattr(transport, "FALL_BACK_AFTER", 0.5)
    monkeypatch.setattr(transport, "IDLE", 0.5)
    monkeypatch.setattr(maps, "PUBLIC_RELAYS", {"n0": (relay.url,)})
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as own:
        port = own.addrs[0].port
        async with at_relay(own.url, public_relays=("n0",)) as endpoint:
            # One of ours that is slow to come has the public one tried meanwhile.
            await until(lambda: [info.kind for info in endpoint.relays()] == ["configured"])
            first = endpoint.node_addr().relay_urls
            await own.stop()
            assert (await home(endpoint, other_than=first)).relay_urls != first
            assert endpoint.relays()[0].kind == "public" and endpoint.relays()[0].home
            async with RelayServer(RelayServerConfig.dev(listen=(f"127.0.0.1:{port}",))):
                await until(lambda: [info.kind for info in endpoint.relays()] == ["configured"])
                await until(lambda: endpoint.node_addr().relay_urls == first)
    async with Endpoint.bind(config(public_relays=("n0",))) as endpoint:
        await home(endpoint)
        assert endpoint.relays()[0].kind == "public"
