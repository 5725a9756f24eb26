"""The contract of DatagramProtocol."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tom_connect.abc import DatagramProtocol
from tom_connect.addr import SocketAddr
from tom_connect.testing.conformance import rules
from tom_connect.testing.conformance.life import Make, Trial, check_life
from tom_connect.testing.conformance.measuring import Calls, kept_bytes, prompt, unblocked
from tom_connect.testing.conformance.rules import ConformanceError
from tom_connect.testing.plugincontext import FakeSharedSocket, LentContext, plugin_context

Datagram = tuple[bytes, SocketAddr]

HEAD: Final = 8
BATCH: Final = 64
RANDOM_HEADS: Final = 4096
MAX_CLAIMED: Final = 0.1
"""The share of random heads that a protocol may claim: one byte of its own is 1/256."""
CLAIMS_PROMPT: Final = 100e-6
"""Seconds for one call of `claims`, on average: a hundred times what looking at some bytes takes."""
TAKES_PROMPT: Final = 0.05
"""Seconds for one batch: what a video frame lasts, and far above what parsing it takes."""
FLOOD: Final = 24_000
"""Datagrams that are delivered in one turn of the loop to see that they fill no memory: 28 MB."""
MAX_KEPT: Final = 8 << 20
AMPLIFIES: Final = 3
"""Times the bytes that came from an address: QUIC's limit before an address is proven (RFC 9000 section 8.1)."""
_TURNS: Final = 50
_SOURCES: Final = (
    SocketAddr("192.0.2.1", 4000),
    SocketAddr("2001:db8::1", 4000),
    SocketAddr("127.0.0.1", 1),
    SocketAddr("192.0.2.2", 0),
)
_STUN: Final = (
    b"\x00\x01\x00\x00\x21\x12\xa4\x42",  # Binding request, RFC 8489 section 5
    b"\x01\x01\x00\x0c\x21\x12\xa4\x42",  # Binding success response
    b"\x01\x11\x00\x08\x21\x12\xa4\x42",  # Binding error response
)


async def check_datagram_protocol(
    make: Make[DatagramProtocol],
    *,
    claimed: Sequence[bytes],
    foreign: Sequence[bytes] = (),
    context: Callable[..., LentContext] = plugin_context,
) -> None:
    """Check that an implementation keeps the contract of `tom_connect.abc.DatagramProtocol`; raises ConformanceError.

    `make`: the factory, as the hook `tom_datagram_protocol` is one; it may return one object or a sequence with one.
    `claimed`: datagrams of the protocol, whole and valid, one of each kind; `foreign`: datagrams of others that are
    like them. `context(socket=)`: makes a context with that shared socket, such as `functools.partial(plugin_context,
    config)`.
    """
    if not claimed:
        raise ValueError("claimed must have a datagram of the protocol")
    async with Trial(DatagramProtocol, make, timeout=20.0) as trial:  # type: ignore[type-abstract]
        await check_life(trial, context)
        await _check_claims(trial, context(), claimed, foreign)
        await _check_taking(trial, context(), claimed)
        await _check_garbage(trial, context, claimed)
        await _check_flood(trial, context(), claimed)
        await _check_broken_socket(trial, context, claimed)


async def _check_claims(
    trial: Trial[DatagramProtocol], ctx: LentContext, claimed: Sequence[bytes], foreign: Sequence[bytes]
) -> None:
    async with trial.running(ctx) as (protocol,):
        if not isinstance(protocol.priority, int) or isinstance(protocol.priority, bool):
            raise ConformanceError(rules.PRIORITY, f"priority is {protocol.priority!r}")
        for data in claimed:
            if not _claims(protocol, data[:HEAD]):
                raise ConformanceError(rules.CLAIMS_OWN, f"claims({data[:HEAD]!r}) is false")
            for size in range(HEAD):
                _claims(protocol, data[:size])
        for head in (*_STUN, *(data[:HEAD] for data in foreign)):
            if _claims(protocol, head):
                raise ConformanceError(rules.CLAIMS_NO_OTHER, f"claims({head!r}) is true")
        chooser = random.Random(1)
        heads = [chooser.randbytes(HEAD) for _ in range(RANDOM_HEADS)]
        share = sum(_claims(protocol, head) for head in heads) / len(heads)
        if share > MAX_CLAIMED:
            raise ConformanceError(rules.CLAIMS_NO_OTHER, f"{share:.0%} of random heads are claimed")
        many = [*heads[:200], *(data[:HEAD] for data in claimed)]
        limit = CLAIMS_PROMPT * len(many)
        prompt(rules.CLAIMS_PROMPT, f"{len(many)} calls", lambda: [protocol.claims(h) for h in many], limit=limit)


def _claims(protocol: DatagramProtocol, head: bytes) -> bool:
    try:
        claimed = protocol.claims(head)
    except Exception as exc:
        raise ConformanceError(rules.CLAIMS_PROMPT, f"claims({head!r}) raised {exc!r}") from exc
    if not isinstance(claimed, bool):
        raise ConformanceError(rules.CLAIMS_PROMPT, f"claims({head!r}) returned {claimed!r}")
    return claimed


