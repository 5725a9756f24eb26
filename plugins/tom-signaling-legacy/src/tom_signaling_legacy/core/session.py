"""The client's side of one connection to a server, sans-IO: registered as whom, who is there, what is asked and told.

The shell sends what stands in `outgoing`, gives each message to `receive`, and calls `tick` when `next_tick` has come.
Rules:

- A node is present from the moment that the server names it until it says that it left, or until nothing was heard of
  it for 20 s (heartbeats come every 5 s).
- Only an answer to a request of ours is read, and only from the node that was asked; what it holds is verified against
  that node's key. Any other answer changes nothing: the server could have made it.
- Requests are answered a few at a time: a server that makes them up gets no flood out of us.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

import attrs

from tom_connect.exceptions import RecordError
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_signaling_legacy.core import messages
from tom_signaling_legacy.core.exchange import Answer, Calling, Request, read_payload, verified
from tom_signaling_legacy.core.hub import DEPARTED_AFTER
from tom_signaling_legacy.core.rates import Bucket
from tom_signaling_legacy.errors import MessageError

HEARTBEAT_INTERVAL = 5.0
"""Seconds between two heartbeats: others take a node for stale after two that they miss."""
ANSWER_RATE, ANSWER_BURST = 5.0, 50.0
"""Requests answered a second, and at once before that."""
CALL_RATE, CALL_BURST = 5.0, 20.0
"""Calls passed on a second, and at once before that: to open one takes a scalar multiplication."""
MAX_OUTGOING = 256
"""Messages that wait to be sent; more is not said."""
MAX_PENDING = 1024
"""Requests of ours that are open at once; the oldest is given up."""


@attrs.frozen
class Resolved:
    """A node gave its record, or (None) says that it has none to give. `request_id`: of our request."""

    request_id: str
    record: SignedRecord | None


@attrs.frozen
class Unusable:
    """A node's answer, or something said in its name, can't be used. The right answer may still come."""

    request_id: str
    reason: str


@attrs.frozen
class Called:
    """Somebody calls us. `sealed`: what the caller says; who it is, the core finds out by opening it."""

    sealed: bytes


Event = Resolved | Unusable | Called


@attrs.define(eq=False)
class ClientSession:
    """See the module. `record`: gives our newest signed record; times are seconds of one clock that only grows."""

    node_id: NodeId
    username: str
    record: Callable[[], SignedRecord | None]
    outgoing: deque[str] = attrs.Factory(deque)
    registered: bool = False
    """Whether the server has said who is there, and us among them."""
    problem: str | None = None
    """What the server complained of last."""
    unread: int = 0
    """Messages that were of no use to us."""
    next_tick: float = 0.0
    _present: OrderedDict[str, float] = attrs.Factory(OrderedDict)
    _asked: OrderedDict[str, NodeId] = attrs.Factory(OrderedDict)
    _answers: Bucket = attrs.Factory(lambda: Bucket(ANSWER_RATE, ANSWER_BURST))
    _calls: Bucket = attrs.Factory(lambda: Bucket(CALL_RATE, CALL_BURST))

    def start(self, now: float) -> None:
        """The connection is open: register."""
        node_id = str(self.node_id)
        registration: dict[str, object] = {
            "type": "register",
            "nodeId": node_id,
            "username": self.username,
            "publicKey": node_id,
        }
        self._say(registration)
        self.next_tick = now + HEARTBEAT_INTERVAL

    def tick(self, now: float) -> None:
        """Say that we are alive, if it is time."""
        if now >= self.next_tick:
            self._say({"type": "heartbeat"})
            self.next_tick = now + HEARTBEAT_INTERVAL

    def present(self, now: float) -> int:
        """How many nodes are there, ourselves not counted."""
        return sum(now - heard < DEPARTED_AFTER for heard in self._present.values())

    def is_present(self, node_id: NodeId, now: float) -> bool:
        """Whether a node is there."""
        heard = self._present.get(str(node_id))
        return heard is not None and now - heard < DEPARTED_AFTER

    def ask(self, node_id: NodeId, request_id: str) -> None:
        """Ask a node for its record; `request_id`: new, and not to be guessed by others."""
        self._asked[request_id] = node_id
        if len(self._asked) > MAX_PENDING:
            self._asked.popitem(last=False)
        self._signal(str(node_id), Request(request_id).payload())

    def give_up(self, request_id: str) -> None:
        """The answer to a request is not wanted any more."""
        self._asked.pop(request_id, None)

    def call(self, node_id: NodeId, sealed: bytes) -> None:
        """Leave a call for a node."""
        self._signal(str(node_id), Calling(sealed).payload())

    def receive(self, data: str | bytes, now: float, wall: float) -> Event | None:
        """Handle a message of the server; `wall`: seconds since 1970. Never raises."""
        try:
            message = messages.read(data)
        except MessageError:
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        match kind:
            case "participants":
                self._participants(message, now)
            case "presence":
                self._presence(message, now)
            case "heartbeat":
                node_id = message.get("from")
                if isinstance(node_id, str) and node_id in self._present:
                    self._heard(node_id, now)
            case "signal":
                return self._signaled(message, now, wall)
            case "error":
                text = message.get("error")
                self.problem = " ".join(text.split())[:100] if isinstance(text, str) else "an error without a text"
            case "role-assign":
                pass  # roles are the application's, and none of ours
            case _:
                self.unread += 1
        return None

    def _participants(self, message: dict[str, object], now: float) -> None:
        found = messages.read_participants(message)
        if found is None:
            self.unread += 1
            return
        own = str(self.node_id)
        self.registered = own in found or self.registered
        # Who was known keeps its time: a list says nothing of when somebody was last heard.
        self._present = OrderedDict((node, self._present.get(node, now)) for node in found if node != own)

    def _presence(self, message: dict[str, object], now: float) -> None:
        node_id, action = message.get("nodeId"), message.get("action")
        if not isinstance(node_id, str) or not messages.is_node_id(node_id) or node_id == str(self.node_id):
            self.unread += 1
        elif action == "join":
            self._heard(node_id, now)
        elif action == "leave":
            self._present.pop(node_id, None)
        else:
            self.unread += 1

    def _heard(self, node_id: str, now: float) -> None:
        self._present[node_id] = now
        self._present.move_to_end(node_id)
        if len(self._present) > messages.MAX_PARTICIPANTS:
            self._present.popitem(last=False)

    def _signaled(self, message: dict[str, object], now: float, wall: float) -> Event | None:
        sender, said = message.get("from"), read_payload(message.get("payload"))
        if message.get("to") != str(self.node_id) or not isinstance(sender, str) or not messages.is_node_id(sender):
            self.unread += 1
            return None
        match said:
            case Request():
                if self._answers.take(now):
                    self._signal(sender, Answer.of(said, self.record()).payload())
                return None
            case Answer():
                return self._answered(said, sender, wall)
            case Calling():
                return Called(said.sealed) if self._calls.take(now) else None
            case _:
                self.unread += 1
                return None

    def _answered(self, answer: Answer, sender: str, wall: float) -> Event | None:
        asked = self._asked.get(answer.id)
        if asked is None or str(asked) != sender:
            self.unread += 1
            return None
        if answer.record is None:
            return Resolved(answer.id, None)
        try:
            return Resolved(answer.id, verified(answer, asked, wall))
        except RecordError as exc:
            return Unusable(answer.id, str(exc))

    def _signal(self, to: str, payload: dict[str, object]) -> None:
        self._say({"type": "signal", "from": str(self.node_id), "to": to, "payload": payload})

    def _say(self, message: dict[str, object]) -> None:
        if len(self.outgoing) < MAX_OUTGOING:
            self.outgoing.append(messages.write(message))
