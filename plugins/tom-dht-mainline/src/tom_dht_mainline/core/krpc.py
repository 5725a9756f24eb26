"""KRPC messages (BEP 5, with BEP 32, 42, 43 and 44 fields) to and from bytes."""

from __future__ import annotations

import socket
from typing import Any

from .address import Address, Family, unpack_address
from .bencode import Bencodable, decode, encode
from .errors import KrpcError

MAX_TRANSACTION_ID = 32
"""Bytes of a foreign transaction id that we echo."""
MAX_NODES_PARSED = 64
"""Nodes taken from one reply: BEP 5 gives 8, some implementations their whole table."""

GENERIC = 201
SERVER = 202
PROTOCOL = 203
METHOD_UNKNOWN = 204
VALUE_TOO_BIG = 205
BAD_SIGNATURE = 206
SALT_TOO_BIG = 207
CAS_MISMATCH = 301
SEQ_TOO_SMALL = 302

KNOWN_ERRORS = frozenset((201, 202, 203, 204, 205, 206, 207, 301, 302))


class Message:
    """A decoded KRPC message.

    `kind` is `q`, `r` or `e`; `body` the dict of arguments or results (empty for errors), of which only `id` is
    checked; `node_id` its 20 bytes (empty for errors, which carry none).
    """

    __slots__ = ("body", "code", "ip", "kind", "method", "node_id", "read_only", "text", "tid", "version")

    def __init__(self, kind: str, tid: bytes) -> None:
        self.kind = kind
        self.tid = tid
        self.method = b""
        self.node_id = b""
        self.body: dict[bytes, Any] = {}
        self.read_only = False
        self.ip: Address | None = None
        self.version = b""
        self.code = 0
        self.text = b""


def parse(data: bytes) -> Message:
    """A KRPC message from a datagram; raises `BencodeError` or `KrpcError`.

    Keys out of order are taken, since signatures cover only the re-encoded value.
    """
    top = decode(data, sorted_keys=False)
    if type(top) is not dict:
        raise KrpcError("not a dictionary")
    tid = top.get(b"t")
    if type(tid) is not bytes or not 0 < len(tid) <= MAX_TRANSACTION_ID:
        raise KrpcError("no usable transaction id")
    kind = top.get(b"y")
    if kind == b"q":
        message = Message("q", tid)
        method = top.get(b"q")
        if type(method) is not bytes or len(method) > 32:
            raise KrpcError("query without method")
        message.method = method
        body = top.get(b"a")
        message.read_only = top.get(b"ro") == 1
    elif kind == b"r":
        message = Message("r", tid)
        body = top.get(b"r")
        message.read_only = top.get(b"ro") == 1
    elif kind == b"e":
        message = Message("e", tid)
        error = top.get(b"e")
        if type(error) is list and len(error) >= 2 and type(error[0]) is int and type(error[1]) is bytes:
            message.code, message.text = error[0], error[1][:200]
        else:
            message.code = GENERIC
        message.ip = _ip(top)
        return message
    else:
        raise KrpcError("no message type")
    if type(body) is not dict:
        raise KrpcError("no arguments")
    node_id = body.get(b"id")
    if type(node_id) is not bytes or len(node_id) != 20:
        raise KrpcError("no node id")
    message.body = body
    message.node_id = node_id
    if kind == b"r":
        message.ip = _ip(top)
    version = top.get(b"v")
    if type(version) is bytes:
        message.version = version[:8]
    return message


def _ip(top: dict[bytes, Any]) -> Address | None:
    raw = top.get(b"ip")
    return unpack_address(raw) if type(raw) is bytes else None


def build_query(tid: bytes, method: bytes, args: dict[bytes, Bencodable], *, read_only: bool, version: bytes) -> bytes:
    """A query datagram; `args` holds `id`, `tid` and `version` have 4 bytes."""
    return b"d1:a%b1:q%d:%b%b1:t4:%b1:v4:%b1:y1:qe" % (
        encode(args),
        len(method),
        method,
        b"2:roi1e" if read_only else b"",
        tid,
        version,
    )


def build_reply(tid: bytes, body: bytes, ip: bytes, version: bytes, *, read_only: bool = False) -> bytes:
    """A reply datagram: `body` is the bencoded `r`, `ip` the querier's compact address (BEP 42).

    `read_only`: says, as in queries (BEP 43), that we are no node to keep in a table.
    """
    ro = b"2:roi1e" if read_only else b""
    return b"d2:ip%d:%b1:r%b%b1:t%d:%b1:v4:%b1:y1:re" % (len(ip), ip, body, ro, len(tid), tid, version)


def build_error(tid: bytes, code: int, text: bytes, ip: bytes, version: bytes) -> bytes:
    """An error datagram."""
    return b"d1:eli%de%d:%be2:ip%d:%b1:t%d:%b1:v4:%b1:y1:ee" % (
        code,
        len(text),
        text,
        len(ip),
        ip,
        len(tid),
        tid,
        version,
    )


def parse_nodes(raw: object, family: Family) -> list[tuple[bytes, Address]]:
    """(id, address) pairs of `nodes` (26 bytes each) or `nodes6` (38 bytes); at most 64, a ragged end is ignored."""
    if type(raw) is not bytes:
        return []
    if family is Family.IPV4:
        ntoa = socket.inet_ntoa
        return [
            (raw[i : i + 20], (ntoa(raw[i + 20 : i + 24]), (raw[i + 24] << 8) | raw[i + 25]))
            for i in range(0, min(len(raw) - 25, 26 * MAX_NODES_PARSED), 26)
        ]
    return [
        (
            raw[i : i + 20],
            (socket.inet_ntop(socket.AF_INET6, raw[i + 20 : i + 36]), (raw[i + 36] << 8) | raw[i + 37]),
        )
        for i in range(0, min(len(raw) - 37, 38 * MAX_NODES_PARSED), 38)
    ]


def parse_peers(raw: object, limit: int) -> list[Address]:
    """Addresses of `values`: 6 or 18 bytes each; others are skipped, at most `limit` are read."""
    if type(raw) is not list:
        return []
    peers = []
    for entry in raw[:limit]:
        address = unpack_address(entry) if type(entry) is bytes else None
        if address is not None:
            peers.append(address)
    return peers
