"""The ping that a caller asks for."""

from __future__ import annotations

from .context import Context, FamilyState
from .events import Finished
from .krpc import Message
from .operations import Operation, PingOperation
from .rpc import Query

_RESEND_AFTER = (0.5, 1.5)
"""A caller who pings one node wants to know if it is there, not if a packet was lost."""


class PingRun:
    """One ping under way."""

    search = 0

    def __init__(self, context: Context, operation: PingOperation) -> None:
        self._context = context
        self._operation = operation
        self._query: Query | None = None

    def start(self, state: FamilyState, now: float) -> None:
        """Send it."""
        self._query = self._context.query(
            state, self._operation.address, b"ping", {}, self, now, resend_after=_RESEND_AFTER
        )

    def leave(self, operation: Operation, now: float) -> None:
        """End it early."""
        if self._query is not None:
            self._context.rpc.cancel(self._query)
        self._end(now)

    def _end(self, now: float) -> None:
        operation = self._operation
        if operation.finished:
            return
        operation.queries_sent = self._query.sends if self._query is not None else 0
        operation.finished = True
        operation.ended_at = now
        self._context.running.pop(operation, None)
        self._context.events.append(Finished(operation))

    def on_reply(self, query: Query, reply: Message, now: float) -> None:
        """See `QueryHandler`."""
        operation = self._operation
        operation.node_id = reply.node_id
        operation.replies = 1
        operation.first_result_at = now
        # After a retransmission the first sending is meant: too long rather than too short.
        operation.rtt = now - query.first_sent_at
        self._end(now)

    def on_error(self, query: Query, error: Message, now: float) -> None:
        """See `QueryHandler`."""
        self._operation.replies = 1
        self._end(now)

    def on_stall(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        self._operation.timeouts = 1

    def on_lost(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        self._end(now)
