"""KRPC messages: the examples of BEP 5, fields of other BEPs, and hostile input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_dht_mainline.core import Family
from tom_dht_mainline.core.bencode import decode
from tom_dht_mainline.core.errors import BencodeError, KrpcError
from tom_dht_mainline.core.krpc import (
    MAX_NODES_PARSED,
    build_error,
    build_query,
    build_reply,
    parse,
    parse_nodes,
    parse_peers,
)

BEP5_PING = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"
BEP5_PONG = b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re"
BEP5_ERROR = b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee"
BEP5_ANNOUNCE = (
    b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnth"
    b"e1:q13:announce_peer1:t2:aa1:y1:qe"
)


def test_examples_of_bep_5() -> None:
    """The messages printed in BEP 5 are understood."""
    ping = parse(BEP5_PING)
    assert (ping.kind, ping.method, ping.tid, ping.node_id) == ("q", b"ping", b"aa", b"abcdefghij0123456789")
    pong = parse(BEP5_PONG)
    assert (pong.kind, pong.node_id, pong.ip) == ("r", b"mnopqrstuvwxyz123456", None)
    error = parse(BEP5_ERROR)
    assert (error.kind, error.code, error.text) == ("e", 201, b"A Generic Error Ocurred")
    announce = parse(BEP5_ANNOUNCE)
    assert announce.body[b"token"] == b"aoeusnth"
    assert announce.body[b"port"] == 6881


def test_what_we_build_is_canonical_and_read_back() -> None:
    """Queries, replies and errors have sorted keys, 4-byte t and v, and the `ip` field."""
    query = build_query(b"abcd", b"get", {b"id": b"i" * 20, b"target": b"t" * 20}, read_only=True, version=b"TM\0\1")
    top = decode(query)
    assert (top[b"t"], top[b"v"], top[b"ro"], top[b"q"]) == (b"abcd", b"TM\0\1", 1, b"get")
    assert parse(query).read_only
    reply = build_reply(b"xy", b"d2:id20:" + b"r" * 20 + b"e", bytes((1, 2, 3, 4, 0x1A, 0xE1)), b"TM\0\1")
    assert decode(reply)[b"ip"] == bytes((1, 2, 3, 4, 0x1A, 0xE1))
    assert parse(reply).ip == ("1.2.3.4", 6881)
    assert parse(reply).tid == b"xy"
    error = build_error(b"abcd", 203, b"bad", bytes(16) + b"\x00\x50", b"TM\0\1")
    assert (parse(error).code, parse(error).ip) == (203, ("::", 80))
    decode(error)


def test_no_ro_field_in_server_mode() -> None:
    """A serving node leaves `ro` out (BEP 43)."""
    query = build_query(b"abcd", b"ping", {b"id": b"i" * 20}, read_only=False, version=b"TM\0\1")
    assert b"ro" not in decode(query)


@pytest.mark.parametrize(
    "data",
    [
        b"i1e",
        b"le",
        b"de",
        b"d1:t2:aa1:y1:xe",
        b"d1:t2:aae",
        b"d1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id3:abce1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:qi1e1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:ti1e1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t0:1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t40:" + b"a" * 40 + b"1:y1:qe",
        b"d1:rl2:ide1:t2:aa1:y1:re",
    ],
)
def test_what_is_no_krpc_message_is_refused(data: bytes) -> None:
    """Bencode without the fields of KRPC gives a KrpcError."""
    with pytest.raises(KrpcError):
        parse(data)


def test_errors_of_any_shape_are_taken() -> None:
    """An error whose body is malformed counts as a generic one: the query has failed either way."""
    for body in (b"le", b"3:abc", b"i5e", b"l1:a1:be", b"li204ee"):
        assert parse(b"d1:e%b1:t2:aa1:y1:ee" % body).code == 201


@given(st.sampled_from([BEP5_PING, BEP5_PONG, BEP5_ERROR, BEP5_ANNOUNCE]), st.data())
def test_perturbed_messages_raise_only_own_errors(message: bytes, data: st.DataObject) -> None:
    """Changed, cut and lengthened messages are read or give BencodeError or KrpcError."""
    changed = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    for hostile in (bytes(changed), cut):
        try:
            parse(hostile)
        except (BencodeError, KrpcError):
            pass


@pytest.mark.parametrize("message", [BEP5_PING, BEP5_PONG, BEP5_ERROR, BEP5_ANNOUNCE])
def test_every_prefix_is_refused(message: bytes) -> None:
    """No proper prefix of a message is taken."""
    for end in range(len(message)):
        with pytest.raises((BencodeError, KrpcError)):
            parse(message[:end])


@given(st.binary(max_size=400))
def test_compact_lists_of_any_length(raw: bytes) -> None:
    """Node lists with a ragged end give their whole entries and nothing else."""
    assert len(parse_nodes(raw, Family.IPV4)) == len(raw) // 26
    assert len(parse_nodes(raw, Family.IPV6)) == len(raw) // 38
    for node_id, (_, port) in parse_nodes(raw, Family.IPV4):
        assert len(node_id) == 20
        assert 0 <= port < 65536


def test_long_node_lists_are_cut() -> None:
    """A node that returns its whole table gives us 64 nodes of it."""
    assert len(parse_nodes(bytes(26 * 1000), Family.IPV4)) == MAX_NODES_PARSED
    assert parse_nodes([b"x"], Family.IPV4) == []
    assert parse_nodes(7, Family.IPV6) == []


def test_peers_of_both_sizes_and_rubbish() -> None:
    """`values` may hold 6 and 18 bytes; what is neither is skipped, and the number is bounded."""
    values = [bytes((1, 2, 3, 4, 0, 80)), b"short", 7, bytes(15) + b"\1\0\x50"]
    assert parse_peers(values, 10) == [("1.2.3.4", 80), ("::1", 80)]
    assert parse_peers(b"no list", 10) == []
    assert len(parse_peers([bytes((1, 2, 3, 4, 0, 80))] * 100, 10)) == 10
