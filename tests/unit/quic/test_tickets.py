"""Session tickets, resumption and 0-RTT."""

from __future__ import annotations

import dataclasses
import datetime

import attrs
import pytest

from tests.unit.quic.pair import ALPN, CLIENT_KEY, OTHER_KEY, SERVER_KEY, Network
from tom_connect.exceptions import InvalidInputError
from tom_connect.quic.engine import Engine
from tom_connect.quic.events import HandshakeConfirmed
from tom_connect.quic.settings import TransportSettings
from tom_connect.quic.tickets import PeerTicket, TicketStore

EARLY = TransportSettings(early_data_alpns=frozenset({ALPN}))


def stores() -> dict[str, TicketStore]:
    return {"client_tickets": TicketStore(), "server_tickets": TicketStore()}


def visit(tickets: dict[str, TicketStore], settings: TransportSettings = EARLY, **options: object) -> Network:
    network = Network(settings=settings, **tickets, **options)  # type: ignore[arg-type]
    network.connect()
    network.wait(1)
    return network


def test_a_resumed_session_still_names_the_peer() -> None:
    """A second visit resumes, with no certificates, and both sides still know whom they talk to."""
    tickets = stores()
    visit(tickets)
    network = visit(tickets)
    for end, key in ((network.client, SERVER_KEY), (network.server, CLIENT_KEY)):
        assert end.engine is not None
        (confirmed,) = end.of(HandshakeConfirmed)
        assert confirmed.session_resumed and confirmed.peer_node_id == key.node_id
        assert end.engine.peer_node_id == key.node_id
        assert not confirmed.early_data_accepted


def test_early_data_arrives_before_the_handshake_is_done() -> None:
    """Where client and server opt in, what is written first is read one round trip early."""
    tickets = stores()
    visit(tickets)
    network = Network(settings=EARLY, early_data=True, **tickets)  # type: ignore[arg-type]
    client = network.client.engine
    assert client is not None
    client.start(network.now)
    assert client.early_data_ready
    stream_id = client.open_stream(uni=False)
    client.send_stream_data(stream_id, b"early", end_stream=True)
    network.pump(network.client)
    network.run(lambda: network.server.received.get(stream_id) == b"early")
    server = network.server.engine
    assert server is not None and not server.confirmed
    assert server.early_data_accepted and server.peer_node_id == CLIENT_KEY.node_id
    network.run(lambda: network.confirmed)
    assert client.early_data_accepted


def test_no_early_data_unless_the_client_asks() -> None:
    """A ticket that allows 0-RTT is used for resumption alone unless the dial asks for more."""
    tickets = stores()
    visit(tickets)
    network = Network(settings=EARLY, **tickets)  # type: ignore[arg-type]
    network.start()
    assert network.client.engine is not None and not network.client.engine.early_data_ready


def test_no_early_data_unless_the_server_opts_in() -> None:
    """A server that did not opt in gives out tickets that allow no 0-RTT."""
    tickets = stores()
    visit(tickets, TransportSettings())
    network = Network(early_data=True, **tickets)  # type: ignore[arg-type]
    network.start()
    assert network.client.engine is not None and not network.client.engine.early_data_ready


def test_early_data_by_a_ticket_that_does_not_allow_it() -> None:
    """A client that sends 0-RTT all the same is not believed: the data comes again after the handshake."""
    tickets = stores()
    visit(tickets, TransportSettings())
    client_tickets = tickets["client_tickets"]
    ticket = client_tickets.take(SERVER_KEY.node_id, ALPN)
    assert ticket is not None
    forged = attrs.evolve(ticket, ticket=_allowing_early_data(ticket))
    client_tickets.keep(forged)
    network = Network(early_data=True, **tickets)  # type: ignore[arg-type]
    client = network.client.engine
    assert client is not None
    client.start(network.now)
    assert client.early_data_ready
    stream_id = client.open_stream(uni=False)
    client.send_stream_data(stream_id, b"early", end_stream=True)
    network.pump(network.client)
    network.run(lambda: network.server.engine is not None)
    assert not network.server.received
    network.run(lambda: network.confirmed)
    assert not client.early_data_accepted
    network.run(lambda: network.server.received.get(stream_id) == b"early")


