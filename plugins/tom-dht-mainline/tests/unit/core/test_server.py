"""The serving side, spoken to with raw messages."""

from __future__ import annotations

import random
import socket
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tom_dht_mainline.core import DhtConfig, DhtCore, Family, ImmutableItem, Mode, MutableItem
from tom_dht_mainline.core.bencode import decode, encode
from tom_dht_mainline.core.krpc import build_query, parse_nodes, parse_peers

ME = ("20.0.0.1", 7000)
ID = b"q" * 20
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class Caller:
    """Sends queries to one core from any address, and decodes what comes back."""

    def __init__(self, **settings: object) -> None:
        config = DhtConfig(**{"mode": Mode.SERVER, "query_burst_per_ip": 10_000, **settings})  # type: ignore[arg-type]
        self.core = DhtCore(config, rng=random.Random(1), now=0.0)
        self.now = 0.0

    def raw(self, data: bytes, source: tuple[str, int] = ME) -> list[dict[bytes, Any]]:
        self.core.receive(data, source, self.now)
        sent = self.core.datagrams_to_send()
        assert all(destination == source for _, destination in sent)
        return [decode(reply) for reply, _ in sent]

    def ask(self, method: bytes, source: tuple[str, int] = ME, ro: bool = True, **args: object) -> dict[bytes, Any]:
        body = {b"id": ID, **{key.encode(): value for key, value in args.items()}}
        (reply,) = self.raw(build_query(b"abcd", method, body, read_only=ro, version=b"XX\0\1"), source)
        assert reply[b"t"] == b"abcd"
        assert len(reply[b"v"]) == 4
        assert len(reply[b"ip"]) in {6, 18}
        return reply

    def code(self, method: bytes, **args: object) -> int:
        reply = self.ask(method, **args)  # type: ignore[arg-type]
        assert reply[b"y"] == b"e", reply
        return int(reply[b"e"][0])

    def token(self, target: bytes, source: tuple[str, int] = ME) -> bytes:
        return bytes(self.ask(b"get", source, target=target)[b"r"][b"token"])

    def put(self, item: MutableItem, **more: object) -> dict[bytes, Any]:
        args: dict[str, object] = {
            "k": item.public_key,
            "seq": item.seq,
            "sig": item.signature,
            "v": decode(item.encoded),
            "token": self.token(item.target),
        }
        if item.salt:
            args["salt"] = item.salt
        return self.ask(b"put", **{**args, **more})  # type: ignore[arg-type]

    def put_code(self, item: MutableItem, **more: object) -> int:
        reply = self.put(item, **more)
        return int(reply[b"e"][0]) if reply[b"y"] == b"e" else 0


def test_ping_names_our_id_and_the_callers_address() -> None:
    """A ping is answered with our id, and `ip` says how we see the caller (BEP 42)."""
    caller = Caller()
    reply = caller.ask(b"ping")
    assert reply[b"r"] == {b"id": caller.core.node_id()}
    assert reply[b"ip"] == bytes((20, 0, 0, 1)) + (7000).to_bytes(2, "big")


def test_long_and_short_transaction_ids_are_echoed() -> None:
    """Others use 2 bytes; up to 32 are echoed as they are."""
    caller = Caller()
    for tid in (b"a", b"ab", b"\0\xff" * 16):
        (reply,) = caller.raw(b"d1:ad2:id20:%be1:q4:ping1:t%d:%b1:y1:qe" % (ID, len(tid), tid))
        assert reply[b"t"] == tid


