"""A client among hostile and peculiar nodes, scripted message by message."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tom_dht_mainline.core import (
    DhtConfig,
    DhtCore,
    DhtUsageError,
    Finished,
    ImmutableItem,
    ItemError,
    Mode,
    MutableItem,
    PutOutcome,
    ValueFound,
)
from tom_dht_mainline.core.address import pack_address
from tom_dht_mainline.core.bencode import decode, encode

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
ITEM = MutableItem.sign(KEY, b"value", 10)
Script = Callable[["Puppet", dict[bytes, Any]], "dict[bytes, Any] | int | None"]


class Puppet:
    """A node that answers as its script says: a dict of results, an error code, or None for silence."""

    def __init__(self, n: int, script: Script) -> None:
        self.address = (f"20.{n}.0.1", 6881)
        self.node_id = bytes((n,)) * 20
        self.script = script
        self.asked: list[dict[bytes, Any]] = []

    @property
    def compact(self) -> bytes:
        return self.node_id + pack_address(self.address)


class Stage:
    """One client core and its puppets; datagrams take 10 ms each way."""

    def __init__(self, scripts: list[Script], **settings: object) -> None:
        excluded = settings.pop("excluded", set())
        self.now = 0.0
        self.core = DhtCore(
            DhtConfig(**{"mode": Mode.CLIENT, **settings}),  # type: ignore[arg-type]
            rng=random.Random(1),
            now=0.0,
            is_excluded=lambda addr: addr in excluded,  # type: ignore[operator]
        )
        self.puppets = {puppet.address: puppet for puppet in (Puppet(n + 1, s) for n, s in enumerate(scripts))}
        self.strays: list[tuple[bytes, tuple[str, int]]] = []
        self.log: list[tuple[dict[bytes, Any], tuple[str, int]]] = []
        self.events: list[object] = []
        (state, *_) = self.core._context.families.values()
        for puppet in self.puppets.values():
            state.table.responded(puppet.node_id, puppet.address, puppet.compact, 0.0)

    def reply(self, puppet: Puppet, query: dict[bytes, Any], answer: dict[bytes, Any] | int) -> bytes:
        if isinstance(answer, int):
            return encode({b"t": query[b"t"], b"y": b"e", b"e": [answer, b"no"]})
        return encode({b"t": query[b"t"], b"y": b"r", b"r": {b"id": puppet.node_id, **answer}})

    def run(self, operation: Any, limit: float = 60.0) -> None:
        """Pump until the operation has finished."""
        end = self.now + limit
        while not operation.finished:
            assert self.now < end
            sent = self.core.datagrams_to_send()
            for data, destination in sent:
                query = decode(data)
                assert len(query[b"t"]) == len(query[b"v"]) == 4
                self.log.append((query, destination))
                puppet = self.puppets.get(destination)
                if puppet is None:
                    continue
                puppet.asked.append(query)
                answer = puppet.script(puppet, query)
                if answer is not None:
                    self.core.receive(self.reply(puppet, query, answer), puppet.address, self.now + 0.02)
            for data, source in self.strays:
                self.core.receive(data, source, self.now + 0.02)
            if sent:
                self.now += 0.02
            else:
                due = self.core.next_timer()
                assert due is not None
                self.now = max(self.now, due)
                self.core.handle_timer(self.now)
            self.events += self.core.events()

    def dropped(self, reason: str) -> int:
        return self.core.counters.dropped[reason]


def item_fields(item: MutableItem = ITEM) -> dict[bytes, Any]:
    return {b"k": item.public_key, b"seq": item.seq, b"sig": item.signature, b"v": item.value, b"token": b"tokn"}


def nothing(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any]:
    """Knows no item, takes every put."""
    return {b"token": b"tokn", b"nodes": b""}


def holding(item: MutableItem) -> Script:
    return lambda puppet, query: item_fields(item)


def test_get_always_sends_seq() -> None:
    """Every get of a mutable item carries `seq`, 0 at first and what we hold later; a get of an immutable one none."""
    stage = Stage([holding(ITEM)] * 9, get_burst=1, alpha=1)
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    seqs = [query[b"a"][b"seq"] for query, _ in stage.log]
    assert seqs[0] == 0
    assert set(seqs) == {0, 10}
    stage = Stage([nothing] * 3)
    stage.run(stage.core.get_immutable(bytes(20), 0.0))
    assert all(b"seq" not in query[b"a"] for query, _ in stage.log)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({b"v": b"forged", b"token": b"tokn"}, "bad-key"),
        ({b"k": ITEM.public_key, b"v": b"forged"}, "bad-value"),
        ({b"k": ITEM.public_key, b"v": b"forged", b"seq": 99}, "bad-value"),
        (item_fields(MutableItem.sign(OTHER, b"value", 99)), "bad-key"),
        ({**item_fields(), b"v": b"changed"}, "bad-signature"),
        ({**item_fields(), b"seq": 11}, "bad-signature"),
        ({**item_fields(), b"sig": bytes(64)}, "bad-signature"),
        ({**item_fields(), b"sig": b"short"}, "bad-value"),
        ({**item_fields(), b"seq": -1}, "bad-value"),
        ({**item_fields(), b"seq": b"10"}, "bad-value"),
        ({**item_fields(), b"v": bytes(1000)}, "bad-value"),
        (item_fields(MutableItem.sign(KEY, b"value", 10, salt=b"other")), "bad-signature"),
    ],
)
def test_forged_items_are_dropped_and_counted(fields: dict[bytes, Any], reason: str) -> None:
    """Unsigned, mis-keyed, altered, oversized and mis-salted items are not reported, their senders not trusted."""
    stage = Stage([lambda puppet, query: fields, nothing])
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    assert operation.item is None
    assert stage.dropped(reason) == 1
    assert len(operation.closest) == 1
    assert stage.core.table_size() == 1


def test_the_signed_item_wins_over_forgeries() -> None:
    """One honest node among eight liars is enough."""
    forged = {**item_fields(), b"seq": 2**62}
    stage = Stage([lambda puppet, query: forged] * 8 + [holding(ITEM)])
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    assert operation.item == ITEM


def test_first_value_at_once_then_only_higher_seq() -> None:
    """The first valid item is reported when it comes, then each higher one, never a lower or equal one."""
    items = [MutableItem.sign(KEY, b"v%d" % seq, seq) for seq in (5, 4, 9, 9, 7)]
    stage = Stage([holding(item) for item in items])
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    found = [event.item.seq for event in stage.events if isinstance(event, ValueFound)]  # type: ignore[union-attr]
    assert found == sorted(set(found))
    assert found[-1] == 9
    assert operation.item == items[2]
    assert isinstance(stage.events[-1], Finished)


def test_min_seq_hides_older_items() -> None:
    """Items older than asked for are counted as stale and not reported."""
    stage = Stage([holding(ITEM)] * 3)
    operation = stage.core.get_mutable(ITEM.public_key, 0.0, min_seq=11)
    stage.run(operation)
    assert operation.item is None
    assert stage.dropped("stale") == 3
    assert stage.log[0][0][b"a"][b"seq"] == 10


def test_seq_only_replies_are_no_items() -> None:
    """A node that returns only `seq`, since we know as much, confirms it; one that omits nodes does no harm."""
    stage = Stage([lambda puppet, query: {b"seq": 10, b"token": b"tokn"}, holding(ITEM)])
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    assert operation.item == ITEM
    assert operation.replies == 2


def test_item_of_seq_zero_is_asked_for_without_seq() -> None:
    """libtorrent returns an item of seq 0 only to a get without `seq`: such a node is asked once more."""
    zero = MutableItem.sign(KEY, b"first", 0)

    def libtorrent(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any]:
        return item_fields(zero) if b"seq" not in query[b"a"] else {b"seq": 0, b"token": b"tokn"}

    stage = Stage([libtorrent])
    operation = stage.core.get_mutable(zero.public_key, 0.0)
    stage.run(operation)
    assert operation.item == zero
    assert len(stage.log) == 2


def test_immutable_items_are_checked_against_their_hash() -> None:
    """A value of another hash is dropped; the right one ends the get at once."""
    item = ImmutableItem.create(b"right")
    stage = Stage([lambda p, q: {b"v": b"wrong"}, lambda p, q: {b"v": b"right"}, lambda p, q: None])
    operation = stage.core.get_immutable(item.target, 0.0)
    stage.run(operation)
    assert operation.item == item
    assert stage.dropped("bad-target") == 1
    assert stage.now < 0.1


def put_script(answer: Callable[[dict[bytes, Any]], dict[bytes, Any] | int | None], seq: int | None = None) -> Script:
    def script(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any] | int | None:
        if query[b"q"] == b"put":
            return answer(query)
        return {b"token": b"tokn", **({b"seq": seq} if seq is not None else {})}

    return script


def test_put_message_suits_everyone() -> None:
    """A put carries `target` (mainline insists), key, seq, sig, salt, the node's own token, and v as signed."""
    item = MutableItem.sign(KEY, {b"x": [1, b"y"]}, 3, salt=b"s")
    stage = Stage([put_script(lambda query: {})])
    operation = stage.core.put(item, 0.0, cas=2)
    stage.run(operation)
    (put,) = [query[b"a"] for query, _ in stage.log if query[b"q"] == b"put"]
    assert put[b"target"] == item.target
    assert (put[b"k"], put[b"seq"], put[b"sig"], put[b"salt"]) == (item.public_key, 3, item.signature, b"s")
    assert (put[b"token"], put[b"cas"], put[b"v"]) == (b"tokn", 2, {b"x": [1, b"y"]})
    assert operation.outcome is PutOutcome.STORED
    assert operation.acknowledged == 1


