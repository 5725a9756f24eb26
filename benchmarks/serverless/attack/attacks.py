"""The attacks: what the attacker does before the callee is published, and while it is dialed."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from benchmarks.serverless.attack.stage import Stage, identities
from tests.netns.dht.net import public_addresses
from tom_connect import NodeAddr
from tom_connect.record import build_dns_packet, sign_record
from tom_connect.testing.natlab import Nat

HELD: Final = 8
"""Nodes that the attacker has nearest to the target."""
FALSE_ADDRESSES: Final = 40
"""What a forged record has room for, about."""
SOURCES: Final = 64
"""Addresses that a flood comes from: DHT nodes serve 5 packets a second from each."""
RATE: Final = 10_000.0
NAMED: Final = 60
"""Peers that are announced to flood a mailbox once."""

CALLER, CALLEE = 0, 1


async def _nothing(stage: Stage) -> None:
    """There is no attack."""


@attrs.frozen
class Attack:
    """One attack, and which of our defences are about it.

    `prepare`: before the callee has joined; `begin`: once it is published; `victim`: whose costs are counted.
    """

    name: str
    off: tuple[str, ...]
    prepare: Callable[[Stage], Awaitable[None]] = _nothing
    begin: Callable[[Stage], Awaitable[None]] = _nothing
    victim: int = CALLEE
    kinds: tuple[Nat, Nat] = (Nat.MODERATE, Nat.MODERATE)


def _addresses(chooser: random.Random, count: int) -> list[str]:
    return [f"{host}:{chooser.randrange(1024, 65536)}" for host in itertools.islice(public_addresses(chooser), count)]


async def forge_records(stage: Stage) -> None:
    """The 8 nodes nearest to the record answer with a forged one, or one of an hour ago, and invent 100 peers each."""
    chooser = random.Random(stage.callees)
    key, now = stage.callee_id, int(time.time() * 1e6)
    forged = build_dns_packet(NodeAddr(key, direct_addrs=_addresses(chooser, FALSE_ADDRESSES)))
    old = sign_record(
        stage.key, NodeAddr(key, direct_addrs=_addresses(chooser, FALSE_ADDRESSES)), now - 3600 * 1_000_000
    )
    told = [
        {"k": key.raw.hex(), "seq": now + 1_800_000_000, "sig": chooser.randbytes(64).hex(), "v": forged.hex()},
        {"k": key.raw.hex(), "seq": old.timestamp_us, "sig": old.signature.hex(), "v": old.dns_packet.hex()},
    ]
    others = [list(each) for each in await stage.dht.known()]
    nodes = identities(HELD, random.Random(100 + stage.callees), near=stage.target)
    await stage.join(nodes, others, false_peers=100, items={stage.target.hex(): told}, drops=True)


def lie_about_ip(share: float) -> Callable[[Stage], Awaitable[None]]:
    """Of all nodes a share says that it sees everybody at one and the same address, which is somebody else's."""

    async def prepare(stage: Stage) -> None:
        if stage.callees > 1:
            return
        honest = await stage.dht.known()
        nodes = identities(round(len(honest) * share / (1 - share)), random.Random(50))
        victim = _addresses(random.Random(51), 1)[0].rpartition(":")
        await stage.join(nodes, [list(each) for each in honest], seen_at=[victim[0], int(victim[2])])

    return prepare


def hold(false_peers: int) -> Callable[[Stage], Awaitable[None]]:
    """The 8 nodes nearest to the record say that they store, and have nothing, or peers that they invent."""

    async def prepare(stage: Stage) -> None:
        nodes = identities(HELD, random.Random(100 + stage.callees), near=stage.target)
        await stage.join(nodes, [], drops=True, false_peers=false_peers)

    return prepare


def announce(
    *, rate: float = RATE, sources: int = SOURCES, most: int | None = None, follows: bool = False
) -> Callable[[Stage], Awaitable[None]]:
    """Random ports are announced where the callee looks, at the 8 nodes nearest to it."""

    async def begin(stage: Stage) -> None:
        await stage.flood.call("stop")
        hosts = list(itertools.islice(public_addresses(random.Random(70)), sources))
        stage.attacker.add_addresses(hosts)
        stage.friends |= set(hosts)
        await stage.flood.call(
            "announce",
            hosts=hosts,
            nodes=await stage.nearest(HELD),
            infohash=stage.target.hex(),
            rate=rate,
            most=most,
            follow=stage.callee_id.raw.hex() if follows else None,
        )

    return begin


async def lock_calls(stage: Stage) -> None:
    """Who reads the mailbox ten times a second puts rubbish where each sealed call lies, as soon as it is announced."""
    hosts = list(itertools.islice(public_addresses(random.Random(72)), 8))
    stage.attacker.add_addresses(hosts)
    await stage.locks.call(
        "lock",
        hosts=hosts,
        near=await stage.nearest(HELD),
        nodes=[list(each) for each in await stage.dht.known()],
        callee=stage.callee_id.raw.hex(),
    )


async def flood_port(stage: Stage) -> None:
    """Knocks, disco packets that don't open and DHT queries come to the callee's own port."""
    await stage.flood.call("stop")
    hosts = list(itertools.islice(public_addresses(random.Random(71)), 8))
    stage.attacker.add_addresses(hosts)
    addresses = (await stage.nodes[CALLEE].call("addresses"))["addresses"]
    (address,) = {each for each in addresses if each.startswith(f"{stage.hosts[CALLEE].addr}:")}
    host, _, port = address.rpartition(":")
    await stage.flood.call("packets", hosts=hosts, address=[host, int(port)], rate=RATE)


ALL: Final = (
    Attack("forged records", ("signatures", "crowds", "shares", "knocks"), forge_records, victim=CALLER),
    Attack("10,000 calls/s, 64 IPs", ("knocks", "shares", "moving"), begin=announce()),
    Attack("10,000 calls/s, one IP", ("knocks", "shares", "moving"), begin=announce(sources=1)),
    Attack("10,000 packets/s", ("queries",), begin=flood_port, kinds=(Nat.MODERATE, Nat.NONE)),
    Attack("20% lie about ip", ("votes",), lie_about_ip(0.2)),
    Attack("40% lie about ip", ("votes",), lie_about_ip(0.4)),
    Attack("8 nearest held, silent", ("crowds",), hold(0)),
    Attack("8 nearest held, 100 false peers", ("crowds", "shares", "knocks", "moving"), hold(100)),
    Attack("mailbox flooded once", ("knocks", "shares", "moving"), begin=announce(rate=2_000.0, most=NAMED * HELD)),
    Attack("sealed calls locked", ("locks",), begin=lock_calls, kinds=(Nat.MODERATE, Nat.STRICT)),
    Attack("mailbox flooded, followed", ("knocks", "shares", "moving"), begin=announce(rate=500.0, follows=True)),
)
"""`off`: what is taken away in the row without defences."""


def by_name(name: str) -> Attack:
    """An attack of the table."""
    return next(attack for attack in ALL if attack.name == name)


def none(kinds: tuple[Nat, Nat]) -> Attack:
    """The same two without an attack."""
    return Attack(f"no attack, {kinds[0].value} x {kinds[1].value}", (), kinds=kinds)
