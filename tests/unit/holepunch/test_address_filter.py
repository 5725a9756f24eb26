"""The address filter's lists and flags: what it refuses leaves by no way."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import RelayUrl, SocketAddr, is_local
from tom_connect.config import EndpointConfig
from tom_connect.exceptions import ConfigError
from tom_connect.holepunch import disco
from tom_connect.holepunch.addrfilter import SOURCE_CALL, SOURCE_PEER, SOURCE_QUIC, AddressFilter
from tom_connect.holepunch.core import DiscoCore
from tom_connect.holepunch.disco import CallMeMaybe, Ping, Pong
from tom_connect.holepunch.path import Path
from tom_connect.holepunch.sealing import Sealer
from tom_connect.keys import SecretKey
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.netreport.interfaces import InterfaceAddress, NetworkState
from tom_connect.netreport.report import FamilyReport, NetReport
from tom_connect.own_addrs import OwnAddresses

US, PEER = SecretKey(b"u" * 32), SecretKey(b"p" * 32)
MEETING = SocketAddr("198.51.100.77", 7)
"""Where the peer is met, so that there is a path to offer candidates on."""


def addr(text: str) -> SocketAddr:
    return SocketAddr.parse(text)


def of(**options: Any) -> AddressFilter:
    return AddressFilter.of(EndpointConfig(**options))


def test_lists() -> None:
    """Deny comes before allow, and allow leaves out all else, for the caller's own words too."""
    rule = of(addr_allow=("198.51.100.0/24", "2001:db8::/32"), addr_deny=("198.51.100.7/32",))
    for text, permitted in {
        "198.51.100.8:1": True,
        "198.51.100.7:1": False,
        "203.0.113.1:1": False,
        "[2001:db8::1]:1": True,
        "[2001:db9::1]:1": False,
    }.items():
        assert rule.permits(addr(text)) is permitted
        assert rule.publishable(addr(text)) is permitted
        assert rule.offerable(addr(text)) is permitted
        for source in ("dht", SOURCE_CALL, SOURCE_PEER, SOURCE_QUIC):
            assert rule.probeable(addr(text), source, trusted=False) is permitted
        assert rule.probeable(addr(text), "caller", trusted=True) is permitted


def test_an_allowed_network_is_not_published_for_that() -> None:
    """A list says where packets may go at all; that private addresses are not published remains."""
    rule = of(addr_allow=("10.0.0.0/8",))
    assert not rule.publishable(addr("10.1.2.3:4"))
    assert rule.offerable(addr("10.1.2.3:4"))
    assert of(addr_allow=("10.0.0.0/8",), allow_local=True).publishable(addr("10.1.2.3:4"))


def test_lan() -> None:
    """Without LAN, private addresses are neither offered nor probed on a peer's word; the caller's own is taken."""
    rule = of(lan=False)
    for text in ("192.168.1.5:1", "10.0.0.1:1", "100.64.0.1:1", "[fd00::1]:1"):
        assert not rule.offerable(addr(text))
        assert not rule.probeable(addr(text), SOURCE_CALL, trusted=False)
        assert rule.probeable(addr(text), "caller", trusted=True)
        assert of().offerable(addr(text))
    assert rule.offerable(addr("203.0.113.1:1"))


def test_public_only() -> None:
    """With `public_only` no private, loopback or link-local address gets a packet, whoever names it."""
    rule = of(public_only=True)
    for text in ("192.168.1.5:1", "127.0.0.1:1", "169.254.1.1:1", "[fd00::1]:1", "[fe80::1]:1", "[fec0::1]:1"):
        assert not rule.probeable(addr(text), "caller", trusted=True)
        assert not rule.probeable(addr(text), SOURCE_PEER, trusted=False)
    assert rule.publishable(addr("203.0.113.1:1"))


def test_relay_only() -> None:
    """Without direct paths no address is published, offered or probed, and relays stay usable."""
    rule = of(direct=False)
    assert not rule.permits(addr("203.0.113.1:1"))
    assert rule.relay_usable(RelayUrl.parse("https://203.0.113.1/"), trusted=False)


