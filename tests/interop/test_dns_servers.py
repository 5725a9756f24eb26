"""Our DNS client at a real name server (knot) and at a real resolver before it (unbound)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.interop.peers.name_servers import knot, silent_addr, unbound
from tests.interop.peers.process import PeerMissing
from tom_connect import Endpoint, EndpointConfig, NodeAddr, SecretKey
from tom_connect.exceptions import DiscoveryError
from tom_pkarr.core.txt import DnsAnswer, DnsRefusal
from tom_pkarr.dns import plugin
from tom_pkarr.dns.config import DnsConfig
from tom_pkarr.dns.query import DnsClient
from tom_pkarr.dns.servers import NameServer

ORIGIN = "dns.example"
KEY = SecretKey(bytes(31) + b"\x05")
TIMEOUT = 20.0


def records(addr: NodeAddr) -> list[tuple[str, str]]:
    """An address as TXT records below the origin."""
    name = f"_iroh.{addr.node_id.z32()}"
    texts = [f"relay={url}" for url in addr.relay_urls] + [f"addr={direct}" for direct in addr.direct_addrs]
    return [(name, text) for text in texts]


async def ask(server: str, origin: str = ORIGIN, key: SecretKey = KEY) -> DnsAnswer | DnsRefusal:
    async with DnsClient(TIMEOUT) as client:
        return await client.ask(NameServer.parse(server), key.node_id, origin)


async def test_answers_of_knot_and_unbound(tmp_path: Path) -> None:
    """Both give the same records by UDP and TCP; a node without records is an empty answer, another zone a refusal."""
    addr = NodeAddr(KEY.node_id, ("https://relay.example/",), ("203.0.113.7:4433", "[2001:db8::7]:4433"))
    try:
        with knot(tmp_path, ORIGIN, records(addr)) as authority, unbound(tmp_path, ORIGIN, authority) as resolver:
            for server in (authority, resolver):
                for text in (str(server), f"tcp://{server}"):
                    answer = await ask(text)
                    assert isinstance(answer, DnsAnswer), answer
                    assert answer.addr.relay_urls == addr.relay_urls
                    assert set(answer.addr.direct_addrs) == set(addr.direct_addrs)
                    assert 0 < answer.ttl <= 30
                nobody = await ask(str(server), key=SecretKey.generate())
                assert isinstance(nobody, DnsAnswer)
                assert nobody.addr.is_empty()
                refused = await ask(str(server), "other.example")
                assert isinstance(refused, DnsRefusal)
                assert any(code in refused.reason for code in ("REFUSED", "SERVFAIL"))
    except PeerMissing as missing:
        pytest.skip(str(missing))


async def test_long_answers_come_by_tcp(tmp_path: Path) -> None:
    """A hundred addresses do not fit a datagram: real servers truncate, and TCP brings them, cut to what we take."""
    addr = NodeAddr(KEY.node_id, (), tuple(f"203.0.113.{n}:4433" for n in range(1, 101)))
    try:
        with knot(tmp_path, ORIGIN, records(addr)) as authority, unbound(tmp_path, ORIGIN, authority) as resolver:
            for server in (authority, resolver):
                answer = await ask(str(server))
                assert isinstance(answer, DnsAnswer), answer
                assert len(answer.addr.direct_addrs) == 64
                assert set(answer.addr.direct_addrs) <= set(addr.direct_addrs)
    except PeerMissing as missing:
        pytest.skip(str(missing))


async def test_an_endpoint_is_dialed_by_its_dns_records(tmp_path: Path) -> None:
    """A node whose address stands in knot's zone is found through unbound, a silent server before it, and reached."""
    base = {"alpns": ("test/1",), "bind": ("127.0.0.1:0",), "allow_local": True, "persist": False, "plugins": ()}
    silent, silent_at = silent_addr()
    try:
        async with Endpoint.bind(EndpointConfig(**base, secret_key=KEY)) as theirs:  # type: ignore[arg-type]
            zone = records(theirs.node_addr())
            with knot(tmp_path, ORIGIN, zone) as authority, unbound(tmp_path, ORIGIN, authority) as resolver:
                servers = (str(silent_at), str(resolver))
                config = EndpointConfig(
                    **base,  # type: ignore[arg-type]
                    extra_plugins=(("dns-test", plugin),),
                    plugin_configs={"dns": DnsConfig(origins=(ORIGIN,), servers=servers)},
                )
                async with Endpoint.bind(config) as ours, asyncio.timeout(TIMEOUT):
                    dialing = asyncio.create_task(ours.connect(KEY.node_id, "test/1"))
                    await (await anext(theirs.accept())).accept()
                    assert (await dialing).remote_node_id == KEY.node_id
                    with pytest.raises(DiscoveryError, match="dns: nothing found"):
                        await ours.connect(SecretKey.generate().node_id, "test/1")
    except PeerMissing as missing:
        pytest.skip(str(missing))
    finally:
        silent.close()