def test_find_node_gives_at_most_eight_of_the_wanted_families() -> None:
    """`want` chooses between nodes and nodes6 (BEP 32); without it, the family of the query."""
    caller = Caller()
    for state in caller.core._context.families.values():
        for n in range(30):
            ip = f"20.{n}.0.1" if state.family.value == "ipv4" else f"2001:db8:{n:x}::1"
            node_id = random.Random(n).randbytes(20)
            compact = (
                node_id + (bytes((20, n, 0, 1)) if ":" not in ip else socket.inet_pton(socket.AF_INET6, ip)) + b"\0\1"
            )
            state.table.responded(node_id, (ip, 1), compact, 0.0)
    four = caller.ask(b"find_node", target=bytes(20))[b"r"]
    assert set(four) == {b"id", b"nodes"}
    assert len(four[b"nodes"]) == 8 * 26
    both = caller.ask(b"find_node", target=bytes(20), want=[b"n4", b"n6"])[b"r"]
    assert len(both[b"nodes6"]) == 8 * 38
    six = caller.ask(b"find_node", source=("2001:db8:99::1", 1), target=bytes(20))[b"r"]
    assert set(six) == {b"id", b"nodes6"}
    assert set(caller.ask(b"find_node", target=bytes(20), want=[b"n6", 7])[b"r"]) == {b"id", b"nodes6"}


def test_errors_for_what_is_missing_or_unknown() -> None:
    """203 for malformed arguments, 204 for unknown methods."""
    caller = Caller()
    assert caller.code(b"find_node") == 203
    assert caller.code(b"find_node", target=b"short") == 203
    assert caller.code(b"get_peers", info_hash=7) == 203
    assert caller.code(b"get", target=[b"x"]) == 203
    assert caller.code(b"sample_infohashes", target=bytes(20)) == 204
    assert caller.code(b"put") == 203


def test_mutable_item_is_stored_and_returned() -> None:
    """A put with a fresh token is kept; get returns key, signature, seq and value; a known seq returns only the seq."""
    caller = Caller()
    item = MutableItem.sign(KEY, {b"a": [1, b"x"]}, 7, salt=b"salt")
    assert caller.put_code(item) == 0
    full = caller.ask(b"get", target=item.target, seq=0)[b"r"]
    assert (full[b"k"], full[b"sig"], full[b"seq"]) == (item.public_key, item.signature, 7)
    assert full[b"v"] == {b"a": [1, b"x"]}
    assert b"nodes" in full
    for seq in (7, 8):
        known = caller.ask(b"get", target=item.target, seq=seq)[b"r"]
        assert known[b"seq"] == 7
        assert b"v" not in known
        assert b"sig" not in known
    assert b"v" in caller.ask(b"get", target=item.target)[b"r"]


def test_immutable_item_is_stored_and_returned() -> None:
    """An immutable item comes back under its hash without key or seq."""
    caller = Caller()
    item = ImmutableItem.create(b"hello")
    token = caller.token(item.target)
    assert caller.ask(b"put", v=b"hello", token=token)[b"y"] == b"r"
    found = caller.ask(b"get", target=item.target)[b"r"]
    assert found[b"v"] == b"hello"
    assert b"seq" not in found


def test_refusals_of_put() -> None:
    """Each fault has its error code of BEP 44, and nothing is stored."""
    caller = Caller()
    item = MutableItem.sign(KEY, b"v", 7)
    assert caller.put_code(item, token=b"12345678") == 203
    assert caller.put_code(item, token=b"") == 203
    assert caller.put_code(item, token=caller.token(item.target, ("20.0.0.2", 1))) == 203
    assert caller.put_code(item, token=caller.token(bytes(20))) == 203
    assert caller.put_code(item, sig=bytes(64)) == 206
    assert caller.put_code(item, v=b"other") == 206
    assert caller.put_code(item, seq=-1) == 203
    assert caller.put_code(item, seq=2**63) == 203
    assert caller.put_code(item, sig=bytes(63)) == 203
    assert caller.put_code(item, k=bytes(31)) == 203
    assert caller.put_code(item, salt=bytes(65)) == 207
    assert caller.put_code(item, v=bytes(997)) == 205
    assert caller.put_code(item, target=bytes(20)) == 203
    assert b"v" not in caller.ask(b"get", target=item.target)[b"r"]
    assert caller.core.counters.errors_out[206] == 2


