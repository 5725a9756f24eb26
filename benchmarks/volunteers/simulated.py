"""The search for volunteers, as it is in the plugin, in a world of which only the trials are made up; virtual time.

What a trial of an address takes and comes to depends on who is there; all else (which topics and addresses are looked
at, in what order, how many at once, who is taken, tested again and replaced) is the plugin's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import selectors
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar
from unittest import mock

import attrs

from tom_connect.abc import TopicDirectory
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.keys import NodeId, SecretKey
from tom_connect.testing.plugincontext import plugin_context
from tom_relay.client.volunteers import seeker
from tom_relay.client.volunteers.candidates import Candidates
from tom_relay.client.volunteers.seeker import VolunteerSeeker
from tom_relay.client.volunteers.trial import DIAL_TIMEOUT, TEST_TIMEOUT, Tested, TrialError

T = TypeVar("T")
LOOK_UP = 0.4
"""Seconds in which a topic's addresses come, one part after the other."""
RTT = 0.05


class _Jumping(selectors.DefaultSelector):
    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.loop.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its time jumps to what is due next where nothing else is to be done, so that hours cost nothing."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.loop = self
        self.now = 1000.0
        super().__init__(selector)

    def time(self) -> float:
        """Seconds."""
        return self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run it now: while a thread works the time would jump."""
        done = self.create_future()
        done.set_result(func(*args))
        return done


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run something on a loop with virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


class Clock:
    """That of a loop with virtual time."""

    def monotonic(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """In November 2023."""
        return 1_700_000_000.0 + self.monotonic()


@attrs.define(eq=False)
class Volunteer:
    """Who is at an address. `tested`: passes a trial; `passes`: passes on what strangers send us, once it is in use;
    `slow`: seconds for which it keeps what it passes on.
    """

    addr: SocketAddr
    tested: bool = True
    passes: bool = True
    rtt: float = RTT
    slow: float = 0.0
    url: RelayUrl = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.url = RelayUrl.of_node(SecretKey.generate().node_id, self.addr)


@attrs.define(eq=False)
class Connection:
    """A connection to a volunteer that is in use."""

    connected: bool = False
    leaves: bool = False
    rtt: float | None = None
    received: int = 0

    def ask_for_life(self) -> None:
        """It answers."""


class User:
    """The relay transport, as the search sees it."""

    def __init__(self, world: World) -> None:
        self.node_id: NodeId = SecretKey.generate().node_id
        self.in_use: dict[RelayUrl, Connection] = {}
        self._world = world

    def use(self, url: RelayUrl) -> Connection:
        """Connect within two round trips."""
        connection = self.in_use[url] = Connection()
        loop = asyncio.get_running_loop()
        loop.call_later(2 * self._world.at(url).rtt, setattr, connection, "connected", True)
        self._world.moved.set()
        return connection

    def leave(self, url: RelayUrl) -> None:
        """Forget it."""
        del self.in_use[url]
        self._world.moved.set()

    def expect(self, sender: NodeId, arrived: object) -> None:
        """Nothing is sent here."""


class _Seeker(VolunteerSeeker):
    world: World

    async def _passes(self, url: RelayUrl) -> bool:
        volunteer = self.world.at(url)
        self.world.tests.append((asyncio.get_running_loop().time(), url))
        passes = volunteer.passes and volunteer.slow < seeker.CHECK_TIMEOUT
        await asyncio.sleep(5 * volunteer.rtt + volunteer.slow if passes else seeker.CHECK_TIMEOUT)
        return passes


class World(TopicDirectory):
    """Volunteers, dead addresses, and a directory that names them under every topic; at most `named` of them."""

    def __init__(
        self, volunteers: Sequence[Volunteer], dead: Sequence[SocketAddr] = (), *, seed: int = 0, named: int = 300
    ) -> None:
        self.volunteers = list(volunteers)
        self.tests: list[tuple[float, RelayUrl]] = []
        """Tests of those in use: when, and of whom."""
        self.moved = asyncio.Event()
        self.user = User(self)
        self._dead = list(dead)
        self._named = named
        self._rng = random.Random(seed)

    async def announce(self, topic: bytes, port: int | None = None) -> int:
        """Nobody announces anything here."""
        return 0

    async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        """Some of all addresses, as nodes of the DHT name them."""
        addrs = [*(one.addr for one in self.volunteers), *self._dead]
        chosen = self._rng.sample(addrs, min(self._named, len(addrs)))
        for number, addr in enumerate(chosen):
            if number % 50 == 0:
                await asyncio.sleep(LOOK_UP / max(1, len(chosen) // 50))
            yield addr

    def at(self, where: SocketAddr | RelayUrl) -> Volunteer:
        """The volunteer with an address or URL; raises LookupError."""
        for one in self.volunteers:
            if where in (one.addr, one.url):
                return one
        raise LookupError(where)

    async def _trial(self, _connections: object, addr: SocketAddr, *, patience: float = 1.0) -> Tested:
        try:
            volunteer = self.at(addr)
        except LookupError:
            await asyncio.sleep(patience * DIAL_TIMEOUT)
            raise TrialError("nobody answers") from None
        tested = volunteer.tested and volunteer.slow < patience * TEST_TIMEOUT
        await asyncio.sleep(3 * volunteer.rtt + volunteer.slow if tested else patience * TEST_TIMEOUT)
        if not tested:
            raise TrialError("it passes nothing on")
        return Tested(volunteer.url, volunteer.rtt)

    @contextlib.asynccontextmanager
    async def seeking(
        self, *, defended: bool = True, data_dir: pathlib.Path | None = None
    ) -> AsyncIterator[VolunteerSeeker]:
        """Run a search. `defended`: False takes as many addresses of one host and network as are named."""
        ctx = attrs.evolve(
            plugin_context(clock=Clock(), allow_local=False, data_dir=data_dir),
            connections=mock.Mock(),
            directories=lambda: [self],
        )
        with mock.patch.object(seeker, "volunteer_at", self._trial):
            made = _Seeker(ctx, self.user, always=True, rng=random.Random(self._rng.random()))
            made.world = self
            made._candidates = Candidates(self._rng, spread=defended)
            running = asyncio.create_task(made.run(ctx.clock.monotonic()))
            try:
                yield made
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def until(self, honest: int, within: float = 600.0) -> float:
        """The loop's time at which so many volunteers that pass packets on are in use."""
        async with asyncio.timeout(within):
            while sum(self.at(url).passes and self.at(url).tested for url in self.user.in_use) < honest:
                self.moved.clear()
                await self.moved.wait()
        return asyncio.get_running_loop().time()
