"""Keeps two volunteers where a node has no relay: finds, tests, takes and replaces them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import pathlib
import random
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import attrs

from tom_connect.abc import DirectConnections, PluginContext, TopicDirectory
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import TomError
from tom_connect.keys import NodeId
from tom_relay.client.volunteers.book import MAX_FILE, VolunteerBook
from tom_relay.client.volunteers.candidates import Candidates
from tom_relay.client.volunteers.topicwalk import TopicWalk
from tom_relay.client.volunteers.trial import Stranger, Tested, random_payloads, stranger_at, volunteer_at
from tom_relay.volunteer.topics import Crowd, network_of

WANTED: Final = 2
"""Volunteers at once: the home relay, and one that takes its place at once."""
ENOUGH: Final = 5
"""Tested volunteers from which those are chosen."""
CHOICE_FOR: Final = 1.0
"""Seconds after the first that works in which others may turn out to be nearer."""
PARALLEL: Final = 16
"""Addresses that are tried at once: at most 16 times 3,600 bytes go to strangers within a dial's time-out."""
PACE: Final = 0.05
"""Seconds between the first two trials and each further one: where most volunteers work, few are bothered."""
SETTLE: Final = 1.5
"""Seconds after the start in which the network's report may show that strangers reach us, so that we need no relay."""
TICK: Final = 0.5
DISTRUST: Final = 60.0
"""Seconds after one was found out to pass nothing on in which nobody is preferred for being near, and twice as many are
used: who has many liars puts them near, and each takes a few seconds to be found out."""
LOST_AFTER: Final = 2.0
"""Seconds without a connection after which a volunteer is given up."""
GIVE_UP_CONNECTING: Final = 4.0
"""Seconds that one has to take us in, after it was tested."""
CHECKS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 240.0)
"""Seconds from one test of a volunteer that is in use to the next, up to a third earlier: one that lies once it is
trusted is found out about as long after that as it has served, one that has served for long costs little. The last
stays; before it is over only who calls by other means can tell that something is wrong (`suspect`)."""
CHECK_TIMEOUT: Final = 2.0
"""Seconds for each of two tests in a row: longer than a sign of life may take, which is asked for when each begins."""
SUSPECT_AGAIN: Final = 20.0
"""Seconds from one test for a call by other means to the next: anybody can leave such calls, and a test is ten
kilobytes."""
WITNESSES: Final = 3
"""Networks from which nodes have called whom a volunteer did not bring, until it counts as one that passes on its tests
alone, which come from our own address: one caller may have no way to it, or want us elsewhere."""
MISSED_FOR: Final = 86_400.0
"""Seconds for which such a call counts."""
KNOWN_AFTER: Final = 60.0
"""Seconds of use before it does: callers may have read a record that does not name the volunteer yet."""
DOUBT_AGAIN: Final = 600.0
"""Seconds from one volunteer that is left for what callers say to the next: whoever has addresses in enough networks
can drive a node from one to another, and no faster than that."""
FIRST_RETRY: Final = 2.0
LAST_RETRY: Final = 300.0
LAST_RETRY_KNOWN: Final = 30.0
"""Seconds before a search that did not find two is begun again, doubled each time; the last ones where none was ever
found, and where some are known, which come back when our network does."""
UNWANTED_FOR: Final = 30.0
"""Seconds for which strangers must have reached us before volunteers are left."""
MOST_PATIENCE: Final = 4.0
"""Times the usual seconds for a test, doubled after each search that finds nobody: if not even one works, our machine
or network may be slow, and the next search comes ever later."""
LOOK_UP_TIMEOUT: Final = 15.0
SAVE_EVERY: Final = 60.0
FILE: Final = "volunteers.json"


class Used(Protocol):
    """A connection to a volunteer that is in use."""

    @property
    def connected(self) -> bool:
        """Whether datagrams pass."""

    @property
    def leaves(self) -> bool:
        """Whether it has said itself that it goes away."""

    def ask_for_life(self) -> None:
        """Find out at once whether it lives."""

    rtt: float | None
    received: int
    """Bytes that came through it."""


