"""The packets in SQLite: bounds, time, restarts, and files that can't be used."""

from __future__ import annotations

import asyncio
import pathlib
import sqlite3
import tempfile
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import sign_record
from tom_pkarr.core.rules import Conditions, Packet, Verdict, judge
from tom_pkarr.errors import PkarrServerError, PutError, StoreBusyError, StoreError
from tom_pkarr.server import PkarrRelay
from tom_pkarr.server.shelf import MAX_WAITING, HotPackets, Submission
from tom_pkarr.server.store import ROW_OVERHEAD, Kept, PacketStore, PutOrder

NOW = 1_700_000_000.0


def packet(key: SecretKey | None = None, at: float = NOW, port: int = 1) -> Packet:
    key = key or SecretKey.generate()
    return Packet.of(sign_record(key, NodeAddr(key.node_id, direct_addrs=(f"192.0.2.1:{port}",)), int(at * 1e6)))


def opened(path: pathlib.Path | None = None, **options: Any) -> PacketStore:
    store = PacketStore(path, **{"max_packets": 1000, "max_bytes": 1 << 20, "keep": 3600.0, **options})
    store.open()
    return store


def put(store: PacketStore, packets: list[Packet], now: float = NOW) -> list[Verdict]:
    return [verdict for verdict, _ in store.work([PutOrder(p, "") for p in packets], [], [], now)[0]]


def get(store: PacketStore, key: bytes, now: float = NOW) -> Kept | None:
    return store.work([], [key], [], now)[1][0]


def test_what_was_put_is_there_after_a_restart(tmp_path: pathlib.Path) -> None:
    """Packets and their counts outlive the process."""
    packets = [packet() for _ in range(10)]
    store = opened(tmp_path / "packets")
    assert put(store, packets) == [Verdict.STORED] * 10
    assert put(store, packets[:1]) == [Verdict.UNCHANGED]
    counts = store.packets, store.bytes
    assert counts == (10, sum(len(p.payload) + ROW_OVERHEAD for p in packets))
    store.close()
    store = opened(tmp_path / "packets")
    assert (store.packets, store.bytes) == counts
    assert all(get(store, p.key) == Kept(p, NOW) for p in packets)
    store.close()


def test_the_least_recently_used_goes() -> None:
    """Where there are too many, those go that nobody asked for longest."""
    store = opened(max_packets=64)
    packets = [packet() for _ in range(64)]
    put(store, packets)
    get(store, packets[0].key)
    store.work([], [], [packets[1].key], NOW)
    put(store, [packet()])
    assert store.packets <= 64
    assert store.evicted >= 1
    assert get(store, packets[0].key) and get(store, packets[1].key)
    assert get(store, packets[2].key) is None
    store.close()


def test_bytes_are_bounded_too() -> None:
    """A flood of packets takes no more bytes than are allowed."""
    store = opened(max_bytes=20_000)
    for _ in range(20):
        put(store, [packet() for _ in range(20)])
        assert store.bytes <= 20_000
    held, size = store._live().execute("SELECT count(*), sum(length(payload)) FROM packet").fetchone()
    assert (store.packets, store.bytes) == (held, size + held * ROW_OVERHEAD)
    store.close()


def test_what_nobody_puts_again_goes() -> None:
    """After its time a packet is not given any more, may be replaced by an older one, and is deleted in the end."""
    store = opened(keep=100.0)
    key = SecretKey.generate()
    put(store, [packet(key), packet()])
    put(store, [packet(key)], now=NOW + 60)
    assert get(store, packet(key).key, NOW + 150) is not None
    assert get(store, packet(key).key, NOW + 161) is None
    assert put(store, [packet(key, NOW - 5)], now=NOW + 161) == [Verdict.STORED]
    assert store.expire(NOW + 161) == 1
    assert (store.packets, store.expired) == (1, 1)
    store.close()


def test_files_that_can_not_be_used(tmp_path: pathlib.Path) -> None:
    """A file that is no database, of another version, or in no folder is an error that names it."""
    noise = tmp_path / "noise"
    noise.write_bytes(b"this is no database, however one looks at it" * 100)
    other = tmp_path / "other"
    with sqlite3.connect(other) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    missing = tmp_path / "missing"
    for path, words in ((noise, ""), (other, ""), (missing / "packets", f"there is no folder {missing}")):
        with pytest.raises(PkarrServerError, match=f"{path}.*{words}"):
            opened(path)


