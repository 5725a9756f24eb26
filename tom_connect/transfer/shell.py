"""Pumps the transfer protocol: asyncio streams at one side, files at the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import attrs

from tom_connect.exceptions import NetworkError
from tom_connect.transfer.errors import TransferError, TransferInterruptedError, TransferRefusedError
from tom_connect.transfer.manifest import Manifest
from tom_connect.transfer.protocol import (
    Accepted,
    FileData,
    FileEnded,
    FileStarted,
    Offered,
    ReceiverEvent,
    ReceiverProtocol,
    SenderEvent,
    SenderProtocol,
)
from tom_connect.transfer.source import Outgoing, Source, scan
from tom_connect.transfer.store import Store
from tom_connect.transfer.threads import Job, in_thread
from tom_connect.transfer.wire import Have

STALL_TIMEOUT = 120.0
"""Seconds without a byte after which a receiver gives a sender up. One that reads a long file says so in between."""
OFFER_TIMEOUT = 60.0
"""Seconds in which a sender must have made its offer, which it has ready: strangers that make none must not hold on."""
LAST_WORD = 5.0
"""Seconds to wait for the reason when the other side has stopped reading: it is on its way, or never comes."""
_READ_SIZE = 1024 * 1024
_BATCH = 512 * 1024
_BATCH_EVENTS = 512


class Reader(Protocol):
    """What is read from: a stream of tom-connect or an asyncio.StreamReader."""

    async def read(self, n: int = -1, /) -> bytes:
        """Up to n bytes, b"" at the end."""


class Writer(Protocol):
    """What is written to: a stream of tom-connect or an asyncio.StreamWriter."""

    def write(self, data: bytes, /) -> None:
        """Queue bytes."""

    async def drain(self) -> None:
        """Wait until more may be queued."""

    def write_eof(self) -> None:
        """Say that nothing follows."""


@attrs.frozen
class Progress:
    """How far a transfer is: `done` of `total` bytes, of which `had` were there already; `path` is being moved now."""

    done: int
    total: int
    had: int
    path: str


@attrs.frozen
class TransferResult:
    """What was transferred, verified and stored.

    `moved`: bytes of files that went over the wire; `had`: bytes that were there already; `place`: where the receiver
    put it, or what the sender read; `sha256`: of a single file, None for a folder; `stored`: the receiver's files;
    `skipped`: what the sender left out.
    """

    manifest: Manifest
    moved: int
    had: int
    place: Path
    sha256: bytes | None
    stored: tuple[Path, ...] = ()
    skipped: tuple[Path, ...] = ()


ProgressListener = Callable[[Progress], None]
Decide = Callable[[Manifest], Awaitable[bool]]


async def send_stream(
    reader: Reader, writer: Writer, source: Path | Source, *, on_progress: ProgressListener | None = None
) -> TransferResult:
    """Send a file or folder over one stream; returns when the receiver has verified and stored all of it.

    Raises the TransferError that fits, on this side's account or the other's.
    """
    if isinstance(source, Path):
        source = await in_thread(scan, source)
    return await _Sending(reader, writer, source, on_progress).run()


async def receive_stream(
    reader: Reader,
    writer: Writer,
    into: Path,
    *,
    overwrite: bool = False,
    decide: Decide | None = None,
    on_progress: ProgressListener | None = None,
    offer_timeout: float = OFFER_TIMEOUT,
    stall_timeout: float = STALL_TIMEOUT,
) -> TransferResult:
    """Receive a file or folder over one stream into the folder `into`, which is made if it is missing.

    `decide` is asked whether to take the offer. Time-outs in seconds: until the offer is made, and without a byte
    later. See `tom_connect.transfer.store` for what happens to names that are taken. Raises the TransferError that
    fits, on this side's account or the other's.
    """
    return await _Receiving(reader, writer, into, overwrite, decide, on_progress, offer_timeout, stall_timeout).run()


class _Ledger:
    """Counts bytes and tells them."""

    def __init__(self, manifest: Manifest, listener: ProgressListener | None) -> None:
        self._total = manifest.total_size
        self._listener = listener
        self.moved = 0
        self.had = 0

    def add(self, moved: int, had: int, path: str) -> None:
        self.moved += moved
        self.had += had
        if self._listener is not None:
            self._listener(Progress(self.moved + self.had, self._total, self.had, path))

    def __str__(self) -> str:
        return f"{self.moved + self.had} of {self._total} bytes"


class _Sending:
    def __init__(self, reader: Reader, writer: Writer, source: Source, listener: ProgressListener | None) -> None:
        self._reader = reader
        self._writer = writer
        self._source = source
        self._protocol = SenderProtocol(source.manifest)
        self._ledger = _Ledger(source.manifest, listener)
        self._events: deque[SenderEvent] = deque()
        self._digest: bytes | None = None

    async def run(self) -> TransferResult:
        with _telling(self._writer, self._protocol.fail), _interruptions("the receiver", self._ledger):
            self._writer.write(self._protocol.offer())
            await self._writer.drain()
            accepted = await self._next_event()
            assert isinstance(accepted, Accepted)
            self._ledger.add(0, 0, self._source.manifest.name)
            await self._send(accepted.haves)
            self._writer.write_eof()
        return TransferResult(
            self._source.manifest,
            self._ledger.moved,
            self._ledger.had,
            self._source.paths[0],
            None if self._source.manifest.is_folder else self._digest,
            skipped=self._source.skipped,
        )

    async def _next_event(self) -> SenderEvent:
        while not self._events:
            data = await self._reader.read(_READ_SIZE)
            if not data:
                self._protocol.eof()
            self._events += self._protocol.receive(data)
        return self._events.popleft()

    async def _send(self, haves: dict[int, Have]) -> None:
        """Send all files while listening for the receiver's word, which may come at any time."""
        verdict = asyncio.create_task(self._next_event(), name="the receiver's word")
        sending = asyncio.create_task(self._send_files(haves), name="sending files")
        try:
            await asyncio.wait((verdict, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and sending.exception() is not None and not _is_ours(sending.exception()):
                # The receiver reads no more. It says why, unless it is gone.
                await asyncio.wait((verdict,), timeout=LAST_WORD)
            if verdict.done():
                verdict.result()
            await sending
            await verdict
        finally:
            for task in (verdict, sending):
                task.cancel()
            await asyncio.gather(verdict, sending, return_exceptions=True)

    async def _send_files(self, haves: dict[int, Have]) -> None:
        outgoing = Outgoing(self._source, self._protocol, haves)
        job = Job(outgoing.next_batch)
        try:
            while (batch := await job.result()) is not None:
                job = Job(outgoing.next_batch)  # is read while this one leaves
                for piece in batch.pieces:
                    self._writer.write(piece)
                await self._writer.drain()
                self._ledger.add(batch.data, batch.had, batch.path)
            self._digest = outgoing.last_digest
        finally:
            try:
                await job.settle()
            finally:
                outgoing.close()


class _Spool:
    """Hands what was received to the store, in a thread, while more comes; at most about a MiB is in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._events: list[ReceiverEvent] = []
        self._size = 0
        self._job: Job[None] | None = None

    def add(self, event: ReceiverEvent) -> None:
        self._events.append(event)
        if isinstance(event, FileData):
            self._size += len(event.data)

    async def pump(self) -> None:
        """Begin to store what has gathered, if nothing is being stored or too much has gathered; raises its errors."""
        if self._job is not None and (self._job.is_done or self._is_much):
            await self._job.result()
            self._job = None
        if self._job is None and self._events:
            events, self._events, self._size = self._events, [], 0
            self._job = Job(self._apply, events)

    async def finish(self) -> None:
        """Store everything; raises what that raises."""
        while self._job is not None or self._events:
            if self._job is not None:
                await self._job.result()
                self._job = None
            await self.pump()

    async def settle(self) -> None:
        """Wait for what is being stored, and store what has gathered, unless storing failed."""
        job, self._job = self._job, None
        try:
            if job is not None:
                await job.settle()
                await job.result()
            await in_thread(self._apply, self._events)
        except TransferError:
            pass  # another error, or the same one, is on its way already

    @property
    def _is_much(self) -> bool:
        return self._size >= _BATCH or len(self._events) >= _BATCH_EVENTS

    def _apply(self, events: list[ReceiverEvent]) -> None:
        for event in events:
            match event:
                case FileData():
                    self._store.write(event.data)
                case FileStarted():
                    self._store.start(event.index, event.offset)
                case FileEnded():
                    self._store.end(event.digest)
                case Offered():
                    raise AssertionError("an offer comes once")


class _Receiving:
    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        into: Path,
        overwrite: bool,
        decide: Decide | None,
        listener: ProgressListener | None,
        offer_timeout: float,
        stall_timeout: float,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._into = into
        self._overwrite = overwrite
        self._decide = decide
        self._listener = listener
        self._offer_timeout = offer_timeout
        self._stall_timeout = stall_timeout
        self._protocol = ReceiverProtocol()

    async def run(self) -> TransferResult:
        with _telling(self._writer, self._protocol.fail):
            with _interruptions("the sender", None):
                manifest = await self._offer()
            if self._decide is not None and not await self._decide(manifest):
                raise TransferRefusedError("the receiver declined what was offered")
            ledger = _Ledger(manifest, self._listener)
            store = Store(manifest, self._into, overwrite=self._overwrite)
            try:
                with _interruptions("the sender", ledger):
                    self._writer.write(self._protocol.accept(await self._claims(store)))
                    await self._writer.drain()
                    await self._receive(manifest, store, ledger)
                    self._writer.write(self._protocol.done())
                    self._writer.write_eof()
                    await self._writer.drain()
            finally:
                await in_thread(store.close)
        digest = None if manifest.is_folder else store.last_digest
        return TransferResult(manifest, ledger.moved, ledger.had, store.place, digest, stored=tuple(store.stored))

    async def _offer(self) -> Manifest:
        try:
            async with asyncio.timeout(self._offer_timeout):
                while True:
                    for event in self._protocol.receive(await self._read()):
                        assert isinstance(event, Offered)
                        return event.manifest
        except TimeoutError:
            raise TransferInterruptedError(f"the sender offered nothing for {self._offer_timeout:g} s") from None

    async def _claims(self, store: Store) -> list[Have]:
        found: list[Have] = []
        claims = store.claims()

        def some() -> bool:
            for have in claims:
                if have is None:
                    return True
                found.append(have)
            return False

        while await in_thread(some):
            pass
        return found

    async def _receive(self, manifest: Manifest, store: Store, ledger: _Ledger) -> None:
        spool = _Spool(store)
        path = manifest.name
        try:
            while not self._protocol.is_complete:
                moved = had = 0
                for event in self._protocol.receive(await self._read()):
                    spool.add(event)
                    if isinstance(event, FileData):
                        moved += len(event.data)
                    elif isinstance(event, FileStarted):
                        had += event.offset
                        path = manifest.entries[event.index].path
                ledger.add(moved, had, path)
                await spool.pump()
            await spool.finish()
        except BaseException:
            await spool.settle()
            raise

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_timeout):
                data = await self._reader.read(_READ_SIZE)
        except TimeoutError:
            raise TransferInterruptedError(f"the sender was silent for {self._stall_timeout:g} s") from None
        if not data:
            self._protocol.eof()
            raise TransferInterruptedError("the sender ended its side too early")
        return data


def _is_ours(exc: BaseException | None) -> bool:
    """Whether an error has another reason than that the other side is gone."""
    return isinstance(exc, TransferError) and not isinstance(exc, TransferInterruptedError)


@contextlib.contextmanager
def _interruptions(who: str, ledger: _Ledger | None) -> Iterator[None]:
    """Turn every way in which the other side can be gone into TransferInterruptedError."""
    try:
        yield
    except (TransferError, NetworkError, OSError, EOFError) as exc:
        if _is_ours(exc):
            raise
        what = str(exc) if isinstance(exc, TransferInterruptedError) else f"{who} went away ({exc})"
        so_far = (
            f"; {ledger} had gone over; what arrived is kept, and sending again resumes" if ledger is not None else ""
        )
        raise TransferInterruptedError(what + so_far) from exc


@contextlib.contextmanager
def _telling(writer: Writer, fail: Callable[[TransferError], bytes]) -> Iterator[None]:
    """Tell the other side why this one ends the transfer, where it can still be told."""
    try:
        yield
    except BaseException as exc:
        told = exc if isinstance(exc, TransferError) else TransferInterruptedError("it was stopped")
        with contextlib.suppress(Exception):
            writer.write(fail(told))
            writer.write_eof()
        raise
