"""Which packets a relay takes and keeps, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord, sign_packet, sign_record
from tom_pkarr.core.http import http_date
from tom_pkarr.core.rules import Conditions, Packet, Verdict, get_headers, is_unmodified, judge, read_put
from tom_pkarr.errors import PutError

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[4] / "tests" / "vectors" / "pkarr.json").read_text()
)["vectors"]
KEY = SecretKey(bytes(31) + b"\x07")
T = 1_700_000_000_000_000
WALL = 1_700_000_000.0


def packet(timestamp_us: int = T, port: int = 1) -> Packet:
    addr = NodeAddr(KEY.node_id, direct_addrs=(f"192.0.2.1:{port}",))
    return Packet.of(sign_record(KEY, addr, timestamp_us))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["what"])
def test_packets_of_other_programs_are_taken(vector: dict[str, Any]) -> None:
    """What npm's pkarr and libsodium signed is taken as it is, whatever records it has."""
    payload = bytes.fromhex(vector["relay_payload"])
    taken = read_put(bytes.fromhex(vector["public_key"]), payload, wall=vector["timestamp"] / 1e6, max_ahead=0.0)
    assert (taken.payload, taken.timestamp_us) == (payload, vector["timestamp"])


def refused(body: bytes, node_id: NodeId = KEY.node_id) -> tuple[int, str]:
    with pytest.raises(PutError) as caught:
        read_put(node_id.raw, body, wall=WALL, max_ahead=60.0)
    return caught.value.status, caught.value.kind


def test_bad_packets_are_refused_with_a_status() -> None:
    """Too large, wrongly signed, of another key, not DNS, and dated ahead: each has its status and kind."""
    good = packet().payload
    assert refused(bytes(1073)) == (413, "size")
    assert refused(bytes(1072)) == (400, "packet")
    assert refused(bytes([good[0] ^ 1]) + good[1:]) == (400, "signature")
    assert refused(good, SecretKey.generate().node_id) == (400, "signature")
    assert refused(sign_packet(KEY, b"\xff" * 30, T).relay_payload()) == (400, "packet")
    assert refused(packet(T + 61_000_000).payload) == (400, "time")
    assert read_put(KEY.node_id.raw, packet(T + 59_000_000).payload, wall=WALL, max_ahead=60.0).timestamp_us > T
    for size in range(len(good)):
        assert refused(good[:size])[0] == 400


@given(st.binary(max_size=1100))
def test_any_body_is_refused(body: bytes) -> None:
    """Bytes that the key did not sign are never taken, and nothing else is raised."""
    refused(body)


def test_the_newer_packet_is_kept() -> None:
    """A higher timestamp wins, a lower one is refused, the same packet again is welcome."""
    old, new = packet(T), packet(T + 1)
    none = Conditions()
    assert judge(old, None, none, publishing=False) is Verdict.STORED
    assert judge(new, old, none, publishing=False) is Verdict.STORED
    assert judge(old, new, none, publishing=False) is Verdict.OLDER
    assert judge(new, new, none, publishing=False) is Verdict.UNCHANGED


def test_of_equal_timestamps_the_larger_bytes_win() -> None:
    """Two packets of one microsecond are ordered by their bytes, so that all relays keep the same one."""
    low, high = sorted((packet(T, 1), packet(T, 2)), key=lambda p: p.payload)
    assert judge(high, low, Conditions(), publishing=False) is Verdict.STORED
    assert judge(low, high, Conditions(), publishing=False) is Verdict.OLDER
    assert low.etag != high.etag


def test_conditions_of_a_writer() -> None:
    """`If-Match` names the packet to replace; `If-Unmodified-Since` the second after which it must not have changed."""
    old, new = packet(T), packet(T + 5_000_000)

    def verdict(held: Packet | None, publishing: bool = False, **headers: str) -> Verdict:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return judge(new, held, Conditions.of(named), publishing=publishing)

    assert verdict(old, If_Match=str(T)) is Verdict.STORED
    assert verdict(old, If_Match=old.etag) is Verdict.STORED
    assert verdict(old, If_Match="*") is Verdict.STORED
    assert verdict(old, If_Match=str(T - 1)) is Verdict.MISMATCH
    assert verdict(old, If_Match="nonsense") is Verdict.MISMATCH
    assert verdict(None, If_Match=str(T)) is Verdict.MISMATCH
    assert verdict(old, If_Unmodified_Since=http_date(T)) is Verdict.STORED
    assert verdict(old, If_Unmodified_Since=http_date(T - 2_000_000)) is Verdict.MISMATCH
    assert verdict(old, If_Unmodified_Since="nonsense") is Verdict.STORED
    # A lost answer makes its sender repeat what is stored already.
    assert verdict(new, If_Match=str(T)) is Verdict.UNCHANGED


def test_while_one_is_published_another_must_name_it() -> None:
    """A writer that does not know of the packet on its way is told to look first (428)."""
    old, new = packet(T), packet(T + 1)
    assert judge(new, old, Conditions(), publishing=True) is Verdict.CONFLICT
    assert judge(new, old, Conditions(str(T)), publishing=True) is Verdict.STORED
    assert judge(old, old, Conditions(), publishing=True) is Verdict.UNCHANGED
    assert judge(old, new, Conditions(), publishing=True) is Verdict.OLDER


def test_conditions_of_a_reader() -> None:
    """304 where the reader has what is held; the tag counts before the date."""
    held = packet(T)
    headers = get_headers(held)
    assert headers["Cache-Control"] == "public, max-age=30"
    assert is_unmodified(held, {"If-None-Match": headers["ETag"]})
    assert is_unmodified(held, {"If-Modified-Since": headers["Last-Modified"]})
    assert not is_unmodified(held, {})
    assert not is_unmodified(held, {"If-Modified-Since": http_date(T - 1_000_000)})
    assert not is_unmodified(held, {"If-None-Match": '"other"', "If-Modified-Since": headers["Last-Modified"]})


@given(st.permutations(range(6)))
def test_all_orders_end_with_the_same_packet(order: list[int]) -> None:
    """In whatever order packets come, the same one is held in the end."""
    packets = [packet(T + step // 2, port) for port, step in enumerate((0, 0, 2, 2, 4, 4), 1)]
    held: Packet | None = None
    for index in order:
        if judge(packets[index], held, Conditions(), publishing=False) is Verdict.STORED:
            held = packets[index]
    assert held == max(packets, key=lambda p: (p.timestamp_us, p.payload))


def test_a_record_goes_round() -> None:
    """A packet gives back the record that it was made of."""
    record = sign_record(KEY, NodeAddr(KEY.node_id, direct_addrs=("192.0.2.1:1",)), T)
    made = Packet.of(record)
    assert SignedRecord.from_relay_payload(NodeId(made.key), made.payload) == record
