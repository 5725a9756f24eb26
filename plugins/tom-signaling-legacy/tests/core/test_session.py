"""The client's rules: two sessions through a hub, and a server that makes things up."""

from __future__ import annotations

import base64
import json
import random
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, sign_packet, sign_record
from tom_signaling_legacy.core.backoff import LONGEST, Backoff
from tom_signaling_legacy.core.exchange import Answer, Request, read_payload
from tom_signaling_legacy.core.hub import SignalingClient, SignalingHub
from tom_signaling_legacy.core.limits import HubLimits
from tom_signaling_legacy.core.session import MAX_OUTGOING, ClientSession, Event, Resolved, Unusable

WALL = 1_700_000_000.0
ALICE, BOB, EVE = (SecretKey(bytes(31) + bytes([number])) for number in (1, 2, 3))


def record(key: SecretKey, wall: float = WALL) -> SignedRecord:
    return sign_record(key, NodeAddr(key.node_id, direct_addrs=("192.0.2.1:7",)), int(wall * 1e6))


@attrs.define
class Node:
    """A session and its connection to a hub."""

    hub: SignalingHub
    key: SecretKey
    held: SignedRecord | None = None
    events: list[Event] = attrs.Factory(list)
    session: ClientSession = attrs.field(init=False)
    client: SignalingClient = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.session = ClientSession(self.key.node_id, "x", lambda: self.held)
        self.client = self.hub.open(0.0)
        self.session.start(0.0)


def settle(now: float, *nodes: Node) -> None:
    """Carry messages between sessions and hub until nothing is left."""
    moved = True
    while moved:
        moved = False
        for node in nodes:
            while node.session.outgoing:
                node.hub.receive(node.client, node.session.outgoing.popleft(), now)
                moved = True
            while (text := node.hub.take(node.client)) is not None:
                event = node.session.receive(text, now, WALL)
                node.events += [] if event is None else [event]
                moved = True


def pair(**held: SignedRecord | None) -> tuple[Node, Node]:
    hub = SignalingHub(HubLimits(message_rate=0, broadcast_rate=0), lambda client: None)
    alice, bob = Node(hub, ALICE, held.get("alice")), Node(hub, BOB, held.get("bob"))
    settle(0.0, alice, bob)
    return alice, bob


def test_a_present_node_is_asked_and_gives_its_record() -> None:
    """Two clients see each other through the server, and a request is answered with the node's signed record."""
    mine = record(BOB)
    alice, bob = pair(bob=mine)
    assert alice.session.registered and bob.session.registered
    assert alice.session.is_present(BOB.node_id, 0.0) and alice.session.present(0.0) == 1
    alice.session.ask(BOB.node_id, "q1")
    settle(0.0, alice, bob)
    assert alice.events == [Resolved("q1", mine)] and bob.events == []


def test_a_node_without_a_record_says_so() -> None:
    """A node that has published nothing yet answers that, and is not waited for."""
    alice, bob = pair()
    alice.session.ask(BOB.node_id, "q1")
    settle(0.0, alice, bob)
    assert alice.events == [Resolved("q1", None)]


def test_leaving_and_silence_end_presence_and_heartbeats_keep_it() -> None:
    """A node that sends heartbeats stays present, one that is silent for 20 s or leaves does not."""
    alice, bob = pair()
    for second in range(1, 61):
        bob.session.tick(second)
        settle(second, alice, bob)
        assert alice.session.is_present(BOB.node_id, second)
    assert alice.session.is_present(BOB.node_id, 79.9) and not alice.session.is_present(BOB.node_id, 80.1)
    bob.session.tick(80.2)
    settle(80.2, alice, bob)
    assert alice.session.is_present(BOB.node_id, 80.2)
    bob.hub.close(bob.client)
    settle(80.3, alice)
    assert not alice.session.is_present(BOB.node_id, 80.3)


