"""Contribution statistics: the score as it is defined, roles with hysteresis, bounds, and the file."""

from __future__ import annotations

import math
import pathlib
import sqlite3
from typing import Any

import pytest

from tom_connect.keys import SecretKey
from tom_relay.errors import RelayServerError
from tom_relay.server import RelayServerConfig
from tom_relay.server.accounts import Accounts
from tom_relay.server.contributions import MAX_RATIO, MIB, Contribution, Ledger, Role
from tom_relay.server.hub import RelayHub
from tom_relay.server.statsfile import StatsFile
from tom_relay.wire import Dialect, SendDatagrams, encode

HOUR = 3600.0


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_the_score_is_the_formula() -> None:
    """(relayed*1 + success*5 + uptime_h*0.5 + MiB_relayed*0.2 + ratio*1.5) * exp(-0.05*idle_h), worked out by hand."""
    entry = Contribution(
        relayed_packets=100,
        relayed_bytes=10 * MIB,
        own_packets=20,
        own_bytes=5 * MIB,
        delivered=90,
        failed=10,
        uptime=8 * HOUR,
        last_active=1000.0,
    )
    full = 100 * 1 + 0.9 * 5 + 8 * 0.5 + 10 * 0.2 + 2 * 1.5
    assert full == 113.5
    assert entry.score(1000.0) == pytest.approx(full)
    assert entry.score(1000.0 + 10 * HOUR) == pytest.approx(full * math.exp(-0.5))
    assert entry.score(0.0) == pytest.approx(full)  # a clock that was set back gives no credit


def test_the_empty_and_the_one_sided_have_scores() -> None:
    """Nothing gives 0; who takes nothing for itself has a bounded ratio."""
    assert Contribution().score(0.0) == 0.0
    assert Contribution(relayed_bytes=1).ratio == MAX_RATIO
    assert Contribution(relayed_bytes=100, own_bytes=1).ratio == MAX_RATIO
    assert Contribution(own_bytes=5).ratio == 0.0


def test_roles_change_at_10_and_under_2() -> None:
    """A node becomes a relay at 10, stays one down to 2, and must reach 10 again."""
    entry = Contribution(delivered=1)
    entry.uptime = 9.98 * HOUR
    assert entry.update_role(0.0) is Role.PEER
    entry.uptime = 10 * HOUR
    assert entry.score(0.0) == 10.0
    assert entry.update_role(0.0) is Role.RELAY
    idle = math.log(10 / 2.01) / 0.05 * HOUR
    assert entry.update_role(idle) is Role.RELAY
    idle = math.log(10 / 1.99) / 0.05 * HOUR
    assert entry.update_role(idle) is Role.PEER
    assert entry.update_role(idle / 2) is Role.PEER


def test_the_longest_idle_are_forgotten() -> None:
    """The ledger is bounded; who was active last stays."""
    ledger = Ledger(3)
    for number in range(3):
        ledger.touch(key(number), float(number))
    ledger.touch(key(0), 5.0)
    ledger.touch(key(9), 6.0)
    assert [found for found, _ in ledger.items()] == [key(2), key(0), key(9)]
    assert ledger.forgotten == 1
    assert {found for found, _ in ledger.take_changed()} == {key(0), key(2), key(9)}
    assert ledger.take_changed() == []


class _Wall:
    """A wall clock that is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_the_hub_is_accounted_for() -> None:
    """What nodes send, how long they are there, how often they come, and what is lost stand in their entries."""
    config = RelayServerConfig.dev(queue_packets=2)
    hub, wall = RelayHub(config, lambda _client: None), _Wall()
    accounts = Accounts(config, hub, wall)
    await accounts.open()
    ids = [SecretKey(bytes(31) + bytes((number,))).node_id for number in (1, 2)]
    a, b = (hub.register(node_id, Dialect.IROH_V2, 0.0)[0] for node_id in ids)
    accounts.begin(a)
    accounts.begin(b)
    for _ in range(5):
        hub.receive(a, encode(SendDatagrams(b.key, bytes(250), 0, 100), a.dialect), 0.0)
    wall.now += HOUR
    accounts.update()
    entry = accounts.ledger.get(a.key)
    assert entry is not None
    assert (entry.own_packets, entry.own_bytes, entry.delivered, entry.failed) == (6, 500, 6, 9)
    assert (entry.sessions, entry.uptime) == (1, HOUR)
    relay = accounts.ledger.relay
    assert (relay.relayed_packets, relay.relayed_bytes, relay.failed) == (6, 500, 9)
    wall.now += HOUR
    accounts.end(a)
    accounts.update()
    assert entry.uptime == 2 * HOUR
    accounts.begin(a)
    assert entry.sessions == 2
    assert relay.relayed_packets == 6  # nothing is counted twice
    await accounts.close()


async def test_statistics_survive_a_restart(run: Any, clients: Any, tmp_path: pathlib.Path) -> None:
    """With a file, a server that starts again knows what nodes did before; a relay that has worked is one by role."""
    file, alice = tmp_path / "stats.sqlite", SecretKey.generate()
    async with run(stats_file=file) as relay:
        a, b = await clients.open(relay.url, alice), await clients.open(relay.url)
        for _ in range(12):
            await a.send(b.node_id, bytes(100))
            await b.read()
        assert relay.describe_statistics()["relay"]["relayed_packets"] == 12
        assert relay.describe_relays()[0]["role"] == "relay"
    async with run(stats_file=file) as again:
        stats = again.describe_statistics()
        assert stats["relay"]["relayed_packets"] == 12
        assert stats["relay"]["sessions"] == 2
        assert again.describe_relays()[0]["role"] == "relay"
        assert again.describe_relays()[0]["score"] > 10
        (entry,) = [entry for entry in stats["nodes"] if entry["node_id"] == str(alice.node_id)]
        assert (entry["own_packets"], entry["own_bytes"], entry["sessions"]) == (12, 1200, 1)


def test_the_file_is_bounded(tmp_path: pathlib.Path) -> None:
    """The file keeps no more nodes than the ledger, and a ledger of fewer reads the newest."""
    file = StatsFile(tmp_path / "stats.sqlite")
    ledger = Ledger(5)
    file.open(ledger)
    file.close([(key(number), Contribution(last_active=float(number))) for number in range(20)])
    smaller = Ledger(3)
    file.open(smaller)
    file.close([])
    assert [found for found, _ in smaller.items()] == [key(17), key(18), key(19)]
    with sqlite3.connect(tmp_path / "stats.sqlite") as database:
        assert database.execute("SELECT count(*) FROM contribution").fetchone() == (3,)
    database.close()


async def test_a_file_that_is_none_is_refused(run: Any, tmp_path: pathlib.Path) -> None:
    """A file of another kind, of another version or in no directory stops the start with its name."""
    other = tmp_path / "other"
    other.write_text("this is no database, but long enough to be looked at as one" * 10)
    newer = tmp_path / "newer"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    for file, words in (
        (other, "not a database"),
        (newer, "another version"),
        (tmp_path / "no" / "x", "unable to open"),
    ):
        with pytest.raises(RelayServerError, match=words):
            await run(stats_file=file).start()