def test_relays_in_a_denied_network() -> None:
    """A relay whose address is denied is not used on a record's word."""
    rule = of(addr_deny=("203.0.113.0/24",))
    assert not rule.relay_usable(RelayUrl.parse("https://203.0.113.1/"), trusted=False)
    assert rule.relay_usable(RelayUrl.parse("https://203.0.113.1/"), trusted=True)
    assert rule.relay_usable(RelayUrl.parse("https://relay.example/"), trusted=False)


def test_networks_of_skipped_interfaces() -> None:
    """Addresses on a bridge to containers of ours are nobody's on a peer's word; a container may still come to us."""
    rule = attrs.evolve(of(), skipped=(ipaddress.ip_network("172.17.0.0/16"),))
    container = addr("172.17.0.2:1")
    assert not rule.offerable(container)
    assert not rule.probeable(container, SOURCE_CALL, trusted=False)
    assert rule.probeable(container, SOURCE_PEER, trusted=False)
    assert rule.probeable(container, "caller", trusted=True)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("addr_allow", "10.0.0.0/8", "expected a sequence of non-empty texts"),
        ("addr_allow", ("10.0.0.0/33",), "expected a network such as 192.168.0.0/16"),
        ("addr_deny", ("10.0.0.1/8",), "has host bits set"),
        ("addr_deny", ("example.org",), "expected a network such as"),
        ("skip_interfaces", "docker0", "expected a sequence of non-empty texts"),
        ("skip_interfaces", ("",), "expected a sequence of non-empty texts"),
        ("lan", 1, "expected True or False"),
        ("public_only", "yes", "expected True or False"),
        ("watch_network", None, "expected True or False"),
    ],
)
def test_options_are_checked(field: str, value: Any, words: str) -> None:
    """A wrong option is named, with what was expected."""
    with pytest.raises(ConfigError, match=f"^{field}: .*{words}"):
        EndpointConfig(**{field: value})


def test_public_and_local_exclude_each_other() -> None:
    """Who asks for public addresses only and for local ones is told so."""
    with pytest.raises(ConfigError, match=r"^public_only: can't be together with allow_local"):
        EndpointConfig(public_only=True, allow_local=True)


# --- what leaves -----------------------------------------------------------------------------------------------------

NETWORKS = (
    "10.0.0.0/8",
    "192.168.0.0/16",
    "198.51.100.0/24",
    "203.0.113.0/25",
    "fd00::/8",
    "2001:db8::/33",
    "0.0.0.0/0",
)
HOSTS = st.one_of(
    st.sampled_from(NETWORKS).flatmap(
        lambda text: st.integers(0, min(ipaddress.ip_network(text).num_addresses - 1, 2**64)).map(
            lambda n: str(ipaddress.ip_network(text).network_address + n)
        )
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "172.17.0.2", "224.0.0.1", "ff02::1", "0.0.0.0"]),
)
ADDRS = st.lists(st.builds(SocketAddr, HOSTS, st.integers(0, 65535)), max_size=12)
CONFIGS = st.builds(
    lambda **options: EndpointConfig(
        **{**options, "public_only": options["public_only"] and not options["allow_local"]}
    ),
    allow_local=st.booleans(),
    lan=st.booleans(),
    public_only=st.booleans(),
    direct=st.booleans(),
    addr_allow=st.lists(st.sampled_from(NETWORKS), max_size=2),
    addr_deny=st.lists(st.sampled_from(NETWORKS[:-1]), max_size=2),
)


def refused(config: EndpointConfig, where: SocketAddr) -> bool:
    """The promise of the configuration, put down once more and apart from the filter."""
    ip = ipaddress.ip_address(where.host)
    if not config.direct or any(ip in net for net in config.addr_deny_networks if net.version == ip.version):
        return True
    if config.addr_allow and not any(ip in net for net in config.addr_allow_networks if net.version == ip.version):
        return True
    return ip.is_multicast or ip.is_unspecified or (config.public_only and (is_local(where) or ip.is_link_local))


class Bound(MagicSocket):
    """A magic socket that says it is bound to all addresses."""

    @property
    def local_addrs(self) -> tuple[SocketAddr, ...]:
        return (SocketAddr("0.0.0.0", 4242), SocketAddr("::", 4242))