class _Taking:
    """Gives batches to a protocol, and measures."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._calls = Calls()

    def take(self, protocol: DatagramProtocol, datagrams: Sequence[Datagram]) -> None:
        """Give it one."""
        try:
            self._calls.timed(lambda: protocol.datagrams_received(datagrams))
        except Exception as exc:
            raise ConformanceError(rules.TAKES_ALL, f"{self._what}: datagrams_received() raised {exc!r}") from exc

    def was_prompt(self) -> None:
        """ConformanceError if it took too long."""
        self._calls.require_prompt(rules.TAKES_PROMPT, f"{self._what}: datagrams_received()", TAKES_PROMPT)


async def _turns() -> None:
    """Let what was queued be handled."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _check_taking(trial: Trial[DatagramProtocol], ctx: LentContext, claimed: Sequence[bytes]) -> None:
    """Its own datagrams: while it runs, before it has started and after it was closed; single, many, none."""
    batches: list[list[Datagram]] = [[(data, source)] for data in claimed for source in _SOURCES]
    batches += [[], [(data, _SOURCES[0]) for data in claimed for _ in range(BATCH)]]
    protocol = trial.made(ctx)
    for when in ("before start()", "after aclose()"):
        taking = _Taking(when)
        for batch in batches:
            taking.take(protocol, batch)
        taking.was_prompt()
        await trial.close(protocol, ctx, failed=True)
    await _turns()
    trial.nothing_failed(ctx)


def _garbage(claimed: Sequence[bytes]) -> Iterator[bytes]:
    """What resembles the protocol's datagrams, and what does not."""
    chooser = random.Random(2)
    for data in claimed:
        yield from (data[:size] for size in range(1, min(len(data), 300)))
        for _ in range(200):
            changed = bytearray(data)
            for _ in range(chooser.randrange(1, 4)):
                changed[chooser.randrange(len(changed))] = chooser.randrange(256)
            yield bytes(changed)
        yield data + data
        yield data + chooser.randbytes(60_000)
        yield data[:HEAD] + bytes(65_507 - HEAD)
        yield data[:HEAD] + data[:1] * 20_000
    yield from (chooser.randbytes(chooser.randrange(1, 1500)) for _ in range(200))


async def _check_garbage(
    trial: Trial[DatagramProtocol], context: Callable[..., LentContext], claimed: Sequence[bytes]
) -> None:
    fed: Counter[SocketAddr] = Counter()
    sent: Counter[SocketAddr] = Counter()

    def send(data: bytes, addr: SocketAddr) -> bool:
        sent[addr] += len(data)
        return True

    ctx = context(socket=FakeSharedSocket(send=send))
    taking = _Taking("garbage")
    async with trial.running(ctx) as (protocol,):

        async def feed() -> None:
            fed.clear()
            sent.clear()
            batch: list[Datagram] = []
            for number, data in enumerate(_garbage(claimed)):
                # Each from an address of its own, as forged ones come.
                source = SocketAddr("198.51.100.1", 1 + number % 60_000)
                fed[source] += len(data)
                batch.append((data, source))
                if len(batch) == BATCH:
                    taking.take(protocol, batch)
                    batch = []
                    await _turns()
            taking.take(protocol, batch)
            await _turns()

        await unblocked(rules.NO_BLOCKING, "taking garbage", feed)
        taking.was_prompt()
        trial.nothing_failed(ctx)
    worst = [addr for addr, size in sent.items() if addr in fed and size > AMPLIFIES * fed[addr]]
    if worst:
        seen = f"{fed[worst[0]]} bytes came from {worst[0]}; {sent[worst[0]]} bytes went there"
        raise ConformanceError(rules.NO_AMPLIFIER, seen)


async def _check_flood(trial: Trial[DatagramProtocol], ctx: LentContext, claimed: Sequence[bytes]) -> None:
    async with trial.running(ctx) as (protocol,):

        def flood() -> None:
            for number in range(FLOOD // BATCH):
                fill = number.to_bytes(4, "big") * 300
                batch = [((claimed[i % len(claimed)] + fill)[:1200], _SOURCES[0]) for i in range(BATCH)]
                protocol.datagrams_received(batch)

        try:
            kept = kept_bytes(flood)
        except Exception as exc:
            raise ConformanceError(rules.TAKES_ALL, f"a flood: datagrams_received() raised {exc!r}") from exc
        if kept > MAX_KEPT:
            seen = f"{FLOOD} datagrams in one turn of the loop left {kept >> 20} MiB behind"
            raise ConformanceError(rules.TAKES_BOUNDED, seen)
        await _turns()
        trial.nothing_failed(ctx)


async def _check_broken_socket(
    trial: Trial[DatagramProtocol], context: Callable[..., LentContext], claimed: Sequence[bytes]
) -> None:
    ctx = context(socket=FakeSharedSocket(send=lambda data, addr: False))
    async with trial.running(ctx) as (protocol,):
        for data in claimed:
            for source in _SOURCES:
                try:
                    protocol.datagrams_received([(data, source)])
                except Exception as exc:
                    raise ConformanceError(rules.SEND_FAILS, f"datagrams_received() raised {exc!r}") from exc
        await _turns()
        try:
            trial.nothing_failed(ctx)
        except ConformanceError as exc:
            raise ConformanceError(rules.SEND_FAILS, exc.seen) from exc
