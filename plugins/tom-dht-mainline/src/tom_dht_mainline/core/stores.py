"""Writing to the nodes closest to a target: puts and announces.

A node is written to as soon as it has answered and every known node nearer to the target has been asked: most writes
then need two round trips and no wait for the lookup's slowest node. `Stored` is reported at the quorum; nodes that stay
silent or refuse are replaced by the next closest until `replicas` hold the value or nobody is left.
"""

from __future__ import annotations

from collections import Counter

from .bencode import Bencodable, Raw
from .context import Context
from .events import Stored
from .items import MutableItem
from .krpc import CAS_MISMATCH, KNOWN_ERRORS, METHOD_UNKNOWN, PROTOCOL, SEQ_TOO_SMALL, Message
from .lookup import Candidate, Lookup, Progress
from .operations import AnnounceOperation, Operation, PutOperation, PutOutcome
from .rpc import Query
from .searches import Search, new_peers, note_who_names, read_mutable, report_peers

_RESEND = 2
"""A node that has just answered is alive: a lost write is repeated twice."""
_MAX_WRITES = 3
"""Times `replicas`: writes attempted in all, refusals included."""


class _Write:
    __slots__ = ("candidate", "lookup")

    def __init__(self, lookup: Lookup, candidate: Candidate) -> None:
        self.lookup = lookup
        self.candidate = candidate


