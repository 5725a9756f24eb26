"""The relay's life: restarts, connections that misuse it, and its command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import aiohttp
import pytest

from tom_connect.addr import NodeAddr
from tom_connect.exceptions import ConfigError
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, sign_record
from tom_pkarr.errors import PkarrServerError
from tom_pkarr.server import PkarrRelay, PkarrServerConfig
from tom_pkarr.server.cli import configured

KEY = SecretKey(bytes(31) + b"\x07")
Z32 = KEY.node_id.z32()
WAIT = 20.0


def record(wall: float) -> SignedRecord:
    return sign_record(KEY, NodeAddr(KEY.node_id, direct_addrs=("192.0.2.1:1",)), int(wall * 1e6))


async def status(relay: PkarrRelay, path: str = Z32, body: bytes | None = None) -> int:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as http:
        async with http.request("GET" if body is None else "PUT", f"{relay.url}/{path}", data=body) as response:
            return response.status


async def test_packets_outlive_a_restart(run: Any, tmp_path: pathlib.Path) -> None:
    """With a file, what was answered by 204 is there after a restart."""
    async with run(store=tmp_path / "packets") as relay:
        assert await status(relay, body=record(relay.wall()).relay_payload()) == 204
    async with run(store=tmp_path / "packets") as relay:
        assert await status(relay) == 200


async def test_a_packet_ends_when_nobody_puts_it_again(run: Any, clock: Any) -> None:
    """A packet that is past its time is gone, also from memory."""
    async with run(wall=clock.wall, keep=3600.0) as relay:
        assert await status(relay, body=record(clock.wall()).relay_payload()) == 204
        clock.seconds += 3599
        assert await status(relay) == 200
        clock.seconds += 2
        assert await status(relay) == 404


async def test_a_relay_without_memory_of_its_own(run: Any) -> None:
    """With nothing kept in memory every request is answered from the store."""
    async with run(hot_bytes=0) as relay:
        assert await status(relay, body=record(relay.wall()).relay_payload()) == 204
        assert await status(relay) == 200
        assert len(relay.hot) == 0


async def test_a_taken_port_is_told(relay: PkarrRelay, run: Any) -> None:
    """A relay that can't start says why and leaves nothing behind."""
    with pytest.raises(PkarrServerError, match="can't listen on"):
        await run(listen=(str(relay.addrs[0]),)).start()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What a connection gives until its end."""
    async with asyncio.timeout(WAIT):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def test_late_requests_are_ended(run: Any) -> None:
    """A head that does not end, a body that does not come, and one that comes byte by byte: all are ended in time."""
    async with run(request_timeout=1.0, idle_timeout=60.0) as relay:
        heads = (
            b"",
            b"GET /" + Z32.encode(),
            b"PUT /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" % Z32.encode(),
        )
        opened = [await asyncio.open_connection("127.0.0.1", relay.addrs[0].port) for _ in heads]
        for (_, writer), head in zip(opened, heads, strict=True):
            writer.write(head)

        async def drip(writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip(opened[2][1]))
        try:
            for reader, _ in opened:
                assert b" 204 " not in await ended(reader)
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
            for _, writer in opened:
                writer.transport.abort()
        assert relay.gate.late == 3
        assert await status(relay) == 404


async def test_an_idle_connection_is_kept(run: Any) -> None:
    """Between two requests a connection may lie idle for longer than a request may take."""
    async with run(request_timeout=5.0, idle_timeout=60.0) as relay, aiohttp.ClientSession() as http:
        for _ in range(2):
            async with http.get(f"{relay.url}/{Z32}") as response:
                assert response.status == 404
            relay.gate.sweep(relay.now() + 50.0)
        assert relay.gate.accepted == 1


async def test_endless_bodies_are_cut(relay: PkarrRelay) -> None:
    """A body without a stated length is left as soon as it is too large."""

    async def endless() -> Any:
        while True:
            yield b"x" * 1000

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as http:
        try:
            async with http.put(f"{relay.url}/{Z32}", data=endless()) as response:
                assert response.status == 413
        except aiohttp.ClientConnectionError:
            pass  # it may be cut before the client reads the answer
    assert relay.site.counters.bad_puts["size"] == 1


async def test_connections_are_bounded(run: Any) -> None:
    """More connections than allowed get 503; when one ends there is room again."""
    async with run(max_connections_per_source=2) as relay:
        opened = [await asyncio.open_connection("127.0.0.1", relay.addrs[0].port) for _ in range(3)]
        try:
            assert b" 503 " in await ended(opened[2][0])
            assert (relay.gate.accepted, relay.gate.refused) == (2, 1)
        finally:
            for _, writer in opened:
                writer.transport.abort()
        async with asyncio.timeout(WAIT):
            while relay.gate.connections:  # noqa: ASYNC110 - the relay's side ends in its own time
                await asyncio.sleep(0.005)
        assert await status(relay) == 404


async def test_noise_is_no_harm(relay: PkarrRelay) -> None:
    """Bytes that are no HTTP get an error, and the relay serves on."""
    for noise in (
        b"\xff" * 100 + b"\r\n\r\n",
        b"GET " + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"PUT / HTTP/9.9\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.addrs[0].port)
        writer.write(noise)
        assert b" 200 " not in await asyncio.wait_for(reader.read(1000), WAIT)
        writer.transport.abort()
    assert await status(relay) == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"listen": ("nowhere",)},
        {"listen": ()},
        {"max_packets": 0},
        {"keep": 1},
        {"trusted_proxies": ("10.0.0.1/8",)},
        {"dht": "maybe"},
        {"get_rate": -1.0},
        {"url": "relay.example"},
        {"store": 5},
    ],
)
def test_wrong_options(fields: dict[str, Any]) -> None:
    """A wrong value is refused with the option's name."""
    with pytest.raises(ConfigError, match=next(iter(fields))):
        PkarrServerConfig(**fields)