@pytest.mark.parametrize("token", [b"abcd", b"t" * 20, b"t" * 128])
def test_tokens_are_opaque(token: bytes) -> None:
    """Tokens of 4 (libtorrent), 20 (bittorrent-dht) and more bytes come back unchanged."""
    stage = Stage([lambda puppet, query: {b"token": token}])
    stage.run(stage.core.put(ITEM, 0.0))
    assert stage.log[-1][0][b"a"][b"token"] == token


@pytest.mark.parametrize("token", [b"", b"t" * 129, 7, None])
def test_unusable_tokens_mean_no_put(token: object) -> None:
    """Without a token, or with one beyond any sense, a node is not written to."""
    stage = Stage([lambda puppet, query: {b"token": token} if token is not None else {}])
    operation = stage.core.put(ITEM, 0.0)
    stage.run(operation)
    assert operation.outcome is PutOutcome.NO_NODES
    assert all(query[b"q"] == b"get" for query, _ in stage.log)


def test_302_on_an_unchanged_item_counts_as_stored() -> None:
    """bittorrent-dht answers 302 to an equal seq: if it says that it holds ours, it is stored."""
    stage = Stage([put_script(lambda query: 302, seq=10)] * 3)
    operation = stage.core.put(ITEM, 0.0)
    stage.run(operation)
    assert operation.outcome is PutOutcome.STORED
    assert operation.acknowledged == 3


