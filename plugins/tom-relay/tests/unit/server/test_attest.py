"""What the relay says about a node's address: only what it knows for certain, and only to whom the node talks."""

from __future__ import annotations

import ipaddress

import pytest

from tom_relay.errors import WireError
from tom_relay.server.hub import ADDRESS_BURST, ADDRESS_INTERVAL, RelayClient
from tom_relay.wire import AskAddress, Dialect, IPAddress, PeerAddress, ReceivedDatagrams, Status

from .world import A, B, C, World, world

V4, V6 = ipaddress.ip_address("198.51.100.7"), ipaddress.ip_address("2001:db8::7")


def talking(address: IPAddress | None = V4) -> tuple[World, RelayClient, RelayClient]:
    """A world in which B, connected from an address, has sent a datagram to A; then both."""
    w = world()
    a, b = w.join(A, Dialect.TOM_V2), w.join(B, Dialect.TOM_V2, address)
    w.send(b, A)
    assert w.read(a) == [ReceivedDatagrams(B.raw, b"x")]
    return w, a, b


@pytest.mark.parametrize("address", [V4, V6])
def test_a_node_is_told_where_its_peer_is(address: IPAddress) -> None:
    """Who was sent datagrams by a peer learns the address that the peer is connected from."""
    w, a, _ = talking(address)
    w.say(a, AskAddress(B.raw))
    assert w.read(a) == [PeerAddress(B.raw, address)]
    assert w.hub.counters.addresses == {"told": 1, "withheld": 0, "limited": 0}


def test_no_node_is_found_by_those_whom_it_sends_nothing() -> None:
    """Sending to a node gives no right to its address, nor does its talking to others, nor what it once sent."""
    w, a, b = talking()
    c = w.join(C, Dialect.TOM_V2)
    w.send(c, B)
    w.say(c, AskAddress(B.raw))
    assert w.read(c) == []
    w.hub.unregister(b)
    b = w.join(B, Dialect.TOM_V2, V6)
    w.read(a)
    w.say(a, AskAddress(B.raw))
    assert w.read(a) == []
    w.send(b, A)
    w.say(a, AskAddress(B.raw))
    assert w.read(a) == [ReceivedDatagrams(B.raw, b"x"), PeerAddress(B.raw, V6)]


def test_the_absent_and_the_uncertain_are_met_with_silence() -> None:
    """A node that is not connected, or whose address the relay can't vouch for, gets no answer, and no error."""
    w, a, _ = talking(None)
    w.say(a, AskAddress(B.raw))
    w.say(a, AskAddress(C.raw))
    assert w.read(a) == []
    assert w.hub.counters.addresses["withheld"] == 2


def test_a_displaced_connection_asks_in_vain_and_its_address_is_forgotten() -> None:
    """The newest connection of a key is the node: its address counts, and it alone may ask."""
    w, a, _ = talking()
    newer = w.join(B, Dialect.TOM_V2, V6)
    w.say(a, AskAddress(B.raw))
    assert w.read(a) == []
    w.send(newer, A)
    w.say(a, AskAddress(B.raw))
    assert w.read(a)[-1] == PeerAddress(B.raw, V6)
    w.join(A, Dialect.TOM_V2)
    w.say(a, AskAddress(B.raw))
    assert w.read(a) == [Status(1)]


def test_questions_are_limited_for_each_client() -> None:
    """After a burst one answer an interval is given, others are not held up, and asking too much has no price."""
    w, a, b = talking()
    for _ in range(5 * ADDRESS_BURST):
        w.say(a, AskAddress(B.raw))
    assert len(w.read(a)) == ADDRESS_BURST
    assert w.hub.counters.addresses["limited"] == 4 * ADDRESS_BURST
    c = w.join(C, Dialect.TOM_V2)
    w.send(b, C)
    w.say(c, AskAddress(B.raw))
    assert PeerAddress(B.raw, V4) in w.read(c)
    for _ in range(3):
        w.now += ADDRESS_INTERVAL
        w.say(a, AskAddress(B.raw))
        w.say(a, AskAddress(B.raw))
        assert len(w.read(a)) == 1
    w.now += ADDRESS_BURST * ADDRESS_INTERVAL
    for _ in range(2 * ADDRESS_BURST):
        w.say(a, AskAddress(B.raw))
    assert len(w.read(a)) == ADDRESS_BURST


@pytest.mark.parametrize("dialect", [Dialect.IROH_V2, Dialect.IROH_V1, Dialect.TOM_V1])
def test_other_dialects_can_not_ask(dialect: Dialect) -> None:
    """To the dialects that iroh and the old relay speak the frame is unknown, as it always was."""
    w = world()
    a = w.join(A, dialect)
    with pytest.raises(WireError) as caught:
        w.hub.receive(a, b"\x0e" + B.raw, w.now)
    assert caught.value.kind == "dialect"


@pytest.mark.parametrize("dialect", [Dialect.IROH_V2, Dialect.IROH_V1, Dialect.TOM_V1])
def test_who_speaks_another_dialect_is_not_told_of(dialect: Dialect) -> None:
    """iroh's nodes know nothing of such questions, and ours that want no direct packets do not offer the dialect."""
    w = world()
    a, b = w.join(A, Dialect.TOM_V2), w.join(B, dialect, V4)
    w.send(b, A)
    w.say(a, AskAddress(B.raw))
    assert w.read(a) == [ReceivedDatagrams(B.raw, b"x")]
