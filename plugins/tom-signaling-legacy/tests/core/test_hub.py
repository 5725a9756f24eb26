"""The server's rules, with clients that are lists of what they were sent, and time that the test says."""

from __future__ import annotations

import json
import random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_signaling_legacy.core.hub import SignalingClient, SignalingHub
from tom_signaling_legacy.core.limits import HubLimits

ALICE, BOB, CAROL = "a" * 64, "b" * 64, "c" * 64
FREE = HubLimits(message_rate=0, broadcast_rate=0)


@attrs.define
class World:
    """A hub and its clients."""

    limits: HubLimits = FREE
    now: float = 100.0
    hub: SignalingHub = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hub = SignalingHub(self.limits, lambda client: None)

    def open(self) -> SignalingClient:
        return self.hub.open(self.now)

    def say(self, client: SignalingClient, message: Any) -> float:
        text = message if isinstance(message, (str, bytes)) else json.dumps(message)
        return self.hub.receive(client, text, self.now)

    def register(self, client: SignalingClient, node_id: str, username: str = "x", **more: Any) -> None:
        self.say(client, {"type": "register", "nodeId": node_id, "username": username, **more})

    def joined(self, node_id: str, username: str = "x", **more: Any) -> SignalingClient:
        client = self.open()
        self.register(client, node_id, username, **more)
        self.heard(client)
        return client

    def heard(self, client: SignalingClient) -> list[Any]:
        """What waits for a client, taken."""
        texts = []
        while (text := self.hub.take(client)) is not None:
            texts.append(json.loads(text))
        return texts


def ids(message: Any) -> list[str]:
    return [entry["nodeId"] for entry in message["participants"]]


def test_registering_is_told_to_others_and_all_get_the_list() -> None:
    """Others get a presence, then everyone including the sender the participants, with exactly the fields of old."""
    world = World()
    alice, bob = world.open(), world.open()
    world.register(alice, ALICE, "Alice", publicKey="pk", encryptionKey="ek")
    first = {"nodeId": ALICE, "username": "Alice", "encryptionKey": "ek"}
    assert world.heard(alice) == [{"type": "participants", "participants": [first]}]
    world.register(bob, BOB, "Bob")
    both = {"type": "participants", "participants": [first, {"nodeId": BOB, "username": "Bob"}]}
    presence = {"type": "presence", "action": "join", "nodeId": BOB, "username": "Bob", "publicKey": ""}
    assert world.heard(alice) == [presence, both]
    assert world.heard(bob) == [both]
    world.hub.close(alice)
    left = {"type": "presence", "action": "leave", "nodeId": ALICE, "username": "Alice"}
    assert world.heard(bob) == [{**left, "publicKey": "pk", "encryptionKey": "ek"}, {**both, "participants": [
        {"nodeId": BOB, "username": "Bob"}]}]  # fmt: skip