def test_302_on_a_republish_counts_as_stored() -> None:
    """Also where the node does not tell its seq, if we stored the same item before."""
    answers = iter([{}] * 3 + [302] * 3)
    stage = Stage([put_script(lambda query: next(answers))] * 3)  # type: ignore[arg-type, return-value]
    stage.run(stage.core.put(ITEM, 0.0))
    again = stage.core.put(ITEM, stage.now)
    stage.run(again)
    assert again.outcome is PutOutcome.STORED
    assert again.error_codes == {302: 3}


def test_302_on_a_republish_that_others_have_overtaken_is_superseded() -> None:
    """An unchanged item is not stored where the node says that it holds a higher seq by now."""
    answers = iter([{}] * 3 + [302] * 3)
    scripts = [put_script(lambda query: next(answers))] * 3  # type: ignore[arg-type, return-value]
    stage = Stage(scripts)
    stage.run(stage.core.put(ITEM, 0.0))
    for puppet in stage.puppets.values():
        puppet.script = put_script(lambda query: next(answers), seq=20)  # type: ignore[arg-type, return-value]
    stage.now += 301.0
    again = stage.core.put(ITEM, stage.now)
    stage.run(again)
    assert again.outcome is PutOutcome.SUPERSEDED
    assert again.acknowledged == 0


