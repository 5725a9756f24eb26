"""The shape of DNS packets, beside what dnspython says of the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.exceptions import RecordError
from tom_pkarr.core.packet import minimum_ttl

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[4] / "tests" / "vectors" / "pkarr.json").read_text()
)["vectors"]
LABEL = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(lambda labels: ".".join(labels) + ".")
RECORD = st.tuples(NAME, st.integers(0, 2**31 - 1), st.binary(max_size=60))


def built(records: list[tuple[str, int, bytes]]) -> bytes:
    """A reply with a TXT record for each name, TTL and text."""
    message = dns.message.Message(id=0)
    for name, ttl, text in records:
        literal = '"' + "".join(f"\\{byte:03d}" for byte in text) + '"'
        message.answer.append(dns.rrset.from_text(name, ttl, "IN", "TXT", literal))
    return message.to_wire()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["what"])
def test_packets_of_other_programs(vector: dict[str, Any]) -> None:
    """The lowest TTL of each vector is that of its answers."""
    ttls = [answer["ttl"] for answer in vector["answers"]]
    assert minimum_ttl(bytes.fromhex(vector["dns_packet"])) == (min(ttls) if ttls else None)


@given(st.lists(RECORD, max_size=8))
def test_built_packets(records: list[tuple[str, int, bytes]]) -> None:
    """What dnspython writes, names compressed, is read with its lowest TTL."""
    assert minimum_ttl(built(records)) == (min(ttl for _, ttl, _ in records) if records else None)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["what"])
def test_prefixes_and_trailing_bytes_are_refused(vector: dict[str, Any]) -> None:
    """Every prefix of a packet, and a packet with bytes behind it, is no packet."""
    packet = bytes.fromhex(vector["dns_packet"])
    for size in range(len(packet)):
        with pytest.raises(RecordError):
            minimum_ttl(packet[:size])
    with pytest.raises(RecordError):
        minimum_ttl(packet + b"\0")


@given(st.data())
def test_perturbed_packets_raise_nothing_else(data: st.DataObject) -> None:
    """Whatever bytes are changed, the outcome is a TTL or RecordError, and what dnspython refuses for its shape is not
    read as longer than it is."""
    packet = bytearray.fromhex(data.draw(st.sampled_from(VECTORS))["dns_packet"])
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    try:
        ttl = minimum_ttl(bytes(packet))
    except RecordError:
        return
    assert ttl is None or 0 <= ttl < 2**31


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Any bytes give a TTL or RecordError."""
    try:
        minimum_ttl(data)
    except RecordError:
        pass


def test_pointers_lead_back() -> None:
    """A name that points to itself, forward or into the header is refused, so no reader can be sent in circles."""
    head = bytes.fromhex("000080000000000100000000")
    for target in (0, 11, 12, 13, 40):
        with pytest.raises(RecordError):
            minimum_ttl(head + (0xC000 | target).to_bytes(2, "big") + bytes(10))


def test_a_ttl_of_the_upper_half_is_zero() -> None:
    """A TTL above 2**31-1 counts as 0 (RFC 2181 section 8)."""
    packet = bytearray(built([("a.", 5, b"x")]))
    at = packet.index((5).to_bytes(4, "big"))
    packet[at : at + 4] = b"\x80\0\0\0"
    assert minimum_ttl(bytes(packet)) == 0


def test_dnspython_agrees_on_garbage() -> None:
    """A record that claims more data than there is, is refused by us as by dnspython."""
    packet = bytearray(built([("a.", 5, b"x")]))
    packet[-3] += 1
    with pytest.raises(dns.exception.DNSException):
        dns.message.from_wire(bytes(packet))
    with pytest.raises(RecordError):
        minimum_ttl(bytes(packet))
