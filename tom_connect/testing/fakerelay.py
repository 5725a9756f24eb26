"""A relay of a simulated network: hosts reach it by something like TCP, and it passes datagrams between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tom_connect.addr import RelayUrl
from tom_connect.keys import NodeId
from tom_connect.testing.fakenet import FakeNet, Host, Link, Router

HANDSHAKE_TRIPS: Final = 3
"""Round trips until a connection carries datagrams: TCP, TLS 1.3, the relay's own."""
DEAD_AFTER: Final = 1.0
"""Seconds after a send on a connection that is dead and does not know it until another one is tried."""
RETRY: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts to connect; from the start again when the network has changed."""
WANTED: Final = 10.0
"""Seconds after a send in which no attempt waits longer than a second."""
RETRANSMISSION: Final = 0.2
"""Seconds that a lost packet delays all that follow it."""
QUEUE: Final = 64
"""Datagrams that wait for a connection; the oldest are dropped."""

RelayReceiver = Callable[[NodeId, bytes], None]


class FakeRelay:
    """A relay on a public host. `url` names it."""

    def __init__(self, net: FakeNet, name: str = "relay", link: Link | None = None) -> None:
        self.net = net
        self.host = net.host(name, link=link)
        self.url = RelayUrl.parse(f"https://{name}.test/")
        self.up = True
        self.generation = 0
        self.members: dict[NodeId, RelayClient] = {}
        self.passed = 0
        """Datagrams passed on so far."""
        net.relays[name] = self

    def kill(self) -> None:
        """Stop: every connection ends, and those who have one are told (RST)."""
        self.up = False
        self.generation += 1
        members, self.members = self.members, {}
        for client in members.values():
            client.broken()

    def restart(self) -> None:
        """Run again."""
        self.up = True

    def client(self, host: Host, node_id: NodeId, receive: RelayReceiver) -> RelayClient:
        """A connection of a host's, kept up from now on."""
        return RelayClient(self, host, node_id, receive)


class RelayClient:
    """What a host has of a relay: `send(to, data)`, and its receiver gets `(sender, data)`.

    Nothing is lost on a connection that lives: loss makes delay. When the way to the relay is another one (a move, a
    new address, a NAT that forgot), the connection is dead, which shows only when something is sent.
    """

    def __init__(self, relay: FakeRelay, host: Host, node_id: NodeId, receive: RelayReceiver) -> None:
        self.relay = relay
        self.host = host
        self.node_id = node_id
        self.connected = False
        self.closed = False
        self._receive = receive
        self._net = relay.net
        self._clock = relay.net.clock
        self._way: object = None
        self._tries = 0
        self._last_sent = float("-inf")
        self._suspect = False
        self._queue: list[tuple[NodeId, bytes]] = []
        self._up_at = self._down_at = 0.0
        self._retry = host.timer(self._connect)
        self._connect()

    def send(self, to: NodeId, data: bytes) -> None:
        """Send a datagram to a node that is connected to the same relay."""
        self._last_sent = self._clock.now
        if not self.connected:
            self._queue = [*self._queue[1 - QUEUE :], (to, data)]
            if self._retry.when is not None and self._retry.when > self.host.now() + 1.0:
                self._retry.set(self.host.now() + 1.0)
            return
        if not self.works():
            self._queue = [*self._queue[1 - QUEUE :], (to, data)]
            self._suspicious()
            return
        self._up_at = max(self._up_at, self._clock.now + self._travel())
        self._clock.at(self._up_at, self._at_relay, self.relay.generation, to, data)

    def works(self) -> bool:
        """Whether what is sent now gets to the relay: it is connected, and its connection is not dead unnoticed."""
        return self.connected and self._way == self._present_way()

    def network_changed(self) -> None:
        """The host noticed that its network is another one: find out at once whether the connection lives."""
        self._tries = 0
        if not self.connected:
            self._retry.set(self.host.now())
        elif not self.works():
            self._suspicious(DEAD_AFTER / 4)

    def close(self) -> None:
        """End it."""
        self.closed = True
        self._leave()
        self._retry.set(None)

    def broken(self) -> None:
        """The relay or the network said that the connection has ended."""
        if self.connected:
            self.connected = False
            self._tries = 0
            self._retry.set(self.host.now() + RETRY[0])

    # --- the way there ----------------------------------------------------------------------------------------

    def _places(self) -> list[Host | Router]:
        return [self.host, *self.host.routers(), self.relay.host]

    def _present_way(self) -> object:
        """What a TCP connection depends on; None where there is no way now."""
        if not self.relay.up or self.host.asleep or (self.host.v4 is None and self.host.v6 is None):
            return None
        if not all(place.link.up and place.link.outward and place.link.inward for place in self._places()):
            return None
        routers = self.host.routers()
        return (self.relay.generation, self.host.v4, self.host.v6, *((r.name, r.wan, r.generation) for r in routers))

    def _travel(self) -> float:
        """Seconds one way, with what loss costs."""
        rng, seconds = self._net.rng, self._net.core_delay
        for place in self._places():
            link = place.link
            seconds += link.delay + (rng.random() * link.jitter if link.jitter else 0.0)
            while link.loss and rng.random() < min(link.loss, 0.9):
                seconds += RETRANSMISSION
        return seconds

    def _suspicious(self, after: float = DEAD_AFTER) -> None:
        if not self._suspect:
            self._suspect = True
            self._retry.set(self.host.now() + after)

    def _connect(self) -> None:
        if self.closed:
            return
        self._suspect = False
        if self.works():
            self._flush()
            return
        self._leave()
        way = self._present_way()
        if way is None:
            longest = 2 if self._clock.now - self._last_sent < WANTED else len(RETRY) - 1
            self._tries = min(self._tries + 1, longest)
            self._retry.set(self.host.now() + RETRY[self._tries])
            return
        trip = sum(self._travel() for _ in range(2 * HANDSHAKE_TRIPS))
        self._clock.at(self._clock.now + trip, self._established, way)

    def _established(self, way: object) -> None:
        if self.closed:
            return
        if way != self._present_way():
            self._retry.set(self.host.now() + RETRY[0])
            return
        self._way, self.connected, self._tries = way, True, 0
        self._up_at = self._down_at = self._clock.now
        self.relay.members[self.node_id] = self
        self._flush()

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        for to, data in queue:
            self.send(to, data)

    def _leave(self) -> None:
        self.connected = False
        if self.relay.members.get(self.node_id) is self:
            del self.relay.members[self.node_id]

    def _at_relay(self, generation: int, to: NodeId, data: bytes) -> None:
        if generation == self.relay.generation and self.relay.up:
            other = self.relay.members.get(to)
            if other is not None and other is not self:
                self.relay.passed += 1
                other.passed_on(self.node_id, data)

    def passed_on(self, sender: NodeId, data: bytes) -> None:
        """The relay has a datagram for us."""
        if self.connected:
            self._down_at = max(self._down_at, self._clock.now + self._travel())
            self._clock.at(self._down_at, self._arrived, self._way, sender, data)

    def _arrived(self, way: object, sender: NodeId, data: bytes) -> None:
        if not self.closed and self.connected and way == self._present_way():
            self._receive(sender, data)