def test_302_on_an_older_item_is_superseded() -> None:
    """A changed item that nodes refuse as older is not stored."""
    stage = Stage([put_script(lambda query: 302, seq=20)] * 3)
    operation = stage.core.put(ITEM, 0.0)
    stage.run(operation)
    assert operation.outcome is PutOutcome.SUPERSEDED
    assert operation.acknowledged == 0


def test_a_newer_item_ends_the_put() -> None:
    """A validly signed newer item is handed to the caller instead of being fought."""
    newer = MutableItem.sign(KEY, b"newer", 11)
    stage = Stage([holding(newer)] * 3)
    operation = stage.core.put(ITEM, 0.0)
    stage.run(operation)
    assert operation.outcome is PutOutcome.SUPERSEDED
    assert (operation.newer_seq, operation.newer_item) == (11, newer)


def test_a_forged_newer_item_does_not_end_the_put() -> None:
    """Whoever claims a higher seq must prove it."""
    forged = {**item_fields(), b"seq": 99}
    stage = Stage([lambda p, q: forged if q[b"q"] == b"get" else {}] + [put_script(lambda query: {})] * 3)
    operation = stage.core.put(ITEM, 0.0)
    stage.run(operation)
    assert operation.outcome is PutOutcome.STORED
    assert operation.newer_seq is None


def test_cas_mismatch() -> None:
    """301 from all is reported as such."""
    stage = Stage([put_script(lambda query: 301)] * 3)
    operation = stage.core.put(ITEM, 0.0, cas=3)
    stage.run(operation)
    assert operation.outcome is PutOutcome.CAS_MISMATCH


def test_a_rotated_token_is_fetched_again() -> None:
    """A put with a cached token that gets 203 asks the node for a new one, once."""
    tokens = iter([b"old1", b"new1"])

    def script(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any] | int:
        if query[b"q"] == b"put":
            return {} if query[b"a"][b"token"] == b"new1" else 203
        return {b"token": next(tokens)}

    stage = Stage([script])
    stage.run(stage.core.get_mutable(ITEM.public_key, 0.0))
    stage.now += 200.0
    operation = stage.core.put(ITEM, stage.now)
    stage.run(operation)
    assert operation.acknowledged == 1
    assert [query[b"q"] for query, _ in stage.log] == [b"get", b"put", b"get", b"put"]


def test_put_after_get_needs_no_lookup() -> None:
    """Nodes and tokens of a get serve a put for 5 minutes, and no longer."""
    stage = Stage([put_script(lambda query: {})] * 8)
    stage.run(stage.core.get_mutable(ITEM.public_key, 0.0))
    stage.log.clear()
    stage.run(stage.core.put(ITEM, stage.now))
    assert [query[b"q"] for query, _ in stage.log] == [b"put"] * 8
    stage.now += 301.0
    stage.log.clear()
    stage.run(stage.core.put(ITEM, stage.now))
    assert [query[b"q"] for query, _ in stage.log].count(b"get") == 8


def test_nodes_without_bep_44_are_replaced_and_remembered() -> None:
    """A node that answers 204 is not waited for, not put to, and left out of the next get where there are others.

    It may still be asked which nodes it knows.
    """

    def old(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any] | int:
        return 204 if query[b"q"] in {b"get", b"put"} else {b"nodes": b""}

    stage = Stage([old] * 3 + [put_script(lambda query: {})] * 10)
    operation = stage.core.put(ITEM, 0.0)
    stage.run(operation)
    assert operation.acknowledged == 8
    stage.log.clear()
    stage.run(stage.core.get_mutable(OTHER.public_key().public_bytes_raw(), stage.now))
    refused = [puppet for puppet in stage.puppets.values() if puppet.script is old]
    gets = [destination for query, destination in stage.log if query[b"q"] == b"get"]
    assert sum(destination == puppet.address for destination in gets for puppet in refused) <= 3
    before = len(stage.log)
    stage.run(stage.core.get_mutable(ITEM.public_key, stage.now))
    gets = [destination for query, destination in stage.log[before:] if query[b"q"] == b"get"]
    assert gets and not any(destination == puppet.address for destination in gets for puppet in refused)


