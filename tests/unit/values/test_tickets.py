"""Tickets: one text for one NodeAddr, and a clear refusal of everything else."""

from __future__ import annotations

import base64
import hashlib
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr
from tom_connect.exceptions import InvalidAddrError, InvalidInputError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.tickets import MAX_TICKET, encode_ticket, parse_target, parse_ticket

ME = SecretKey(bytes(31) + b"\x01").node_id
ADDR = NodeAddr(ME, ["https://r.example/"], ["203.0.113.7:4433", "[2001:db8::7]:4433"], "foobar")
TICKET = encode_ticket(ADDR)


def sealed(body: bytes) -> str:
    """The text of a ticket with any body, as the format says: written apart from the code under test."""
    checksum = hashlib.sha256(b"tom-connect ticket 1" + body).digest()[:4]
    return "tom1" + base64.b32encode(body + checksum).decode().rstrip("=").lower()


def test_the_bytes_are_those_of_the_format() -> None:
    """Key, relays, addresses, user data and checksum, put together here by hand."""
    body = (
        ME.raw
        + b"\x01\x12https://r.example/"
        + b"\x02\x04" + bytes((203, 0, 113, 7)) + b"\x11\x51"
        + b"\x06" + bytes.fromhex("20010db8000000000000000000000007") + b"\x11\x51"
        + b"\x01\x06foobar"
    )  # fmt: skip
    assert sealed(body) == TICKET
    assert parse_ticket(TICKET) == ADDR
    assert encode_ticket(NodeAddr(ME)) == sealed(ME.raw + bytes(3))


node_addrs = st.builds(
    lambda seed, relays, ips, port, data: NodeAddr(
        SecretKey(seed).node_id,
        [f"https://{relay}/" for relay in relays],
        [f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}" for ip in ips],
        data,
    ),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text("abc.", min_size=1, max_size=230), max_size=8),
    st.lists(st.ip_addresses(), max_size=32),
    st.integers(1, 65535),
    st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=61)),
)


@given(node_addrs)
def test_a_ticket_carries_all_of_a_node_addr(addr: NodeAddr) -> None:
    """Up to 8 relays, 32 addresses and user data come back; the text is one word of letters and digits."""
    ticket = encode_ticket(addr)
    assert parse_ticket(ticket) == addr
    assert ticket.isascii()
    assert ticket.isalnum()
    assert ticket == ticket.lower()
    assert parse_ticket(f" {ticket[:9]}\n\t{ticket[9:].upper()} ") == addr


def test_what_is_too_much_is_left_out() -> None:
    """The first 8 relays and 32 addresses are kept, scoped ones and port 0 never; the largest is within the limit."""
    relays = [f"https://{'r' * 234}{n:02}/" for n in range(10)]
    direct = ["[fe80::1%eth0]:5", "192.0.2.1:0", *(f"[2001:db8::{n:x}]:9" for n in range(1, 40))]
    ticket = encode_ticket(NodeAddr(ME, relays, direct, "u" * 245))
    assert parse_ticket(ticket) == NodeAddr(ME, relays[:8], direct[2:34], "u" * 245)
    assert len(ticket) <= MAX_TICKET


def test_every_truncation_is_refused() -> None:
    """A ticket that was copied in part is not another ticket."""
    for size in range(len(TICKET)):
        with pytest.raises(InvalidAddrError):
            parse_ticket(TICKET[:size])