def test_unsigned_forgeries_are_not_stored() -> None:
    """A put with a key but no signature or seq, which libtorrent takes, is refused."""
    caller = Caller()
    item = MutableItem.sign(KEY, b"v", 7)
    token = caller.token(item.target)
    assert caller.code(b"put", k=item.public_key, v=b"forged", token=token) == 203


def test_succession_by_seq_and_cas() -> None:
    """Lower seq: 302; equal and different: 302; equal and same: renewed; CAS mismatch: 301; CAS match: stored."""
    caller = Caller()
    first = MutableItem.sign(KEY, b"one", 5)
    assert caller.put_code(first) == 0
    assert caller.put_code(MutableItem.sign(KEY, b"zero", 4)) == 302
    assert caller.put_code(MutableItem.sign(KEY, b"other", 5)) == 302
    second = MutableItem.sign(KEY, b"two", 6)
    assert caller.put_code(second, cas=4) == 301
    assert caller.put_code(second, cas=5) == 0
    caller.now = 7000.0
    assert caller.put_code(second) == 0
    caller.now = 7300.0
    assert b"v" in caller.ask(b"get", target=second.target)[b"r"]
    caller.now = 15_000.0
    assert b"v" not in caller.ask(b"get", target=second.target)[b"r"]


def test_a_renewal_costs_no_signature_check() -> None:
    """Verifying costs more than all else, so it is done once for an item."""
    caller = Caller()
    item = MutableItem.sign(KEY, b"v", 7)
    for _ in range(5):
        assert caller.put_code(item) == 0
    assert caller.core._context.verifier.verified == 1


def test_peers_are_announced_and_returned() -> None:
    """implied_port stores the source port, otherwise the given one; a get token serves for the same target."""
    caller = Caller()
    target = b"h" * 20
    token = caller.ask(b"get_peers", info_hash=target)[b"r"][b"token"]
    assert caller.ask(b"announce_peer", info_hash=target, token=token, port=1, implied_port=1)[b"y"] == b"r"
    assert caller.ask(b"announce_peer", info_hash=target, token=caller.token(target), port=9)[b"y"] == b"r"
    values = caller.ask(b"get_peers", info_hash=target)[b"r"][b"values"]
    assert sorted(parse_peers(values, 10)) == [("20.0.0.1", 9), ("20.0.0.1", 7000)]
    for port in (0, 65536, -1, b"x"):
        assert caller.code(b"announce_peer", info_hash=target, token=token, port=port) == 203
    assert caller.code(b"announce_peer", info_hash=target, token=b"bad", port=9) == 203


def test_read_only_callers_are_not_listed() -> None:
    """A query with ro=1 (BEP 43) does not make its sender a candidate; one without does."""
    caller = Caller()
    table = caller.core._context.families[Family.IPV4].table
    caller.ask(b"ping", ro=True)
    assert table.closest(0, 8, include_candidates=True) == []
    caller.ask(b"ping", ro=False)
    assert len(table.closest(0, 8, include_candidates=True)) == 1


def test_nobody_is_amplified() -> None:
    """A flood with a victim's address as source makes us send it no more than the byte budget of its network."""
    caller = Caller(queries_total=1e6, queries_per_ip=1e6)
    item = MutableItem.sign(KEY, bytes(900), 1)
    caller.put(item)
    query = build_query(b"abcd", b"get", {b"id": ID, b"target": item.target}, read_only=True, version=b"XX\0\1")
    sent = 0
    for n in range(5000):
        caller.core.receive(query, (f"66.6.6.{n % 250}", n), n / 500)
        sent += sum(len(data) for data, _ in caller.core.datagrams_to_send())
    assert 64_000 <= sent <= 64_000 + 10 * 16_000 + 2000
    assert caller.core.counters.dropped["reply-budget"] > 4000


def test_a_client_answers_nothing() -> None:
    """In client mode queries are dropped and counted before they are decoded."""
    caller = Caller(mode=Mode.CLIENT)
    query = build_query(b"abcd", b"ping", {b"id": ID}, read_only=True, version=b"XX\0\1")
    assert caller.raw(query) == []
    assert caller.core.counters.dropped["client-mode"] == 1