class StoreSearch(Search):
    """A lookup that writes to what it finds, for one operation."""

    takes_late_answers = True
    needs_only_tokens = True
    asks_for_size = True
    search = 0

    def __init__(
        self, context: Context, operation: PutOperation | AnnounceOperation, replicas: int, *, items: bool
    ) -> None:
        super().__init__(context, operation.target, replicas, items=items)
        self._operation: PutOperation | AnnounceOperation = operation
        self.operations.append(operation)
        self._replicas = replicas
        self._writes: dict[Query, _Write] = {}
        self._tried: set[bytes] = set()
        self._held: Counter[Lookup] = Counter()
        """Acknowledged and awaited writes of each lookup."""
        self._awaited = 0

    # What subclasses say

    def write_query(self, token: bytes) -> tuple[bytes, dict[bytes, Bencodable]]:
        """Method and arguments of the write."""
        raise NotImplementedError

    def on_refused(self, write: _Write, query: Query, code: int, now: float) -> bool:
        """A node refused with an error; whether the value counts as stored there all the same."""
        return False

    def is_taken(self, code: int) -> bool:
        """Whether an error says that the node holds another value in this one's place."""
        return False

    # Lookup

    def on_progress(self, lookup: Lookup, now: float) -> None:
        """See `LookupClient`."""
        if not self.finished:
            self._write_settled(lookup, now)
            self._check_end(now)

    def on_lookup_done(self, lookup: Lookup, now: float) -> None:
        """See `LookupClient`."""
        if self.finished:
            return
        if self.reaches_on(lookup, self._replicas, now):
            return
        self._write_settled(lookup, now)
        if lookup.ask_silent(now, 1 if lookup.is_ill_heard else self._replicas // 2):
            # Others may well reach those that are silent to us, and will look there. A few may be dead.
            lookup.widen(lookup.width, now)
            return
        self._check_end(now)

    def _write_settled(self, lookup: Lookup, now: float) -> None:
        goal = self.reach(lookup)
        room = goal - self._held[lookup]
        for rank, candidate in enumerate(lookup.in_reach()):
            if len(self._tried) >= _MAX_WRITES * self._replicas:
                return
            if candidate.progress is not Progress.REPLIED:
                if not lookup.done and candidate.progress is Progress.NEW:
                    return
                continue
            if rank >= goal and (room <= 0 or not lookup.done):
                # While the lookup goes on, who is nearer may still answer. Whoever is among the nearest in the end is
                # written to although enough others took it before: it is there that readers look.
                return
            if candidate.token is None or candidate.node_id in self._tried:
                continue
            room -= 1
            self._write(lookup, candidate, candidate.token, now)

    def _write(self, lookup: Lookup, candidate: Candidate, token: bytes, now: float) -> None:
        self._tried.add(candidate.node_id)
        self._held[lookup] += 1
        self._awaited += 1
        method, args = self.write_query(token)
        query = self._context.query(
            lookup.state, candidate.address, method, args, self, now, node_id=candidate.node_id, resend=_RESEND
        )
        self._writes[query] = _Write(lookup, candidate)

    # Writes

    def on_reply(self, query: Query, reply: Message, now: float) -> None:
        """See `QueryHandler`."""
        write = self._writes.pop(query, None)
        if write is None or self.finished:
            return
        self._settle(query, write)
        if reply.node_id != write.candidate.node_id:
            self._context.counters.dropped["bad-node-id"] += 1
            self._replace(write, now)
            return
        self._count_stored(write, now)
        self._check_end(now)

    def _settle(self, query: Query, write: _Write) -> None:
        self._operation.queries_sent += query.sends
        if not query.stalled:
            self._awaited -= 1
            self._held[write.lookup] -= 1

    def _count_stored(self, write: _Write, now: float) -> None:
        self._held[write.lookup] += 1
        operation = self._operation
        operation.acknowledged += 1
        if operation.first_result_at is None:
            operation.first_result_at = now
        if operation.stored_at is None and operation.acknowledged >= min(self._context.config.quorum, self._replicas):
            self._report_stored(now)

    def _report_stored(self, now: float) -> None:
        self._operation.stored_at = now
        self._context.events.append(Stored(self._operation, self._operation.acknowledged))

    def on_error(self, query: Query, error: Message, now: float) -> None:
        """See `QueryHandler`."""
        write = self._writes.pop(query, None)
        if write is None or self.finished:
            return
        self._settle(query, write)
        codes = self._operation.error_codes
        code = error.code
        known = code if code in KNOWN_ERRORS else 0
        codes[known] = codes.get(known, 0) + 1
        if code == METHOD_UNKNOWN and self._items:
            self._context.mark_without_items(query.address, now)
        if self.on_refused(write, query, code, now):
            self._count_stored(write, now)
            self._check_end(now)
        elif code == PROTOCOL and write.candidate.token_at < now - 1.0 and write.lookup.ask_again(write.candidate, now):
            # The token came from the cache and has been rotated away: get another.
            self._tried.discard(write.candidate.node_id)
            write.lookup.widen(write.lookup.width, now)
        elif self.is_taken(code):
            # Nodes further off hold nothing to compare with: their consent would hide that we came too late.
            self._held[write.lookup] += 1
            self._check_end(now)
        elif not self.finished:
            self._replace(write, now)

    def on_stall(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        write = self._writes.get(query)
        if write is None or self.finished:
            return
        self._operation.timeouts += 1
        self._awaited -= 1
        self._held[write.lookup] -= 1
        self._replace(write, now)

    def on_lost(self, query: Query, now: float) -> None:
        """See `QueryHandler`."""
        write = self._writes.pop(query, None)
        if write is not None and not self.finished:
            self._operation.queries_sent += query.sends

    def _replace(self, write: _Write, now: float) -> None:
        lookup = write.lookup
        self._write_settled(lookup, now)
        goal = self.reach(lookup)
        missing = goal - self._held[lookup]
        if missing > 0 and lookup.done and lookup.width < 2 * goal:
            lookup.widen(min(lookup.width + missing, 2 * goal), now)
        self._check_end(now)

    def _check_end(self, now: float) -> None:
        if not self.finished and self._awaited == 0 and all(lookup.done for lookup in self.lookups):
            self.finish(now)

    def finish(self, now: float) -> None:
        """See `Search`."""
        if self.finished:
            return
        operation = self._operation
        for query in self._writes:
            operation.queries_sent += query.sends
        if operation.acknowledged and operation.stored_at is None and not operation.cancelled:
            # Fewer nodes than the quorum: all there are have it.
            self._report_stored(now)
        self.on_end()
        super().finish(now)

    def leave(self, operation: Operation, now: float) -> None:
        """See `Search`."""
        self.finish(now)

    def on_end(self) -> None:
        """Called before the operation is reported finished."""


class PutSearch(StoreSearch):
    """A put of one item (BEP 44)."""

    def __init__(self, context: Context, operation: PutOperation) -> None:
        super().__init__(context, operation, context.config.replicas, items=True)
        self._put = operation
        self._item = operation.item
        self._taken: Counter[int] = Counter()
        """Nodes that hold another value and keep it, by error code."""
        self._unchanged = isinstance(self._item, MutableItem) and context.targets.was_published(
            operation.target, self._item.signature
        )

    def lookup_query(self, lookup: Lookup, candidate: Candidate) -> tuple[bytes, dict[bytes, Bencodable]]:
        """See `LookupClient`."""
        args: dict[bytes, Bencodable] = {b"target": self.target}
        if isinstance(self._item, MutableItem):
            # Nodes that hold what we put, or older, then return only the number.
            args[b"seq"] = self._item.seq
        return b"get", args

    def on_answer(self, lookup: Lookup, candidate: Candidate, reply: Message, now: float) -> None:
        """See `LookupClient`."""
        super().on_answer(lookup, candidate, reply, now)
        item = self._item
        if not isinstance(item, MutableItem):
            return
        seq = reply.body.get(b"seq")
        if type(seq) is not int:
            return
        candidate.seq = seq
        if seq > item.seq and not self.finished:
            newer, _ = read_mutable(self._context, item.public_key, item.salt, reply, item.seq + 1, None)
            if newer is not None:
                # Proven: the key's owner has written since. Going on would only be refused, or undo it on some nodes.
                self._put.newer_seq, self._put.newer_item = newer.seq, newer
                self.finish(now)

    def write_query(self, token: bytes) -> tuple[bytes, dict[bytes, Bencodable]]:
        """See `StoreSearch`."""
        item = self._item
        args: dict[bytes, Bencodable] = {b"target": self.target, b"token": token, b"v": Raw(item.encoded)}
        if isinstance(item, MutableItem):
            args[b"k"] = item.public_key
            args[b"seq"] = item.seq
            args[b"sig"] = item.signature
            if item.salt:
                args[b"salt"] = item.salt
            if self._put.cas is not None:
                args[b"cas"] = self._put.cas
        return b"put", args

    def on_refused(self, write: _Write, query: Query, code: int, now: float) -> bool:
        """See `StoreSearch`.

        bittorrent-dht answers 302 to an equal sequence number, even for the same value: an unchanged republish, or a
        first sending whose acknowledgement was lost, is stored in truth.
        """
        item = self._item
        if code in (SEQ_TOO_SMALL, CAS_MISMATCH) and isinstance(item, MutableItem):
            told = write.candidate.seq
            if told is not None and told > item.seq:
                return False
            same = told == item.seq or query.sends > 1 or self._unchanged
            if same and (code == SEQ_TOO_SMALL or query.sends > 1):
                return True
        return False

    def is_taken(self, code: int) -> bool:
        """See `StoreSearch`."""
        if code not in (SEQ_TOO_SMALL, CAS_MISMATCH) or not isinstance(self._item, MutableItem):
            return False
        self._taken[code] += 1
        return True

    def on_end(self) -> None:
        """See `StoreSearch`. A majority decides, as one lying node must not be able to make a put fail."""
        put = self._put
        if put.newer_item is not None or self._taken[SEQ_TOO_SMALL] > put.acknowledged:
            put.outcome = PutOutcome.SUPERSEDED
        elif self._taken[CAS_MISMATCH] > put.acknowledged:
            put.outcome = PutOutcome.CAS_MISMATCH
        else:
            put.outcome = PutOutcome.STORED if put.acknowledged else PutOutcome.NO_NODES
        if put.acknowledged and isinstance(self._item, MutableItem):
            self._context.targets.note_published(self.target, self._item.signature)


class AnnounceSearch(StoreSearch):
    """An announce_peer (BEP 5)."""

    def __init__(self, context: Context, operation: AnnounceOperation) -> None:
        super().__init__(context, operation, context.config.announce_replicas, items=False)
        self._announce = operation
        self._peers: dict[tuple[str, int], None] = {}

    def start(self, now: float) -> None:
        """See `Search`: those whose tokens are known are written to at once."""
        super().start(now)
        for lookup in list(self.lookups):
            if not self.finished:
                self._write_settled(lookup, now)

    def lookup_query(self, lookup: Lookup, candidate: Candidate) -> tuple[bytes, dict[bytes, Bencodable]]:
        """See `LookupClient`."""
        return b"get_peers", {b"info_hash": self.target}

    def on_answer(self, lookup: Lookup, candidate: Candidate, reply: Message, now: float) -> None:
        """See `LookupClient`."""
        super().on_answer(lookup, candidate, reply, now)
        note_who_names((self._announce,), candidate.address, reply)
        fresh = new_peers(self._peers, reply)
        if fresh and not self.finished:
            report_peers(self._context, self._announce, fresh, now)

    def write_query(self, token: bytes) -> tuple[bytes, dict[bytes, Bencodable]]:
        """See `StoreSearch`."""
        return b"announce_peer", {
            b"info_hash": self.target,
            b"token": token,
            b"port": self._announce.port,
            b"implied_port": 1 if self._announce.implied_port else 0,
        }