@given(CONFIGS, ADDRS)
def test_nothing_refused_is_published_or_offered(config: EndpointConfig, addrs: list[SocketAddr]) -> None:
    """Whatever our interfaces and plugins say that our addresses are: none that is refused is published, offered in a
    call, or on an interface that is left out; and without `allow_local` no private one is published."""
    magic = Bound(US, address_filter=AddressFilter.of(config), direct=config.direct)
    own = OwnAddresses(US.node_id, config, magic)
    bridge = InterfaceAddress("docker0", 5, "172.17.0.1", 16)
    hosts = dict.fromkeys(["203.0.113.9", *(a.host for a in addrs[::2])])
    own.seen(NetworkState((*(InterfaceAddress("eth0", 2, host, 32) for host in hosts), bridge)))
    seen = tuple(addrs[1::2])
    own.net.set(NetReport(ipv4=FamilyReport(4, reflexive=seen, confirmed=seen[::2])))
    own.update()
    published = own.told.value.direct_addrs
    offered = magic._core._own[0]
    assert [a for a in (*published, *offered) if refused(config, a)] == []
    if not refused(config, SocketAddr("203.0.113.9", 4242)):
        assert SocketAddr("203.0.113.9", 4242) in published
    assert bridge.host not in {a.host for a in (*published, *offered)}
    if not config.allow_local:
        assert [a for a in published if is_local(a)] == []
        assert config.lan or [a for a in offered if is_local(a)] == []


@given(CONFIGS, ADDRS, ADDRS, ADDRS, st.integers(0, 2**32))
def test_nothing_refused_is_probed_or_answered(
    config: EndpointConfig, named: list[SocketAddr], called: list[SocketAddr], seen: list[SocketAddr], seed: int
) -> None:
    """No packet goes to an address that is refused: not one that the caller, a record or a peer names, nor one from
    which authentic packets come."""
    core = DiscoCore(US, address_filter=AddressFilter.of(config), random=random.Random(seed).randbytes)
    peer = Sealer(PEER, random.Random(seed + 1).randbytes)
    peer.pin(US.node_id)
    remote = core.acquire(PEER.node_id, 0.0)
    sent: list[Path] = []

    def arrives(message: Ping | CallMeMaybe | Pong, source: SocketAddr, now: float) -> None:
        packet, _stamp = peer.seal(US.node_id, disco.encode_message(message))
        core.receive(packet, source, now)

    def turn(now: float) -> None:
        core.tick(now)
        sent.extend(path for path, _packet in core.outbox)
        core.outbox.clear()

    core.add_candidates(remote, named, "caller", 0.0, trusted=True)
    core.add_candidates(remote, named, "dht", 0.0, trusted=False)
    turn(0.0)
    arrives(Ping(b"t" * disco.TX_SIZE), MEETING, 0.1)
    candidates = tuple(a for a in called if a.port)[: disco.MAX_CANDIDATES]
    arrives(CallMeMaybe(b"c" * disco.TX_SIZE, candidates, ()), MEETING, 0.2)
    for number, source in enumerate(seen):
        arrives(Ping(bytes([number]) * disco.TX_SIZE), source, 0.3)
    for step in range(10):
        turn(0.4 + step)
    assert [path for path in sent if isinstance(path, SocketAddr) and refused(config, path)] == []
    if not refused(config, MEETING):
        assert MEETING in sent


async def test_quic_from_a_denied_address_is_dropped() -> None:
    """A QUIC packet from an address that is denied is counted and goes nowhere."""
    magic = MagicSocket(US, address_filter=of(addr_deny=("198.51.100.0/24",)))
    got: list[Path] = []
    magic.set_quic_receiver(lambda path, _datagrams, _now: got.append(path))
    allowed = SocketAddr("203.0.113.5", 1)
    for source in (MEETING, allowed):
        magic._demux.received(source, [b"\x40" + bytes(30)], 0.0)
    assert got == [allowed]
    assert magic.counters["quic: source refused by the address filter"] == 1
