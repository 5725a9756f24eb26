"""Two engines over a seeded bad network on a virtual clock; hours of it take milliseconds."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import attrs
from aioquic.quic import events

from tom_connect.keys import SecretKey
from tom_connect.quic.engine import Engine
from tom_connect.quic.events import HandshakeConfirmed
from tom_connect.quic.initial import parse_first_packet
from tom_connect.quic.settings import TransportSettings
from tom_connect.quic.tickets import TicketStore

ALPN = "test/1"
CLIENT_KEY = SecretKey(bytes(range(32)))
SERVER_KEY = SecretKey(bytes(range(1, 33)))
OTHER_KEY = SecretKey(bytes(range(2, 34)))


@attrs.define
class Link:
    """One direction of a path: seconds, probabilities and bytes."""

    delay: float = 0.01
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    largest: int = 65_535
    down: bool = False
    drop: Callable[[bytes], bool] = lambda _data: False
    lost: int = 0


@attrs.define
class End:
    """An engine with what its application saw."""

    engine: Engine | None = None
    log: list[Any] = attrs.field(factory=list)
    received: dict[int, bytearray] = attrs.field(factory=dict)
    finished: set[int] = attrs.field(factory=set)
    reads: bool = True
    """Whether the application takes stream data as it comes."""
    unread: int = 0
    peak_unread: int = 0
    on_event: Callable[[events.QuicEvent], None] = lambda _event: None

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.log if isinstance(event, kind)]

    @property
    def ended(self) -> bool:
        return bool(self.of(events.ConnectionTerminated))


class Network:
    """A client, a server that is made by the first packet, and the links between them."""

    def __init__(
        self,
        *,
        seed: int = 1,
        settings: TransportSettings | None = None,
        server_settings: TransportSettings | None = None,
        make_server: Callable[..., Engine] = Engine.server,
        alpns: tuple[str, ...] = (ALPN,),
        server_alpns: tuple[str, ...] = (ALPN,),
        dial: SecretKey = SERVER_KEY,
        early_data: bool = False,
        client_tickets: TicketStore | None = None,
        server_tickets: TicketStore | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.to_server = Link()
        self.to_client = Link()
        self.settings = settings or TransportSettings()
        self.server_settings = server_settings or self.settings
        self.server_alpns = server_alpns
        self.server_tickets = server_tickets
        self.make_server = make_server
        self.client = End(
            Engine.client(
                secret_key=CLIENT_KEY,
                peer=dial.node_id,
                alpns=alpns,
                settings=self.settings,
                early_data=early_data,
                ticket_store=client_tickets,
            )
        )
        self.server = End()
        self._order = itertools.count()
        self._flying: list[tuple[float, int, End, bytes]] = []

    def start(self) -> None:
        assert self.client.engine is not None
        self.client.engine.start(self.now)
        self.pump(self.client)

    def links(self, **changes: Any) -> None:
        """Change both directions."""
        for link in (self.to_server, self.to_client):
            for name, value in changes.items():
                setattr(link, name, value)

    def pump(self, end: End) -> None:
        """Take an end's events and send what it has."""
        engine = end.engine
        assert engine is not None
        for _ in range(2):
            while (event := engine.next_event()) is not None:
                self._take(end, event)
            for data in engine.send(self.now):
                self._transmit(end, data)

    def _take(self, end: End, event: events.QuicEvent) -> None:
        engine = end.engine
        assert engine is not None
        if isinstance(event, events.StreamDataReceived):
            end.received.setdefault(event.stream_id, bytearray()).extend(event.data)
            if event.end_stream:
                end.finished.add(event.stream_id)
            if end.reads:
                engine.consumed(event.stream_id, len(event.data))
            else:
                end.unread += len(event.data)
                end.peak_unread = max(end.peak_unread, end.unread)
        else:
            end.log.append(event)
        end.on_event(event)

    def _transmit(self, source: End, data: bytes) -> None:
        link, target = (self.to_server, self.server) if source is self.client else (self.to_client, self.client)
        chance = self.random.random
        if link.down or len(data) > link.largest or link.drop(data) or chance() < link.loss:
            link.lost += 1
            return
        copies = 2 if chance() < link.duplicate else 1
        for _ in range(copies):
            delay = link.delay * (1 + (3 * chance() if chance() < link.reorder else 0))
            heapq.heappush(self._flying, (self.now + delay, next(self._order), target, data))

    def run(self, until: Callable[[], bool], limit: float = 60.0) -> None:
        """Advance until the condition holds; AssertionError after `limit` virtual seconds."""
        deadline = self.now + limit
        while not until():
            if not self.step(deadline):
                raise AssertionError(f"not reached within {limit} virtual seconds")

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        deadline = self.now + seconds
        while self.step(deadline):
            pass
        self.now = deadline

    def step(self, deadline: float = float("inf")) -> bool:
        """Do the next thing that happens; False if it is later than the deadline."""
        timers = [
            (at, end)
            for end in (self.client, self.server)
            if end.engine is not None and (at := end.engine.get_timer()) is not None
        ]
        timer_at, timed = min(timers, key=lambda item: item[0], default=(float("inf"), None))
        flying_at = self._flying[0][0] if self._flying else float("inf")
        at = min(timer_at, flying_at)
        if at > deadline or at == float("inf"):
            return False
        self.now = max(self.now, at)
        if flying_at <= timer_at:
            _, _, end, data = heapq.heappop(self._flying)
            self.deliver(end, data)
        else:
            assert timed is not None and timed.engine is not None
            timed.engine.handle_timer(self.now)
            self.pump(timed)
        return True

    def deliver(self, end: End, data: bytes) -> None:
        """Hand a datagram to an end; the first makes the server."""
        if end is self.server and end.engine is None:
            first = parse_first_packet(data)
            if first is None or not first.is_initial:
                return
            end.engine = self.make_server(
                secret_key=SERVER_KEY,
                alpns=self.server_alpns,
                settings=self.server_settings,
                original_destination_connection_id=first.dcid,
                ticket_store=self.server_tickets,
            )
        if end.engine is not None:
            end.engine.receive(data, self.now)
            self.pump(end)

    @property
    def confirmed(self) -> bool:
        return bool(self.client.of(HandshakeConfirmed)) and bool(self.server.of(HandshakeConfirmed))

    def connect(self) -> tuple[Engine, Engine]:
        """Shake hands; the two engines."""
        self.start()
        self.run(lambda: self.confirmed)
        assert self.client.engine is not None and self.server.engine is not None
        return self.client.engine, self.server.engine

    def error(self, end: End) -> Exception:
        """How an end's connection was lost."""
        assert end.engine is not None and end.engine.termination is not None
        return end.engine.error(end.engine.termination)
