"""The relay's state machine, sans-IO: who is connected, what waits for whom, and who is told what.

The shell registers each connection whose key is proven, gives every message to `receive`, sends what it finds in
`RelayClient.queue`, and calls `tick` about once a second. Rules:

- A node has one active connection, the newest, which gets what still waited for the one before. An older one is told,
  gets and sends no more datagrams, and is active again if the newer one ends first; of older ones, one is kept.
- A datagram for a node that is not connected is dropped, and its sender told EndpointGone, once a second at most.
- When a node's last connection ends, those to whom it sent (the last 256) are told EndpointGone.
- Where a node is connected from is told to those to whom it has itself sent datagrams in this session, if it speaks the
  dialect that knows of this, and if its address is known for certain: so no node can have others aim at a stranger.
- Nothing waits without a bound: frames and bytes for each client, bytes in all. What does not fit is dropped, newest
  first.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator

import attrs

from tom_connect.keys import NodeId
from tom_relay.errors import WireError
from tom_relay.server.buckets import TokenBucket
from tom_relay.server.config import RelayServerConfig
from tom_relay.wire import (
    KEY_SIZE,
    MAX_PAYLOAD,
    AskAddress,
    Dialect,
    EndpointGone,
    Health,
    IPAddress,
    PeerAddress,
    PeerPresent,
    Ping,
    Pong,
    Restarting,
    SendDatagrams,
    ServerFrame,
    Status,
    StatusCode,
    decode_from_client,
    encode,
)

SENT_TO_LIMIT = 256
"""Nodes that we remember a client sent to."""
GONE_INTERVAL = 1.0
"""Seconds between two EndpointGone for one sender: what it misses is only speed."""
ADDRESS_INTERVAL = 0.5
"""Seconds for each answer about an address: it is asked for once, when a node begins to punch."""
ADDRESS_BURST = 16
"""Such answers at once before that: punching with several nodes at a time."""
CONTROL_EXTRA = 32
"""Frames of our own that still fit when a client's queue is full of datagrams."""
PEERS_SAMPLED = 8
"""Nodes that one of tom-relay-v1 is told of when it registers, as the old relay did."""
_SINGLE, _BATCH = 4, 5
_DATAGRAMS = b"\x06\x07"
"""Types of the frames in which clients get datagrams, the same in all dialects."""
_SINGLE_HEAD, _BATCH_HEAD = 1 + KEY_SIZE + 1, 1 + KEY_SIZE + 3
_REPLACED = "another connection with the same node id has taken over"
_LIMITED = "rate limited: this client sends more than the relay allows"


@attrs.define
class Traffic:
    """Packets (datagrams) and bytes (of datagrams)."""

    packets: int = 0
    bytes: int = 0


@attrs.define(eq=False)
class RelayClient:
    """One connection whose key is proven. `queue` holds the messages that wait to be sent."""

    node_id: NodeId
    dialect: Dialect
    connected_at: float
    next_ping: float
    bucket: TokenBucket
    queue: deque[bytes] = attrs.Factory(deque)
    queued_bytes: int = 0
    address: IPAddress | None = None
    """Where it is connected from; None if that is not known for certain."""
    active: bool = True
    last_heard: float = 0.0
    unanswered_since: float | None = None
    """When a ping was sent that nothing came after."""
    read_again_at: float = 0.0
    """Until when it is throttled: what it says meanwhile is not heard."""
    told_limited: bool = False
    told_gone_at: float = float("-inf")
    answers_paid_until: float = float("-inf")
    """Each answer about an address moves this on by its interval, and it may be a burst ahead."""
    sent: Traffic = attrs.Factory(Traffic)
    """What this client sent and the relay could pass on."""
    received: Traffic = attrs.Factory(Traffic)
    """What others sent to it and was queued."""
    undelivered: int = 0
    """Packets that it sent to others and were dropped."""
    sent_to: dict[bytes, None] = attrs.Factory(dict)
    earlier: RelayClient | None = None
    """The connection with the same key that this one has displaced."""
    key: bytes = attrs.field(init=False)
    _single: bytes = attrs.field(init=False)
    _batch: bytes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.key = self.node_id.raw
        self._single = b"\x06" + self.key
        self._batch = b"\x07" + self.key


