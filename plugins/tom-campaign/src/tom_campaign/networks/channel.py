"""The runner's end of a node's control channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import attrs

from tom_campaign.core.control import Ask, Hello, Window, parsed_hello, parsed_line, request_line
from tom_campaign.core.errors import ControlError, NodeGoneError
from tom_campaign.core.typed import MistypedError, typed

GRACE: Final = 30.0
"""Seconds beyond what a request may take at its end: a busy machine, or a responder far away."""


@attrs.define(eq=False)
class _Pending:
    future: asyncio.Future[dict[str, Any]]
    on_window: Callable[[Window], None] | None


@attrs.define(eq=False)
class Channel:
    """Asks one node. `write` sends a line; whoever reads gives what comes to `line_received` and `ended`."""

    name: str
    write: Callable[[bytes], None]
    hello: asyncio.Future[Hello] = attrs.Factory(lambda: asyncio.get_running_loop().create_future())
    gone: str | None = None
    """Why the node is no more; None while it is there."""
    _pending: dict[int, _Pending] = attrs.Factory(dict)
    _last: int = 0

    async def ask(self, ask: Ask, timeout: float, on_window: Callable[[Window], None] | None = None) -> dict[str, Any]:
        """The answer; raises NodeGoneError, or ControlError for a refusal or none within `timeout` seconds."""
        if self.gone is not None:
            raise NodeGoneError(self.gone)
        self._last += 1
        number = self._last
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = _Pending(future, on_window)
        try:
            self.write(request_line(number, ask))
            async with asyncio.timeout(timeout + GRACE):
                return await future
        except TimeoutError:
            raise ControlError(f"{self.name} did not answer within {timeout + GRACE:g} s") from None
        finally:
            self._pending.pop(number, None)

    def line_received(self, line: bytes) -> None:
        """Take a line; raises ControlError for one that makes no sense, after which nothing else can be believed."""
        message = parsed_line(line)
        if "hello" in message:
            if not self.hello.done():
                self.hello.set_result(parsed_hello(line))
            return
        pending = self._pending.get(message.get("id", -1))
        if pending is None:  # nobody waits any more
            return
        if "event" in message:
            if pending.on_window is not None:
                try:
                    pending.on_window(typed(Window, message["event"], "event"))
                except MistypedError as exc:
                    raise ControlError(str(exc)) from None
        elif pending.future.done():
            pass
        elif isinstance(message.get("ok"), dict):
            pending.future.set_result(message["ok"])
        else:
            pending.future.set_exception(ControlError(f"{self.name}: {str(message.get('error'))[:1000]}"))

    def ended(self, why: str) -> None:
        """The node is no more: everybody who waits hears of it."""
        if self.gone is not None:
            return
        self.gone = why
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(NodeGoneError(why))
        if not self.hello.done():
            self.hello.set_exception(NodeGoneError(why))
            self.hello.exception()  # it is looked at, even if nobody waits for it