def test_a_dht_of_old_nodes_still_leads_to_new_ones() -> None:
    """Where the only nodes known lack BEP 44, find_node on them finds those that have it."""
    new = Puppet(9, put_script(lambda query: {}))

    def old(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any] | int:
        return 204 if query[b"q"] in {b"get", b"put"} else {b"nodes": new.compact}

    stage = Stage([old])
    stage.puppets[new.address] = new
    operation = stage.core.put(ITEM, 0.0)
    stage.run(operation)
    assert operation.acknowledged == 1


def test_own_id_own_address_and_excluded_nodes_are_not_asked() -> None:
    """Named nodes that are ourselves, unusable, local or excluded by the caller get no datagram."""
    bad = [("66.0.0.1", 6881), ("20.9.9.9", 0), ("0.1.2.3", 1), ("239.1.1.1", 1), ("192.168.1.1", 1), ("127.0.0.1", 53)]
    named = b"".join(bytes((100 + n,)) * 20 + pack_address(addr) for n, addr in enumerate(bad))
    stage = Stage([lambda puppet, query: {b"nodes": named, b"token": b"t"}], excluded={("66.0.0.1", 6881)})
    stage.puppets[("20.1.0.1", 6881)].script = lambda puppet, query: {
        b"nodes": named + stage.core.node_id() + pack_address(("67.0.0.1", 6881)),
        b"token": b"t",
    }
    stage.run(stage.core.get_mutable(ITEM.public_key, 0.0))
    assert {destination for _, destination in stage.log} == {("20.1.0.1", 6881)}
    assert stage.dropped("excluded") >= 1


def test_a_node_that_is_excluded_after_it_was_named_is_not_asked() -> None:
    """A record that comes in the midst of a look-up names a peer that others have named as a node: it gets no query."""
    excluded: set[tuple[str, int]] = set()
    peer, near = ("66.0.0.1", 6881), Puppet(9, nothing)
    # The nearer one is asked first, and what it says is known before the other's turn.
    target = ITEM.target
    peers_id, near.node_id = bytes([target[0] ^ 0x80]) + target[1:], target[:19] + bytes([target[19] ^ 1])
    named = peers_id + pack_address(peer) + near.compact

    def tell(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any]:
        excluded.add(peer)
        return nothing(puppet, query)

    near.script = tell
    stage = Stage(
        [lambda puppet, query: {b"nodes": named, b"token": b"t"}], excluded=excluded, alpha=1, get_burst=1, cold_burst=1
    )
    stage.puppets[near.address] = near
    stage.run(stage.core.get_mutable(ITEM.public_key, 0.0))
    assert near.asked
    assert peer not in {destination for _, destination in stage.log}


def test_a_node_list_cannot_flood_a_network() -> None:
    """However many nodes a reply names in one /24, four of them are asked, one a host; few are tried for the table."""
    rng = random.Random(5)
    named = b"".join(rng.randbytes(20) + pack_address((f"66.6.6.{n % 7 + 1}", 1000 + n)) for n in range(100))
    stage = Stage([lambda puppet, query: {b"nodes": named, b"token": b"t"}])
    stage.run(stage.core.get_mutable(ITEM.public_key, 0.0))
    sent = [(query, destination) for query, destination in stage.log if destination[0].startswith("66.")]
    victims = {destination for query, destination in sent if query[b"q"] == b"get"}
    assert len(sent) < 40
    assert len(victims) == 4
    assert len({ip for ip, _ in victims}) == 4


def test_an_endless_chain_of_closer_nodes_ends() -> None:
    """A liar that names ever closer nodes costs a bounded number of queries."""
    target = int.from_bytes(ITEM.target, "big")
    stage = Stage([])
    count = iter(range(100_000))

    def liar(puppet: Puppet, query: dict[bytes, Any]) -> dict[bytes, Any]:
        named = b""
        for _ in range(8):
            n = next(count)
            fresh = Puppet(1, liar)
            fresh.node_id = (target ^ ((1 << 150) - n * 7 - 1)).to_bytes(20, "big")
            fresh.address = (f"{60 + n // 65536}.{n // 256 % 256}.{n % 256}.1", 1)
            stage.puppets[fresh.address] = fresh
            named += fresh.compact
        return {b"nodes": named, b"token": b"t"}

    first = Puppet(1, liar)
    stage.puppets[first.address] = first
    (state, *_) = stage.core._context.families.values()
    state.table.responded(first.node_id, first.address, first.compact, 0.0)
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation, limit=600)
    assert operation.queries_sent <= 120


