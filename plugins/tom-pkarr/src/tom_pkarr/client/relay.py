"""One Pkarr relay over HTTP: a request, bounded in time and size, and what its answer means."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp
import attrs

from tom_connect.exceptions import reason_of
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_pkarr.core.answers import GetAnswer, Held, PutAnswer, Refused, read_get, read_put
from tom_pkarr.core.http import MAX_PAYLOAD
from tom_pkarr.core.retry import Standing

A = TypeVar("A")

MAX_LINE = 8190
"""Bytes of one header at most; aiohttp bounds how many there are."""
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)  # the caller's covers all attempts together


def new_session() -> aiohttp.ClientSession:
    """A session for all relays of an endpoint: no cookies, nothing unpacked, few connections to each."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=32, limit_per_host=4, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "tom-pkarr", "Accept-Encoding": "identity"},
        auto_decompress=False,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        trust_env=True,
    )


@attrs.define(eq=False)
class PkarrRelayClient:
    """Asks one relay. `url`: without a slash at the end; `timeout`: seconds for one answer, attempts included.

    No redirect is followed: a relay is where its URL says, and can't send us into our own networks.
    """

    session: aiohttp.ClientSession
    url: str
    timeout: float
    wall: Callable[[], float] = time.time
    standing: Standing = attrs.Factory(Standing)

    async def get(self, node_id: NodeId, held: Held | None = None) -> GetAnswer:
        """What the relay holds of a node, asked for what is newer than `held`."""
        conditions = {} if held is None else held.conditions(self.url)

        async def once() -> GetAnswer:
            status, headers, body = await self._request("GET", node_id, conditions)
            return read_get(node_id, status, headers, body, wall=self.wall(), held=held, conditional=bool(conditions))

        return await self._attempts(once)

    async def put(self, record: SignedRecord, if_match: int | None = None) -> PutAnswer:
        """Give the relay our record; `if_match`: the timestamp of the one that it is to replace."""
        headers = {"Content-Type": "application/octet-stream"}
        if if_match is not None:
            headers["If-Match"] = str(if_match)

        async def once() -> PutAnswer:
            status, got, _ = await self._request("PUT", record.node_id, headers, record.relay_payload())
            return read_put(status, got, self.wall())

        return await self._attempts(once)

    async def _attempts(self, once: Callable[[], Awaitable[A | Refused]]) -> A | Refused:
        """Ask until there is an answer, no attempt is left, or the time is up; cancelling it ends the request."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        answer: A | Refused | None = None
        for attempt in itertools.count():
            now = loop.time()
            wait = self.standing.next_wait(attempt, now)
            if wait is None or now + wait >= deadline:
                if answer is None:  # it had sent us away before
                    return Refused(f"it asked for no request in the next {self.standing.pause(now):.0f} s")
                return answer
            if wait:
                await asyncio.sleep(wait)
            answer = await self._once(once, deadline)
            if not isinstance(answer, Refused):
                self.standing.worked()
                return answer
            self.standing.failed(answer.reason, answer.retry_after, loop.time())
            if not answer.transient:
                return answer
        raise AssertionError("unreachable")

    async def _once(self, once: Callable[[], Awaitable[A | Refused]], deadline: float) -> A | Refused:
        try:
            async with asyncio.timeout_at(deadline):
                return await once()
        except TimeoutError:
            return Refused(f"no answer in {self.timeout:g} s")
        except aiohttp.ClientResponseError:  # only for what it can't parse: statuses do not raise
            return Refused("its answer is not HTTP as it should be")
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as exc:
            # What is not HTTP stays so; a connection may be had again.
            return Refused(reason_of(exc), transient=isinstance(exc, aiohttp.ClientConnectionError | OSError))

    async def _request(
        self, method: str, node_id: NodeId, headers: Mapping[str, str], data: bytes | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers, and as much of the body as can be a packet; raises what aiohttp raises."""
        url = f"{self.url}/{node_id.z32()}"
        async with self.session.request(
            method, url, headers=headers, data=data, allow_redirects=False, timeout=_NO_TIMEOUT
        ) as response:
            body = b""
            if response.status == 200 and method == "GET":
                body = await _bounded(response)
            if not response.content.at_eof():
                response.close()  # the rest, however long it is, is nobody's
            return response.status, response.headers, body


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while len(body) <= MAX_PAYLOAD:
        chunk = await response.content.read(MAX_PAYLOAD + 1 - len(body))
        if not chunk:
            return bytes(body)
        body += chunk
    raise ValueError(f"its answer is larger than the {MAX_PAYLOAD} bytes of a packet")
