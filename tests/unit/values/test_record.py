"""Signed address records: vectors of other programs, what is cut, what is skipped, hostile bytes."""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import subprocess
import sys
from typing import Any

import attrs
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr
from tom_connect.exceptions import InvalidAddrError, RecordError
from tom_connect.keys import SecretKey
from tom_connect.record import (
    MAX_DNS_PACKET,
    SignedRecord,
    addr_from_texts,
    bep44_signable,
    build_dns_packet,
    parse_dns_packet,
    sign_packet,
    sign_record,
)
from tom_connect.tickets import encode_ticket, parse_ticket

VECTORS: list[dict[str, Any]] = json.loads((pathlib.Path(__file__).parents[2] / "vectors" / "pkarr.json").read_text())[
    "vectors"
]
by_name = pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["what"][:24])
KEY = SecretKey(bytes(31) + b"\x01")
ME = KEY.node_id
OTHER = SecretKey(b"o" * 32)
LONGEST_RELAY = "https://" + "r" * 236 + "/"


def packet_of(*answers: tuple[str, str, str]) -> bytes:
    """A DNS reply of (name, type, text) records as dnspython writes it."""
    message = dns.message.Message(id=0)
    for name, rdtype, text in answers:
        message.answer.append(dns.rrset.from_text(name, 30, "IN", rdtype, text))
    return message.to_wire()


def txt(*texts: str, name: str = f"_iroh.{ME.z32()}.") -> bytes:
    """A DNS reply of TXT records under one name."""
    return packet_of(*((name, "TXT", f'"{text}"') for text in texts))


@by_name
def test_packets_of_other_programs_read_and_write_back(vector: dict[str, Any]) -> None:
    """Every form of each vector gives the same record, which gives each form back byte for byte."""
    record = SignedRecord.from_bytes(bytes.fromhex(vector["signed_packet"]))
    assert str(record.node_id) == vector["public_key"]
    assert record.timestamp_us == vector["timestamp"]
    assert record.to_bytes().hex() == vector["signed_packet"]
    assert record.relay_payload().hex() == vector["relay_payload"]
    assert record.dns_packet.hex() == vector["dns_packet"]
    assert record.signature.hex() == vector["signature"]
    assert SignedRecord.from_relay_payload(record.node_id, bytes.fromhex(vector["relay_payload"])) == record
    assert hashlib.sha1(record.node_id.raw).hexdigest() == vector["dht_target"]


@by_name
def test_we_sign_as_other_programs_do(vector: dict[str, Any]) -> None:
    """The same seed, packet and timestamp give the same signed packet."""
    key = SecretKey(bytes.fromhex(vector["seed"]))
    record = sign_packet(key, bytes.fromhex(vector["dns_packet"]), vector["timestamp"])
    assert record.to_bytes().hex() == vector["signed_packet"]


@by_name
def test_addresses_in_packets_of_other_programs(vector: dict[str, Any]) -> None:
    """Compressed names or not, the addresses are those that the answers list; other records say nothing."""
    addr = SignedRecord.from_bytes(bytes.fromhex(vector["signed_packet"])).addr
    said = [a["data"] for a in vector["answers"] if a["name"].startswith("_iroh.")]
    assert [f"relay={u}" for u in addr.relay_urls] + [f"addr={a}" for a in addr.direct_addrs] == said[:3]
    assert addr.user_data == ("foobar" if said else None)


def test_a_record_of_ours_is_byte_identical() -> None:
    """The record with compressed names, and the empty one, are what the vectors say, signature included."""
    compressed = next(v for v in VECTORS if "compressed" in v["what"])
    addr = NodeAddr(ME, ["https://euw1-1.relay.iroh.network./"], ["203.0.113.7:4433", "[2001:db8::7]:4433"], "foobar")
    assert sign_record(KEY, addr, compressed["timestamp"]).to_bytes().hex() == compressed["signed_packet"]
    empty = next(v for v in VECTORS if not v["answers"])
    key = SecretKey(bytes.fromhex(empty["seed"]))
    assert sign_record(key, NodeAddr(key.node_id), empty["timestamp"]).to_bytes().hex() == empty["signed_packet"]