def test_every_wrong_character_is_refused() -> None:
    """Each character replaced by each other letter and digit, two swapped, one doubled or left out."""
    for at in range(len(TICKET)):
        for other in string.ascii_lowercase + string.digits + "-é\x1b":
            if other != TICKET[at]:
                with pytest.raises(InvalidAddrError):
                    parse_ticket(TICKET[:at] + other + TICKET[at + 1 :])
        with pytest.raises(InvalidAddrError):
            parse_ticket(TICKET[:at] + TICKET[at + 1 :])
        with pytest.raises(InvalidAddrError):
            parse_ticket(TICKET[:at] + TICKET[at] + TICKET[at:])
        if TICKET[at : at + 1] != TICKET[at + 1 : at + 2] and at + 1 < len(TICKET):
            with pytest.raises(InvalidAddrError):
                parse_ticket(TICKET[:at] + TICKET[at + 1] + TICKET[at] + TICKET[at + 2 :])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with tom1"),
        (str(ME), "does not begin with tom1"),
        ("tom2" + TICKET[4:], "version 2, this program reads only version 1"),
        ("TOM9", "version 9"),
        (TICKET[:20] + "0" + TICKET[21:], "'0', character 21"),
        (TICKET[:20] + "\x1b" + TICKET[21:], r"'\\x1b', character 21"),
        (TICKET[:-3], "damaged"),
        (TICKET[:30] + ("a" if TICKET[30] != "a" else "b") + TICKET[31:], "checksum"),
        ("tom1", "checksum"),
        (TICKET * 40, "at most 5000"),
    ],
)
def test_the_reason_is_said(text: str, reason: str) -> None:
    """Wrong version, wrong character, damage and other texts are told apart, in one line."""
    with pytest.raises(InvalidAddrError, match=reason) as caught:
        parse_ticket(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "body",
    [
        bytes(32) + bytes(3),
        ME.raw,
        ME.raw + b"\0\0",
        ME.raw + bytes(4),
        ME.raw + b"\x09" + b"\x05a://b" * 9 + b"\0\0",
        ME.raw + b"\x01\x05a:/b/\0\0",
        ME.raw + b"\x01\x0bhttps://R.x\0\0",
        ME.raw + b"\x01\x03\xff\xff\xff\0\0",
        ME.raw + b"\0\x01\x05" + bytes(18) + b"\0",
        ME.raw + b"\0\x02" + b"\x04\x01\x02\x03\x04\0\x05" * 2 + b"\0",
        ME.raw + b"\0\x01\x04\x01\x02\x03\x04\0\0\0",
        ME.raw + b"\0\x01\x06" + bytes(10) + b"\xff\xff\x01\x02\x03\x04\0\x05\0",
        ME.raw + b"\0\x21" + b"".join(b"\x04\x01\x02\x03" + bytes((n, 0, 5)) for n in range(33)) + b"\0",
        ME.raw + b"\0\0\x02\x01x",
        ME.raw + b"\0\0\x01\x01\xff",
        ME.raw + b"\0\0\x01\xf6" + b"x" * 246,
    ],
)
def test_a_valid_checksum_does_not_save_a_malformed_body(body: bytes) -> None:
    """Low-order keys, missing and surplus bytes, other spellings of the same address: all are refused."""
    with pytest.raises(InvalidAddrError, match=r"malformed|damaged"):
        parse_ticket(sealed(body))


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=80), st.binary(max_size=120).map(sealed)))
def test_any_text_raises_nothing_but_its_error(text: str) -> None:
    """What is accepted is written back as it was."""
    for parse in (parse_ticket, parse_target):
        try:
            addr = parse(text)
        except InvalidInputError:
            continue
        if parse is parse_ticket:
            assert encode_ticket(addr) == "".join(text.split()).lower()


def test_perturbed_bodies_raise_nothing_but_their_error() -> None:
    """Changed bytes behind a checksum that was made to fit."""
    rng = random.Random(4)
    body = base64.b32decode(TICKET[4:].upper() + "=" * (-len(TICKET[4:]) % 8))[:-4]
    for _ in range(3000):
        broken = bytearray(body)
        broken[rng.randrange(len(body))] = rng.randrange(256)
        try:
            parse_ticket(sealed(bytes(broken)))
        except InvalidAddrError:
            pass


def test_a_target_is_a_ticket_or_a_node_id() -> None:
    """Both texts are read; what is neither gets a message that names both forms' fault."""
    assert parse_target(f" {TICKET}\n") == ADDR
    assert parse_target(TICKET.upper()) == ADDR
    assert parse_target(str(ME)) == NodeAddr(ME)
    assert parse_target(base64.b32encode(ME.raw).decode().rstrip("=")) == NodeAddr(ME)
    with pytest.raises(InvalidAddrError, match="version 3"):
        parse_target("tom3abc")
    with pytest.raises(InvalidInputError, match="node id"):
        parse_target("somewhere")


def test_no_node_id_looks_like_a_ticket() -> None:
    """A base32 NodeId has no digit 1, so even one that begins with `tom` is read as a NodeId."""
    rng = random.Random(5)
    while True:
        raw = base64.b32decode("TOM" + "A" * 48 + "A====")[:2] + rng.randbytes(30)
        try:
            node_id = NodeId(raw)
        except InvalidInputError:
            continue
        text = base64.b32encode(raw).decode().rstrip("=").lower()
        if text.startswith("tom"):
            break
    assert parse_target(text) == NodeAddr(node_id)
