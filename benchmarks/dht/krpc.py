"""Bencode and a compact KRPC server (BEP 5, 44): what a simulated node answers, written for this and for nothing else.

It shares no code with any client that is measured, so that none has its own habits for a network.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Address = tuple[str, int]
K = 8


def encode(value: Any) -> bytes:
    """Bencode bytes, ints, lists and dicts with bytes as keys."""
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, list):
        return b"l%be" % b"".join(map(encode, value))
    return b"d%be" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))


def decode(data: bytes) -> Any:
    """Decode one bencoded value; raise ValueError or IndexError for what is none."""
    value, end = _decode(data, 0)
    if end != len(data):
        raise ValueError("bytes after the end")
    return value


def _decode(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _decode(data, at)
            items.append(item)
        if kind == b"l":
            return items, at + 1
        return dict(zip(items[::2], items[1::2], strict=True)), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    if end > len(data):
        raise ValueError("a string is cut short")
    return data[colon + 1 : end], end


def pack(address: Address) -> bytes:
    """Return the 6 bytes of an IPv4 address and port."""
    return bytes(map(int, address[0].split("."))) + address[1].to_bytes(2, "big")


@attrs.frozen
class Contact:
    """A node as others name it."""

    node_id: bytes
    address: Address

    @property
    def compact(self) -> bytes:
        """26 bytes (BEP 5)."""
        return self.node_id + pack(self.address)


@attrs.frozen
class Item:
    """What a node stores for a target."""

    value: Any
    key: bytes | None = None
    signature: bytes = b""
    seq: int = 0


@attrs.define(eq=False)
class Node:
    """One server node with a fixed routing table."""

    contact: Contact
    secret: bytes
    table: list[Contact] = attrs.field(factory=list)
    items: dict[bytes, Item] = attrs.field(factory=dict)

    @property
    def handlers(self) -> dict[bytes, Handler]:
        """The queries that it knows, by name."""
        return HANDLERS

    def answer(self, data: bytes, source: Address) -> bytes | None:
        """Return the reply to a query, None for what is none."""
        try:
            message = decode(data)
            if message[b"y"] != b"q":
                return None
            transaction, method, arguments = message[b"t"], message[b"q"], message[b"a"]
            handler = self.handlers.get(method)
            body = {b"y": b"e", b"e": [204, b"Method Unknown"]} if handler is None else handler(self, arguments, source)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError):
            return None
        return encode({**body, b"t": transaction, b"v": b"SN\x00\x01", b"ip": pack(self.sees(source))})

    def sees(self, source: Address) -> Address:
        """Return the address that a querier is told it was seen at (BEP 42)."""
        return source

    def closest(self, target: bytes) -> list[Contact]:
        """Return the 8 contacts of the table that are closest to a target."""
        wanted = int.from_bytes(target)
        return sorted(self.table, key=lambda contact: int.from_bytes(contact.node_id) ^ wanted)[:K]

    def token(self, source: Address, target: bytes) -> bytes:
        """Return the write token of an address for a target."""
        return hmac.digest(self.secret, source[0].encode() + target, "sha1")[:4]

    def _reply(self, body: dict[bytes, Any]) -> dict[bytes, Any]:
        return {b"y": b"r", b"r": {b"id": self.contact.node_id, **body}}

    def _nodes(self, target: bytes) -> bytes:
        return b"".join(contact.compact for contact in self.closest(target))

    def ping(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Answer a ping."""
        return self._reply({})

    def find_node(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Answer with the closest contacts."""
        return self._reply({b"nodes": self._nodes(arguments[b"target"])})

    def get_peers(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Answer as a node that knows no peers."""
        target = arguments[b"info_hash"]
        return self._reply({b"nodes": self._nodes(target), b"token": self.token(source, target)})

    def get(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Answer with the item, if it is newer than what the asker knows."""
        target = arguments[b"target"]
        body: dict[bytes, Any] = {b"nodes": self._nodes(target), b"token": self.token(source, target)}
        item = self.items.get(target)
        if item is not None:
            if item.key is None:
                body[b"v"] = item.value
            else:
                body[b"seq"] = item.seq
                if arguments.get(b"seq", -1) < item.seq:
                    body |= {b"v": item.value, b"k": item.key, b"sig": item.signature}
        return self._reply(body)

    def put(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Check and store an item."""
        value, key, salt = arguments[b"v"], arguments.get(b"k"), arguments.get(b"salt", b"")
        encoded = encode(value)
        target = hashlib.sha1(encoded if key is None else key + salt).digest()
        if not hmac.compare_digest(arguments[b"token"], self.token(source, target)):
            return {b"y": b"e", b"e": [203, b"Bad token"]}
        if len(encoded) > 1000:
            return {b"y": b"e", b"e": [205, b"Message too big"]}
        if key is None:
            self.items[target] = Item(value)
            return self._reply({})
        seq, signature, old = arguments[b"seq"], arguments[b"sig"], self.items.get(target)
        if not is_signed(key, salt, seq, encoded, signature):
            return {b"y": b"e", b"e": [206, b"Invalid signature"]}
        if old is not None and arguments.get(b"cas", old.seq) != old.seq:
            return {b"y": b"e", b"e": [301, b"CAS mismatch"]}
        if old is not None and seq < old.seq:
            return {b"y": b"e", b"e": [302, b"Sequence number too small"]}
        self.items[target] = Item(value, key, signature, seq)
        return self._reply({})


Handler = Callable[[Node, dict[bytes, Any], Address], dict[bytes, Any]]
HANDLERS: dict[bytes, Handler] = {
    b"ping": Node.ping,
    b"find_node": Node.find_node,
    b"get_peers": Node.get_peers,
    b"get": Node.get,
    b"put": Node.put,
}


def is_signed(key: bytes, salt: bytes, seq: int, encoded: bytes, signature: bytes) -> bool:
    """Check a mutable item's signature (BEP 44)."""
    salted = b"4:salt%b" % encode(salt) if salt else b""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, b"%b3:seqi%de1:v%b" % (salted, seq, encoded))
    except InvalidSignature:
        return False
    return True
