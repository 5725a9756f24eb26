"""Calls of an endpoint: left where nodes look for them while no path leads there, and found where others left them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from tom_connect.abc import Call, Callee, Rendezvous
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import EndpointClosedError, NetworkError, TomError
from tom_connect.holepunch.disco import CallMeMaybe
from tom_connect.holepunch.events import PathEvent, PathRestored, PathSelected
from tom_connect.keys import NodeId
from tom_connect.magicsock.remote import Remote
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.rendezvous.knocks import Knocks

AGAIN: Final = 20.0
"""Seconds after which a call that nobody followed is left again: the node may have come meanwhile."""
RETURN_WITHIN: Final = 90.0
"""Seconds for which a lost connection is called after; QUIC gives up about then too."""
ANSWER_FOR: Final = 15.0
"""Seconds for which a node that called is pinged, and probed where a NAT shifts ports; its handshake holds it then."""
LOOK_AGAIN: Final = 2.0
"""Seconds after which it is seen whether there is still a connection to call after."""
MAX_ANSWERS: Final = 64
MAX_RETURNS: Final = 64
"""Lost connections that are called after at once."""
SAY_AFTER: Final = 2.5
"""Seconds in which a relay that the node names, or a NAT that has opened, lets an answer come; then we say where we can
be met ourselves."""
SAY_AGAIN: Final = 2.5
"""Seconds at least between two times that this is said, since each is a look-up and a put."""
UNHEARD: Final = 1.5
"""Seconds after a call was found until relays are suspected that have brought no handshake: callers dial at once."""
HEARD_BEFORE: Final = 4.0
"""Seconds before a call was found in which a handshake may be its caller's: calls are found with the next poll."""
MAX_TOLD: Final = 8
"""Relays that one caller may name while it is answered."""


@attrs.frozen
class _Answer:
    remote: Remote
    relays: set[RelayUrl]


class Steps:
    """How far a call is. `open` it when our pings have gone to the node's addresses, or it has none.

    `patience`: seconds that an answer has from then on until we say where we can be met, None for `SAY_AFTER`;
    `invited`: whether the node says that it can be called; `said`: whether that was said.
    """

    def __init__(self, patience: float | None = None) -> None:
        self.patience = SAY_AFTER if patience is None else patience
        self.said = False
        self.opened = asyncio.Event()
        self.invited: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._then: Callable[[], None] | None = None

    def open(self) -> None:
        """Our NAT is open."""
        if not self.opened.is_set():
            self.opened.set()
            if self._then is not None:
                self._then()

    def on_opened(self, then: Callable[[], None]) -> None:
        """Call `then()` once it is."""
        self._then = then
        if self.opened.is_set():
            then()


