"""A QUIC stack that knows no address discovery meets our server of it."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.netreport.observed import ALPN
from tom_relay.qad import QadServer, ServerCertificate

qh3 = pytest.importorskip("qh3", reason="needs qh3: pip install qh3")


@pytest.mark.parametrize("alpn", [ALPN, "h3"])
async def test_a_stranger_connects_and_is_told_nothing(alpn: str) -> None:
    """qh3 completes a handshake and pings, and gets no frame that it did not ask for; no other protocol is served."""
    from qh3.asyncio.client import connect
    from qh3.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(is_client=True, alpn_protocols=[alpn], server_name="localhost")
    configuration.verify_mode = ssl.CERT_NONE
    async with QadServer(bind=[SocketAddr("127.0.0.1", 0)], certificate=ServerCertificate.self_signed()) as server:
        async with asyncio.timeout(10):
            if alpn == ALPN:
                async with connect("127.0.0.1", server.addrs[0].port, configuration=configuration) as client:
                    await client.ping()
            else:
                with pytest.raises(ConnectionError):
                    async with connect("127.0.0.1", server.addrs[0].port, configuration=configuration):
                        pass
    assert server.counters["accepted"] == 1
    assert server.counters["confirmed"] == (alpn == ALPN)
    assert server.counters["reports"] == 0