def test_the_signed_bytes_are_those_of_bep_44() -> None:
    """The test vectors of BEP 44: a value without and with a salt."""
    assert bep44_signable(b"", 1, b"12:Hello World!") == b"3:seqi1e1:v12:Hello World!"
    assert bep44_signable(b"foobar", 1, b"12:Hello World!") == b"4:salt6:foobar3:seqi1e1:v12:Hello World!"


ports = st.integers(1, 65535)
hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
addrs = st.builds(
    lambda ip, port: SocketAddr.parse(f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"), hosts, ports
)
relays = st.builds(
    lambda host, path: RelayUrl.parse(f"https://{host}/{path}"),
    st.text("abcdefghij0123456789.-", min_size=1, max_size=100),
    st.text("abc/=._", max_size=100),
)
node_addrs = st.builds(
    NodeAddr,
    st.just(ME),
    st.lists(relays, max_size=6),
    st.lists(addrs, max_size=60),
    st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=61)),
)


@settings(max_examples=200)
@given(node_addrs, st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))
def test_any_address_fits_by_cutting(addr: NodeAddr, timestamp: int, ttl: int) -> None:
    """The packet has at most 996 bytes; what it tells is part of what was given, in order; all of it if it fits."""
    record = sign_record(KEY, addr, timestamp, ttl)
    assert len(record.dns_packet) <= MAX_DNS_PACKET
    assert SignedRecord.from_bytes(record.to_bytes()) == record
    told = record.addr
    assert [u for u in addr.relay_urls if u in told.relay_urls] == list(told.relay_urls)
    assert [a for a in addr.direct_addrs if a in told.direct_addrs] == list(told.direct_addrs)
    assert told.relay_urls[:1] == addr.relay_urls[:1]
    assert told.user_data == addr.user_data
    if told != addr:
        left_out = {f"relay={u}" for u in addr.relay_urls if u not in told.relay_urls}
        left_out |= {f"addr={a}" for a in addr.direct_addrs if a not in told.direct_addrs}
        smallest = min(2 + 10 + 1 + len(text) for text in left_out)
        assert len(record.dns_packet) + smallest > MAX_DNS_PACKET


def test_what_is_cut_first() -> None:
    """One relay, the user data and five addresses stay at full size; other relays go before any address."""
    many = [f"[2001:db8:1111:2222:3333:4444:5555:{n:x}]:{n}" for n in range(50001, 50041)]
    full = NodeAddr(ME, [LONGEST_RELAY, "https://second.example/"], many, "u" * 245)
    told = parse_dns_packet(ME, build_dns_packet(full))
    assert [str(u) for u in told.relay_urls] == [LONGEST_RELAY]
    assert told.user_data == "u" * 245
    assert [str(a) for a in told.direct_addrs] == many[: len(told.direct_addrs)]
    assert len(told.direct_addrs) >= 5
    fewer = NodeAddr(ME, ["https://a.example/", "https://b.example/"], many[:5])
    assert parse_dns_packet(ME, build_dns_packet(fewer)) == fewer


def test_what_means_nothing_to_others_is_not_written() -> None:
    """A scoped address and port 0 are left out; the rest stays."""
    addr = NodeAddr(ME, (), ["[fe80::1%eth0]:5", "192.0.2.1:0", "192.0.2.1:5"])
    assert parse_dns_packet(ME, build_dns_packet(addr)) == NodeAddr(ME, (), ["192.0.2.1:5"])


def test_the_order_of_records_is_that_of_the_format() -> None:
    """Relays, then addresses, then user data, whatever was taken first."""
    addr = NodeAddr(ME, ["https://a.example/", "https://b.example/"], ["192.0.2.1:5"], "u=v")
    answer = dns.message.from_wire(build_dns_packet(addr)).answer[0]
    assert [rd.to_text() for rd in answer] == [
        '"relay=https://a.example/"', '"relay=https://b.example/"', '"addr=192.0.2.1:5"', '"user-data=u=v"'
    ]  # fmt: skip
    assert answer.ttl == 30


