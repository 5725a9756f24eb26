"""What the relay answers over HTTP, on both paths."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest_asyncio

from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, sign_packet, sign_record
from tom_pkarr.core.http import IROH_TYPE, PKARR_TYPE
from tom_pkarr.server import PkarrRelay

KEY = SecretKey(bytes(31) + b"\x07")
Z32 = KEY.node_id.z32()
WAIT = 20.0


def record(wall: float, port: int = 1, key: SecretKey = KEY) -> SignedRecord:
    return sign_record(key, NodeAddr(key.node_id, direct_addrs=(f"192.0.2.1:{port}",)), int(wall * 1e6))


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as session:
        yield session


async def put(http: aiohttp.ClientSession, relay: PkarrRelay, body: bytes, path: str = Z32, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.put(f"{relay.url}/{path}", data=body, headers=named) as response:
        await response.read()
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        return response.status


async def get(
    http: aiohttp.ClientSession, relay: PkarrRelay, path: str = Z32, method: str = "GET", **headers: str
) -> tuple[int, bytes, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, f"{relay.url}/{path}", headers=named) as response:
        return response.status, await response.read(), response.headers


async def test_put_then_get(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """What was put comes back, byte for byte, with the headers of its family."""
    signed = record(relay.wall())
    assert await put(http, relay, signed.relay_payload()) == 204
    for path, media_type in ((Z32, PKARR_TYPE), (f"pkarr/{Z32}", IROH_TYPE)):
        status, body, headers = await get(http, relay, path)
        assert (status, body) == (200, signed.relay_payload())
        assert headers["Content-Type"] == media_type
        assert headers["Cache-Control"] == "public, max-age=30"
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert int(headers["Content-Length"]) == len(body)
    status, body, head = await get(http, relay, method="HEAD")
    assert (status, body, head["ETag"]) == (200, b"", headers["ETag"])


async def test_conditional_gets(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """304 without a body where the reader has it, by tag or by date; 200 once there is a newer one."""
    await put(http, relay, record(relay.wall() - 10).relay_payload())
    _, _, headers = await get(http, relay)
    by_tag, by_date = {"If_None_Match": headers["ETag"]}, {"If_Modified_Since": headers["Last-Modified"]}
    for condition in (by_tag, by_date):
        status, body, _ = await get(http, relay, **condition)
        assert (status, body) == (304, b"")
    await put(http, relay, record(relay.wall()).relay_payload())
    for condition in (by_tag, by_date):
        assert (await get(http, relay, **condition))[0] == 200


async def test_what_is_missing_or_no_key(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """404 for a key without a packet; 400 for what is no key, too short, too long or of low order."""
    assert (await get(http, relay, SecretKey.generate().node_id.z32()))[0] == 404
    for path in ("short", Z32 + "y", Z32[:-1] + "9", "y" * 52, f"pkarr/{Z32}/more", "pkarr/", "%00"):
        status, body, _ = await get(http, relay, path)
        assert (status, bool(body)) == (400, True), path
        assert await put(http, relay, record(relay.wall()).relay_payload(), path) == 400


async def test_bad_packets(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """Each way to be wrong has its status and is counted; nothing of it is stored."""
    good = record(relay.wall()).relay_payload()
    assert await put(http, relay, bytes([good[0] ^ 1]) + good[1:]) == 400
    assert await put(http, relay, record(relay.wall(), key=SecretKey.generate()).relay_payload()) == 400
    assert await put(http, relay, b"") == 400
    assert await put(http, relay, sign_packet(KEY, b"\xff" * 30, 1).relay_payload()) == 400
    assert await put(http, relay, record(relay.wall() + 7300).relay_payload()) == 400
    assert await put(http, relay, bytes(1073)) == 413
    counted = relay.site.counters.bad_puts
    assert (counted["signature"], counted["packet"], counted["time"], counted["size"]) == (2, 2, 1, 1)
    assert (await get(http, relay))[0] == 404
    assert relay.store.packets == 0


async def test_older_newer_and_the_same(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """409 for an older packet (204 on iroh's path, and ignored); the same and a newer one are stored."""
    now = relay.wall()
    assert await put(http, relay, record(now, 1).relay_payload()) == 204
    assert await put(http, relay, record(now, 1).relay_payload()) == 204
    assert await put(http, relay, record(now - 1, 2).relay_payload()) == 409
    assert await put(http, relay, record(now - 1, 2).relay_payload(), f"pkarr/{Z32}") == 204
    assert (await get(http, relay))[1] == record(now, 1).relay_payload()
    assert await put(http, relay, record(now + 1, 3).relay_payload()) == 204
    assert (await get(http, relay))[1] == record(now + 1, 3).relay_payload()


async def test_conditional_puts(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """412 where another packet is held than `If-Match` names, by Pkarr's bare timestamp or our tag."""
    old, new = record(relay.wall() - 5, 1), record(relay.wall(), 2)
    assert await put(http, relay, old.relay_payload(), If_Match="1") == 412
    assert await put(http, relay, old.relay_payload()) == 204
    assert await put(http, relay, new.relay_payload(), If_Match="1") == 412
    assert await put(http, relay, new.relay_payload(), If_Match=str(old.timestamp_us)) == 204


async def test_many_puts_of_one_key_at_once(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """Whatever order they come in, the newest packet is held, and each put was answered by what was held then."""
    now = relay.wall()
    order = [(n * 7) % 40 for n in range(40)]
    statuses = await asyncio.gather(*(put(http, relay, record(now + n, n + 1).relay_payload()) for n in order))
    assert set(statuses) <= {204, 409}
    assert (await get(http, relay))[1] == record(now + 39, 40).relay_payload()


async def test_preflight(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """A browser may send PUT with our conditions from any origin."""
    status, _, headers = await get(
        http, relay, method="OPTIONS", Origin="http://elsewhere.example", Access_Control_Request_Method="PUT"
    )
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert {"GET", "PUT"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"If-Match", "Content-Type"} <= set(headers["Access-Control-Allow-Headers"].split(", "))


async def test_other_methods(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """405 names the methods that there are."""
    for path in (Z32, "healthz"):
        status, _, headers = await get(http, relay, path, method="DELETE")
        assert (status, "GET" in headers["Allow"]) == (405, True)


async def test_rates(run: Any, http: aiohttp.ClientSession) -> None:
    """Beyond its burst a source gets 429 with the time to wait; reading and writing are counted apart."""
    async with run(get_rate=0.01, get_burst=2, put_rate=0.01, put_burst=1) as relay:
        assert [(await get(http, relay))[0] for _ in range(3)] == [404, 404, 429]
        status, _, headers = await get(http, relay)
        assert (status, 50 <= int(headers["Retry-After"]) <= 101) == (429, True)
        signed = record(relay.wall()).relay_payload()
        assert [await put(http, relay, signed) for _ in range(2)] == [204, 429]


async def test_rates_behind_a_proxy(run: Any, http: aiohttp.ClientSession) -> None:
    """Behind a trusted proxy each client has its own rate; a header that a stranger writes counts for nothing."""
    async with run(get_rate=0.01, get_burst=1, trusted_proxies=("127.0.0.1",)) as relay:
        statuses = [(await get(http, relay, X_Forwarded_For=f"9.9.9.9, 198.51.100.{n}"))[0] for n in (1, 2, 1)]
        assert statuses == [404, 404, 429]
    async with run(get_rate=0.01, get_burst=1) as relay:
        assert [(await get(http, relay, X_Forwarded_For=f"198.51.100.{n}"))[0] for n in (1, 2)] == [404, 429]


async def test_pages_for_the_operator(relay: PkarrRelay, http: aiohttp.ClientSession) -> None:
    """/healthz, /metrics and the page say how the relay does; no metric names a key."""
    await put(http, relay, record(relay.wall()).relay_payload())
    await put(http, relay, b"bad")
    async with http.get(relay.url + "/healthz") as response:
        health = await response.json()
    assert (health["status"], health["packets"], health["dht"]) == ("ok", 1, "off")
    _, text, headers = await get(http, relay, "metrics")
    assert headers["Content-Type"].startswith("text/plain")
    metrics = dict(re.findall(r"^(tom_pkarr_\S+) (\S+)$", text.decode(), re.MULTILINE))
    assert float(metrics["tom_pkarr_packets"]) == 1.0
    assert float(metrics['tom_pkarr_requests_total{method="PUT",status="204"}']) == 1.0
    assert float(metrics['tom_pkarr_bad_puts_total{reason="packet"}']) == 1.0
    assert Z32 not in text.decode()
    assert (await get(http, relay, ""))[2]["Content-Type"].startswith("text/html")
