"""One connection on a clock that the test turns."""

from __future__ import annotations

import ipaddress

import pytest

from tom_connect import SecretKey
from tom_relay.client.session import (
    ASK_AFTER,
    DOUBT_AFTER,
    MAX_QUESTIONS,
    TRAFFIC_TIMEOUT,
    USUAL,
    Attested,
    Gone,
    Registered,
    RelayLostError,
    RelaySession,
    Told,
)
from tom_relay.errors import RelayDeniedError, WireError
from tom_relay.wire import (
    AskAddress,
    Dialect,
    EndpointGone,
    Health,
    PeerAddress,
    Ping,
    Pong,
    ReceivedDatagrams,
    Restarting,
    ServerHandshake,
    Status,
    decode_from_client,
    encode,
)

KEY = SecretKey.generate()


def registered(dialect: Dialect = Dialect.IROH_V2) -> RelaySession:
    """A session after the handshake at second 0, its first ping answered after 30 ms."""
    session = RelaySession(dialect, KEY.node_id, KEY.sign, 0.0)
    server = ServerHandshake(dialect, bytes(range(16)))
    assert session.receive(server.challenge(), 0.0) is None
    assert server.authenticate(session.outbox.pop()) == KEY.node_id
    assert session.receive(server.confirm(), 0.0) == Registered()
    assert session.registered
    answer(session, 0.03)
    return session


def answer(session: RelaySession, now: float) -> None:
    """Answer the ping that waits to be sent."""
    frame = decode_from_client(session.outbox.pop(), session.dialect)
    assert isinstance(frame, Ping)
    session.receive(encode(Pong(frame.data), session.dialect), now)


def lost_at(session: RelaySession, now: float) -> float:
    """When the session gives the relay up, if nothing comes any more and timers fire on time."""
    while now < 100:
        now = max(now, session.next_due())
        try:
            session.tick(now)
        except RelayLostError:
            return now
    raise AssertionError("never")


@pytest.mark.parametrize("dialect", list(Dialect))
def test_the_handshake_registers_in_every_dialect(dialect: Dialect) -> None:
    """Challenge, answer, confirmation; the first ping measures the relay."""
    assert registered(dialect).rtt == pytest.approx(0.03)


def test_a_refusal_is_an_error_with_the_reason() -> None:
    """ServerDeniesAuth ends the session with the relay's words."""
    session = RelaySession(Dialect.IROH_V2, KEY.node_id, KEY.sign, 0.0)
    server = ServerHandshake(Dialect.IROH_V2, bytes(16))
    session.receive(server.challenge(), 0.0)
    with pytest.raises(RelayDeniedError, match="not today"):
        session.receive(server.deny("not today"), 0.0)


def test_an_idle_dead_relay_is_found_within_20_s() -> None:
    """Whenever it dies after its last sign of life, and not before it had time to answer."""
    session = registered()
    assert 15.0 < lost_at(session, 0.03) <= 20.0


def test_a_dead_relay_is_found_within_2_s_under_traffic() -> None:
    """Datagrams go out and nothing comes back, not even to a ping."""
    session = registered()
    session.sent(5.0)
    session.sent(5.5)
    assert 6.0 < lost_at(session, 5.5) <= 7.0


def test_one_way_traffic_through_a_living_relay_is_no_loss() -> None:
    """Nobody answers the datagrams, but the relay answers pings: the session lives for minutes."""
    session = registered()
    now = 1.0
    while now < 120:
        now += 0.1
        session.sent(now)
        session.tick(now)
        if session.outbox:
            answer(session, now + 0.05)


def test_what_arrives_counts_as_life_though_the_pong_is_late() -> None:
    """Datagrams from the relay show that it lives, however long the pong waits behind them."""
    session = registered()
    session.sent(1.0)
    session.tick(1.9)
    session.receive(encode(ReceivedDatagrams(bytes(32), b"x"), session.dialect), 2.5)
    session.tick(2.9)


def test_a_stall_of_our_own_is_not_blamed_on_the_relay() -> None:
    """A timer that fires seconds late gives what has arrived meanwhile a moment to be read."""
    session = registered()
    session.sent(1.0)
    session.tick(1.9)
    session.tick(9.0)
    answer(session, 9.05)
    session.tick(9.3)


def test_frames_become_events() -> None:
    """Pings are answered; status, health, gone and restarting are told; unknown status numbers too."""
    session = registered()
    assert session.receive(encode(Ping(b"12345678"), session.dialect), 1.0) is None
    assert decode_from_client(session.outbox.pop(), session.dialect) == Pong(b"12345678")
    assert session.receive(encode(Status(2), session.dialect), 1.0) == Told("it limits our rate")
    assert session.receive(encode(Status(0), session.dialect), 1.0) == Told(None)
    assert session.receive(encode(Status(77), session.dialect), 1.0) == Told("status 77")
    assert session.receive(encode(EndpointGone(bytes(32)), session.dialect), 1.0) == Gone(bytes(32))
    assert session.receive(encode(Restarting(5, 6), session.dialect), 1.0) == Restarting(5, 6)
    old = registered(Dialect.IROH_V1)
    assert old.receive(encode(Health("tired"), old.dialect), 1.0) == Told("tired")