@pytest.mark.parametrize(
    ("data", "source", "reason"),
    [
        (b"d" + b"x" * 5000 + b"e", ME, "too-large"),
        (b"", ME, "not-krpc"),
        (b"hello", ME, "not-krpc"),
        (b"d1:y1:qe", ME, "not-krpc"),
        (b"d1:y1:q" + b"l" * 900 + b"e" * 901, ME, "bencode"),
        (b"d1:y1:q\xff\xff\xffe", ME, "bencode"),
        (b"d1:rd2:id20:" + ID + b"e1:t4:abcd1:y1:re", ME, "unsolicited"),
        (b"d1:y1:qe", ("not an ip", 1), "bad-source"),
        (b"d1:y1:qe", ("20.0.0.1", 70_000), "bad-source"),
        (b"d1:y1:qe", ("20.0.0.1", 0), "bad-source"),
        (b"d1:y1:qe", ("fe80::1%eth0", 1), "bad-source"),
    ],
)
def test_rubbish_is_dropped_and_counted(data: bytes, source: tuple[str, int], reason: str) -> None:
    """Nothing raises, nothing is sent, and the reason is counted."""
    caller = Caller()
    assert caller.raw(data, source) == []
    assert caller.core.counters.dropped == {reason: 1}


values = st.recursive(
    st.integers(-(2**66), 2**66) | st.binary(max_size=70) | st.sampled_from([bytes(20), bytes(32), bytes(64)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=3), inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(
    st.sampled_from([b"target", b"info_hash", b"token", b"k", b"v", b"sig", b"seq", b"salt", b"cas", b"port", b"want"]),
    values,
)
methods = st.sampled_from([b"ping", b"find_node", b"get_peers", b"announce_peer", b"get", b"put", b"vote"])


@settings(deadline=None)
@given(methods, arguments, st.booleans(), st.data())
def test_any_arguments_get_an_answer_or_silence(
    method: bytes, args: dict[bytes, object], with_token: bool, data: st.DataObject
) -> None:
    """Queries with arguments of any type get a reply or error that is canonical bencode; nothing raises."""
    caller = _shared
    if with_token:
        args[b"target"] = args[b"info_hash"] = bytes(20)
        args[b"token"] = caller.token(bytes(20))
    query = build_query(b"abcd", method, {**args, b"id": ID}, read_only=True, version=b"XX\0\1")
    caller.now += 1.0
    (reply,) = caller.raw(query)
    assert reply[b"y"] in {b"r", b"e"}
    changed = bytearray(query)
    for _ in range(3):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    caller.raw(bytes(changed))


_shared = Caller()


def test_a_value_out_of_order_is_stored_canonically() -> None:
    """A value whose keys came unordered can't have a valid signature over what we would return."""
    caller = Caller()
    item = MutableItem.sign(KEY, {b"a": 1, b"b": 2}, 1)
    token = caller.token(item.target)
    good = encode({b"a": 1, b"b": 2})
    query = build_query(
        b"abcd",
        b"put",
        {
            b"id": ID,
            b"k": item.public_key,
            b"seq": 1,
            b"sig": item.signature,
            b"token": token,
            b"v": {b"a": 1, b"b": 2},
        },
        read_only=True,
        version=b"XX\0\1",
    )
    (reply,) = caller.raw(query.replace(good, b"d1:bi2e1:ai1ee"))
    assert reply[b"y"] == b"r"
    stored = caller.core._server.items.get(item.target, 0.0)
    assert stored == attrs.evolve(item)


def test_nodes_we_return_are_real_nodes() -> None:
    """find_node names only nodes that answered us."""
    caller = Caller()
    caller.ask(b"ping", ro=False)
    reply = caller.ask(b"find_node", target=bytes(20))[b"r"]
    assert parse_nodes(reply[b"nodes"], Family.IPV4) == []