def test_a_reply_under_another_id_is_not_taken() -> None:
    """A node that answers with an id other than the one asked for is dropped from lookup and table."""
    stage = Stage([lambda puppet, query: {b"id": b"z" * 20, **item_fields()}, nothing])
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    assert operation.item is None
    assert stage.dropped("bad-node-id") == 1


def test_spoofed_replies_are_dropped() -> None:
    """A right transaction id from a wrong source, and a wrong one from a right source, change nothing."""
    stage = Stage([lambda puppet, query: None] * 2)

    def spy(puppet: Puppet, query: dict[bytes, Any]) -> None:
        forged = stage.reply(puppet, query, item_fields())
        stage.strays = [
            (forged, ("20.2.0.1", 6881)),
            (forged, ("99.9.9.9", 6881)),
            (stage.reply(puppet, {b"t": b"\0\0\0\0"}, item_fields()), puppet.address),
        ]

    stage.puppets[("20.1.0.1", 6881)].script = spy
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    assert operation.item is None
    assert stage.dropped("wrong-source") >= 1
    assert stage.dropped("unsolicited") >= 2


def test_silent_nodes_do_not_hold_up_the_rest() -> None:
    """Half the nodes are dead: the get ends after time-outs of fractions of a second."""
    stage = Stage([lambda puppet, query: None] * 6 + [holding(ITEM)] * 6)
    operation = stage.core.get_mutable(ITEM.public_key, 0.0)
    stage.run(operation)
    assert operation.item == ITEM
    assert stage.now < 1.0


def test_one_signature_check_for_the_same_item_from_many() -> None:
    """Eight copies of one item cost one verification."""
    stage = Stage([holding(ITEM)] * 8)
    stage.run(stage.core.get_mutable(ITEM.public_key, 0.0))
    assert stage.core._context.verifier.verified == 1


def test_misuse_is_a_clear_error() -> None:
    """Arguments that can't work are refused at the call."""
    core = Stage([]).core
    with pytest.raises(DhtUsageError, match="32 bytes"):
        core.get_mutable(b"short", 0.0)
    with pytest.raises(DhtUsageError, match="64"):
        core.get_mutable(bytes(32), 0.0, salt=bytes(65))
    with pytest.raises(DhtUsageError, match="20"):
        core.find_node(b"x", 0.0)
    with pytest.raises(DhtUsageError, match="port"):
        core.announce_peer(bytes(20), 0, 0.0)
    with pytest.raises(DhtUsageError, match="pinged"):
        core.ping(("0.0.0.0", 1), 0.0)
    with pytest.raises(DhtUsageError, match="cas"):
        core.put(ImmutableItem.create(b"x"), 0.0, cas=1)
    with pytest.raises(ItemError, match="signature"):
        core.put(MutableItem(ITEM.public_key, b"1:x", 1, bytes(64)), 0.0)


def test_nobody_known_finishes_at_once() -> None:
    """Without a single node every operation ends, saying so."""
    core = Stage([]).core
    put = core.put(ITEM, 0.0)
    get = core.get_mutable(ITEM.public_key, 0.0)
    assert put.finished
    assert put.outcome is PutOutcome.NO_NODES
    assert get.finished
    assert get.item is None
    assert [type(event) for event in core.events()] == [Finished, Finished]


def test_too_many_operations_are_refused() -> None:
    """The number of operations under way is bounded."""
    stage = Stage([nothing], max_operations=5)
    for n in range(5):
        stage.core.find_node(bytes((n,)) * 20, 0.0)
    with pytest.raises(DhtUsageError, match="5 operations"):
        stage.core.find_node(bytes(20), 0.0)