def test_heartbeats_roles_and_signals() -> None:
    """A heartbeat goes to others, roles to everyone with `from`, a signal to its target with all its fields."""
    world = World()
    alice, bob, carol = (world.joined(node) for node in (ALICE, BOB, CAROL))
    for client in (alice, bob, carol):
        world.heard(client)
    world.say(alice, {"type": "heartbeat"})
    assert [world.heard(c) for c in (alice, bob, carol)] == [[], *[[{"type": "heartbeat", "from": ALICE}]] * 2]
    world.say(bob, {"type": "role-assign", "nodeId": CAROL, "roles": ["relay"], "other": 1})
    roles = {"type": "role-assign", "nodeId": CAROL, "roles": ["relay"], "from": BOB}
    assert [world.heard(c) for c in (alice, bob, carol)] == [[roles]] * 3
    signal = {"type": "signal", "from": ALICE, "to": BOB, "payload": {"sdp": ["x", None, 1.5]}, "more": "\ud800é"}
    world.say(alice, signal)
    assert [world.heard(c) for c in (alice, bob, carol)] == [[], [signal], []]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("{", "invalid JSON"),
        (b"\xff", "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ("NaN", "invalid JSON"),
        ('{"type":"signal","payload":1e999}', "invalid JSON"),
        ('{"n":' + "9" * 5000 + "}", "invalid JSON"),
        ({"type": "register"}, "missing nodeId or username"),
        ({"type": "register", "nodeId": CAROL}, "missing nodeId or username"),
        ({"type": "register", "nodeId": CAROL, "username": ""}, "missing nodeId or username"),
        ({"type": "register", "nodeId": CAROL, "username": 7}, "missing nodeId or username"),
        ({"type": "register", "nodeId": CAROL, "username": "x" * 129}, "missing nodeId or username"),
        ({"type": "register", "nodeId": CAROL.upper(), "username": "x"}, "missing nodeId or username"),
        ({"type": "register", "nodeId": CAROL + "\n", "username": "x"}, "missing nodeId or username"),
        ({"type": "register", "nodeId": [CAROL], "username": "x"}, "missing nodeId or username"),
        ({"type": "signal"}, "missing to or from"),
        ({"type": "signal", "from": ALICE}, "missing to or from"),
        ({"type": "signal", "to": BOB}, "missing to or from"),
        ({"type": "signal", "from": ALICE, "to": [BOB]}, "missing to or from"),
        ({"type": "signal", "from": {}, "to": BOB}, "missing to or from"),
        ({"type": "signal", "from": ALICE, "to": CAROL}, "peer not found"),
        ({"type": "signal", "from": ALICE, "to": "nobody"}, "peer not found"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_messages_get_exactly_these_errors(message: Any, error: str) -> None:
    """Each wrong shape is answered to its sender alone, in the words that existing clients know."""
    world = World()
    alice, bob = world.joined(ALICE), world.joined(BOB)
    world.heard(alice)
    world.say(alice, message)
    assert world.heard(alice) == [{"type": "error", "error": error}]
    assert world.heard(bob) == []


@pytest.mark.parametrize(
    "message",
    [
        "null",
        "5",
        '"x"',
        "[]",
        "{}",
        '{"type":null}',
        '{"type":["register"]}',
        '{"type":{}}',
        {"type": "unknown"},
        {"type": "participants", "participants": []},
        {"type": "presence", "action": "leave", "nodeId": BOB, "username": "x"},
        {"type": "error", "error": "x"},
        {"type": "role-assign"},
        {"type": "role-assign", "nodeId": BOB, "roles": "relay"},
        {"type": "role-assign", "nodeId": BOB, "roles": [1]},
        {"type": "role-assign", "nodeId": BOB, "roles": ["x"] * 17},
        {"type": "role-assign", "nodeId": BOB, "roles": ["x" * 65]},
        {"type": "role-assign", "nodeId": "bob", "roles": []},
    ],
    ids=str,
)
def test_what_is_no_message_is_ignored(message: Any) -> None:
    """`null`, which crashed the old server, and all that is of no known type or shape changes nothing for anybody."""
    world = World()
    alice, bob = world.joined(ALICE), world.joined(BOB)
    world.heard(alice)
    world.say(alice, message)
    assert (world.heard(alice), world.heard(bob)) == ([], [])


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from([ALICE, BOB, "register", "signal", "heartbeat", "role-assign"]),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["type", "nodeId", "username", "from", "to", "roles", "payload"]), inner),
    max_leaves=12))  # fmt: skip
def test_no_json_value_breaks_the_hub(value: Any) -> None:
    """Whatever value a client sends, the hub goes on, and what others are sent is JSON."""
    world = World()
    alice, bob = world.joined(ALICE), world.joined(BOB)
    world.heard(alice)
    world.say(alice, json.dumps(value))
    world.heard(bob)
    world.say(bob, {"type": "heartbeat"})
    assert world.hub.clients == 2 and len(world.hub) >= 1


@given(st.binary(max_size=80))
def test_no_bytes_break_the_hub(data: bytes) -> None:
    """Whatever bytes a client sends, nothing is raised."""
    world = World()
    world.say(world.joined(ALICE), data)
    assert len(world.hub) == 1


