"""Whose answer counts, what an epoch tells, and where a search leads."""

from __future__ import annotations

import ipaddress
from collections import Counter

import attrs
import pytest

from tom_connect.addr import SocketAddr
from tom_portmap.core.asking import MAX_LIFETIME, MIN_LIFETIME, NatPmpAsking, PcpAsking
from tom_portmap.core.eligible import Protocol
from tom_portmap.core.epoch import EpochClock
from tom_portmap.core.exchange import RELEASE, RETRANSMIT, Exchange
from tom_portmap.core.search import MAX_DATAGRAMS, MAX_LOCATIONS, Search
from tom_portmap.core.values import Grant
from tom_portmap.errors import RefusedError, SilentError
from tom_portmap.wire import natpmp, pcp, ssdp

from .fakegateway import GATEWAY, NATPMP, NONCE, PCP, PORT

SERVER = SocketAddr(GATEWAY, 5351)
PUBLIC = ipaddress.ip_address("11.0.0.1")
MAPPING = pcp.Mapping(NONCE, PORT, 4001, PUBLIC)
GRANTED = pcp.Response(pcp.MAP, 0, 120, 7, MAPPING)


def asked() -> tuple[Exchange[Grant], Counter[str]]:
    malformed: Counter[str] = Counter()
    exchange = PcpAsking(PCP, PORT, NONCE, malformed).map(None, 7200)
    exchange.start(0.0)
    return exchange, malformed


def test_the_answer_of_the_gateway_counts() -> None:
    """With our nonce and port, from its address."""
    exchange, malformed = asked()
    exchange.receive(GRANTED.encode(), SERVER)
    assert exchange.result == Grant(SocketAddr("11.0.0.1", 4001), 120.0, 7)
    assert exchange.get_timer() is None and not malformed


@pytest.mark.parametrize(
    ("response", "source", "kind"),
    [
        (GRANTED, SocketAddr("192.168.1.9", 5351), "not from the gateway"),
        (GRANTED, SocketAddr(GATEWAY, 1024), "not from the gateway"),
        (attrs.evolve(GRANTED, mapping=attrs.evolve(MAPPING, nonce=b"x" * 12)), SERVER, "nonce"),
        (attrs.evolve(GRANTED, mapping=attrs.evolve(MAPPING, internal_port=9)), SERVER, "nonce"),
        (attrs.evolve(GRANTED, mapping=attrs.evolve(MAPPING, protocol=6)), SERVER, "nonce"),
        (pcp.Response(pcp.MAP, 2, 120, 7), SERVER, "nonce"),
        (pcp.Response(pcp.ANNOUNCE, 0, 0, 7), SERVER, "answers nothing"),
        (attrs.evolve(GRANTED, lifetime=0), SERVER, "malformed"),
        (attrs.evolve(GRANTED, mapping=attrs.evolve(MAPPING, external_port=0)), SERVER, "malformed"),
    ],
)
def test_other_answers_are_counted_and_ignored(response: pcp.Response, source: SocketAddr, kind: str) -> None:
    """Another's address or nonce, another question, nonsense: the right answer still counts afterwards."""
    exchange, malformed = asked()
    exchange.receive(response.encode(), source)
    assert not exchange.done
    assert malformed[kind] >= 1
    exchange.receive(b"", SERVER)
    exchange.receive(GRANTED.encode(), SERVER)
    assert exchange.result is not None


def test_a_refusal_ends_the_exchange_with_its_reason() -> None:
    """The code in words; without a nonce only where the server can't know that there is one."""
    exchange, _ = asked()
    exchange.receive(attrs.evolve(GRANTED, result=8).encode(), SERVER)
    assert isinstance(exchange.error, RefusedError) and "no room" in str(exchange.error)
    exchange, _ = asked()
    exchange.receive(bytes.fromhex("0081000100000000"), SERVER)
    assert isinstance(exchange.error, RefusedError) and "another version" in str(exchange.error)


@pytest.mark.parametrize(("lifetime", "taken"), [(1, MIN_LIFETIME), (2**32 - 1, MAX_LIFETIME), (90, 90)])
def test_lifetimes_are_held_to_bounds(lifetime: int, taken: float) -> None:
    """A gateway can't make us ask all the time, nor never again."""
    exchange, _ = asked()
    exchange.receive(attrs.evolve(GRANTED, lifetime=lifetime).encode(), SERVER)
    assert exchange.result is not None and exchange.result.lifetime == taken