def test_both_labels_are_read_and_others_are_not() -> None:
    """`_iroh` and `_tom` records add up; another node's name, the apex and deeper names say nothing."""
    z32 = ME.z32()
    packet = packet_of(
        (f"_tom.{z32}.", "TXT", '"addr=192.0.2.1:1"'),
        (f"_IROH.{z32.upper()}.", "TXT", '"addr=192.0.2.2:2"'),
        (f"_iroh.{OTHER.node_id.z32()}.", "TXT", '"addr=192.0.2.3:3"'),
        (f"{z32}.", "TXT", '"addr=192.0.2.4:4"'),
        (f"_iroh.{z32}.example.", "TXT", '"addr=192.0.2.5:5"'),
        (f"_iroh.{z32}.", "A", "192.0.2.6"),
    )
    assert parse_dns_packet(ME, packet).direct_addrs == (("192.0.2.1", 1), ("192.0.2.2", 2))


def test_what_can_not_be_read_is_skipped() -> None:
    """Unknown keys, malformed values, scopes, port 0, no `=`, text that is not UTF-8: the rest still counts."""
    packet = txt(
        "addr=nonsense", "addr=host.example:5", "addr=[fe80::1%eth0]:5", "addr=192.0.2.1:0", "relay=nonsense", "x",
        "later-key=1", "addr=192.0.2.1:5", "\\255\\254", "relay=https://r.example", "user-data=one", "user-data=two",
    )  # fmt: skip
    assert parse_dns_packet(ME, packet) == NodeAddr(ME, ["https://r.example/"], ["192.0.2.1:5"], "one")


def test_a_text_in_several_strings_is_one_text() -> None:
    """A TXT record's strings are read as one (RFC 1464 and what resolvers do)."""
    packet = packet_of((f"_iroh.{ME.z32()}.", "TXT", '"addr=192.0" ".2.1:5"'))
    assert parse_dns_packet(ME, packet).direct_addrs == (("192.0.2.1", 5),)


def test_the_wrong_key_can_not_sign() -> None:
    """Signing another node's address is a mistake of the caller."""
    with pytest.raises(InvalidAddrError, match="can't sign"):
        sign_record(KEY, NodeAddr(OTHER.node_id), 1)


@pytest.mark.parametrize("timestamp", [-1, 2**63, 2**64])
def test_a_timestamp_out_of_range_is_refused(timestamp: int) -> None:
    """Sequence numbers are 0 to 2**63-1."""
    with pytest.raises(RecordError, match="timestamp"):
        sign_record(KEY, NodeAddr(ME), timestamp)


def test_too_large_a_packet_is_refused_everywhere() -> None:
    """997 bytes can be neither signed nor read."""
    with pytest.raises(RecordError, match="at most 996"):
        sign_packet(KEY, bytes(997), 1)
    with pytest.raises(RecordError, match="at most 996"):
        parse_dns_packet(ME, bytes(997))
    whole = sign_packet(KEY, bytes(996), 1).to_bytes()
    with pytest.raises(RecordError, match="at most 996"):
        SignedRecord.from_bytes(whole + b"\0")


def test_a_record_is_verified_whatever_made_it() -> None:
    """Another key, timestamp, packet or signature is refused, also when the class is called or evolved."""
    record = sign_record(KEY, NodeAddr(ME, (), ["192.0.2.1:5"]), 1000)
    for change in (
        {"node_id": OTHER.node_id},
        {"timestamp_us": 1001},
        {"dns_packet": record.dns_packet + b"\0"},
        {"signature": bytes(64)},
    ):
        with pytest.raises(RecordError, match="signature"):
            attrs.evolve(record, **change)