def test_unregistered_clients_get_and_tell_nothing() -> None:
    """Before it has registered a client hears of nobody, and its heartbeats, roles and signals reach nobody."""
    world = World()
    stranger, bob = world.open(), world.joined(BOB)
    assert world.heard(stranger) == []
    world.say(stranger, {"type": "heartbeat"})
    world.say(stranger, {"type": "role-assign", "nodeId": BOB, "roles": ["x"]})
    assert world.heard(stranger) == []
    world.say(stranger, {"type": "signal", "from": ALICE, "to": BOB, "payload": 1})
    assert world.heard(stranger) == [{"type": "error", "error": "missing to or from"}]
    world.hub.close(stranger)
    assert world.heard(bob) == []


def test_nobody_signals_in_anothers_name() -> None:
    """A `from` that is not the sender's registration is refused, whoever else is registered by that name."""
    world = World()
    alice, bob, carol = (world.joined(node) for node in (ALICE, BOB, CAROL))
    world.heard(alice), world.heard(bob)
    world.say(carol, {"type": "signal", "from": ALICE, "to": BOB, "payload": "forged"})
    assert (world.heard(alice), world.heard(bob)) == ([], [])
    assert world.heard(carol) == [{"type": "error", "error": "missing to or from"}]


def test_the_end_of_a_displaced_registration_removes_nobody() -> None:
    """When the older of two clients with one node id goes, the newer stays listed and reachable, and nobody hears."""
    world = World()
    old, bob = world.joined(ALICE), world.joined(BOB)
    new = world.joined(ALICE, "again")
    world.heard(old), world.heard(bob)
    world.hub.close(old)
    assert world.heard(bob) == []
    world.say(bob, {"type": "signal", "from": BOB, "to": ALICE, "payload": 1})
    assert [message["payload"] for message in world.heard(new)] == [1]


def test_the_older_registration_counts_again_when_the_newer_ends() -> None:
    """While displaced a client is silent; when the newer one goes it is listed again, and nobody has left."""
    world = World()
    old, bob = world.joined(ALICE, "old"), world.joined(BOB)
    new = world.joined(ALICE, "new")
    world.heard(old), world.heard(bob)
    world.say(old, {"type": "heartbeat"})
    world.say(old, {"type": "signal", "from": ALICE, "to": BOB, "payload": 1})
    assert world.heard(old) == [{"type": "error", "error": "missing to or from"}]
    world.say(bob, {"type": "heartbeat"})
    assert (world.heard(old), world.heard(bob), len(world.heard(new))) == ([], [], 1)
    world.hub.close(new)
    (listed,) = world.heard(bob)
    assert {"nodeId": ALICE, "username": "old"} in listed["participants"]
    world.heard(old)
    world.say(old, {"type": "heartbeat"})
    assert world.heard(bob) == [{"type": "heartbeat", "from": ALICE}]
    world.hub.close(old)
    assert [message["type"] for message in world.heard(bob)] == ["presence", "participants"]


def test_of_many_registrations_two_are_kept() -> None:
    """A node's third client ends the first: one node id does not hold connections without a bound."""
    world = World()
    first, second, third = (world.joined(ALICE) for _ in range(3))
    assert [client.ended is None for client in (first, second, third)] == [False, True, True]
    assert len(world.hub) == 1


def test_a_client_may_change_its_node() -> None:
    """A client that registers as another node has left as the first one."""
    world = World()
    client, bob = world.joined(ALICE), world.joined(BOB)
    world.register(client, CAROL)
    told = world.heard(bob)
    assert [(m.get("action"), m.get("nodeId")) for m in told if m["type"] == "presence"] == [
        ("leave", ALICE),
        ("join", CAROL),
    ]
    assert ids(told[-1]) == [BOB, CAROL]


def test_seeded_comings_and_goings_keep_the_list_true() -> None:
    """After any sequence of registrations and ends, those listed are those with an open registration."""
    for seed in range(40):
        rng = random.Random(seed)
        world = World()
        held: dict[SignalingClient, str | None] = {}
        for _ in range(120):
            if held and rng.random() < 0.3:
                client = rng.choice(list(held))
                world.hub.close(client)
                del held[client]
            elif held and rng.random() < 0.6:
                client = rng.choice(list(held))
                node = rng.choice([ALICE, BOB, CAROL])
                world.register(client, node)
                held[client] = node
            else:
                held[world.open()] = None
            for client in [client for client in held if client.ended is not None]:
                world.hub.close(client)
                del held[client]
        witness = world.joined("d" * 64)
        world.register(witness, "e" * 64)
        assert set(ids(world.heard(witness)[-1])) == {n for n in held.values() if n} | {"e" * 64}
        assert world.hub.clients == len(held) + 1