def test_a_closed_store_says_so() -> None:
    """After its end the store refuses, with an error of ours."""
    store = opened()
    store.close()
    with pytest.raises(StoreError):
        get(store, bytes(32))


def test_a_failed_transaction_changes_nothing(tmp_path: pathlib.Path) -> None:
    """Where one of a batch can't be written none is, the counts stay right, and the next batch works."""
    store = opened(tmp_path / "packets")
    good = packet()
    with pytest.raises(StoreError):
        put(store, [packet(), Packet(bytes(32), 1, None, 0)])  # type: ignore[arg-type]
    assert (store.packets, store.bytes) == (0, 0)
    assert put(store, [good]) == [Verdict.STORED]
    store.close()


def test_packets_in_memory_are_bounded() -> None:
    """The memory before the store holds the latest packets and no more bytes than allowed, or none at all."""
    hot = HotPackets(10_000)
    packets = {str(n): Kept(packet(), NOW) for n in range(100)}
    for name, kept in packets.items():
        hot.put(name, kept)
        assert hot.bytes <= 10_000
    assert hot.get("99", NOW) is packets["99"]
    assert hot.get("0", NOW) is None
    assert hot.take_used() == {packets["99"].packet.key}
    assert hot.get("99", NOW + 1) is None
    none = HotPackets(0)
    none.put("a", packets["1"])
    assert (len(none), none.bytes) == (0, 0)


async def test_a_queue_that_is_full_refuses(relay: PkarrRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than may wait are refused at once."""
    monkeypatch.setattr("tom_pkarr.server.shelf.MAX_WAITING", 0)
    with pytest.raises(StoreBusyError):
        await relay.shelf.get(bytes(32), "")
    assert MAX_WAITING > 0


async def test_a_disk_that_fails_is_told_once(
    run: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file can't be written requests get 503, the relay lives on, and the log says it once."""
    import aiohttp

    key = SecretKey.generate()
    signed = sign_record(key, NodeAddr(key.node_id, direct_addrs=("192.0.2.1:1",)), int(NOW * 1e6))
    async with run(store=tmp_path / "packets") as relay, aiohttp.ClientSession() as http:
        relay.store._live().execute("DROP TABLE packet")
        for _ in range(3):
            async with http.put(f"{relay.url}/{key.node_id.z32()}", data=signed.relay_payload()) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "10")
        async with http.get(relay.url + "/healthz") as response:
            assert response.status == 200
    assert relay.failures == 3
    assert len([r for r in caplog.records if "can't be reached" in r.getMessage()]) == 1


KEYS = [SecretKey(bytes(31) + bytes((number,))) for number in (1, 2, 3)]
STEP = st.tuples(
    st.integers(0, len(KEYS) - 1), st.integers(0, 5), st.integers(1, 2), st.sampled_from(["", "current", "other"])
)


@settings(max_examples=60)
@given(st.lists(st.lists(STEP, max_size=6), max_size=5), st.booleans())
def test_the_store_follows_the_rules(batches: list[list[tuple[int, int, int, str]]], restart: bool) -> None:
    """Whatever is put in whatever batches, what is held and answered is what the rules say of a table in memory."""
    with tempfile.TemporaryDirectory() as folder:
        store = opened(pathlib.Path(folder) / "packets")
        model: dict[bytes, Packet] = {}
        for batch in batches:
            orders, expected = [], []
            for key, seconds, port, condition in batch:
                new = packet(KEYS[key], NOW + seconds, port)
                held = model.get(new.key)
                named = {"": None, "other": "1", "current": str(held.timestamp_us) if held else "1"}[condition]
                verdict = judge(new, held, Conditions(named), publishing=False)
                if verdict is Verdict.STORED:
                    model[new.key] = new
                orders.append(PutOrder(new, "", Conditions(named)))
                expected.append(verdict)
            outcomes, _ = store.work(orders, [], [], NOW)
            assert [verdict for verdict, _ in outcomes] == expected
            if restart:
                store.close()
                store = opened(pathlib.Path(folder) / "packets")
        assert {key: get(store, key) for key in model} == {key: Kept(held, NOW) for key, held in model.items()}
        assert store.packets == len(model)
        assert store.bytes == sum(len(held.payload) + ROW_OVERHEAD for held in model.values())
        store.close()


