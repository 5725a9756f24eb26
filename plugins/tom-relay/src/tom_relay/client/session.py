"""One connection to a relay after the WebSocket is open: handshake, frames, signs of life; sans-IO."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf

import attrs

from tom_connect.keys import NodeId
from tom_relay.errors import RelayError
from tom_relay.wire import (
    AskAddress,
    ClientHandshake,
    Dialect,
    EndpointGone,
    Health,
    IPAddress,
    PeerAddress,
    Ping,
    Pong,
    ReceivedDatagrams,
    Restarting,
    Status,
    StatusCode,
    decode_from_server,
    encode,
)


@attrs.frozen
class SignsOfLife:
    """When an idle relay is asked whether it lives: seconds between pings, and for an answer."""

    every: float
    timeout: float


USUAL = SignsOfLife(14.0, 5.0)
"""A dead relay is found within 20 s."""
VOLUNTEER = SignsOfLife(5.0, 2.0)
"""A volunteer may go without a word: it is found out within 7 s."""
ASK_AFTER = 0.9
"""Seconds without a word from the relay after datagrams were sent until it is asked whether it lives."""
TRAFFIC_TIMEOUT = 0.9
"""Seconds for the answer then: together less than 2 s, longer than any path to a relay worth having."""
DOUBT_AFTER = (0.3, 1.5)
"""Seconds without an answer after which the relay may be dead, at least, under traffic and idle; three round trips
where they take longer. A relay that stalls for a second is not to be connected to anew by all idle clients at once."""
MAX_QUESTIONS = 32
"""Questions for addresses that may be open: the oldest is forgotten."""
LATE = 0.2
"""Seconds by which a timer may be late: after a stall of our own what has arrived is read before anything is judged."""


class RelayLostError(RelayError):
    """A relay does not answer any more."""


@attrs.frozen
class Registered:
    """The handshake is done; datagrams pass from now on."""


@attrs.frozen
class Told:
    """The relay says something about our connection: `problem` in words, None: all is well again."""

    problem: str | None


@attrs.frozen
class Gone:
    """The node `key` is not connected to the relay."""

    key: bytes


@attrs.frozen
class Attested:
    """The relay says from which IP address the node `key` is connected to it, as we asked."""

    key: bytes
    address: str


Event = Registered | Told | Gone | Attested | ReceivedDatagrams | Restarting

_STATUS = {
    StatusCode.HEALTHY: None,
    StatusCode.SAME_ID_CONNECTED: "another program with our node id is connected to it",
    StatusCode.RATE_LIMITED: "it limits our rate",
}


class RelaySession:
    """The client's side of one connection. After each call send what is in `outbox`, before any datagrams.

    `sign` signs the 32 bytes that the handshake asks for; `proven`: it asks for nothing, since the connection itself
    has proven both keys; `now` is in seconds of any clock that only grows.
    """

    def __init__(
        self,
        dialect: Dialect,
        node_id: NodeId,
        sign: Callable[[bytes], bytes],
        now: float,
        *,
        proven: bool = False,
        signs_of_life: SignsOfLife = USUAL,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.dialect = dialect
        self.outbox: list[bytes] = []
        self.rtt: float | None = None
        """Seconds to the relay and back: the least of the last few pings."""
        self._handshake = ClientHandshake(dialect, node_id, sign, proven=proven)
        self._random = random
        self._life = signs_of_life
        self._next_ping = inf
        self._deadline = inf
        self._doubt_at = inf
        self.doubtful = False
        """Whether the relay is late with an answer, or the network has changed since it last gave one."""
        self._pinged: tuple[bytes, float] | None = None
        self._unanswered_since: float | None = None
        self._samples: list[float] = []
        self._questions: dict[bytes, None] = {}

    @property
    def registered(self) -> bool:
        """Whether the handshake is done."""
        return self._handshake.done

    def receive(self, message: bytes, now: float) -> Event | None:
        """Take a message; raises WireError for a breach of the protocol, RelayDeniedError if we are refused."""
        if not self.registered:
            answer = self._handshake.receive(message)
            if answer is not None:
                self.outbox.append(answer)
            return self._registered(now)
        self._deadline = self._doubt_at = inf
        self.doubtful = False
        self._unanswered_since = None
        self._next_ping = now + self._life.every
        frame = decode_from_server(message, self.dialect)
        match frame:
            case ReceivedDatagrams() | Restarting():
                return frame
            case Ping(data):
                self.outbox.append(encode(Pong(data), self.dialect))
            case Pong(data):
                self._pong(data, now)
            case EndpointGone(key):
                return Gone(key)
            case PeerAddress(key, address):
                return self._attested(key, address)
            case Health(problem):
                return Told(problem[:200] or None)
            case Status(code):
                return Told(_STATUS.get(StatusCode(code)) if code in set(StatusCode) else f"status {code}")
        return None

    def _registered(self, now: float) -> Registered | None:
        if not self.registered:
            return None
        self._ping(now, self._life.timeout)
        return Registered()

    def _pong(self, data: bytes, now: float) -> None:
        if self._pinged is not None and self._pinged[0] == data:
            self._samples = [*self._samples, now - self._pinged[1]][-4:]
            self.rtt = min(self._samples)
            self._pinged = None

    def _attested(self, key: bytes, address: IPAddress) -> Attested | None:
        if key not in self._questions:
            return None
        del self._questions[key]
        return Attested(key, str(address))

    def ask_address(self, key: bytes) -> None:
        """Ask from where the node `key` is connected; nothing if the dialect has no such question or too many wait."""
        if not self.registered or not self.dialect.has_peer_address or len(self.outbox) >= MAX_QUESTIONS:
            return
        self._questions.pop(key, None)
        if len(self._questions) >= MAX_QUESTIONS:
            del self._questions[next(iter(self._questions))]
        self._questions[key] = None
        self.outbox.append(encode(AskAddress(key), self.dialect))

    def sent(self, now: float) -> None:
        """Datagrams were sent."""
        if self._unanswered_since is None:
            self._unanswered_since = now
            self._next_ping = min(self._next_ping, now + ASK_AFTER)

    def check(self, now: float) -> None:
        """The network has changed: ask for a sign of life at once, and doubt until there is one."""
        if self._handshake.done:
            self.doubtful = True
            if self._deadline > now + TRAFFIC_TIMEOUT:
                self._ping(now, TRAFFIC_TIMEOUT)

    def next_due(self) -> float:
        """When `tick` is wanted next."""
        return min(self._next_ping, self._deadline, self._doubt_at)

    def tick(self, now: float) -> None:
        """Send a ping that is due; raises RelayLostError if the last one was not answered in time."""
        if now >= self._deadline:
            if now - self._deadline > LATE:
                self._deadline = now + LATE
                return
            raise RelayLostError("it does not answer any more")
        if now >= self._doubt_at:
            late = now - self._doubt_at > LATE
            self._doubt_at = now + LATE if late else inf
            self.doubtful = not late
        if now >= self._next_ping:
            self._ping(now, self._life.timeout if self._unanswered_since is None else TRAFFIC_TIMEOUT)

    def _ping(self, now: float, timeout: float) -> None:
        data = self._random(8)
        self._pinged = (data, now)
        patience = DOUBT_AFTER[self._unanswered_since is None and timeout == self._life.timeout]
        self._deadline = min(self._deadline, now + timeout)
        self._doubt_at = min(self._doubt_at, now + max(patience, 3 * (self.rtt or 0.0)))
        self._next_ping = now + self._life.every
        self.outbox.append(encode(Ping(data), self.dialect))
