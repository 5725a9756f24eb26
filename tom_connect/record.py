"""The address record: a NodeAddr to and from a signed DNS packet, as Mainline DHT, Pkarr and DNS carry it.

A signed packet is the 32-byte public key, a 64-byte Ed25519 signature, a timestamp (8 bytes, big-endian, microseconds
since 1970) and a DNS reply of at most 996 bytes. The signature is that of a BEP 44 mutable item whose sequence number
is the timestamp and whose value is the packet, so the same bytes serve the DHT.

The DNS packet has one TXT record for each fact, all under `_iroh.<z-base-32 of the NodeId>`, each with one string, in
this order: every `relay=URL`, every `addr=IP:PORT`, `user-data=TEXT`. What does not fit is cut by this priority, the
first being kept longest: the first relay, the user data, the direct addresses as given, the other relays as given.
With every field at its largest that keeps one relay, the user data and five IPv6 addresses at least.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import attrs

from tom_connect.addr import MAX_USER_DATA, NodeAddr, RelayUrl, SocketAddr, is_shareable
from tom_connect.exceptions import InvalidAddrError, InvalidKeyError, RecordError
from tom_connect.keys import KEY_SIZE, SIGNATURE_SIZE, NodeId, SecretKey, signature_of

MAX_DNS_PACKET = 996
"""Bytes: BEP 44 limits a value to 1000, and `996:` takes four of them."""
MAX_TIMESTAMP = 2**63 - 1
"""BEP 44 sequence numbers are signed 64-bit integers in the programs that store them."""
DEFAULT_TTL = 30
"""Seconds that a DNS cache may keep a record."""
LEGACY_SALT = b"tom-addr-v1"
"""BEP 44 salt of the JSON item that older ToM programs write."""
LEGACY_STALE_AFTER = 2 * 3600.0
"""Seconds after which a legacy item is out of date."""

_TIMESTAMP_SIZE = 8
_OVERHEAD = SIGNATURE_SIZE + _TIMESTAMP_SIZE
_WRITTEN_LABEL = b"_iroh"
_READ_LABELS = frozenset({b"_iroh", b"_tom"})
_RR_FIXED = 10  # type, class, TTL and length of a resource record, RFC 1035 section 3.2.1
_DNS_HEADER = 12


def bep44_signable(salt: bytes, seq: int, bencoded_value: bytes) -> bytes:
    """The bytes that the signature of a BEP 44 mutable item covers; an empty salt is left out."""
    head = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    return b"%b3:seqi%de1:v%b" % (head, seq, bencoded_value)


def _bencoded(value: bytes) -> bytes:
    return b"%d:%b" % (len(value), value)


@attrs.frozen
class SignedRecord:
    """A DNS packet signed by a node; every instance has been verified, wherever its parts came from.

    `signature`: 64 bytes; `timestamp_us`: microseconds since 1970, 0 to 2**63-1, the BEP 44 sequence number;
    `dns_packet`: at most 996 bytes, the BEP 44 value. Raises RecordError if these don't belong together.
    """

    node_id: NodeId
    signature: bytes = attrs.field(converter=bytes, repr=False)
    timestamp_us: int
    dns_packet: bytes = attrs.field(converter=bytes, repr=False)

    def __attrs_post_init__(self) -> None:
        _check_packet(self.timestamp_us, self.dns_packet)
        if not self.node_id.verify(self.signature, _signable(self.timestamp_us, self.dns_packet)):
            raise RecordError(f"the signature is not that of {self.node_id!r} over this packet and timestamp")

    @classmethod
    def from_bytes(cls, data: bytes) -> SignedRecord:
        """Read a signed packet: key, signature, timestamp, DNS packet. Raises RecordError."""
        try:
            node_id = NodeId(bytes(data[:KEY_SIZE]))
        except InvalidKeyError as exc:
            raise RecordError(f"not a signed packet: {exc}") from None
        return cls.from_relay_payload(node_id, data[KEY_SIZE:])

    @classmethod
    def from_relay_payload(cls, node_id: NodeId, payload: bytes) -> SignedRecord:
        """Read what a Pkarr relay carries: signature, timestamp, DNS packet. Raises RecordError."""
        return cls(node_id, *_split(payload))

    def to_bytes(self) -> bytes:
        """The signed packet: key, signature, timestamp, DNS packet; at most 1100 bytes."""
        return self.node_id.raw + self.relay_payload()

    def relay_payload(self) -> bytes:
        """The signed packet without its key, as a Pkarr relay carries it; at most 1068 bytes."""
        return self.signature + self.timestamp_us.to_bytes(_TIMESTAMP_SIZE, "big") + self.dns_packet

    @property
    def addr(self) -> NodeAddr:
        """The addresses in the packet; empty if it has none. Raises RecordError if it is not a DNS packet."""
        return parse_dns_packet(self.node_id, self.dns_packet)


def check_relay_payload(key: bytes, payload: bytes) -> tuple[int, bytes]:
    """Timestamp and DNS packet of what a Pkarr relay carries for the 32 bytes of a key. Raises RecordError.

    For those who keep packets and build no NodeId of each: what `SignedRecord.from_relay_payload` says, in less time.
    """
    signature, timestamp_us, dns_packet = _split(payload)
    _check_packet(timestamp_us, dns_packet)
    if not signature_of(key, signature, _signable(timestamp_us, dns_packet)):
        raise RecordError(f"the signature is not that of {key[:5].hex()}… over this packet and timestamp")
    return timestamp_us, dns_packet


def _split(payload: bytes) -> tuple[bytes, int, bytes]:
    if len(payload) < _OVERHEAD + _DNS_HEADER:
        raise RecordError(f"not a signed packet: only {len(payload)} bytes after the key")
    signature, rest = payload[:SIGNATURE_SIZE], payload[SIGNATURE_SIZE:]
    return signature, int.from_bytes(rest[:_TIMESTAMP_SIZE], "big"), rest[_TIMESTAMP_SIZE:]


def _signable(timestamp_us: int, dns_packet: bytes) -> bytes:
    return bep44_signable(b"", timestamp_us, _bencoded(dns_packet))


def _check_packet(timestamp_us: int, dns_packet: bytes) -> None:
    if len(dns_packet) > MAX_DNS_PACKET:
        raise RecordError(f"the DNS packet has {len(dns_packet)} bytes, at most {MAX_DNS_PACKET} are allowed")
    if not 0 <= timestamp_us <= MAX_TIMESTAMP:
        raise RecordError(f"timestamp {timestamp_us} is not from 0 to 2**63-1 microseconds")


def sign_packet(secret_key: SecretKey, dns_packet: bytes, timestamp_us: int) -> SignedRecord:
    """Sign a DNS packet (at most 996 bytes) as of `timestamp_us`, microseconds since 1970. Raises RecordError."""
    _check_packet(timestamp_us, dns_packet)
    signature = secret_key.sign(_signable(timestamp_us, dns_packet))
    return SignedRecord(secret_key.node_id, signature, timestamp_us, dns_packet)


def sign_record(secret_key: SecretKey, addr: NodeAddr, timestamp_us: int, ttl: int = DEFAULT_TTL) -> SignedRecord:
    """Sign an address record as of `timestamp_us`, microseconds since 1970; `ttl` in seconds.

    Addresses that don't fit are cut by priority (see the module). Raises InvalidAddrError if `addr` is another
    node's, RecordError for a timestamp below 0 or above 2**63-1.
    """
    if addr.node_id != secret_key.node_id:
        raise InvalidAddrError(f"the key of {secret_key.node_id!r} can't sign the addresses of {addr.node_id!r}")
    return sign_packet(secret_key, build_dns_packet(addr, ttl), timestamp_us)


def build_dns_packet(addr: NodeAddr, ttl: int = DEFAULT_TTL) -> bytes:
    """The DNS reply that tells `addr`, with compressed names (RFC 1035 section 4.1.4), at most 996 bytes."""
    # Here and below: dnspython takes longer to import than the rest of this package together.
    import dns.flags
    import dns.message
    import dns.name
    import dns.rdataclass
    import dns.rdatatype
    import dns.rdtypes.ANY.TXT
    import dns.rrset

    labels = (_WRITTEN_LABEL, addr.node_id.z32().encode(), b"")
    name = dns.name.Name(labels)
    # The first record spells the name out; those after it point to it with 2 bytes, which `overhead` counts.
    room = MAX_DNS_PACKET - _DNS_HEADER - sum(1 + len(label) for label in labels) + 2
    texts = _fitting(addr, room, overhead=2 + _RR_FIXED + 1).as_txt()
    message = dns.message.Message(id=0)
    message.flags = dns.flags.QR
    if texts:
        txt = [dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, [text.encode("utf-8")]) for text in texts]
        message.answer.append(dns.rrset.from_rdata_list(name, ttl, txt))
    return message.to_wire(want_shuffle=False)


def parse_dns_packet(node_id: NodeId, packet: bytes) -> NodeAddr:
    """The addresses that a DNS packet tells of a node, names compressed or not; empty if it tells none.

    Reads TXT records under `_iroh.<z32>` and `_tom.<z32>`, answers only. Skips keys and values that it can't read, so
    that a newer writer is understood in part. Raises RecordError if the bytes are not a DNS packet.
    """
    import dns.exception
    import dns.message
    import dns.rdatatype

    if len(packet) > MAX_DNS_PACKET:
        raise RecordError(f"the DNS packet has {len(packet)} bytes, at most {MAX_DNS_PACKET} are allowed")
    try:
        message = dns.message.from_wire(packet)
        answer = [(rrset.name.labels, [b"".join(rd.strings) for rd in rrset]) for rrset in message.answer
                  if rrset.rdtype == dns.rdatatype.TXT]  # fmt: skip
    except (dns.exception.DNSException, ValueError, LookupError) as exc:
        raise RecordError(f"not a DNS packet: {type(exc).__name__}: {exc}") from None
    z32 = node_id.z32().encode()
    texts: list[str] = []
    for labels, strings in answer:
        if len(labels) == 3 and labels[0].lower() in _READ_LABELS and labels[1].lower() == z32:
            texts += (text for text in map(_decoded, strings) if text is not None)
    return addr_from_texts(node_id, texts)


def addr_from_texts(node_id: NodeId, texts: Iterable[str]) -> NodeAddr:
    """The addresses that TXT records of a node tell (`relay=`, `addr=`, `user-data=`), read as in a signed packet.

    For sources that are not signed, such as DNS; bounding how many texts there are is the caller's.
    """
    return _Facts.from_txt(texts).as_addr(node_id)


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


@attrs.frozen
class _Facts:
    """What a record tells of a node, in the forms that records have."""

    relays: tuple[RelayUrl, ...] = ()
    addrs: tuple[SocketAddr, ...] = ()
    user_data: str | None = None

    def as_txt(self) -> list[str]:
        texts = [f"relay={url}" for url in self.relays] + [f"addr={addr}" for addr in self.addrs]
        return texts if self.user_data is None else [*texts, f"user-data={self.user_data}"]

    @classmethod
    def from_txt(cls, texts: Iterable[str]) -> _Facts:
        relays: list[str] = []
        addrs: list[str] = []
        user_data: str | None = None
        for text in texts:
            key, sep, value = text.partition("=")
            if not sep:
                continue
            if key == "relay":
                relays.append(value)
            elif key == "addr":
                addrs.append(value)
            elif key == "user-data" and user_data is None and len(value.encode()) <= MAX_USER_DATA:
                user_data = value
        return cls(_readable_relays(relays), _readable_addrs(addrs), user_data)

    def as_addr(self, node_id: NodeId) -> NodeAddr:
        return NodeAddr(node_id, self.relays, self.addrs, self.user_data)


def _readable_relays(texts: Iterable[str]) -> tuple[RelayUrl, ...]:
    found = []
    for text in texts:
        try:
            found.append(RelayUrl.parse(text))
        except InvalidAddrError:
            continue
    return tuple(found)


def _readable_addrs(texts: Iterable[str]) -> tuple[SocketAddr, ...]:
    found = []
    for text in texts:
        try:
            found.append(SocketAddr.parse(text))
        except InvalidAddrError:
            continue
    return tuple(filter(is_shareable, found))


def _fitting(addr: NodeAddr, room: int, overhead: int) -> _Facts:
    """What fits into `room` bytes by the priority that the module states, `overhead` bytes going with each text."""

    def take(text: str) -> bool:
        nonlocal room
        size = overhead + len(text.encode("utf-8"))
        if size > room:
            return False
        room -= size
        return True

    home = [url for url in addr.relay_urls[:1] if take(f"relay={url}")]
    user_data = addr.user_data
    if user_data is not None and not take(f"user-data={user_data}"):
        user_data = None
    addrs = [direct for direct in filter(is_shareable, addr.direct_addrs) if take(f"addr={direct}")]
    others = [url for url in addr.relay_urls[1:] if take(f"relay={url}")]
    return _Facts((*home, *others), tuple(addrs), user_data)


@attrs.frozen
class LegacyItem:
    """What an older ToM program tells of a node in a BEP 44 item with the salt `tom-addr-v1`.

    `timestamp_ms`: when it was written, milliseconds since 1970. The value is JSON; the DHT bencodes it as a string
    and checks its signature.
    """

    addr: NodeAddr
    timestamp_ms: int

    def is_stale(self, now: float) -> bool:
        """Whether it is older than two hours, or from as far in the future; `now` in seconds since 1970."""
        return abs(now - self.timestamp_ms / 1000) > LEGACY_STALE_AFTER

    def to_json(self) -> bytes:
        """The item's value, at most 996 bytes; what does not fit is cut by the priority of the module."""
        room = MAX_DNS_PACKET - len(self._json(_Facts()))
        # Two quotes and a comma go with each text, not the `addr=` or `relay=` that is counted for it.
        return self._json(_fitting(attrs.evolve(self.addr, user_data=None), room, overhead=3 - len("addr=")))

    def _json(self, facts: _Facts) -> bytes:
        item = {
            "node_id": str(self.addr.node_id),
            "relay_urls": [str(url) for url in facts.relays],
            "direct_addrs": [str(direct) for direct in facts.addrs],
            "timestamp": self.timestamp_ms,
        }
        return json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, node_id: NodeId, data: bytes) -> LegacyItem:
        """Read the value of the item that `node_id` signed. Raises RecordError."""
        if len(data) > MAX_DNS_PACKET:
            raise RecordError(f"the legacy item has {len(data)} bytes, at most {MAX_DNS_PACKET} are allowed")
        try:
            item = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise RecordError(f"the legacy item is not JSON: {type(exc).__name__}") from None
        if not isinstance(item, dict):
            raise RecordError("the legacy item is not a JSON object")
        claimed, timestamp = item.get("node_id"), item.get("timestamp")
        if not isinstance(claimed, str) or claimed.lower() != str(node_id):
            raise RecordError(f"the legacy item signed by {node_id!r} names another node")
        if type(timestamp) is not int or not 0 <= timestamp <= MAX_TIMESTAMP:
            raise RecordError("the legacy item has no timestamp in milliseconds")
        relays = _readable_relays(_texts(item, "relay_urls"))
        addrs = _readable_addrs(_texts(item, "direct_addrs"))
        return cls(NodeAddr(node_id, relays, addrs), timestamp)


def _texts(item: dict[str, object], key: str) -> Sequence[str]:
    values = item.get(key, [])
    if not isinstance(values, list):
        raise RecordError(f"the legacy item's {key} is not a list")
    return [value for value in values if isinstance(value, str)]