def _allowing_early_data(ticket: PeerTicket) -> object:
    return dataclasses.replace(ticket.ticket, max_early_data_size=0xFFFFFFFF)


def test_a_ticket_is_good_for_one_use() -> None:
    """Who records a client's first flight and plays it again gets a full handshake, and no early data is read."""
    tickets = stores()
    visit(tickets)
    network = Network(settings=EARLY, early_data=True, **tickets)  # type: ignore[arg-type]
    client = network.client.engine
    assert client is not None
    client.start(network.now)
    stream_id = client.open_stream(uni=False)
    client.send_stream_data(stream_id, b"transfer 100 to Mallory", end_stream=True)
    flight = client.send(network.now)

    def replay() -> Network:
        fresh = Network(settings=EARLY, **tickets)  # type: ignore[arg-type]
        for data in flight:
            fresh.deliver(fresh.server, data)
        return fresh

    assert replay().server.received == {stream_id: b"transfer 100 to Mallory"}
    again = replay()
    assert again.server.engine is not None
    assert again.server.received == {} and not again.server.engine.early_data_accepted
    assert again.server.engine.peer_node_id is None


def test_a_ticket_of_another_alpn_is_not_resumed() -> None:
    """Early data belongs to one application protocol (RFC 8446 section 4.2.10)."""
    store = TicketStore()
    ticket = _ticket()
    store.issue(ticket)
    assert store.redeem(ticket.ticket.ticket, "other/1") is None
    assert store.redeem(ticket.ticket.ticket, ALPN) is None  # the attempt has used it


def test_a_ticket_of_another_peer_is_refused() -> None:
    """A ticket can't be used to dial somebody else."""
    with pytest.raises(InvalidInputError, match="another peer"):
        Engine.client(secret_key=CLIENT_KEY, peer=OTHER_KEY.node_id, alpns=(ALPN,), settings=EARLY, ticket=_ticket())


def _ticket() -> PeerTicket:
    tickets = stores()
    visit(tickets)
    ticket = tickets["client_tickets"].take(SERVER_KEY.node_id, ALPN)
    assert ticket is not None
    return ticket


def test_tickets_are_taken_newest_first_and_once() -> None:
    """Each ticket leaves the store when it is taken."""
    store = TicketStore()
    first, second = _ticket(), _ticket()
    store.keep(first)
    store.keep(second)
    assert store.take(SERVER_KEY.node_id, ALPN) is second
    assert store.take(SERVER_KEY.node_id, ALPN) is first
    assert store.take(SERVER_KEY.node_id, ALPN) is None
    assert len(store) == 0


def test_the_store_is_bounded() -> None:
    """Neither many peers nor many tickets of one make it grow past its limits."""
    store = TicketStore(max_peers=2, per_peer=3, max_issued=4)
    base = _ticket()
    for number in range(10):
        store.keep(base)
        store.keep(attrs.evolve(base, alpn=f"other/{number}"))
        store.issue(attrs.evolve(base, ticket=_renamed(base, bytes([number]))))
    assert len(store) <= 2 * 3 + 4
    assert store.redeem(bytes([0]), ALPN) is None
    assert store.redeem(bytes([9]), ALPN) is not None


def _renamed(ticket: PeerTicket, name: bytes) -> object:
    return dataclasses.replace(ticket.ticket, ticket=name)


def test_an_expired_ticket_is_not_taken() -> None:
    """A ticket past its lifetime is dropped on both sides."""
    base = _ticket()
    old = dataclasses.replace(base.ticket, not_valid_after=base.ticket.not_valid_before - datetime.timedelta(seconds=1))
    expired = attrs.evolve(base, ticket=old)
    store = TicketStore()
    store.keep(expired)
    store.issue(expired)
    assert store.take(SERVER_KEY.node_id, ALPN) is None
    assert store.redeem(old.ticket, ALPN) is None
