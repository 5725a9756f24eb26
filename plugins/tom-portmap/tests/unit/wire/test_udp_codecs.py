"""PCP and NAT-PMP: bytes that miniupnpd sent, round trips, and damage."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_portmap.errors import WireError
from tom_portmap.wire import natpmp, pcp

CLIENT = ipaddress.ip_address("192.168.1.2")
PUBLIC = ipaddress.ip_address("11.0.0.1")
ANY = ipaddress.ip_address("0.0.0.0")
NONCE = b"0123456789ab"
NO_IP, THE_IP = "00000000000000000000ffff00000000", "00000000000000000000ffff0b000001"

# Requests of ours that miniupnpd 2.3.1 understood, and what it answered.
PCP = [
    (pcp.Request(pcp.ANNOUNCE, CLIENT), "020000000000000000000000000000000000ffffc0a80102"),
    (
        pcp.Request(pcp.MAP, CLIENT, 120, pcp.Mapping(NONCE, 4000, 4000, ANY)),
        "020100000000007800000000000000000000ffffc0a80102" + "303132333435363738396162110000000fa00fa0" + NO_IP,
    ),
    (pcp.Response(pcp.ANNOUNCE, 0, 0, 1), "028000000000000000000001000000000000000000000000"),
    (
        pcp.Response(pcp.MAP, 0, 120, 1, pcp.Mapping(NONCE, 4000, 4000, PUBLIC)),
        "028100000000007800000001" + "00" * 12 + "303132333435363738396162110000000fa00fa0" + THE_IP,
    ),
]
NATPMP = [
    (natpmp.MapRequest(4001, 4001, 120), "000100000fa10fa100000078"),
    (natpmp.MapRequest(4001, 0, 0), "000100000fa1000000000000"),
    (
        natpmp.Response(natpmp.EXTERNAL_ADDRESS, 0, 1, address=ipaddress.IPv4Address("11.0.0.1")),
        "00800000000000010b000001",
    ),
    (natpmp.Response(natpmp.MAP_UDP, 0, 1, mapped=natpmp.Mapped(4001, 4001, 120)), "00810000000000010fa10fa100000078"),
    (natpmp.Response(natpmp.MAP_UDP, 0, 1, mapped=natpmp.Mapped(4001, 0, 0)), "00810000000000010fa1000000000000"),
]
MESSAGES = PCP + NATPMP


@pytest.mark.parametrize(("message", "text"), MESSAGES)
def test_messages_are_the_bytes_that_miniupnpd_speaks(message: Any, text: str) -> None:
    """Each message is written as it was sent, and read as it came."""
    assert message.encode().hex() == text
    assert type(message).decode(bytes.fromhex(text)) == message


def test_the_request_for_the_address_has_two_zero_bytes() -> None:
    """RFC 6886 section 3.2."""
    assert natpmp.encode_address_request() == b"\0\0"


@pytest.mark.parametrize(("message", "text"), MESSAGES)
def test_every_prefix_is_refused(message: Any, text: str) -> None:
    """What was cut is an error, and no other message: nothing but the header is left where an error needs no more."""
    data = bytes.fromhex(text)
    for size in range(len(data)):
        with pytest.raises(WireError):
            type(message).decode(data[:size])


u16, u32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
ips = st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None)
mappings = st.builds(pcp.Mapping, st.binary(min_size=12, max_size=12), u16, u16, ips, st.integers(0, 255))
pcp_requests = st.one_of(
    st.builds(pcp.Request, st.just(pcp.ANNOUNCE), ips, u32),
    st.builds(pcp.Request, st.just(pcp.MAP), ips, u32, mappings),
)
pcp_responses = st.one_of(
    st.builds(pcp.Response, st.just(pcp.ANNOUNCE), st.integers(0, 255), u32, u32),
    st.builds(pcp.Response, st.just(pcp.MAP), st.integers(0, 255), u32, u32, mappings),
    st.builds(pcp.Response, st.just(pcp.MAP), st.integers(1, 255), u32, u32),
)
natpmp_responses = st.one_of(
    st.builds(natpmp.Response, st.integers(0, 2), st.integers(1, 5), u32),
    st.builds(natpmp.Response, st.just(0), st.just(0), u32, st.ip_addresses(v=4)),
    st.builds(natpmp.Response, st.just(1), st.just(0), u32, st.none(), st.builds(natpmp.Mapped, u16, u16, u32)),
)
messages = st.one_of(pcp_requests, pcp_responses, natpmp_responses, st.builds(natpmp.MapRequest, u16, u16, u32))


@given(messages)
def test_what_is_written_is_read(message: Any) -> None:
    """Every message comes back as it was."""
    assert type(message).decode(message.encode()) == message


@given(st.one_of(st.binary(max_size=1200), messages.map(lambda message: message.encode())), st.data())
def test_damage_is_an_error_and_nothing_else(data: bytes, draw: st.DataObject) -> None:
    """Any bytes, and any message with bytes changed, are read or refused with WireError."""
    if data:
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw.draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
    decoders: list[Callable[[bytes], object]] = [
        pcp.Request.decode,
        pcp.Response.decode,
        natpmp.Response.decode,
        natpmp.MapRequest.decode,
    ]
    for decode in decoders:
        with contextlib.suppress(WireError):
            decode(data)


def test_options_are_skipped_and_must_end_with_the_message() -> None:
    """An unknown option of a server changes nothing (RFC 6887 section 7.3); one that goes too far is malformed."""
    response = PCP[3][0]
    data = response.encode()
    assert pcp.Response.decode(data + bytes.fromhex("fe00000501020304 05000000")) == response
    for tail in ("fe000009 01020304", "fe00ffff"):
        with pytest.raises(WireError, match="option"):
            pcp.Response.decode(data + bytes.fromhex(tail))


@pytest.mark.parametrize("size", [1104, 61])
def test_a_message_has_a_whole_number_of_words_and_an_end(size: int) -> None:
    """At most 1100 bytes, a multiple of four (RFC 6887 section 7)."""
    data = PCP[3][0].encode()
    with pytest.raises(WireError):
        pcp.Response.decode(data + bytes(size - len(data)))


def test_each_protocol_knows_the_refusal_of_a_server_of_the_other() -> None:
    """A NAT-PMP gateway answers PCP with version 0 and result 1 (RFC 6886 section 3.5); a PCP server answers with 2."""
    with pytest.raises(WireError, match="version 0") as refused:
        pcp.Response.decode(bytes.fromhex("0081000100000000"))
    assert refused.value.kind == "version"
    with pytest.raises(WireError, match="version 2") as refused:
        natpmp.Response.decode(bytes.fromhex("028000010000000000000001000000000000000000000000"))
    assert refused.value.kind == "version"


@pytest.mark.parametrize(
    "message",
    [
        pcp.Request(pcp.MAP, CLIENT, -1),
        pcp.Response(pcp.MAP, 0, 2**32, 0),
        pcp.Mapping(b"short", 1, 1, ANY),
        pcp.Mapping(NONCE, 65536, 1, ANY),
        natpmp.MapRequest(-1, 0, 0),
    ],
)
def test_what_does_not_fit_is_not_written(message: Any) -> None:
    """A field out of its range is a ValueError, never other bytes."""
    with pytest.raises(ValueError, match=r"12 bytes|number|format|range"):
        message.encode()