@attrs.define
class Counters:
    """What happened since the start, for metrics."""

    registered: int = 0
    replaced: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    relayed: Traffic = attrs.Factory(Traffic)
    dropped: dict[str, int] = attrs.Factory(
        lambda: dict.fromkeys(("unknown_destination", "queue_full", "memory", "displaced"), 0)
    )
    """Packets, by reason."""
    throttled: int = 0
    """Messages after which a client had to wait."""
    told_limited: int = 0
    endpoint_gone: int = 0
    addresses: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(("told", "withheld", "limited"), 0))
    """Questions for a node's address, by what became of them."""
    silent: int = 0
    """Connections that answered no ping."""


class RelayHub:
    """See the module. `queued` is called with a client when something begins to wait for it; times are seconds."""

    def __init__(
        self, config: RelayServerConfig, queued: Callable[[RelayClient], None], rng: random.Random | None = None
    ) -> None:
        self.config = config
        self.counters = Counters()
        self.queued_bytes = 0
        self._queued = queued
        self._rng = rng or random.Random()
        self._total = TokenBucket(config.total_rate, config.total_burst)
        self._active: dict[bytes, RelayClient] = {}
        self._of_tom: dict[bytes, None] = {}
        self._connections = 0

    def __len__(self) -> int:
        """Connections that are registered, displaced ones included."""
        return self._connections

    def clients(self) -> Iterator[RelayClient]:
        """Every registered connection."""
        for client in self._active.values():
            yield client
            if client.earlier is not None:
                yield client.earlier

    def is_connected(self, node_id: NodeId) -> bool:
        """Whether a node is connected now."""
        return node_id.raw in self._active

    # Coming and going

    def register(
        self, node_id: NodeId, dialect: Dialect, now: float, address: IPAddress | None = None
    ) -> tuple[RelayClient, RelayClient | None]:
        """Take a connection in; returns it, and an old one of the same key to be closed now, if there are three.

        `address`: where it comes from, if that is known for certain.
        """
        client = RelayClient(
            node_id,
            dialect,
            connected_at=now,
            next_ping=now + self._ping_delay(),
            bucket=TokenBucket(self.config.client_rate, self.config.client_burst),
            last_heard=now,
            address=address,
        )
        self._connections += 1
        self.counters.registered += 1
        surplus, waiting = None, list[bytes]()
        earlier = self._active.get(client.key)
        if earlier is not None:
            self.counters.replaced += 1
            surplus, earlier.earlier = earlier.earlier, None
            earlier.active = False
            waiting = [message for message in earlier.queue if message[0] in _DATAGRAMS]
            self._drop_queue(earlier)
            if earlier.dialect.has_status:
                self._control(earlier, Status(StatusCode.SAME_ID_CONNECTED))
            else:
                self._control(earlier, Health(_REPLACED))
            client.earlier = earlier
            if surplus is not None:
                self._forget(surplus)
        self._active[client.key] = client
        for message in waiting:
            self._queue(client, message)
        self._introduce(client)
        return client, surplus

    def unregister(self, client: RelayClient) -> None:
        """Let a connection go; harmless if it has gone already."""
        current = self._active.get(client.key)
        if current is client:
            if client.earlier is not None:
                successor, client.earlier = client.earlier, None
                successor.active = True
                self._active[client.key] = successor
                if successor.dialect.has_status:
                    self._control(successor, Status(StatusCode.HEALTHY))
            else:
                del self._active[client.key]
                self._of_tom.pop(client.key, None)
                self._tell_gone(client)
        elif current is not None and current.earlier is client:
            current.earlier = None
        else:
            return
        self._forget(client)

    def _forget(self, client: RelayClient) -> None:
        client.active = False
        self._connections -= 1
        self._drop_queue(client)

    def _drop_queue(self, client: RelayClient) -> None:
        self.queued_bytes -= client.queued_bytes
        client.queued_bytes = 0
        client.queue.clear()

    def _tell_gone(self, client: RelayClient) -> None:
        for key in client.sent_to:
            peer = self._active.get(key)
            if peer is not None:
                self.counters.endpoint_gone += 1
                self._control(peer, EndpointGone(client.key))

    def _introduce(self, client: RelayClient) -> None:
        """Tell those who speak tom-relay-v1, on both sides, who is there."""
        speaks = client.dialect.has_peer_present
        candidates = self._active if speaks else self._of_tom
        if candidates and (speaks or self._of_tom):
            others = [key for key in candidates if key != client.key]
            for key in self._rng.sample(others, min(PEERS_SAMPLED, len(others))):
                other = self._active[key]
                if speaks:
                    self._control(client, PeerPresent(key))
                if other.dialect.has_peer_present:
                    self._control(other, PeerPresent(client.key))
        if speaks:
            self._of_tom[client.key] = None
        else:
            self._of_tom.pop(client.key, None)

    # Messages

    def receive(self, client: RelayClient, message: bytes, now: float) -> float:
        """Handle a client's message; returns seconds for which to read no more from it. Raises WireError."""
        client.last_heard = now
        client.unanswered_since = None
        counters = self.counters
        counters.frames_received += 1
        counters.bytes_received += len(message)
        frame_type = message[0] if message else -1
        if frame_type in (_SINGLE, _BATCH):
            self._forward(client, frame_type, message, now)
        else:
            self._other_frame(client, message, now)
        wait = client.bucket.take(len(message), now)
        if self._total.rate:
            wait = max(wait, self._total.take(len(message), now))
        if wait:
            client.read_again_at = now + wait
            self._throttle(client)
        return wait

    def _forward(self, client: RelayClient, frame_type: int, message: bytes, now: float) -> None:
        size = len(message)
        if size > MAX_PAYLOAD + 1:
            raise WireError("too-large", f"the frame has {size - 1} bytes; at most {MAX_PAYLOAD} are allowed")
        if frame_type == _SINGLE:
            if size < _SINGLE_HEAD:
                raise WireError("truncated", f"a datagram frame of {size} bytes ends within its head")
            packets, payload, head = 1, size - _SINGLE_HEAD, client._single
        else:
            segment = int.from_bytes(message[_BATCH_HEAD - 2 : _BATCH_HEAD], "big") if size >= _BATCH_HEAD else 0
            if not segment:
                raise WireError("truncated", "a datagram batch ends within its head, or has segments of no bytes")
            payload = size - _BATCH_HEAD
            packets, head = -(-payload // segment), client._batch
        if not client.active:
            self._drop(client, "displaced", packets)
            return
        key = message[1:33]
        target = self._active.get(key)
        if target is None:
            self._drop(client, "unknown_destination", packets)
            if now - client.told_gone_at >= GONE_INTERVAL:
                client.told_gone_at = now
                self.counters.endpoint_gone += 1
                self._control(client, EndpointGone(key))
            return
        if len(target.queue) >= self.config.queue_packets or target.queued_bytes + size > self.config.queue_bytes:
            self._drop(client, "queue_full", packets)
            return
        if self.queued_bytes + size > self.config.total_queue_bytes:
            self._drop(client, "memory", packets)
            return
        self._queue(target, head + message[33:])
        client.sent.packets += packets
        client.sent.bytes += payload
        target.received.packets += packets
        target.received.bytes += payload
        relayed = self.counters.relayed
        relayed.packets += packets
        relayed.bytes += payload
        if key not in client.sent_to:
            if len(client.sent_to) >= SENT_TO_LIMIT:
                del client.sent_to[next(iter(client.sent_to))]
            client.sent_to[key] = None

    def _drop(self, client: RelayClient, reason: str, packets: int) -> None:
        client.undelivered += packets
        self.counters.dropped[reason] += packets

    def _other_frame(self, client: RelayClient, message: bytes, now: float) -> None:
        match decode_from_client(message, client.dialect):
            case Ping(data):
                self._control(client, Pong(data))
            case Pong():
                pass  # that something came is what counts
            case AskAddress(key):
                self._tell_address(client, key, now)
            case SendDatagrams() as frame:  # its type was written longer than needed
                short = encode(frame, client.dialect)
                self._forward(client, short[0], short, now)
            case _:
                raise WireError("direction", "the handshake is over; no further ClientAuth is expected")

    def _tell_address(self, client: RelayClient, key: bytes, now: float) -> None:
        paid_until = max(client.answers_paid_until, now)
        if paid_until - now > (ADDRESS_BURST - 1) * ADDRESS_INTERVAL:
            self.counters.addresses["limited"] += 1
            return
        client.answers_paid_until = paid_until + ADDRESS_INTERVAL
        peer = self._active.get(key)
        # Its dialect and having sent to the asker are the peer's consent: else anyone who knows a key could learn where
        # its owner is.
        if (
            client.active
            and peer is not None
            and peer.address is not None
            and peer.dialect.has_peer_address
            and client.key in peer.sent_to
        ):
            self.counters.addresses["told"] += 1
            self._control(client, PeerAddress(key, peer.address))
        else:
            self.counters.addresses["withheld"] += 1

    def _throttle(self, client: RelayClient) -> None:
        self.counters.throttled += 1
        if not client.told_limited:
            client.told_limited = True
            self.counters.told_limited += 1
            if client.dialect.has_status:
                self._control(client, Status(StatusCode.RATE_LIMITED))
            else:
                self._control(client, Health(_LIMITED))

    def _control(self, client: RelayClient, frame: ServerFrame) -> None:
        if len(client.queue) < self.config.queue_packets + CONTROL_EXTRA:
            self._queue(client, encode(frame, client.dialect))

    def _queue(self, client: RelayClient, message: bytes) -> None:
        was_empty = not client.queue
        client.queue.append(message)
        client.queued_bytes += len(message)
        self.queued_bytes += len(message)
        if was_empty:
            self._queued(client)

    def take(self, client: RelayClient, limit: int) -> list[bytes]:
        """Remove the next messages from a client's queue: at least one if there is any, then up to `limit` bytes."""
        taken: list[bytes] = []
        size = 0
        queue = client.queue
        while queue and (not taken or size + len(queue[0]) <= limit):
            message = queue.popleft()
            size += len(message)
            taken.append(message)
        client.queued_bytes -= size
        self.queued_bytes -= size
        return taken

    # Time

    def tick(self, now: float) -> list[RelayClient]:
        """Send the pings that are due; returns the clients that did not answer in time, to be closed."""
        silent = []
        for client in self.clients():
            asked = client.unanswered_since
            if asked is not None and now - max(asked, client.read_again_at) >= self.config.ping_timeout:
                self.counters.silent += 1
                client.unanswered_since, client.next_ping = None, math.inf  # it takes a moment to go, and is told once
                silent.append(client)
            elif now >= client.next_ping:
                client.next_ping = now + self._ping_delay()
                if client.unanswered_since is None:
                    client.unanswered_since = now
                self._control(client, Ping(self._rng.randbytes(8)))
        return silent

    def _ping_delay(self) -> float:
        """The interval, up to a fifth shorter, so that clients that came together are not pinged together."""
        return self.config.ping_interval * self._rng.uniform(0.8, 1.0)

    def announce_restart(self) -> None:
        """Tell every client that the relay restarts; each is given another moment to come back."""
        base, spread = round(self.config.reconnect_in * 1000), round(self.config.reconnect_in * 500)
        for client in self.clients():
            when = base + (self._rng.randrange(spread) if spread else 0)
            self._control(client, Restarting(when, round(self.config.try_for * 1000)))
