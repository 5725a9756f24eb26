"""Under which topics volunteers announce themselves, sans-IO.

A day's volunteers share one topic as long as they are few. Where a topic is full it is split in two, by the bits of a
number that each volunteer and each seeker draws: level n has 2^n topics. Nobody counts volunteers; each looks at the
topics of its own number from level 0 on, and takes the first that is not full, and the one below it as well: who
holds the nodes of the DHT next to one topic does not hold those next to the other.
"""

from __future__ import annotations

import hashlib
import ipaddress
import random
from typing import Final

import attrs

from tom_connect.addr import SocketAddr

LABEL: Final = b"tom-connect volunteer relay v1"
DAY: Final = 86_400
CLOCK_SKEW: Final = 3600
"""Seconds by which a clock may be wrong: around midnight volunteers are under both days' topics for so long."""
MAX_LEVEL: Final = 8
"""Level of the last split: 256 topics, each with some dozens of volunteers."""
ROOM: Final = 64
"""Volunteers in a topic that is not full: a reply of the Mainline DHT has up to 100 addresses, at random if there are
more, and a node asked for many keeps some hundreds."""
CROWDED: Final = 96
"""Volunteers in a topic of which some leave."""
FLOODED: Final = 300
"""Addresses in a topic from which nodes may have no room for more: libtorrent's give out no token at 500."""
_POSITION_BITS: Final = 16


def day_of(wall: float) -> int:
    """The day that a time belongs to; `wall`: seconds since 1970."""
    return int(wall // DAY)


def days_to_announce(wall: float) -> list[int]:
    """The days under which a volunteer announces itself now: seekers' clocks may be wrong by an hour."""
    return sorted({day_of(wall - CLOCK_SKEW), day_of(wall + CLOCK_SKEW)})


def network_of(addr: SocketAddr) -> str:
    """The network that an address counts for, IPv4 /24 or IPv6 /48: who has one has all addresses in it."""
    ip = addr.ip
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


def random_position(rng: random.Random) -> int:
    """A number that says which topic of each level is one's own."""
    return rng.getrandbits(_POSITION_BITS)


def topic(day: int, level: int, position: int) -> bytes:
    """The 20 bytes of a topic: SHA-1 of the label, the day (4 bytes), the level (1) and the shard (2), big-endian."""
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"there is no level {level}")
    shard = position >> (_POSITION_BITS - level)
    data = LABEL + day.to_bytes(4, "big") + level.to_bytes(1, "big") + shard.to_bytes(2, "big")
    return hashlib.sha1(data, usedforsecurity=False).digest()


@attrs.frozen
class Crowd:
    """How many are announced under a topic: networks, and addresses."""

    networks: int = 0
    addresses: int = 0

    @property
    def flooded(self) -> bool:
        """Whether somebody has announced so many addresses of few networks that there is no room for others."""
        return self.addresses >= FLOODED

    @property
    def full(self) -> bool:
        """Whether those that come now are a level deeper."""
        return self.networks >= ROOM or self.flooded


@attrs.define
class Placement:
    """The level at which one volunteer announces itself on one day; `settled` is None before it has chosen."""

    rng: random.Random
    settled: int | None = None

    def takes(self, level: int, others: Crowd) -> bool:
        """Whether to stay at a level where `others` have announced themselves; if not, look at the next.

        Of a crowded topic's volunteers as many leave, by chance, as are too many: all at once would only move the
        crowd.
        """
        if level >= MAX_LEVEL:
            return True
        if others.flooded:
            return False
        if self.settled == level and others.networks >= CROWDED:
            return self.rng.random() < ROOM / (others.networks + 1)
        return others.networks < (CROWDED if self.settled == level else ROOM)