@by_name
def test_every_prefix_and_every_flipped_byte_is_refused(vector: dict[str, Any]) -> None:
    """A signed packet stands or falls as a whole."""
    whole = bytes.fromhex(vector["signed_packet"])
    for size in range(len(whole)):
        with pytest.raises(RecordError):
            SignedRecord.from_bytes(whole[:size])
    rng = random.Random(1)
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= rng.randrange(1, 256)
        with pytest.raises(RecordError):
            SignedRecord.from_bytes(bytes(broken))


def _reads_or_refuses(packet: bytes) -> None:
    try:
        addr = parse_dns_packet(ME, packet)
    except RecordError:
        return
    assert all(a.port and "%" not in a.host for a in addr.direct_addrs)
    build_dns_packet(addr)


@settings(max_examples=500)
@given(st.binary(max_size=1100))
def test_any_bytes_raise_nothing_but_record_error(data: bytes) -> None:
    """Bytes that no DNS program wrote, behind a valid signature or not."""
    _reads_or_refuses(data)
    _reads_or_refuses(b"\0\0\x80\0\0\0\0\x01\0\0\0\0" + data)
    for read in (SignedRecord.from_bytes, lambda d: SignedRecord.from_relay_payload(ME, d)):
        try:
            read(data)
        except RecordError:
            pass


@by_name
def test_perturbed_dns_packets_raise_nothing_but_record_error(vector: dict[str, Any]) -> None:
    """Prefixes, changed bytes and changed counts of real packets: pointers that loop, lengths that lie."""
    packet = bytes.fromhex(vector["dns_packet"])
    for size in range(len(packet)):
        _reads_or_refuses(packet[:size])
    rng = random.Random(2)
    for _ in range(3000):
        broken = bytearray(packet)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.choice((0, 1, 0x0C, 0xC0, 0xFF, rng.randrange(256)))
        _reads_or_refuses(bytes(broken))


@pytest.mark.parametrize("rdtype", [*range(1, 70), 99, 249, 250, 255, 256, 257, 32769, 65535])
def test_odd_record_types_raise_nothing_but_record_error(rdtype: int) -> None:
    """A record of any type with nonsense in it, TSIG and OPT among them, in any section."""
    rng = random.Random(rdtype)
    for section in range(3):
        for size in (0, 1, 4, 40):
            counts = [0, 0, 0]
            counts[section] = 1
            header = bytes((0, 0, 0x80, 0, 0, 0)) + b"".join(n.to_bytes(2, "big") for n in counts)
            body = b"\0" + rdtype.to_bytes(2, "big") + b"\0\x01" + bytes(4) + size.to_bytes(2, "big")
            _reads_or_refuses(header + body + rng.randbytes(size))


@pytest.mark.parametrize("opcode", range(16))
def test_odd_opcodes_raise_nothing_but_record_error(opcode: int) -> None:
    """A dynamic update or an opcode of the future is a packet that we can't read, or can."""
    packet = bytearray(txt("addr=192.0.2.1:5"))
    packet[2] |= opcode << 3
    _reads_or_refuses(bytes(packet))


def test_importing_the_package_does_not_import_dnspython() -> None:
    """dnspython is loaded with the first record, not at start-up."""
    code = "import tom_connect.record, sys; sys.exit(any(m.split('.')[0] == 'dns' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_relay_that_is_a_node_stands_in_records_and_tickets() -> None:
    """Its URL reads back from a record and a ticket; one in a form that a reader does not know costs nothing else."""
    volunteer = f"tom://{KEY.node_id}@192.0.2.1:4433"
    addr = NodeAddr(KEY.node_id, (volunteer, "https://relay.example/"), ("192.0.2.7:5",))
    assert parse_dns_packet(KEY.node_id, build_dns_packet(addr)) == addr
    assert parse_ticket(encode_ticket(addr)) == addr
    newer = [f"relay=tom9://{KEY.node_id}@192.0.2.1:4433", f"relay=tom://{KEY.node_id}@name:1", "relay=https://a/"]
    read = addr_from_texts(KEY.node_id, [*newer, "addr=192.0.2.7:5"])
    assert [str(url) for url in read.relay_urls] == ["https://a/"] and len(read.direct_addrs) == 1
