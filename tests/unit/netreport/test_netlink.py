"""Messages of Linux's rtnetlink: what the kernel sent, cut off and garbled too."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.netreport.netwatch.netlink import Heard, parse

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little", reason="the recorded messages are of a little-endian machine"
)

# As Linux 6 sent them for: ip link set d0 up; ... down; ip addr add 10.9.9.1/24 dev d0; ip route add 10.8.0.0/16 via
# 10.9.9.2; ip route del default; ip route add 0.0.0.0/1 via 10.9.9.2. Those of links are cut after what is read.
LINK_UP = "200000001000000000000000000000000000010004000000 4310010000000000"
LINK_DOWN = "200000001000000000000000000000000000010004000000 0210000001000000"
LINK_GONE = "200000001100000000000000000000000000010004000000 4310010000000000"
ADDRESS = (
    "4c000000140000009fb4066bee4600000218800004000000080001000a090901080002000a0909010700030064300000"
    "08000800 8000000014000600ffffffffffffffff4ec901004ec90100"
)
ROUTE = (
    "3c000000180000069fb4066bf046000002100000fe0300010000000008000f00"
    "fe000000080001000a080000080005000a0909020800040004000000"
)
NO_DEFAULT = "34000000190000009fb4066bf146000002000000fe0300010400000008000f00fe00000008000500c61200010800040002000000"
HALF = (
    "3c000000180000069fb4066bf346000002010000fe0300010000000008000f00"
    "fe0000000800010000000000080005000a0909020800040004000000"
)

KNOWN = [
    (LINK_UP, Heard(True, ((4, True),))),
    (LINK_DOWN, Heard(True, ((4, False),))),
    (LINK_GONE, Heard(True, ((4, False),))),
    (ADDRESS, Heard(True)),
    (ROUTE, Heard(False)),
    (NO_DEFAULT, Heard(True)),
    (HALF, Heard(True)),
]


@pytest.mark.parametrize(("text", "heard"), KNOWN)
def test_what_the_kernel_sent(text: str, heard: Heard) -> None:
    """Links, addresses and routes that lead everywhere wake us; routes to single networks do not."""
    assert parse(bytes.fromhex(text)) == heard


def test_several_in_one_datagram() -> None:
    """Messages that follow each other in a datagram are all read."""
    data = b"".join(bytes.fromhex(text) for text, _heard in KNOWN)
    assert parse(data) == Heard(True, ((4, True), (4, False), (4, False)))


@pytest.mark.parametrize("text", [text for text, _heard in KNOWN])
def test_every_prefix(text: str) -> None:
    """A message that is cut off says nothing, and nothing is raised."""
    data = bytes.fromhex(text)
    assert all(parse(data[:size]) == Heard(False) for size in range(len(data)))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """No bytes make the parser raise or go on for ever."""
    assert len(parse(data).links) <= len(data) // 32


@given(st.sampled_from([bytes.fromhex(text) for text, _heard in KNOWN]), st.integers(0, 2000), st.integers(1, 255))
def test_garbled(data: bytes, place: int, change: int) -> None:
    """A message with one byte changed is read as another one or not at all."""
    garbled = bytearray(data)
    garbled[place % len(data)] ^= change
    assert len(parse(bytes(garbled)).links) <= 2
