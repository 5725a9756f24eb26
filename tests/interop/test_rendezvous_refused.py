"""What the pages say is refused: a callee that was written from them produces it, and an endpoint of ours dials."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

import pytest

from tests.interop.dialing import PATIENCE, dialing
from tests.interop.rendezvous_callee import left
from tests.interop.rendezvous_callee.dht_node import bootstrap
from tests.interop.rendezvous_callee.lab import KEY_OF_CALLS, Items, ears, giving, invited, without_salt
from tests.interop.rendezvous_parts import formats
from tom_connect import SecretKey

pytestmark = pytest.mark.interop

HOUR = 3_600_000_000


def microseconds() -> int:
    """The time of day as a seq."""
    return int(time.time() * 1e6)


def broken(put: left.Put) -> left.Put:
    """The item with another signature."""
    sig = put[b"sig"]
    assert isinstance(sig, bytes)
    return {**put, b"sig": bytes([sig[0] ^ 1]) + sig[1:]}


@pytest.mark.parametrize("wrong", ["signature", "salted", "another's", "long", "cut", "old", "of tomorrow", "replayed"])
async def test_a_record_is_refused(wrong: str) -> None:
    """Nothing goes to an address in a record that is forged, unreadable, too long, too old, of tomorrow or replayed."""
    key, now = SecretKey.generate(), microseconds()
    node_id = key.node_id.raw
    target = formats.target(node_id)
    with ears(wrong, "met") as heard:

        def record(name: str, seq: int, by: SecretKey = key, salt: bytes = b"", size: int | None = None) -> left.Put:
            more = [(f"198.51.100.{number}", 10000 + number) for number in range(30)] if name == "long" else []
            packet = left.dns_packet(node_id, [heard[name].addr, *more])[:size]
            return without_salt(formats.signed_item(by.seed(), packet, seq, salt))

        make: dict[str, Callable[[str], left.Put]] = {
            "signature": lambda name: broken(record(name, now + 1)),
            "salted": lambda name: record(name, now + 1, salt=formats.SALT),
            "another's": lambda name: record(name, now + 1, by=SecretKey.generate()),
            "long": lambda name: record(name, now - 1),
            "cut": lambda name: record(name, now - 1, size=-1),
            "old": lambda name: record(name, now - 25 * HOUR),
            "of tomorrow": lambda name: record(name, now + 3 * HOUR),
            "replayed": lambda name: record(name, now - 1),
        }
        items: list[Items] = [{target: make[wrong](wrong)}, {target: record("met", now)}]
        if wrong == "replayed":
            items.reverse()
        if wrong == "of tomorrow":
            # It hides an older one in one look-up; who is invited looks up again.
            items[1] = {**items[1], **invited(key.seed(), secrets.token_bytes(20))}
        with giving(*items) as nodes:
            async with dialing(bootstrap(nodes), node_id), asyncio.timeout(PATIENCE):
                await nodes[1].gave[target].wait()
                if wrong == "of tomorrow":
                    nodes[0].items.clear()
                await heard["met"].comes()
        assert not heard[wrong].heard


@pytest.mark.parametrize(
    "wrong", ["signature", "unsalted", "version", "short", "no node", "no interval", "interval", "replayed"]
)
async def test_an_invitation_is_refused(wrong: str) -> None:
    """A forged, short, replayed or useless invitation names no mailbox in which we call; a longer one does."""
    key, now = SecretKey.generate(), microseconds()
    target = formats.target(key.node_id.raw, formats.SALT)
    mailboxes = {name: secrets.token_bytes(20) for name in (wrong, "good")}

    def value(name: str, interval: float = 1.1, nodes: int = 8) -> bytes:
        return left.invitation(formats.Invitation(True, False, interval, nodes, mailboxes[name], KEY_OF_CALLS, None))

    def item(invitation: bytes, seq: int, salt: bytes = formats.SALT) -> left.Put:
        return without_salt(formats.signed_item(key.seed(), invitation, seq, salt))

    make: dict[str, Callable[[str], left.Put]] = {
        "signature": lambda name: broken(item(value(name), now + 1)),
        "unsalted": lambda name: item(value(name), now + 1, b""),
        "version": lambda name: item(b"\2" + value(name)[1:], now - 1),
        "short": lambda name: item(value(name)[:-1], now - 1),
        "no node": lambda name: item(value(name, nodes=0), now - 1),
        "no interval": lambda name: item(value(name, interval=0), now - 1),
        "interval": lambda name: item(value(name, interval=600.01), now - 1),
        "replayed": lambda name: item(value(name), now - 1),
    }
    items: list[Items] = [{target: make[wrong](wrong)}, {target: item(value("good") + b"more", now)}]
    if wrong == "replayed":
        items.reverse()
    with giving(*items) as nodes:
        async with dialing(bootstrap(nodes), key.node_id.raw), asyncio.timeout(PATIENCE):
            await nodes[1].gave[target].wait()
            await nodes[0].asked_for(b"announce_peer", mailboxes["good"])
            if wrong == "replayed":
                # It came after the good one. With the next look-up of the record all has come of it that could.
                looked = (b"get", formats.target(key.node_id.raw))
                await nodes[0].asked_for(*looked, nodes[0].asked.count(looked) + 1)
        asked = {infohash for node in nodes for _, infohash in node.asked}
    assert mailboxes[wrong] not in asked


@pytest.mark.parametrize(
    "wrong", ["version", "short", "long", "tampered", "of yesterday", "another pair's", "forged", "another's"]
)
async def test_what_a_contact_leaves_is_refused(wrong: str) -> None:
    """What lies in a contact's place counts only if it has its length and version, opens, and is the contact's own."""
    ours, key, other, now = SecretKey.generate(), SecretKey.generate(), SecretKey.generate(), microseconds()
    day = int(time.time()) // 86400
    mailboxes = {name: secrets.token_bytes(20) for name in (wrong, "met")}

    def place(kind: str, day: int = day, contact: SecretKey = ours) -> left.Place:
        return left.place(key.seed(), contact.node_id.raw, key.node_id.raw, kind, day)

    def flipped(raw: bytes) -> bytes:
        return raw[:-1] + bytes([raw[-1] ^ 1])

    make: dict[str, Callable[[str, bytes], bytes]] = {
        "version": lambda kind, content: b"\2" + place(kind).sealed(content)[1:],
        "short": lambda kind, content: place(kind).sealed(content)[:-1],
        "long": lambda kind, content: place(kind).sealed(content) + b"\0",
        "tampered": lambda kind, content: flipped(place(kind).sealed(content)),
        "of yesterday": lambda kind, content: place(kind, day - 1).sealed(content),
        "another pair's": lambda kind, content: place(kind, contact=other).sealed(content),
        "forged": lambda kind, content: place(kind).sealed(flipped(content[:64]) + content[64:]),
        "another's": lambda kind, content: place(kind).sealed(content),
    }
    with ears(wrong, "met") as heard:

        def contents(name: str) -> dict[str, bytes]:
            by = other if name == "another's" else key
            packet = left.dns_packet(by.node_id.raw, [heard[name].addr])
            said = formats.Invitation(True, False, 1.15, 8, mailboxes[name], KEY_OF_CALLS, None)
            return {"record": left.record_content(by.seed(), packet, now), "invitation": left.invitation(said)}

        # The pair's key signs all of it. A forged record lies alone: an invitation's content is signed by nobody else.
        kinds = ["record"] if wrong in ("forged", "another's") else ["record", "invitation"]
        bad = dict(
            formats.signed_item(place(kind).seed, make[wrong](kind, content), now)
            for kind, content in contents(wrong).items()
            if kind in kinds
        )
        good = dict(place(kind).item(content, now + 1) for kind, content in contents("met").items())
        with giving(bad, good) as nodes:
            dht = {"contacts": (str(key.node_id),), "contacts_only": True}
            async with dialing(bootstrap(nodes), key.node_id.raw, key=ours, **dht), asyncio.timeout(PATIENCE):
                for target in good:
                    await nodes[1].gave[target].wait()
                await nodes[0].asked_for(b"announce_peer", mailboxes["met"])
                await heard["met"].comes()
            asked = {infohash for node in nodes for _, infohash in node.asked}
        assert mailboxes[wrong] not in asked
        assert not heard[wrong].heard
