"""Wires: links with delay, jitter, loss and a rate, in kernels without netem."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from typing import Any, Final

import attrs

from tom_connect.testing.natlab.namespaces import LabError

#: Seconds; it takes a few milliseconds, and the start of a Python on an overloaded machine.
_ANSWER_TIMEOUT: Final = 60.0


@attrs.frozen
class Wire:
    """How a link treats packets, the same in both directions. Raises ValueError for what can't be."""

    delay: float = 0.0
    """Seconds one way."""
    jitter: float = 0.0
    """Up to so many seconds more for each packet, by chance, so that one may overtake another."""
    loss: float = 0.0
    """Share of packets that vanish, 0 to 1."""
    rate: float | None = None
    """Bits a second; None: no limit."""
    queue: float = 0.1
    """With a rate, up to so many seconds of packets wait; more are lost."""

    def __attrs_post_init__(self) -> None:
        if min(self.delay, self.jitter, self.queue) < 0 or not 0 <= self.loss <= 1:
            raise ValueError("delay, jitter and queue are at least 0 seconds, loss is 0 to 1")
        if self.rate is not None and self.rate <= 0:
            raise ValueError("a rate is more than 0 bits a second; None is no limit")


@attrs.define(eq=False)
class WireProcess:
    """The one process of a lab that carries the packets of all its wires; started with the first."""

    seed: int = 0
    _process: subprocess.Popen[str] | None = None

    def lay(self, number: int, ends: list[tuple[str, str, str]], wire: Wire) -> None:
        """Make a TAP device at each end (namespace, name, link-layer address) and carry packets between them."""
        self._ask(do="lay", number=number, ends=ends, **attrs.asdict(wire))

    def change(self, number: int, wire: Wire) -> None:
        """Treat packets differently from now on; those on their way arrive as they would have."""
        self._ask(do="change", number=number, **attrs.asdict(wire))

    def take_up(self, number: int) -> None:
        """Remove a wire and its devices."""
        self._ask(do="take_up", number=number)

    def close(self) -> None:
        """End the process, with which all devices go."""
        if self._process is None:
            return
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def _ask(self, **request: Any) -> None:
        if self._process is None:
            module = "tom_connect.testing.natlab.wire_process"
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(self.seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            # One line answers one request, so nothing is left in the reader's buffer.
            answered, _, _ = select.select([self._process.stdout], [], [], _ANSWER_TIMEOUT)
            answer = self._process.stdout.readline() if answered else "not"
        except OSError as exc:
            raise LabError(f"the process of the wires has ended: {exc}") from exc
        if answer.strip() != "ok":
            raise LabError(f"the process of the wires answered {answer.strip() or 'nothing'}")
