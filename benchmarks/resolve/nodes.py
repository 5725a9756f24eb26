"""The nodes that are looked for: their keys, where they are, and where they were an hour ago."""

from __future__ import annotations

import hashlib
import time

import attrs

from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, sign_record

HOUR_US = 3600 * 1_000_000


@attrs.frozen
class Target:
    """One node. `record`: what it published last; `old`: what it published an hour before, from another address."""

    key: SecretKey
    record: SignedRecord
    old: SignedRecord

    @property
    def place(self) -> str:
        """Where it is now, as text."""
        return str(self.record.addr.direct_addrs[0])

    @classmethod
    def make(cls, number: int, now_us: int) -> Target:
        """The node of a number: always the same key. `now_us`: microseconds since 1970."""
        key = SecretKey(hashlib.sha256(b"node %d" % number).digest())
        here, there = (NodeAddr(key.node_id, (), [f"{net}.{number >> 8 & 255}.{number & 255}:4433"]) for net in NETS)
        return cls(key, sign_record(key, here, now_us), sign_record(key, there, now_us - HOUR_US))


NETS = ("198.18", "198.19")
"""Networks for measurements (RFC 2544): where the nodes are, and where they were."""


def targets(count: int, now_us: int | None = None) -> list[Target]:
    """So many nodes. `now_us`: when they published, microseconds since 1970; now if it is not given."""
    when = time.time_ns() // 1000 if now_us is None else now_us
    return [Target.make(number, when) for number in range(count)]