class RelayUser(Protocol):
    """Who uses the volunteers: the relay transport."""

    node_id: NodeId

    def use(self, url: RelayUrl) -> Used:
        """Connect to a volunteer and keep it."""

    def leave(self, url: RelayUrl) -> None:
        """Let a volunteer go."""

    def expect(self, sender: NodeId, arrived: asyncio.Queue[bytes] | None) -> None:
        """Put datagrams of a sender into a queue, None: no longer."""


@attrs.define
class _InUse:
    connection: Used
    since: float
    check_at: float
    at: float
    received: int = 0
    lost_at: float | None = None
    was_connected: bool = False
    failures: int = 0
    passed: int = 0
    suspected: bool = False
    suspected_at: float = -math.inf
    """When a suspicion was last followed."""
    missed: dict[str, float] = attrs.field(factory=dict)
    """Networks of callers that it did not bring, and when."""
    doubted: bool = False
    """Callers have shown that it is of no use; it is kept until there is another."""
    check: asyncio.Task[bool] | None = None


class VolunteerSeeker:
    """Runs beside the transport. `always`: also where strangers reach us."""

    def __init__(self, ctx: PluginContext, user: RelayUser, *, always: bool, rng: random.Random | None = None) -> None:
        assert ctx.connections is not None
        self.problem: str | None = None
        """Why there are no volunteers, None while there are or none are wanted."""
        self.tried = 0
        """Addresses that were tried."""
        self._ctx = ctx
        self._connections: DirectConnections = ctx.connections
        self._user = user
        self._always = always
        self._rng = rng or random.Random()
        self._candidates = Candidates(self._rng, spread=not ctx.allow_local)
        self._path: pathlib.Path | None = None if ctx.data_dir is None else ctx.data_dir / FILE
        self.book = VolunteerBook()
        self._used: dict[RelayUrl, _InUse] = {}
        self._search: asyncio.Task[None] | None = None
        self._search_at = 0.0
        self._retry = FIRST_RETRY
        self._patience = 1.0
        self._candidates_seen = 0
        self._wanted_at = -UNWANTED_FOR
        self._suspected = asyncio.Event()
        self._lied_at = -math.inf
        self._doubt_at = -math.inf

    @property
    def used(self) -> Sequence[RelayUrl]:
        """The volunteers in use."""
        return tuple(self._used)

    def network_changed(self) -> None:
        """Search at once if something is missing."""
        self._search_at, self._retry = 0.0, FIRST_RETRY

    def suspect(self) -> None:
        """Somebody could not reach us through any of them, it seems: test them all."""
        for used in self._used.values():
            used.suspected = True
        self._suspected.set()

    def missed(self, url: RelayUrl, caller: str) -> None:
        """Nothing of a node that called from this IP address came through a volunteer, whatever our tests say."""
        used, now = self._used.get(url), self._ctx.clock.monotonic()
        if used is None or now - used.since < KNOWN_AFTER:
            return
        used.missed[network_of(SocketAddr(caller, 0))] = now
        while len(used.missed) > WITNESSES:
            del used.missed[min(used.missed, key=lambda network: used.missed[network])]
        self._suspected.set()

    # Running

    async def run(self, since: float) -> None:
        """Keep volunteers until cancelled; `since`: when the endpoint started, in seconds of its clock."""
        now = self._ctx.clock.monotonic
        self.book = VolunteerBook.load(await asyncio.to_thread(_read, self._path))
        await asyncio.sleep(max(0.0, since + SETTLE - now()))
        save_at = now() + SAVE_EVERY
        try:
            while True:
                self._look(now())
                if now() >= save_at:
                    save_at = now() + SAVE_EVERY
                    if self.book.changed:
                        await asyncio.to_thread(self._write, self.book.dump())
                self._suspected.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._suspected.wait()
        finally:
            tasks = [used.check for used in self._used.values() if used.check is not None]
            tasks += [self._search] if self._search is not None else []  # type: ignore[list-item]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._account(now())
            if self.book.changed:
                self._write(self.book.dump())

    @property
    def wanted(self) -> bool:
        """Whether volunteers are needed: strangers don't reach us."""
        reachable = self._ctx.reachability
        return self._always or reachable is None or not reachable.value.addrs

    def _look(self, now: float) -> None:
        self._account(now)
        if self._search is not None and self._search.done():
            if (error := self._search.exception()) is not None:
                self._ctx.logger.error("the search for volunteer relays failed", exc_info=error)
            self._search = None
        if self.wanted:
            self._wanted_at = now
        elif now - self._wanted_at > UNWANTED_FOR:
            for url in list(self._used):
                self._leave(url)
            return
        for url, used in list(self._used.items()):
            self._judge(url, used, now)
            self._doubt(used, now)
        self._leave_surplus()
        if self._sound < self._goal and self._search is None and now >= self._search_at:
            self._search_at = now + self._retry * self._rng.uniform(0.8, 1.2)
            self._retry = min(2 * self._retry, LAST_RETRY if len(self.book) == 0 else LAST_RETRY_KNOWN)
            self._search = asyncio.create_task(self._find(), name="looking for volunteer relays")

    @property
    def _sound(self) -> int:
        """Those in use that have not just failed a test: others are sought while those are tested again.

        Nor do those count that are doubted.
        """
        return sum(not used.failures and not used.doubted for used in self._used.values())

    def _doubt(self, used: _InUse, now: float) -> None:
        """Have others sought for a volunteer that callers did not come through."""
        used.missed = {network: at for network, at in used.missed.items() if now - at < MISSED_FOR}
        if not used.missed:
            used.doubted = False
        elif not used.doubted and len(used.missed) >= WITNESSES and now - self._doubt_at >= DOUBT_AGAIN:
            used.doubted = True
            self._doubt_at = self._lied_at = self._search_at = now
            self._retry = FIRST_RETRY

    def _leave_surplus(self) -> None:
        """Who failed one test and passed the next is kept, and who came for its place is not needed.

        Who is doubted is left once others are there: if calls lie, that has cost nothing but a search.
        """
        for url in [url for url, used in self._used.items() if used.doubted and self._sound >= WANTED]:
            self._give_up(url, f"calls from {WITNESSES} networks did not come through it", blame=True)
        if self._sound == len(self._used) and self._search is None:
            for url in sorted(self._used, key=lambda url: self._used[url].since)[self._goal :]:
                self._leave(url)

    @property
    def _goal(self) -> int:
        """How many are to be used now."""
        return 2 * WANTED if self._ctx.clock.monotonic() - self._lied_at < DISTRUST else WANTED

    def _account(self, now: float) -> None:
        wall = self._ctx.clock.wall()
        for url, used in self._used.items():
            connection = used.connection
            if connection.connected:
                received = connection.received - used.received
                self.book.served(url, now - used.at, received, connection.rtt, wall)
                used.received = connection.received
            used.at = now

    def _judge(self, url: RelayUrl, used: _InUse, now: float) -> None:
        if used.connection.connected:
            used.was_connected, used.lost_at = True, None
        elif used.lost_at is None:
            used.lost_at = now
            # Whose fault it is shows by whether the others still answer.
            for other in self._used.values():
                other.connection.ask_for_life()
        elif now - used.lost_at >= (LOST_AFTER if used.was_connected else GIVE_UP_CONNECTING):
            self._give_up(url, "it is gone", blame=not used.connection.leaves)
            return
        if used.check is not None and used.check.done():
            passed = used.check.exception() is None and used.check.result()
            used.check = None
            used.failures = 0 if passed else used.failures + 1
            used.passed += passed
            if used.failures == 1:
                self._search_at, self._retry = now, FIRST_RETRY
            pause = CHECKS[min(used.passed, len(CHECKS) - 1)] * self._rng.uniform(0.7, 1.0)
            used.check_at = now + (pause if passed else 0.0)
            if used.failures >= 2 and used.connection.connected:
                self._lied_at = now
                self._give_up(url, "it does not pass on what others send us", blame=True)
                return
        suspected = used.suspected and now >= used.suspected_at + SUSPECT_AGAIN
        if used.check is None and used.connection.connected and (suspected or now >= used.check_at):
            if suspected:
                used.suspected, used.suspected_at = False, now
            # Perhaps the way is gone altogether, which is another matter and known before the test is over.
            used.connection.ask_for_life()
            used.check = asyncio.create_task(self._passes(url), name=f"testing relay {url}")

    def _give_up(self, url: RelayUrl, why: str, *, blame: bool) -> None:
        self._ctx.logger.info("volunteer relay %s is given up: %s", url, why)
        # Where nobody is reached any more the fault is our own network's, most likely.
        if any(used.connection.connected for used in self._used.values()):
            if blame:
                self.book.failed(url)
            if url.node_addr is not None:
                self._candidates.failed(url.node_addr, self._ctx.clock.monotonic())
        self._leave(url)
        self._search_at, self._retry = 0.0, FIRST_RETRY

    def _leave(self, url: RelayUrl) -> None:
        used = self._used.pop(url)
        if used.check is not None:
            used.check.cancel()
        self._user.leave(url)

    def _use(self, found: Tested) -> None:
        now = self._ctx.clock.monotonic()
        entry = self.book.of(found.url)
        entry.rtt, entry.seen = found.rtt, self._ctx.clock.wall()
        self._used[found.url] = _InUse(self._user.use(found.url), now, now + CHECKS[0], now)
        self.problem = None

    # Testing those in use

    async def _passes(self, url: RelayUrl) -> bool:
        """Whether a volunteer brings us what a node that it does not know sends us."""
        try:
            async with stranger_at(self._connections, url) as stranger:
                return await self._arrives(stranger)
        except TomError:
            return False

    async def _arrives(self, stranger: Stranger) -> bool:
        arrived: asyncio.Queue[bytes] = asyncio.Queue(maxsize=64)
        payloads = random_payloads()
        missing = set(payloads)
        self._user.expect(stranger.key, arrived)
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await stranger.send(self._user.node_id, payloads)
                while len(missing) > 1:
                    missing.discard(await arrived.get())
            return True
        except TimeoutError:
            return False
        finally:
            self._user.expect(stranger.key, None)

    # Finding

    async def _find(self) -> None:
        """Search until enough are tested, or there is nobody left to try."""
        found: list[Tested] = []
        self._candidates.begin()
        known = self.book.best(self._ctx.clock.wall(), [url.node_id for url in self._used])
        # Those that served before are tried before anybody is asked, so that a restart needs no look-up.
        now = self._ctx.clock.monotonic()
        before = [
            addr
            for url in known[:PARALLEL]
            if (addr := url.node_addr) is not None and not self._candidates.has_failed(addr, now)
        ]
        failed: list[SocketAddr] = []
        feeder = asyncio.create_task(self._feed(), name="looking up volunteer relays")
        trials: dict[asyncio.Task[Tested], SocketAddr] = {}
        first_at: float | None = None
        clock = self._ctx.clock.monotonic
        next_at = clock()
        try:
            while True:
                while (
                    len(trials) < PARALLEL
                    and clock() >= next_at
                    and (addr := before.pop(0) if before else self._candidates.take())
                ):
                    if len(trials) >= WANTED - 1:
                        next_at = clock() + PACE
                    testing = asyncio.create_task(
                        volunteer_at(self._connections, addr, patience=self._patience),
                        name=f"testing {addr} as a relay",
                    )
                    trials[testing] = addr
                    self.tried += 1
                if not trials and feeder.done():
                    break
                left = None if first_at is None else first_at + CHOICE_FOR - clock()
                unused = [one for one in found if self._is_new(one)]
                chosen = left is not None and left <= 0 and self._sound + len(unused) >= self._goal
                if chosen or len(found) >= ENOUGH:
                    break
                waiting: set[asyncio.Future[object]] = {*trials} if feeder.done() else {*trials, feeder}  # type: ignore[arg-type]
                timeout = PACE if len(trials) < PARALLEL else left if left is not None and left > 0 else None
                done, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                for trial in [trial for trial in trials if trial in done]:
                    addr = trials.pop(trial)
                    result = self._result(trial)
                    if result is None or result.url.node_id == self._user.node_id:
                        failed.append(addr)
                        continue
                    found.append(result)
                    if first_at is None and self._is_new(result):
                        first_at = clock()
                        # Being reachable at all comes first; a nearer one may take its place in a moment.
                        if not self._sound:
                            self._use(result)
        finally:
            for task in (*trials, feeder):
                task.cancel()
            await asyncio.gather(*trials, feeder, return_exceptions=True)
        self._patience = 1.0 if found else min(2 * self._patience, MOST_PATIENCE)
        # If nobody at all was reached our own network may be the reason.
        if found or any(used.connection.connected for used in self._used.values()):
            for addr in failed:
                self._candidates.failed(addr, clock())
        self._choose(found)
        self._tell()

    def _result(self, task: asyncio.Task[Tested]) -> Tested | None:
        error = task.exception()
        if error is None:
            return task.result()
        if not isinstance(error, TomError):
            self._ctx.logger.error("testing a volunteer relay failed", exc_info=error)
        return None

    def _choose(self, found: Iterable[Tested]) -> None:
        """Take the best of those that were tested."""
        ranked = sorted(found, key=lambda one: one.rtt - 0.01 * self.book.standing(one.url).score)
        if self._goal > WANTED:
            self._rng.shuffle(ranked)
        for one in ranked:
            if self._sound >= self._goal:
                break
            if self._is_new(one):
                self._use(one)
        if self._sound >= self._goal:
            self._retry = FIRST_RETRY

    def _is_new(self, one: Tested) -> bool:
        """Whether it is not in use, nor was given up while it was tested for another time."""
        assert one.url.node_addr is not None
        known = any(url.node_id == one.url.node_id for url in self._used)
        return not known and not self._candidates.has_failed(one.url.node_addr, self._ctx.clock.monotonic())

    def _tell(self) -> None:
        if not self._used:
            why = "none of the addresses that the DHT gives works" if self._candidates_seen else "the DHT knows of none"
            if why != self.problem:
                self._ctx.logger.info("no volunteer relay: %s", why)
            self.problem = why

    async def _feed(self) -> None:
        """Look volunteers up, topic by topic, as long as there is room for more."""
        self._candidates_seen = 0
        for directory in self._ctx.directories():
            walk = TopicWalk(self._rng, self._ctx.clock.wall(), self.book.level)
            try:
                while (where := walk.next()) is not None:
                    walk.found(await self._look_up(directory, where))
                    if self._candidates_seen:
                        # Now: mostly enough are tested before the walk has ended.
                        self.book.level = walk.level
            except TomError as exc:
                self._ctx.logger.debug("volunteer relays can't be looked up: %s", exc)

    async def _look_up(self, directory: TopicDirectory, where: bytes) -> Crowd:
        networks: set[str] = set()
        before = self._candidates_seen
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_UP_TIMEOUT), contextlib.aclosing(directory.find(where)) as found:  # type: ignore[type-var]
                async for addr in found:
                    networks.add(network_of(addr))
                    self._candidates_seen += 1
                    self._candidates.offer(addr, self._ctx.clock.monotonic())
        return Crowd(len(networks), self._candidates_seen - before)

    # Memory

    def _write(self, data: bytes) -> None:
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_bytes(data)
            temporary.replace(self._path)
        except OSError as exc:
            self._ctx.logger.warning("what is known of volunteer relays is not saved: %s", exc)


def _read(path: pathlib.Path | None) -> bytes:
    try:
        if path is not None:
            with path.open("rb") as file:
                return file.read(MAX_FILE)
    except OSError:
        pass
    return b""
