"""The program that carries the packets of a lab's wires: TAP devices in pairs, and a heap of packets between.

It reads requests as JSON lines on standard input and answers each with a line; it leaves when its input ends.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from typing import Any, Final

import attrs

from tom_connect.testing.natlab.namespaces import ip, within

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_FRAME: Final = 1 << 16
# Frames read from one device before the others get their turn.
_BATCH: Final = 64
# Frames on their way on one direction of a wire; more are dropped, as by a router whose memory is full.
_MAX_QUEUED: Final = 20_000


@attrs.define(eq=False)
class Direction:
    """One direction of a wire."""

    source: int
    sink: int
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: float | None = None
    queue: float = 0.1
    free_at: float = 0.0
    queued: int = 0

    def due(self, size: int, now: float, rng: random.Random) -> float | None:
        """When a frame that enters now comes out; None if it is lost."""
        if self.loss and rng.random() < self.loss:
            return None
        start = now
        if self.rate is not None:
            start = max(now, self.free_at)
            if start - now > self.queue:
                return None
            start += size * 8 / self.rate
            self.free_at = start
        return start + self.delay + (self.jitter * rng.random() if self.jitter else 0.0)


@attrs.define(eq=False)
class Carrier:
    """All wires, and the frames that are on their way."""

    rng: random.Random
    _wires: dict[int, tuple[Direction, Direction]] = attrs.field(factory=dict)
    _by_source: dict[int, Direction] = attrs.field(factory=dict)
    _heap: list[tuple[float, int, Direction, bytes]] = attrs.field(factory=list)
    _order: int = 0

    def run(self) -> None:
        """Carry frames and answer requests until standard input ends."""
        stdin = sys.stdin.fileno()
        buffer = b""
        while True:
            timeout = max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None
            # Not poll or epoll: those wait for whole milliseconds.
            ready, _, _ = select.select([stdin, *self._by_source], [], [], timeout)
            for fd in ready:
                if fd != stdin:
                    self._read(self._by_source[fd])
            self._write_due()
            if stdin in ready:
                chunk = os.read(stdin, 1 << 16)
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    os.write(sys.stdout.fileno(), self._answer(json.loads(line)).encode() + b"\n")

    def _read(self, direction: Direction) -> None:
        for _ in range(_BATCH):
            try:
                frame = os.read(direction.source, _FRAME)
            except OSError:  # none left, or the device is down
                return
            due = direction.due(len(frame), time.monotonic(), self.rng)
            if due is not None and direction.queued < _MAX_QUEUED:
                self._order += 1
                direction.queued += 1
                heapq.heappush(self._heap, (due, self._order, direction, frame))

    def _write_due(self) -> None:
        while self._heap and self._heap[0][0] <= time.monotonic():
            _, _, direction, frame = heapq.heappop(self._heap)
            direction.queued -= 1
            with contextlib.suppress(OSError):  # down, full or gone: the frame is lost
                os.write(direction.sink, frame)

    def _answer(self, request: dict[str, Any]) -> str:
        try:
            getattr(self, request.pop("do"))(**request)
        except Exception as exc:  # told to whoever asked
            return json.dumps(f"{type(exc).__name__}: {exc}")
        return "ok"

    def lay(self, number: int, ends: list[list[str]], **wire: Any) -> None:
        """Make the devices of a wire."""
        one, other = (_tap(*end) for end in ends)
        there, back = Direction(one, other, **wire), Direction(other, one, **wire)
        self._wires[number] = (there, back)
        self._by_source |= {one: there, other: back}

    def change(self, number: int, **wire: Any) -> None:
        """Treat packets of a wire differently."""
        for direction in self._wires[number]:
            for name, value in wire.items():
                setattr(direction, name, value)

    def take_up(self, number: int) -> None:
        """Remove a wire; what is on its way is lost."""
        gone = self._wires.pop(number)
        self._heap = [entry for entry in self._heap if entry[2] not in gone]
        heapq.heapify(self._heap)
        for direction in gone:
            del self._by_source[direction.source]
            os.close(direction.source)


def _tap(namespace: str, name: str, mac: str) -> int:
    import fcntl  # not there on all systems on which this module is imported

    def make() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        return fd

    fd = within(namespace, make)
    ip([f"link set {name} address {mac}"], namespace)
    return fd


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):
        # Late packets on a busy machine would be the lab's delay, not the wire's.
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    Carrier(random.Random(int(sys.argv[1]))).run()