class RendezvousService:
    """The rendezvous of one endpoint, each with its plugin's name; `run` it while the endpoint lives.

    `let_in_from(addr)`: whether somebody at that address may begin a handshake; `let_in(node_id)`: whether a node is
    welcome; `is_connected(node_id)`: whether there is a connection to a node; `report_failure`: told of what a plugin
    raises.
    """

    def __init__(
        self,
        ways: Sequence[tuple[str, Rendezvous]],
        magic: MagicSocket,
        *,
        let_in_from: Callable[[SocketAddr | RelayUrl], bool],
        let_in: Callable[[NodeId], bool],
        is_connected: Callable[[NodeId], bool],
        report_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._ways = tuple(ways)
        self._magic = magic
        self._let_in_from = let_in_from
        self._let_in = let_in
        self._is_connected = is_connected
        self._report_failure = report_failure
        self._knocks = Knocks()
        self._called = asyncio.Event()
        self._lost: asyncio.Queue[NodeId] = asyncio.Queue(MAX_RETURNS)
        self._returning: set[NodeId] = set()
        self._answering: dict[NodeId, _Answer] = {}
        self._wondering: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        magic.doorstep.set_outage(self._outage)

    def __bool__(self) -> bool:
        """Whether there is any way to call."""
        return bool(self._ways)

    # Calling

    async def call(self, remote: Remote, steps: Steps) -> None:
        """Call a node and ping its addresses, until cancelled: a path, if one comes, is the remote's."""
        doorstep = self._magic.doorstep
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._say(remote, steps), name="saying where we can be met")
                while True:
                    doorstep.meet(remote)
                    steps.on_opened(lambda: doorstep.opened(remote))
                    leaving = [
                        group.create_task(self._leave(name, way, remote, steps), name=f"{name}: leaving a call")
                        for name, way in self._ways
                    ]
                    pause = group.create_task(asyncio.sleep(AGAIN), name="before the next call")
                    await asyncio.wait(leaving)
                    if not steps.invited.done():
                        steps.invited.set_result(False)
                    await pause
        finally:
            doorstep.part(remote)

    async def _say(self, remote: Remote, steps: Steps) -> None:
        """Say at which relays we can be met, since those that the node names may be silent.

        Said again when it changes, and as often as a call is left. A path that answers pings is no reason to stop: who
        waits for a handshake cancels this when it is done.
        """
        await steps.opened.wait()
        await asyncio.sleep(steps.patience)
        said: tuple[RelayUrl, ...] = ()
        while True:
            try:
                async with asyncio.timeout(AGAIN if said else None):
                    said = await self._magic.own_relays.other_than(said)
            except TimeoutError:
                pass
            except EndpointClosedError:
                return
            if said:
                steps.said = True
                self._magic.counters["rendezvous: said where we can be met"] += 1
                sealed = self._magic.doorstep.sealed_call(remote)
                await asyncio.gather(*(self._say_by(name, way, remote.node_id, sealed) for name, way in self._ways))
            await asyncio.sleep(SAY_AGAIN)

    async def _say_by(self, name: str, way: Rendezvous, node_id: NodeId, sealed: bytes) -> None:
        try:
            async with asyncio.timeout(AGAIN):
                await way.say(node_id, sealed)
        except (TimeoutError, NetworkError):
            self._magic.counters["rendezvous: call not left"] += 1
        except Exception as exc:  # a plugin may raise anything, and the others go on
            self._report_failure(name, exc)

    async def _leave(self, name: str, way: Rendezvous, remote: Remote, steps: Steps) -> None:
        doorstep = self._magic.doorstep

        def learned(callee: Callee) -> None:
            if not steps.invited.done():
                steps.invited.set_result(True)
            if callee.ports_differ:
                # It has no address to which we could open: the end of its record's look-up is not worth waiting for.
                steps.open()
            if callee.told:
                doorstep.told(remote, callee.attested)
            elif callee.filtered is not None:
                doorstep.learned(remote, filtered=callee.filtered)

        try:
            async with asyncio.timeout(AGAIN):
                await way.call(remote.node_id, lambda: doorstep.sealed_call(remote), steps.opened, learned)
        except (TimeoutError, NetworkError):
            self._magic.counters["rendezvous: call not left"] += 1
        except Exception as exc:  # a plugin may raise anything, and the others go on
            self._report_failure(name, exc)

    # Being called

    async def run(self) -> None:
        """Follow the calls of others, and call after connections that are lost, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, way in self._ways:
                group.create_task(self._listen(name, way), name=f"{name}: listening for calls")
            group.create_task(self._knock(), name="knocking")
            while True:
                node_id = await self._lost.get()
                group.create_task(self._return(node_id), name="calling after a lost connection")

    async def _listen(self, name: str, way: Rendezvous) -> None:
        try:
            async for call in way.calls():
                self._take(call)
        except Exception as exc:  # a plugin may raise anything, and the others go on
            self._report_failure(name, exc)

    def _take(self, call: Call) -> None:
        doorstep = self._magic.doorstep
        addrs = [addr for addr in call.addrs if doorstep.may_knock(addr) and self._let_in_from(addr)]
        self._magic.counters["rendezvous: addresses refused"] += len(call.addrs) - len(addrs)
        if addrs:
            self._magic.counters["rendezvous: calls found"] += 1
            self._knocks.called(addrs, self._magic.now())
            self._called.set()
            self._wonder()
        read = doorstep.read_call(call.sealed, call.attested) if call.sealed is not None else None
        if read is not None:
            self._take_words(*read, call.attested)

    def _take_words(self, node_id: NodeId, message: CallMeMaybe, attested: Sequence[str]) -> None:
        answer = self._answering.get(node_id)
        if answer is not None:
            # It may have found a relay only after it had called.
            if not answer.relays.issuperset(message.relays) and len(answer.relays) < MAX_TOLD:
                answer.relays.update(message.relays)
                self._magic.doorstep.called(answer.remote, message, attested)
        elif not self._let_in(node_id) or len(self._answering) >= MAX_ANSWERS:
            self._magic.counters["rendezvous: calls refused"] += 1
        else:
            try:
                remote = self._magic.remote(node_id)
            except TomError:  # the endpoint is closing
                return
            self._answering[node_id] = _Answer(remote, set(message.relays))
            self._magic.counters["rendezvous: calls answered"] += 1
            doubted: tuple[RelayUrl, ...] = ()
            if remote.active_path is None:
                self._magic.relays.suspect()
                doubted = self._magic.own_relays.value if attested else ()
            self._magic.doorstep.called(remote, message, attested)
            assert self._group is not None
            self._group.create_task(self._answer(node_id, remote, doubted, attested), name="answering a call")

    async def _answer(
        self, node_id: NodeId, remote: Remote, doubted: Sequence[RelayUrl], attested: Sequence[str]
    ) -> None:
        """Hold a node that has called for as long as its call may succeed; then see which relays brought nothing.

        A relay may pass on our own tests, which come from our address, and no calls of others.
        """
        try:
            await asyncio.sleep(ANSWER_FOR)
            came = {path.addr for path in remote.paths() if path.last_heard is not None}
            usable = {url.scheme for url in self._answering[node_id].relays}
            for relay in doubted:
                if relay not in came and relay.scheme in usable:
                    self._magic.counters["rendezvous: relays that missed a call"] += 1
                    self._magic.relays.missed(relay, attested[0])
        finally:
            del self._answering[node_id]
            remote.release()

    def _wonder(self) -> None:
        """Have a call lead to a handshake soon, or our relays be suspected: they may pass nothing on to us."""
        if self._magic.own_relays.value and (self._wondering is None or self._wondering.done()):
            assert self._group is not None
            self._wondering = self._group.create_task(self._unheard(), name="waiting for a caller's handshake")

    async def _unheard(self) -> None:
        since = self._magic.now() - HEARD_BEFORE
        await asyncio.sleep(UNHEARD)
        if self._magic.handshake_at < since:
            self._magic.counters["rendezvous: relays suspected"] += 1
            self._magic.relays.suspect()

    async def _knock(self) -> None:
        while True:
            self._called.clear()
            now = self._magic.now()
            for knock in self._knocks.take(now):
                if self._magic.doorstep.knock(knock.addr, opener=knock.opener):
                    self._magic.counters["rendezvous: knocks"] += 1
            due = self._knocks.due
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                    await self._called.wait()
            except TimeoutError:
                pass

    # The way back

    def _outage(self, node_id: NodeId) -> None:
        if not self._is_connected(node_id):
            # It has hung up: to call after it would keep others from port probing, which is for one at a time.
            return
        if self._ways and node_id not in self._returning and not self._lost.full():
            self._returning.add(node_id)
            self._lost.put_nowait(node_id)

    async def _return(self, node_id: NodeId) -> None:
        """Call after a node whose paths are all silent, until one answers."""
        back = asyncio.Event()

        def listener(event: PathEvent) -> None:
            if isinstance(event, (PathRestored, PathSelected)):
                back.set()

        try:
            remote = self._magic.remote(node_id)
        except TomError:  # the endpoint is closing
            self._returning.discard(node_id)
            return
        remote.add_listener(listener)
        steps = Steps(patience=0.0)
        steps.open()  # all its paths are pinged already, and silent
        calling = asyncio.create_task(self.call(remote, steps), name="a call after a lost connection")
        try:
            async with asyncio.timeout(RETURN_WITHIN):
                while self._is_connected(node_id) and not back.is_set():
                    await _within(back, LOOK_AGAIN)
        except TimeoutError:
            pass
        finally:
            self._returning.discard(node_id)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            remote.remove_listener(listener)
            remote.release()


async def _within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, no longer than that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