def test_silence_makes_stale_then_departed() -> None:
    """After 10 s without a sign of life a node is stale, after 20 s it is ended; a pong counts as one."""
    world = World()
    alice, bob = world.joined(ALICE), world.joined(BOB)
    world.now += 9.9
    world.hub.heard(bob, world.now)
    assert world.hub.is_stale(ALICE, world.now) is False
    world.now += 0.2
    assert (world.hub.is_stale(ALICE, world.now), world.hub.is_stale(BOB, world.now)) == (True, False)
    assert world.hub.is_stale(CAROL, world.now) is None
    world.now += 10
    world.hub.tick(world.now)
    assert alice.ended is not None and bob.ended is None
    world.heard(bob)
    world.hub.close(alice)
    assert [m["type"] for m in world.heard(bob)] == ["presence", "participants"]


def test_who_does_not_register_is_ended() -> None:
    """A client that shows life but never registers holds no place for long; one that has registered does."""
    world = World()
    stranger, alice = world.open(), world.joined(ALICE)
    for _ in range(31):
        world.now += 1
        world.hub.heard(stranger, world.now), world.hub.heard(alice, world.now)
        world.hub.tick(world.now)
    assert (stranger.ended, alice.ended) == ("unregistered after 30 s", None)


def test_a_client_that_does_not_read_is_ended() -> None:
    """What waits for a client has a bound in messages and in bytes; past it the client is ended, others are not."""
    for limits, payload in (
        (attrs.evolve(FREE, queue_messages=50), ""),
        (attrs.evolve(FREE, queue_bytes=9000), "x" * 999),
    ):
        world = World(limits)
        alice, bob = world.joined(ALICE), world.joined(BOB)
        sent = 0
        while bob.ended is None:
            world.say(alice, {"type": "signal", "from": ALICE, "to": BOB, "payload": payload})
            world.heard(alice)
            sent += 1
            assert sent <= 60
        assert sent > 5 and alice.ended is None and not bob.queue
        world.say(alice, {"type": "signal", "from": ALICE, "to": BOB, "payload": payload})
        assert world.heard(alice)[-1] == {"type": "error", "error": "peer not found"}


def test_only_the_newest_list_of_participants_waits() -> None:
    """A client that lags behind gets each presence in order and one list, the newest: lists don't pile up."""
    world = World()
    slow = world.joined(ALICE)
    for _ in range(300):
        other = world.joined(BOB)
        world.hub.close(other)
    told = world.heard(slow)
    assert [m["action"] for m in told[:-1]] == ["join", "leave"] * 300
    assert ids(told[-1]) == [ALICE]


def test_outdated_lists_take_no_room_without_a_bound() -> None:
    """Lists that nobody takes are dropped again when there are more of them than messages may wait."""
    world = World(attrs.evolve(FREE, queue_messages=10))
    alice, bob = world.joined(ALICE), world.joined(BOB)
    world.heard(alice)
    for turn in range(200):
        newer = world.open()
        world.register(newer, BOB if turn % 2 else CAROL)
        world.hub.close(newer)
        assert len(alice.queue) <= 21 or alice.ended is not None
    assert bob.ended is not None or len(bob.queue) <= 21


def test_floods_are_slowed() -> None:
    """Who sends more than its rate is to pause, longer for what goes to everyone; within its burst nobody waits."""
    world = World(HubLimits(message_rate=10, message_burst=20, broadcast_rate=1, broadcast_burst=5))
    alice = world.open()
    pauses = [world.say(alice, {"type": "x"}) for _ in range(30)]
    assert pauses[:20] == [0] * 20 and pauses[29] == pytest.approx(1.0)
    world.now += 100
    pauses = [world.say(alice, {"type": "register", "nodeId": ALICE, "username": "x"}) for _ in range(7)]
    assert pauses[:5] == [0] * 5 and pauses[6] == pytest.approx(2.0)