def test_a_nat_pmp_answer_is_for_our_port() -> None:
    """An answer about another port is another program's."""
    malformed: Counter[str] = Counter()
    exchange = NatPmpAsking(NATPMP, PORT, malformed).map(PUBLIC, None, 7200)
    exchange.start(0.0)
    for internal in (PORT + 1, PORT):
        assert not exchange.done
        mapped = natpmp.Mapped(internal, 5000, 3600)
        exchange.receive(natpmp.Response(natpmp.MAP_UDP, 0, 1, mapped=mapped).encode(), SERVER)
    assert exchange.result == Grant(SocketAddr("11.0.0.1", 5000), 3600.0, 1)


@pytest.mark.parametrize("waits", [RETRANSMIT, RELEASE])
def test_silence_has_an_end(waits: tuple[float, ...]) -> None:
    """So many requests, each after its time; and a release is over within the second that a close has."""
    asking = PcpAsking(PCP, PORT, NONCE, Counter())
    exchange: Exchange[bool] | Exchange[Grant] = asking.release() if waits is RELEASE else asking.map(None, 7200)
    sent, now = 1, 0.0
    exchange.start(now)
    while not exchange.done:
        timer = exchange.get_timer()
        assert timer is not None
        assert exchange.handle_timer(timer - 0.001) is None and not exchange.done
        now = timer
        sent += exchange.handle_timer(now) is not None
    assert isinstance(exchange.error, SilentError)
    assert (sent, now) == (len(waits), pytest.approx(sum(waits)))
    assert sum(RELEASE) < 0.7


@pytest.mark.parametrize(
    ("protocol", "told", "lost"),
    [
        # (seconds, epoch), by RFC 6887 section 8.5 and RFC 6886 section 3.6.
        ("pcp", [(0, 1000), (100, 1100)], False),
        ("pcp", [(0, 1000), (100, 1095)], False),
        ("pcp", [(0, 1000), (0.1, 999)], False),
        ("pcp", [(0, 1000), (100, 5)], True),
        ("pcp", [(0, 1000), (100, 1000)], True),
        ("pcp", [(0, 1000), (100, 1300)], True),
        ("nat-pmp", [(0, 1000), (100, 1100)], False),
        ("nat-pmp", [(0, 1000), (100, 1086)], False),
        ("nat-pmp", [(0, 1000), (100, 1080)], True),
        ("nat-pmp", [(0, 1000), (100, 5)], True),
        ("nat-pmp", [(0, 1000), (100, 1300)], False),
    ],
)
def test_an_epoch_tells_a_restart(protocol: Protocol, told: list[tuple[float, int]], lost: bool) -> None:
    """A count that went back or stood still is that of a gateway that began anew; clocks may differ a little."""
    clock = EpochClock(protocol)
    assert [clock.lost(epoch, now) for now, epoch in told] == [False, lost]


def reply(url: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nST: {ssdp.TARGETS[0]}\r\nLOCATION: {url}\r\n\r\n".encode()


def test_a_search_asks_the_gateway_and_everyone_and_ends() -> None:
    """Three rounds to both; after four seconds nothing more is waited for."""
    search = Search(GATEWAY, malformed=Counter())
    rounds = [search.start(0.0)]
    while not search.done:
        timer = search.get_timer()
        assert timer is not None and timer <= 4
        rounds.append(search.handle_timer(timer))
    assert [len(sent) for sent in rounds] == [4, 4, 4, 0]
    assert {addr for sent in rounds for _, addr in sent} == {
        SocketAddr(GATEWAY, 1900),
        SocketAddr("239.255.255.250", 1900),
    }


def test_a_search_finds_the_gateway_alone() -> None:
    """Replies from others, and those that lead elsewhere, are counted and ignored, and so is a flood."""
    malformed: Counter[str] = Counter()
    search = Search(GATEWAY, malformed=malformed)
    search.start(0.0)
    gateway = SocketAddr(GATEWAY, 1900)
    search.receive(reply(f"http://{GATEWAY}/a"), SocketAddr("192.168.1.9", 1900))
    search.receive(reply("http://192.168.1.9/a"), gateway)
    search.receive(b"garbage", gateway)
    assert malformed == {"not from the gateway": 1, "foreign": 1, "malformed": 1}
    for number in range(1000):
        search.receive(reply(f"http://{GATEWAY}/{number % 50 // 2}"), gateway)
    assert [location.target for location in search.locations] == ["/0", "/1", "/2", "/3"]
    assert len(search.locations) == MAX_LOCATIONS
    flooded = Search(GATEWAY, malformed=malformed)
    flooded.start(0.0)
    for _ in range(MAX_DATAGRAMS):
        flooded.receive(b"x", gateway)
    flooded.receive(reply(f"http://{GATEWAY}/"), gateway)
    assert not flooded.locations