def test_options_of_the_command_line() -> None:
    """The command line counts over the configuration; `--dev` over defaults alone; errors name the option."""
    base = PkarrServerConfig(max_packets=7, keep=100.0)
    given = {"pkarr_server_keep": "3600", "pkarr_server_listen": ("127.0.0.1:1",), "pkarr_server_store": "/tmp/x"}
    config = configured(base, given, dev=False, is_default=lambda name: False)
    assert (config.max_packets, config.keep, config.listen, config.dht) == (7, 3600.0, ("127.0.0.1:1",), "auto")
    config = configured(base, {}, dev=True, is_default=lambda name: True)
    assert (config.listen, config.dht) == (("127.0.0.1:6882",), "off")
    with pytest.raises(ConfigError, match="--keep"):
        configured(base, {"pkarr_server_keep": "long"}, dev=False, is_default=lambda name: True)
    with pytest.raises(ConfigError, match=r"^--listen: not a socket address: 'here'"):
        configured(base, {"pkarr_server_listen": ("here",)}, dev=False, is_default=lambda name: True)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_the_command_serves_until_interrupted(tmp_path: pathlib.Path) -> None:
    """`tom-connect pkarr serve` says where it listens, takes options from all three places, and ends at SIGINT."""
    config = tmp_path / "c.toml"
    config.write_text('[pkarr_server]\nlisten = ["127.0.0.1:0"]\nmax_packets = 11\n')
    environ = {**os.environ, "HOME": str(tmp_path), "TOM_CONNECT_PKARR_SERVER_DHT": "off", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "tom_connect", "pkarr", "serve", "--json", "--config", str(config)]
    command += ["--store", str(tmp_path / "packets")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stdout is not None
            event = json.loads(process.stdout.readline())
            assert (event["event"], event["dht"]) == ("serving", False)
            assert event["url"].startswith("http://127.0.0.1:")
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    assert (tmp_path / "packets").exists()


@pytest.mark.slow
async def test_what_was_answered_for_outlives_a_killed_process(run: Any, tmp_path: pathlib.Path) -> None:
    """A relay that is killed in the moment of its 204 answers has every packet that it answered for in its file."""
    environ = {**os.environ, "HOME": str(tmp_path), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "tom_connect", "pkarr", "serve", "--json", "--dev", "--listen", "127.0.0.1:0"]
    command += ["--store", str(tmp_path / "packets"), "--put-rate", "0"]
    keys = [SecretKey.generate() for _ in range(200)]
    stored: list[str] = []
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=nothing, env=environ)
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]

        async def put(http: aiohttp.ClientSession, key: SecretKey) -> None:
            body = sign_record(key, NodeAddr(key.node_id, direct_addrs=("192.0.2.1:1",)), time.time_ns() // 1000)
            async with http.put(f"{url}/{key.node_id.z32()}", data=body.relay_payload()) as response:
                assert response.status == 204
                stored.append(key.node_id.z32())
                if len(stored) == len(keys) // 2:
                    process.kill()

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as http:
            await asyncio.gather(*(put(http, key) for key in keys), return_exceptions=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert len(stored) >= len(keys) // 2
    async with run(store=tmp_path / "packets") as relay:
        assert [await status(relay, z32) for z32 in stored] == [200] * len(stored)
