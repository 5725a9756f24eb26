"""What of the answers to a callee's polls is a call, at which addresses it knocks for it, and when it moves."""

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.interop.rendezvous_parts.disco import Addr

KNOCKS = ((0.0, 2), (0.02, 64), (0.6, 64), (1.6, 64))
_REST = 20.0
_KNOWN_FOR = 600.0
_OF_ONE_IP = 4
_MANY, _MANY_FROM, _MANY_WITHIN = 50, 3, 30.0
_MOVES_EACH = 10.0


@dataclass
class Budget:
    """So much at once, and one more every `each` seconds."""

    most: int
    each: float
    left: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.left = self.most

    def whole(self, now: float) -> int:
        """How many may be taken now."""
        if self.at is not None:
            self.left = min(self.most, self.left + (now - self.at) / self.each)
        self.at = now
        return int(self.left)

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        if self.whole(now) < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Mailbox:
    """One mailbox; `ours` says which addresses are no calls."""

    ours: Callable[[Addr], bool]
    _known: dict[Addr, float] = field(default_factory=dict)
    _new: Budget = field(default_factory=lambda: Budget(30, 2.0))
    _all: Budget = field(default_factory=lambda: Budget(30, 2.0))
    _last: dict[str, deque[Addr]] = field(default_factory=dict)
    _of_ip: dict[str, Budget] = field(default_factory=dict)
    _knocked: dict[Addr, float] = field(default_factory=dict)
    _crowded: dict[Addr, float] = field(default_factory=dict)
    _moved: float | None = None

    def answered(self, values: list[Addr], now: float) -> list[Addr]:
        """What a node's answer names that is new; each is a call."""
        self._known = {addr: at for addr, at in self._known.items() if now - at < _KNOWN_FOR}
        new = [addr for addr in dict.fromkeys(values) if addr not in self._known and not self.ours(addr)]
        random.shuffle(new)
        of_ip = Counter(addr[0] for addr in self._known)
        ranks = {}
        for addr in new:
            ranks[addr] = of_ip[addr[0]]
            of_ip[addr[0]] += 1
        new.sort(key=ranks.__getitem__)
        new = [addr for addr in new[: -(-self._new.whole(now) // 4)] if self._new.take(now)]
        self._known.update((addr, now) for addr in [*new, *(addr for addr in values if addr in self._known)])
        return new

    def to_knock(self, new: list[Addr], now: float) -> list[Addr]:
        """At which addresses to knock for new ones, within the limits: the last of the same IP, new or known."""
        allowed = []
        for ip in dict.fromkeys(addr[0] for addr in new):
            last = self._last.setdefault(ip, deque(maxlen=_OF_ONE_IP))
            last.extend(addr for addr in new if addr[0] == ip)
            for addr in reversed(last):
                if now - self._knocked.get(addr, -_REST) < _REST:
                    continue
                if self._of_ip.setdefault(ip, Budget(12, 5.0)).take(now) and self._all.take(now):
                    self._knocked[addr] = now
                    allowed.append(addr)
        return allowed

    def flooded(self, node: Addr, values: list[Addr], now: float) -> bool:
        """Whether it is time to draw another mailbox, after what a node has answered."""
        if len(values) >= _MANY:
            self._crowded[node] = now
        self._crowded = {addr: at for addr, at in self._crowded.items() if now - at < _MANY_WITHIN}
        if len(self._crowded) < _MANY_FROM or (self._moved is not None and now - self._moved < _MOVES_EACH):
            return False
        self._moved = now
        self._crowded.clear()
        return True