def answering(payload: Any, sender: SecretKey = BOB, to: SecretKey = ALICE) -> tuple[ClientSession, Event | None]:
    """What a session that has asked Bob makes of a signal."""
    session = ClientSession(ALICE.node_id, "x", lambda: None)
    session.start(0.0)
    session.ask(BOB.node_id, "q1")
    text = json.dumps({"type": "signal", "from": str(sender.node_id), "to": str(to.node_id), "payload": payload})
    return session, session.receive(text, 0.0, WALL)


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def said(what: Any) -> dict[str, Any]:
    return {"type": "tom-record", "id": "q1", "record": what}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (5, "no signed record"),
        ({"addr": "192.0.2.1:7"}, "no signed record"),
        ("", "not a signed packet"),
        ("!", "not base64"),
        ("é", "not base64"),
        ("A" * 1501, "1501 characters"),
        (in_base64(b"x" * 200), "signature|signed packet"),
        (in_base64(record(EVE).to_bytes()), "is that of"),
        (in_base64(record(BOB).to_bytes()[:-1] + b"\x00"), "signature"),
        (in_base64(BOB.node_id.raw + record(EVE).relay_payload()), "signature"),
        (in_base64(record(BOB, WALL - 25 * 3600).to_bytes()), "h old"),
        (in_base64(record(BOB, WALL + 3 * 3600).to_bytes()), "ahead"),
        (in_base64(sign_packet(BOB, b"\xff" * 20, int(WALL * 1e6)).to_bytes()), "not a DNS packet"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_signed_by_the_node_is_not_believed(what: Any, reason: str) -> None:
    """An answer without the asked node's own valid and recent signature is unusable, and says why."""
    _, event = answering(said(what))
    assert isinstance(event, Unusable)
    assert re.search(reason, event.reason), event.reason


def test_every_prefix_of_a_record_is_refused() -> None:
    """A record that was cut anywhere is unusable."""
    data = record(BOB).to_bytes()
    for size in range(len(data)):
        _, event = answering(said(in_base64(data[:size])))
        assert isinstance(event, Unusable)


def test_every_changed_byte_of_a_record_is_refused() -> None:
    """A record in which any byte was changed is unusable."""
    data = record(BOB).to_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x20
        _, event = answering(said(in_base64(bytes(changed))))
        assert isinstance(event, Unusable)


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    """Right records from the wrong sender, to another node, for another question, or given up: all are passed over."""
    good = said(in_base64(record(BOB).to_bytes()))
    assert isinstance(answering(good)[1], Resolved)
    assert answering(good, sender=EVE)[1] is None
    assert answering(good, to=EVE)[1] is None
    assert answering({**good, "id": "q2"})[1] is None
    session, _ = answering(None)
    session.give_up("q1")
    message = {"type": "signal", "from": str(BOB.node_id), "to": str(ALICE.node_id), "payload": good}
    assert session.receive(json.dumps(message), 0.0, WALL) is None


def test_requests_are_answered_a_few_at_a_time() -> None:
    """A flood of requests gets a burst of answers and then a few a second, and what waits to be sent has a bound."""
    session = ClientSession(ALICE.node_id, "x", lambda: record(ALICE))
    payload = {"type": "tom-record-request", "id": "x"}
    text = json.dumps({"type": "signal", "from": str(EVE.node_id), "to": str(ALICE.node_id), "payload": payload})
    for _ in range(1000):
        session.receive(text, 0.0, WALL)
    assert len(session.outgoing) == 50
    for second in range(1, 200):
        for _ in range(20):
            session.receive(text, float(second), WALL)
    assert len(session.outgoing) == MAX_OUTGOING


def test_questions_have_a_bound() -> None:
    """More open questions than may be drop the oldest."""
    session = ClientSession(ALICE.node_id, "x", lambda: None)
    for number in range(3000):
        session.ask(BOB.node_id, f"q{number}")
    message = {"type": "signal", "from": str(BOB.node_id), "to": str(ALICE.node_id)}
    answer = {"type": "tom-record", "record": None}
    assert session.receive(json.dumps({**message, "payload": {**answer, "id": "q0"}}), 0.0, WALL) is None
    last = session.receive(json.dumps({**message, "payload": {**answer, "id": "q2999"}}), 0.0, WALL)
    assert last == Resolved("q2999", None)


def test_a_server_that_names_millions_fills_no_memory() -> None:
    """Of nodes that a server names, a bounded number is remembered."""
    session = ClientSession(ALICE.node_id, "x", lambda: None)
    entries = [{"nodeId": f"{number:064x}", "username": "x"} for number in range(20_000)]
    session.receive(json.dumps({"type": "participants", "participants": entries}), 0.0, WALL)
    for number in range(20_000, 30_000):
        session.receive(json.dumps({"type": "presence", "action": "join", "nodeId": f"{number:064x}"}), 0.0, WALL)
    assert session.present(0.0) == 8192


WORDS = st.sampled_from(
    ["signal", "participants", "presence", "heartbeat", "error", "role-assign", "join", "leave", "tom-record",
     "tom-record-request", "q1", str(ALICE.node_id), str(BOB.node_id)]
)  # fmt: skip
NAMES = st.sampled_from(
    ["type", "from", "to", "payload", "id", "record", "participants", "nodeId", "action", "error", "roles"]
)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=15))  # fmt: skip
def test_no_message_breaks_a_session(value: Any) -> None:
    """Whatever a server sends, nothing is raised and the session goes on."""
    session = ClientSession(ALICE.node_id, "x", lambda: record(ALICE))
    session.ask(BOB.node_id, "q1")
    assert not isinstance(session.receive(json.dumps(value), 0.0, WALL), Resolved) or "tom-record" in json.dumps(value)
    session.receive(b"\xff\x00", 0.0, WALL)
    session.start(0.0)


@given(st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True), st.booleans())
def test_payloads_round_trip(request_id: str, has_record: bool) -> None:
    """What is written as a request or answer is read as the same."""
    request = Request(request_id)
    assert read_payload(json.loads(json.dumps(request.payload()))) == request
    answer = Answer.of(request, record(BOB) if has_record else None)
    assert read_payload(json.loads(json.dumps(answer.payload()))) == answer


def test_waits_double_with_jitter_and_have_a_bound() -> None:
    """Attempts come ever more rarely, a minute apart at most, never at one moment; a stable connection resets that."""
    backoff = Backoff(random.Random(1))
    waits = [backoff.next_wait() for _ in range(40)]
    assert 0.25 <= waits[0] <= 0.5 and all(LONGEST / 2 <= wait <= LONGEST for wait in waits[10:])
    assert len(set(waits)) == len(waits)
    backoff.lasted(1.0)
    assert backoff.next_wait() >= LONGEST / 2
    backoff.lasted(31.0)
    assert backoff.next_wait() <= 0.5
