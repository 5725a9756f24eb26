"""One signaling server over WebSocket: connected as long as it lets us, tried again when it is not there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import NoReturn

import aiohttp

from tom_connect.abc import PluginContext
from tom_connect.exceptions import NetworkError, reason_of
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_signaling_legacy.core.backoff import Backoff
from tom_signaling_legacy.core.session import Called, ClientSession, Resolved, Unusable

CONNECT_TIMEOUT = 10.0
"""Seconds for connection and handshake: more than a slow mobile network takes."""
PING_INTERVAL = 15.0
"""Seconds after which a silent server is pinged; one that does not answer within half of that is gone."""
SEND_TIMEOUT = 10.0
"""Seconds in which a server must take what we send."""
MAX_MESSAGE = 4 << 20
"""Bytes of one message: a list of some 10,000 participants."""
MAX_LINE = 8190
"""Bytes of one header at most; aiohttp bounds how many there are."""


class AnswerError(NetworkError):
    """A server or node gave no usable answer; the message says which and why."""


async def _no_redirect(*_arguments: object) -> NoReturn:
    # A server is where its URL says, and can't send us into our own networks.
    raise aiohttp.ClientError("it redirects elsewhere, which is not followed")


def new_session() -> aiohttp.ClientSession:
    """A session for all servers of an endpoint: no cookies, no redirects."""
    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_no_redirect)
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "tom-signaling-legacy"},
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        trace_configs=[tracing],
        trust_env=True,
    )


class ServerConnection:
    """Keeps us registered with one server; `run()` is its one task.

    `record`: gives our newest signed record; `on_change` is called when it comes or goes, `on_call` with each sealed
    call of another node.
    """

    def __init__(
        self,
        ctx: PluginContext,
        url: str,
        username: str,
        record: Callable[[], SignedRecord | None],
        on_change: Callable[[], None],
        on_call: Callable[[bytes], None],
    ) -> None:
        self.url = url
        self._on_call = on_call
        self.problem: str | None = "not connected yet"
        """Why we are not registered, None while we are."""
        self._ctx = ctx
        self._username = username
        self._record = record
        self._on_change = on_change
        self._backoff = Backoff()
        self._session: ClientSession | None = None
        self._to_send = asyncio.Event()
        self._waiting: dict[str, asyncio.Queue[Resolved | Unusable | None]] = {}

    @property
    def is_registered(self) -> bool:
        """Whether the server lists us."""
        return self._session is not None and self._session.registered

    def present(self) -> int:
        """How many other nodes are there."""
        return 0 if self._session is None else self._session.present(self._now())

    def is_present(self, node_id: NodeId) -> bool:
        """Whether a node is there."""
        return self._session is not None and self._session.is_present(node_id, self._now())

    async def ask(self, node_id: NodeId, request_id: str, timeout: float) -> SignedRecord | None:
        """The node's signed record, None if it says that it has none.

        Raises AnswerError if no usable answer comes within `timeout` seconds or the server goes.
        """
        session = self._session
        if session is None:
            raise AnswerError(self.problem or "not connected")
        problem = f"the node did not answer in {timeout:g} s"
        answers = self._waiting[request_id] = asyncio.Queue(8)
        session.ask(node_id, request_id)
        self._to_send.set()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    match await answers.get():
                        case Resolved(record=record):
                            return record
                        case Unusable(reason=reason):
                            problem = f"the node answered, but {reason}"
                        case _:
                            raise AnswerError(self.problem or "the connection was lost")
        except TimeoutError:
            raise AnswerError(problem) from None
        finally:
            del self._waiting[request_id]
            session.give_up(request_id)

    def call(self, node_id: NodeId, sealed: bytes) -> bool:
        """Leave a call for a node; False if it is not there."""
        session = self._session
        if session is None or not session.is_present(node_id, self._now()):
            return False
        session.call(node_id, sealed)
        self._to_send.set()
        return True

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Connect, and again whenever the connection has ended, until cancelled."""
        while True:
            began = self._now()
            try:
                self.problem = await self._once(http)
            except TimeoutError:
                self.problem = f"no answer in {CONNECT_TIMEOUT:g} s"
            except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as exc:
                self.problem = reason_of(exc)
            finally:
                self._session = None
                self._end_questions()
            self._on_change()
            self._backoff.lasted(self._now() - began)
            wait = self._backoff.next_wait()
            self._ctx.logger.info("signaling server %s: %s; tried again in %.1f s", self.url, self.problem, wait)
            await asyncio.sleep(wait)

    def _now(self) -> float:
        return self._ctx.clock.monotonic()

    async def _once(self, http: aiohttp.ClientSession) -> str:
        """One connection, from its begin to its end; returns why it ended."""
        async with asyncio.timeout(CONNECT_TIMEOUT):
            socket = await http.ws_connect(self.url, heartbeat=PING_INTERVAL, max_msg_size=MAX_MESSAGE)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(_closed, socket)
            session = self._session = ClientSession(self._ctx.node_id, self._username, self._record)
            session.start(self._now())
            self._to_send.set()
            sending = asyncio.create_task(self._send_all(socket, session), name=f"sending to {self.url}")
            stack.push_async_callback(_cancelled, sending)
            reading = asyncio.create_task(self._read_all(socket, session), name=f"reading from {self.url}")
            stack.push_async_callback(_cancelled, reading)
            await asyncio.wait([sending, reading], return_when=asyncio.FIRST_COMPLETED)
            return sending.result() if sending.done() else reading.result()

    async def _send_all(self, socket: aiohttp.ClientWebSocketResponse, session: ClientSession) -> str:
        while True:
            self._to_send.clear()
            session.tick(self._now())
            while session.outgoing:
                try:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await socket.send_str(session.outgoing.popleft())
                except TimeoutError:
                    return f"it took nothing from us for {SEND_TIMEOUT:g} s"
            try:
                async with asyncio.timeout(max(0.0, session.next_tick - self._now())):
                    await self._to_send.wait()
            except TimeoutError:
                pass

    async def _read_all(self, socket: aiohttp.ClientWebSocketResponse, session: ClientSession) -> str:
        while True:
            message = await socket.receive()
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                break
            was_registered = session.registered
            event = session.receive(message.data, self._now(), self._ctx.clock.wall())
            if session.outgoing:
                self._to_send.set()
            if isinstance(event, Called):
                self._on_call(event.sealed)
            elif event is not None and (answers := self._waiting.get(event.request_id)) is not None:
                with contextlib.suppress(asyncio.QueueFull):  # of what is unusable, the first few tell enough
                    answers.put_nowait(event)
            if session.registered and not was_registered:
                self.problem = None
                self._on_change()
        ended = socket.exception()
        said = f": {session.problem}" if session.problem else ""
        return (f"{ended}"[:200] if ended is not None else f"it closed the connection ({socket.close_code})") + said

    def _end_questions(self) -> None:
        for answers in self._waiting.values():
            with contextlib.suppress(asyncio.QueueFull):
                answers.put_nowait(None)


async def _closed(socket: aiohttp.ClientWebSocketResponse) -> None:
    # A server that does not take part in the end of a connection must not hold ours up.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await socket.close()


async def _cancelled(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # that of the one that ended first has been raised; the other's is its consequence