async def test_memory_follows_the_store_when_nobody_waits(relay: PkarrRelay) -> None:
    """A writer that hangs up before its answer leaves no older packet in memory than in the store."""
    key = SecretKey.generate()
    z32, now = key.node_id.z32(), relay.wall()
    old, new = packet(key, now - 1, 1), packet(key, now, 2)
    await relay.shelf.put(PutOrder(old, z32))
    putting = asyncio.create_task(relay.shelf.put(PutOrder(new, z32)))
    await asyncio.sleep(0)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    # Behind the one that was given up.
    held = await relay.shelf.get(new.key, z32)
    assert held is not None and held.packet == new
    kept = relay.hot.get(z32, 0.0)
    assert kept is not None and kept.packet == new


async def test_what_fails_beside_a_put_leaves_it_stored(relay: PkarrRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put is answered as stored although what the thread does right behind it fails."""
    monkeypatch.setattr(relay.store, "expire", lambda _now: 1 // 0)
    key, blocked = SecretKey.generate(), threading.Event()
    new = packet(key, relay.wall())
    blocking = relay.shelf._call(blocked.wait)
    putting = asyncio.create_task(relay.shelf.put(PutOrder(new, key.node_id.z32())))
    await asyncio.sleep(0)
    expiring = relay.shelf._call(lambda: relay.store.expire(0.0))
    blocked.set()
    assert await blocking
    assert (await putting)[0] is Verdict.STORED
    with pytest.raises(ZeroDivisionError):
        await expiring


async def test_closing_refuses_what_waits(relay: PkarrRelay) -> None:
    """What has begun is finished, what waits behind it ends at once, and later requests hear that it is closed."""
    key, blocked, begun = SecretKey.generate(), threading.Event(), threading.Event()
    new = packet(key, relay.wall())

    def block() -> None:
        begun.set()
        blocked.wait(60)

    blocking = relay.shelf._call(block)
    assert await asyncio.to_thread(begun.wait, 60)
    waiting = asyncio.create_task(relay.shelf.put(PutOrder(new, key.node_id.z32())))
    await asyncio.sleep(0)
    closing = asyncio.create_task(relay.shelf.close())
    await asyncio.wait([waiting], timeout=60)
    assert waiting.cancelled() and blocking.cancelled()
    blocked.set()
    await closing
    assert relay.store.packets == 0
    with pytest.raises(StoreError, match="closed"):
        await relay.shelf.put(PutOrder(new, key.node_id.z32()))


async def test_bad_packets_among_good_ones_take_nothing_with_them(relay: PkarrRelay) -> None:
    """Those that come together are verified together; each good one is stored and each bad one has its own reason."""
    keys = [SecretKey.generate() for _ in range(40)]
    packets = [packet(key, relay.wall()) for key in keys]
    bodies = [p.payload if n % 3 else bytes([p.payload[0] ^ 1]) + p.payload[1:] for n, p in enumerate(packets)]
    orders = [
        Submission(p.key, key.node_id.z32(), body, Conditions(), False)
        for key, p, body in zip(keys, packets, bodies, strict=True)
    ]
    outcomes = await asyncio.gather(*map(relay.shelf.put, orders), return_exceptions=True)
    for number, (each, outcome) in enumerate(zip(packets, outcomes, strict=True)):
        if number % 3:
            assert isinstance(outcome, tuple)
            assert (outcome[0], outcome[1] and outcome[1].packet) == (Verdict.STORED, each)
        else:
            assert isinstance(outcome, PutError)
            assert (outcome.status, outcome.kind) == (400, "signature")
    assert relay.store.packets == sum(1 for number in range(40) if number % 3)


def test_renewing_takes_no_newer_packet_away() -> None:
    """What was looked for in the DHT meanwhile counts as seen only if it is still what is held."""
    hot, key = HotPackets(10_000), SecretKey.generate()
    old, new = packet(key, NOW, 1), packet(key, NOW + 1, 2)
    hot.put("a", Kept(old, NOW))
    hot.renew("a", old, NOW + 5)
    assert hot.get("a", NOW + 5) == Kept(old, NOW + 5)
    hot.put("a", Kept(new, NOW))
    hot.renew("a", old, NOW + 9)
    assert hot.get("a", NOW) == Kept(new, NOW)
