"""As much of KRPC (BEP 5, 42, 43, 44) as a caller or a callee needs: it asks and stores, and answers nobody."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from . import bencode
from .disco import Addr
from .wire import Wire

Reply = dict[bytes, bencode.Value]

NEAREST = 8
_AT_ONCE = 4
_PATIENCE = 1.5
_MOST_ASKED = 120


class QueryError(Exception):
    """A node answered with an error."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self.code = code


class Krpc:
    """Queries over a wire that is shared with disco."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._id = secrets.token_bytes(20)
        self._waiting: dict[bytes, tuple[Addr, asyncio.Future[Reply]]] = {}
        self.seen_as: dict[Addr, int] = {}
        self.spared: set[Addr] = set()
        """Addresses that are punched: no query goes there, unless one went before."""
        self._asked: set[Addr] = set()

    def own(self) -> Addr | None:
        """Our address as most nodes saw it."""
        return max(self.seen_as, key=self.seen_as.__getitem__, default=None)

    def port_each(self) -> bool:
        """Whether nodes see us at ports of their own: no address is named by half of those that name any."""
        return 0 < 2 * max(self.seen_as.values(), default=0) < sum(self.seen_as.values())

    async def query(self, addr: Addr, method: bytes, args: Reply) -> Reply:
        """The `r` of the answer; QueryError or TimeoutError."""
        if addr in self.spared and addr not in self._asked:
            raise TimeoutError
        self._asked.add(addr)
        tid = secrets.token_bytes(4)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[tid] = (addr, answer)
        body: Reply = {b"t": tid, b"y": b"q", b"q": method, b"ro": 1, b"a": {b"id": self._id, **args}}
        try:
            self._wire.send(bencode.encode(body), addr)
            async with asyncio.timeout(_PATIENCE):
                return await answer
        finally:
            del self._waiting[tid]

    def receive(self, packet: bytes, addr: Addr) -> None:
        """A packet that begins with `d`; only answers that somebody waits for count."""
        try:
            message = bencode.decode(packet)
        except ValueError:
            return
        match message:
            case {b"t": bytes(tid), b"y": b"r" | b"e"} if tid in self._waiting:
                asked, answer = self._waiting[tid]
                if asked != addr or answer.done():
                    return
                match message:
                    case {b"ip": bytes(ip)} if len(ip) == 6:
                        own = _compact(ip)
                        self.seen_as[own] = self.seen_as.get(own, 0) + 1
                match message:
                    case {b"r": dict(reply)}:
                        answer.set_result(reply)
                    case {b"e": [int(code), *_]}:
                        answer.set_exception(QueryError(code))


@dataclass
class Node:
    """A node that has answered in a look-up."""

    addr: Addr
    distance: int
    token: bytes | None
    values: list[Addr] = field(default_factory=list)


@dataclass
class Lookup:
    """An iterative look-up; `on_answer` is told of each reply as it comes."""

    krpc: Krpc
    target: bytes
    method: bytes
    on_answer: Callable[[Reply], None] = lambda _: None
    items_only: bool = False
    """Whether nodes that answer `get` with error 204 don't count, since nothing can be put there."""
    answered: list[Node] = field(default_factory=list)

    def nearest(self) -> list[Node]:
        """The nearest nodes that have answered so far."""
        return sorted(self.answered, key=lambda node: node.distance)[:NEAREST]

    async def run(self, start: list[Addr]) -> list[Node]:
        """Ask nearer and nearer nodes until the nearest 8 that answer have all been asked."""
        known: dict[Addr, int] = dict.fromkeys(start, 2**160)
        asked: set[Addr] = set()
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                near = self.nearest()
                limit = near[-1].distance if len(near) == NEAREST else 2**161
                nearer = ((distance, addr) for addr, distance in known.items() if distance < limit)
                waiting = sorted(each for each in nearer if each[1] not in asked)
                for _, addr in waiting[: _AT_ONCE - len(running)]:
                    if len(asked) < _MOST_ASKED:
                        asked.add(addr)
                        running.add(asyncio.create_task(self._ask(addr, known)))
                if not running:
                    return near
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()

    async def _ask(self, addr: Addr, known: dict[Addr, int]) -> None:
        name = b"info_hash" if self.method == b"get_peers" else b"target"
        try:
            reply = await self.krpc.query(addr, self.method, {name: self.target})
        except TimeoutError:
            return
        except QueryError as error:
            if error.code != 204 or self.method != b"get" or self.items_only:
                return
            try:
                reply = await self.krpc.query(addr, b"get_peers", {b"info_hash": self.target})
            except (TimeoutError, QueryError):
                return
        match reply:
            case {b"id": bytes(node_id)} if len(node_id) == 20:
                token = reply.get(b"token")
                node = Node(addr, self._distance(node_id), token if isinstance(token, bytes) else None, _values(reply))
                self.answered.append(node)
                for found_id, found in _nodes(reply):
                    if found[1] and len(known) < 1000:
                        known.setdefault(found, self._distance(found_id))
                self.on_answer(reply)

    def _distance(self, node_id: bytes) -> int:
        return int.from_bytes(node_id, "big") ^ int.from_bytes(self.target, "big")


def _compact(raw: bytes) -> Addr:
    return str(IPv4Address(raw[:4])), int.from_bytes(raw[4:6], "big")


def _nodes(reply: Reply) -> list[tuple[bytes, Addr]]:
    match reply:
        case {b"nodes": bytes(raw)}:
            return [(raw[at : at + 20], _compact(raw[at + 20 : at + 26])) for at in range(0, len(raw) - 25, 26)]
    return []


def _values(reply: Reply) -> list[Addr]:
    match reply:
        case {b"values": list(values)}:
            return [_compact(raw) for raw in values if isinstance(raw, bytes) and len(raw) == 6]
    return []
