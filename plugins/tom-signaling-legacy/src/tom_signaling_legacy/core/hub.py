"""The server's state machine, sans-IO: who is registered, what waits for whom, and who is told what.

The shell opens a client for each WebSocket, gives each message to `receive`, sends what it finds in
`SignalingClient.queue`, ends clients whose `ended` is set, and calls `tick` about once a second. Rules:

- A node has one entry, of its newest registration. An older client of the same node stays connected and silent, and
  gets the entry back if the newer one ends first; only the end of the last one is a departure. (The old server let the
  end of the older one remove the newer one.) Of older ones one is kept; a further one is ended.
- `from` of a signal must be the node that its sender is registered as. (The old server did not look.)
- A message that is no JSON object is ignored, as is one of unknown type. (The old server crashed on `null`.)
- A client that has given no sign of life (a message, a pong) for 10 s is stale; after 20 s it has departed, and is
  ended.
- Nothing waits without a bound. A client whose queue is full does not read, and is ended. Of lists of participants only
  the newest waits: it says all that an older one would have said.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

import attrs

from tom_signaling_legacy.core import messages
from tom_signaling_legacy.core.exchange import Calling, read_payload
from tom_signaling_legacy.core.limits import HubLimits
from tom_signaling_legacy.core.messages import Registration
from tom_signaling_legacy.core.rates import Bucket
from tom_signaling_legacy.errors import MessageError

STALE_AFTER = 10.0
"""Seconds without a sign of life after which a node is stale: two heartbeats (5 s) were lost."""
DEPARTED_AFTER = 20.0
"""Seconds after which it has departed."""
REGISTER_WITHIN = 30.0
"""Seconds in which a client must register: it takes a place that others may want."""


class ParticipantsList:
    """Stands in a queue for the list of participants, which is written when it is sent."""


PARTICIPANTS = ParticipantsList()
Queued = str | ParticipantsList


@attrs.define(eq=False)
class SignalingClient:
    """One connection. `queue`: what waits to be sent; `ended`: why it is to be closed, None while it is not."""

    opened_at: float
    last_heard: float
    rate: Bucket
    broadcasts: Bucket
    registration: Registration | None = None
    queue: deque[Queued] = attrs.Factory(deque)
    queued_bytes: int = 0
    lists_waiting: int = 0
    ended: str | None = None
    earlier: SignalingClient | None = None
    """The client of the same node that this one has displaced."""


class SignalingHub:
    """See the module. `queued(client)` is called when something waits for a client or it is to be ended."""

    def __init__(self, limits: HubLimits, queued: Callable[[SignalingClient], None]) -> None:
        self._limits = limits
        self._tell = queued
        self._nodes: dict[str, SignalingClient] = {}
        self._clients: dict[SignalingClient, None] = {}
        self._list: str | None = None
        self.counts: Counter[str] = Counter()
        """Messages by type, "invalid" and "ignored" ones."""
        self.passed_on: Counter[str] = Counter()
        """Signals that reached a node: a "record" that nodes of ours ask for, a "call" of theirs, and "other" ones."""
        self.ended: Counter[str] = Counter()
        """Clients ended, by the reason's first word."""

    def __len__(self) -> int:
        """Registered nodes."""
        return len(self._nodes)

    @property
    def clients(self) -> int:
        """Connections, registered or not."""
        return len(self._clients)

    def is_stale(self, node_id: str, now: float) -> bool | None:
        """Whether a node has given no sign of life for a while; None if it is not registered."""
        client = self._nodes.get(node_id)
        return None if client is None else now - client.last_heard >= STALE_AFTER

    # Coming and going

    def open(self, now: float) -> SignalingClient:
        """Take a connection in."""
        limits = self._limits
        client = SignalingClient(
            now,
            now,
            Bucket(limits.message_rate, limits.message_burst),
            Bucket(limits.broadcast_rate, limits.broadcast_burst),
        )
        self._clients[client] = None
        return client

    def close(self, client: SignalingClient) -> None:
        """Let a connection go; harmless if it has gone already."""
        if client in self._clients:
            del self._clients[client]
            self._unregister(client)
            client.queue.clear()

    def heard(self, client: SignalingClient, now: float) -> float:
        """A client gave a sign of life that is no message; returns the seconds for which to read nothing from it."""
        client.last_heard = now
        return client.rate.spend(now)

    def tick(self, now: float) -> None:
        """End those that have departed, and those that don't register."""
        for client in list(self._clients):
            if now - client.last_heard >= DEPARTED_AFTER:
                self._end(client, f"silent for {DEPARTED_AFTER:g} s")
            elif client.registration is None and now - client.opened_at >= REGISTER_WITHIN:
                self._end(client, f"unregistered after {REGISTER_WITHIN:g} s")

    def _end(self, client: SignalingClient, reason: str) -> None:
        if client.ended is None:
            client.ended = reason
            client.queue.clear()
            client.queued_bytes = client.lists_waiting = 0
            self.ended[reason.partition(" ")[0]] += 1
            self._tell(client)

    def _register(self, client: SignalingClient, registration: Registration) -> None:
        current = client.registration
        if current is not None and current.node_id != registration.node_id:
            self._unregister(client)
        displaced = self._nodes.get(registration.node_id)
        if displaced is not None and displaced is not client:
            surplus, displaced.earlier = displaced.earlier, None
            if surplus is client:
                surplus = None
            client.earlier = displaced
            if surplus is not None:
                self._end(surplus, "displaced by newer registrations of its node")
        client.registration = registration
        self._nodes[registration.node_id] = client
        self._list = None
        self._broadcast(registration.presence("join"), but=client)
        self._broadcast(PARTICIPANTS)

    def _unregister(self, client: SignalingClient) -> None:
        registration, client.registration = client.registration, None
        if registration is None:
            return
        current = self._nodes.get(registration.node_id)
        if current is not client:
            if current is not None and current.earlier is client:
                current.earlier = None
            return
        self._list = None
        successor, client.earlier = client.earlier, None
        if successor is not None and successor.ended is None:
            self._nodes[registration.node_id] = successor
        else:
            del self._nodes[registration.node_id]
            self._broadcast(registration.presence("leave"))
        self._broadcast(PARTICIPANTS)

    # Messages

    def receive(self, client: SignalingClient, data: str | bytes, now: float) -> float:
        """Handle a message; returns the seconds for which to read no further one from its sender. Never raises."""
        if client.ended is not None:
            return 0.0
        client.last_heard = now
        pause = client.rate.spend(now)
        try:
            message = messages.read(data)
        except MessageError:
            self.counts["invalid"] += 1
            self._queue(client, messages.error(messages.INVALID_JSON))
            return pause
        kind = message.get("type") if isinstance(message, dict) else None
        match kind:
            case "register":
                registration = messages.read_registration(message)
                if registration is None:
                    self._queue(client, messages.error(messages.MISSING_NAME))
                else:
                    pause = max(pause, client.broadcasts.spend(now))
                    self._register(client, registration)
            case "heartbeat":
                if (node_id := self._node_of(client)) is not None:
                    pause = max(pause, client.broadcasts.spend(now))
                    self._broadcast(messages.write({"type": "heartbeat", "from": node_id}), but=client)
            case "role-assign":
                node_id, roles = self._node_of(client), messages.read_roles(message)
                if node_id is not None and roles is not None:
                    pause = max(pause, client.broadcasts.spend(now))
                    text = {"type": "role-assign", "nodeId": roles[0], "roles": roles[1], "from": node_id}
                    self._broadcast(messages.write(text))
            case "signal":
                self._signal(client, message)
            case _:
                kind = "ignored"
        self.counts[kind] += 1
        return pause

    def _node_of(self, client: SignalingClient) -> str | None:
        """The node as which a client is registered now; None also for one that a newer one has displaced."""
        registration = client.registration
        if registration is None or self._nodes.get(registration.node_id) is not client:
            return None
        return registration.node_id

    def _signal(self, client: SignalingClient, message: dict[str, object]) -> None:
        sender, to = message.get("from"), message.get("to")
        if not isinstance(sender, str) or sender != self._node_of(client) or not isinstance(to, str) or not to:
            self._queue(client, messages.error(messages.MISSING_PEER))
            return
        target = self._nodes.get(to)
        if target is None or target.ended is not None:
            self._queue(client, messages.error(messages.PEER_NOT_FOUND))
            return
        try:
            text = messages.write(message)
        except RecursionError:  # read at the last depth that can be read, and one deeper when written
            self._queue(client, messages.error(messages.INVALID_JSON))
            return
        self.passed_on[_kind(message.get("payload"))] += 1
        self._queue(target, text)

    # Queues

    def _broadcast(self, item: Queued, but: SignalingClient | None = None) -> None:
        for client in self._registered():
            if client is not but:
                self._queue(client, item)

    def _registered(self) -> Iterable[SignalingClient]:
        return list(self._nodes.values())

    def _queue(self, client: SignalingClient, item: Queued) -> None:
        if client.ended is not None:
            return
        if isinstance(item, ParticipantsList):
            client.lists_waiting += 1
        else:
            client.queued_bytes += len(item)
        client.queue.append(item)
        # An outdated list is passed over when its turn comes, and counts no more.
        waiting = len(client.queue) - max(0, client.lists_waiting - 1)
        if waiting > self._limits.queue_messages or client.queued_bytes > self._limits.queue_bytes:
            self._end(client, "slow to read what is sent to it")
            return
        if client.lists_waiting > self._limits.queue_messages:
            self._drop_outdated_lists(client)
        self._tell(client)

    def _drop_outdated_lists(self, client: SignalingClient) -> None:
        kept: deque[Queued] = deque()
        for item in client.queue:
            if isinstance(item, ParticipantsList) and client.lists_waiting > 1:
                client.lists_waiting -= 1
            else:
                kept.append(item)
        client.queue = kept

    def take(self, client: SignalingClient) -> str | None:
        """The next message for a client, None if nothing waits."""
        while client.queue:
            item = client.queue.popleft()
            if isinstance(item, str):
                client.queued_bytes -= len(item)
                return item
            client.lists_waiting -= 1
            if not client.lists_waiting:
                return self._participants()
        return None

    def _participants(self) -> str:
        if self._list is None:
            self._list = messages.participants(list(self._registrations()))
        return self._list

    def _registrations(self) -> Iterator[Registration]:
        for client in self._nodes.values():
            if client.registration is not None:
                yield client.registration


def _kind(payload: object) -> str:
    match read_payload(payload):
        case None:
            return "other"
        case Calling():
            return "call"
    return "record"
