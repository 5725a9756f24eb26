"""What an endpoint learns from its relays about its own address."""

from __future__ import annotations

import asyncio
import pathlib

from cryptography.hazmat.primitives import serialization

from tom_connect import Endpoint, RelayUrl
from tom_connect.netreport import captive
from tom_connect.netreport.report import Mapping, NetReport
from tom_relay.client.config import RelayClientConfig
from tom_relay.qad import ServerCertificate
from tom_relay.server import RelayServer, RelayServerConfig

from .meeting import at_relay, config, until


async def report_that(endpoint: Endpoint, condition: object) -> NetReport:
    """The first report for which `condition` holds."""
    assert callable(condition)
    async with asyncio.timeout(20):
        async for report in endpoint.net_report():
            if condition(report):
                return report
    raise AssertionError("the endpoint was closed")


def known(report: NetReport) -> bool:
    """Whether our address is known and the home relay connected; the two come in any order."""
    return bool(report.ipv4.reflexive and report.complete and report.relays[0].home)


async def test_a_relay_tells_us_our_address_by_stun_on_the_port_that_it_names() -> None:
    """The address is that of the socket that carries QUIC, and the relay's latency over UDP is known."""
    server = RelayServerConfig.dev(listen=("127.0.0.1:0",), stun_listen=("127.0.0.1:0",))
    async with RelayServer(server) as relay, at_relay(relay.url, direct=True) as endpoint:
        report = await report_that(endpoint, known)
        assert report.ipv4.reflexive == report.ipv4.confirmed == endpoint.local_addrs
        assert report.ipv4.nat is False
        assert report.ipv4.port_preserved is True
        assert report.ipv4.mapping is Mapping.ENDPOINT_INDEPENDENT
        assert report.ipv4.answers is True
        assert report.udp_blocked is False
        (told,) = report.relays
        assert told.home and told.connected
        assert told.udp_rtt is not None and 0 <= told.udp_rtt < 5


async def test_a_relay_without_udp_services_is_asked_for_nothing() -> None:
    """Where no server can be asked, nothing is known, and the report is complete at that."""
    async with (
        RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay,
        at_relay(relay.url, direct=True) as endpoint,
    ):
        report = await report_that(endpoint, lambda report: report.complete and report.relays[0].connected)
        assert report.ipv4.answers is None
        assert report.ipv4.reflexive == ()
        assert report.udp_blocked is None


async def test_an_endpoint_that_wants_no_direct_packets_asks_nobody() -> None:
    """Without direct paths there is no use for an address, and nothing is sent over UDP."""
    server = RelayServerConfig.dev(listen=("127.0.0.1:0",), stun_listen=("127.0.0.1:0",))
    async with RelayServer(server) as relay, Endpoint.bind(config(relay.url)) as endpoint:
        await report_that(endpoint, lambda report: report.relays and report.relays[0].connected)
        assert relay.udp.stun is not None and not relay.udp.stun.counters
        assert endpoint.net_report().value.ipv4.reflexive == ()


async def test_a_relay_with_a_certificate_tells_us_our_address_by_qad(tmp_path: pathlib.Path) -> None:
    """QUIC address discovery goes over the socket of our own QUIC connections; the connection is closed with us."""
    made = ServerCertificate.self_signed(["127.0.0.1"])
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(made.pem)
    key.write_bytes(
        made.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = RelayServerConfig.dev(listen=("127.0.0.1:0",), qad_listen=("127.0.0.1:0",), tls_cert=cert, tls_key=key)
    options = {"relay_client": RelayClientConfig(ca_file=cert, proxy="none")}
    async with RelayServer(server) as relay:
        assert relay.udp.qad is not None
        async with at_relay(relay.url, direct=True, plugin_configs=options) as endpoint:
            report = await report_that(endpoint, known)
            assert report.ipv4.reflexive == report.ipv4.confirmed == endpoint.local_addrs
            assert relay.udp.qad.connections == 1
        await until(lambda: relay.udp.qad is not None and relay.udp.qad.connections == 0)


async def test_a_relay_is_not_taken_for_a_captive_portal() -> None:
    """The relay's own answer to the question of captive portals is known as such."""
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay:
        assert await captive.check(RelayUrl.parse(relay.url)) is False