def test_an_address_counts_if_it_was_asked_for() -> None:
    """A question goes out in the dialect that has it; one answer to it is told, what nobody asked for is not."""
    session, peer = registered(Dialect.TOM_V2), SecretKey.generate().node_id.raw
    answer_to_it = encode(PeerAddress(peer, ipaddress.ip_address("198.51.100.7")), session.dialect)
    assert session.receive(answer_to_it, 1.0) is None
    session.ask_address(peer)
    assert [decode_from_client(message, session.dialect) for message in session.outbox] == [AskAddress(peer)]
    assert session.receive(answer_to_it, 1.0) == Attested(peer, "198.51.100.7")
    assert session.receive(answer_to_it, 1.0) is None
    old = registered(Dialect.IROH_V2)
    old.ask_address(peer)
    assert old.outbox == []


def test_questions_are_bounded() -> None:
    """Of many questions some wait to be sent, and the oldest that were not answered are forgotten."""
    session = registered(Dialect.TOM_V2)
    keys = [bytes(30) + number.to_bytes(2, "big") for number in range(3 * MAX_QUESTIONS)]
    for key in keys:
        session.ask_address(key)
    assert len(session.outbox) == MAX_QUESTIONS
    for key in keys:
        session.outbox.clear()
        session.ask_address(key)
    told = [
        session.receive(encode(PeerAddress(key, ipaddress.ip_address("198.51.100.7")), session.dialect), 1.0)
        for key in keys
    ]
    assert [event for event in told if event] == [Attested(key, "198.51.100.7") for key in keys[-MAX_QUESTIONS:]]


def test_rubbish_is_a_wire_error() -> None:
    """Every prefix of a frame, and frames in the wrong direction, raise WireError and nothing else."""
    frame = encode(Restarting(5, 6), Dialect.IROH_V2)
    for end in range(len(frame)):
        with pytest.raises(WireError):
            registered().receive(frame[:end], 1.0)
    with pytest.raises(WireError):
        registered().receive(b"\x04" + bytes(40), 1.0)


def test_check_asks_at_once() -> None:
    """After a change of network a relay has less than a second to show that it lives."""
    session = registered()
    session.check(5.0)
    assert lost_at(session, 5.0) <= 6.0


@pytest.mark.parametrize("idle", [True, False])
def test_a_late_answer_raises_doubt_before_the_relay_is_given_up(idle: bool) -> None:
    """Soon under traffic, later where nothing is sent; anything that comes ends the doubt."""
    session = registered()
    if not idle:
        session.sent(5.0)
    asked = 5.0 + ASK_AFTER if not idle else 0.03 + USUAL.every
    session.tick(asked)
    assert session.outbox and not session.doubtful
    due = session.next_due()
    assert due == pytest.approx(asked + DOUBT_AFTER[idle])
    session.tick(due)
    assert session.doubtful
    assert session.next_due() == pytest.approx(asked + (USUAL.timeout if idle else TRAFFIC_TIMEOUT))
    session.receive(encode(ReceivedDatagrams(bytes(32), b"x"), session.dialect), due + 0.1)
    assert not session.doubtful
    assert session.next_due() > due + 10


def test_a_far_relay_is_given_three_round_trips_before_it_is_doubted() -> None:
    """What takes long each time is no sign of death."""
    session = RelaySession(Dialect.IROH_V2, KEY.node_id, KEY.sign, 0.0)
    server = ServerHandshake(Dialect.IROH_V2, bytes(16))
    session.receive(server.challenge(), 0.0)
    assert server.authenticate(session.outbox.pop()) == KEY.node_id
    session.receive(server.confirm(), 0.0)
    answer(session, 0.2)
    session.sent(1.0)
    session.tick(1.0 + ASK_AFTER)
    assert session.next_due() == pytest.approx(1.0 + ASK_AFTER + 0.6)


def test_doubt_is_not_raised_by_a_stall_of_our_own() -> None:
    """A timer that is seconds late lets what has arrived be read first, once."""
    session = registered()
    session.sent(1.0)
    session.tick(1.0 + ASK_AFTER)
    session.tick(30.0)
    assert not session.doubtful
    session.tick(session.next_due())
    assert session.doubtful


def test_a_change_of_network_raises_doubt_at_once() -> None:
    """Until the relay answers; before the handshake is done there is nothing to doubt."""
    session = RelaySession(Dialect.IROH_V2, KEY.node_id, KEY.sign, 0.0)
    session.check(0.0)
    assert not session.doubtful
    session = registered()
    session.check(5.0)
    assert session.doubtful
    answer(session, 5.05)
    assert not session.doubtful
