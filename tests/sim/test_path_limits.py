"""What hostile records, peers and strangers can make the paths do, and how peers without disco are reached."""

from __future__ import annotations

import itertools

from tests.sim.pathworld import World, pair
from tests.sim.test_paths import active
from tom_connect.addr import SocketAddr
from tom_connect.holepunch import core as core_module
from tom_connect.holepunch import pathrules as rules
from tom_connect.holepunch.disco import CallMeMaybe, encode_message
from tom_connect.holepunch.events import PathRestored, PathSelected


def test_a_peer_that_calls_without_end_is_slowed() -> None:
    """An authentic peer that sends a hundred calls, each with other candidates, makes us ping a bounded number."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.run(1)
    start = sum(world.sent.values())
    hosts = itertools.count()
    for _ in range(100):
        victims = tuple(type(next(iter(a.addrs.values())))(f"203.0.113.{next(hosts) % 250}", 9) for _ in range(16))
        packet, _stamp = b.core.sealer.seal(a.id, encode_message(CallMeMaybe(world.rng.randbytes(12), victims)))
        a.receive(packet, b.addrs[next(iter(b.addrs))])
        world.run(0.01)
    assert a.core.counters["disco: call beyond the limit"] >= 100 - core_module.CALL_BURST - 2
    world.run(30)
    assert sum(world.sent.values()) - start <= 300
    assert len(a.remotes[b.id].paths) <= rules.MAX_PATHS


def test_one_node_gets_a_bounded_rate_of_pings() -> None:
    """Full tables of candidates from two sources that never answer are pinged at no more than the rate for a node."""
    world = World()
    a = world.node("a", "192.0.2.1:1000")
    b = world.node("b", "198.51.100.2:2000", disco=False)
    a.hold(b)
    for source in ("dht", "pkarr"):
        a.tell(b, *(f"203.0.113.{i}:{9 if source == 'dht' else 8}" for i in range(1, 17)), source=source)
    world.run(2)
    assert sum(world.sent.values()) <= core_module.PEER_BURST + 2 * core_module.PEER_RATE
    assert a.core.counters["ping beyond the limit of a node"] > 0


def test_what_quic_hears_before_the_handshake_is_done_proves_nothing() -> None:
    """An answer from an address that nobody gave gets a ping; QUIC packets only once that is answered."""
    world = World()
    a = world.node("a", "192.0.2.1:1000")
    b = world.node("b", "198.51.100.2:2000", disco=False)
    remote = a.hold(b)
    stray = type(next(iter(a.addrs.values())))("203.0.113.7", 7)
    remote.quic_heard(stray, world.now, 1200)
    a.pump()
    world.run(1)
    assert not remote.usable()
    assert 0 < world.sent[stray] <= rules.UNPROVEN_PINGS


def test_without_disco_only_what_the_caller_gave_or_quic_validated_is_used() -> None:
    """A peer that ignores disco gets QUIC packets at given addresses alone; the one that answers is selected."""
    world = World()
    a = world.node("a", "192.0.2.1:1000", "[2001:db8::1]:1000")
    b = world.node("b", "198.51.100.2:2000", "[2001:db8::2]:2000", disco=False)
    remote = a.hold(b)
    a.tell(b, "198.51.100.2:2000")
    assert not remote.usable()
    world.run(1)
    assert not remote.usable()
    a.tell(b, "[2001:db8::2]:2000", trusted=True)
    a.tell(b, "203.0.113.9:99", trusted=True)
    assert len(remote.targets) == 2
    b.hold(a)
    a.send_quic(b)
    world.run(0.1)
    b.core.acquire(a.id, world.now).handshake_done(a.addrs[next(reversed(a.addrs))], world.now)
    world.traffic(a, b, 30.0)
    world.run(30)
    assert active(a, b) == "v6"
    assert a.quic_copies[next(iter(b.addrs.values()))] == 0
    assert a.of(PathRestored) == []
    assert len(a.of(PathSelected)) == 1
    assert world.sent[next(iter(b.addrs.values()))] <= rules.UNPROVEN_PINGS


def test_a_quiet_peer_without_disco_is_not_taken_for_dead() -> None:
    """When an iroh-like peer does not answer our last acknowledgment, no outage is declared and nothing is sent."""
    world = World()
    a = world.node("a", "192.0.2.1:1000")
    b = world.node("b", "198.51.100.2:2000", disco=False)
    a.hold(b)
    b.hold(a)
    a.tell(b, trusted=True)
    b.core.acquire(a.id, world.now).handshake_done(a.addrs[next(iter(a.addrs))], world.now)
    world.traffic(a, b, 30.0)
    world.run(31)
    a.send_quic(b)
    world.run(60)
    before = sum(world.sent.values())
    world.run(600)
    assert sum(world.sent.values()) == before
    assert a.of(PathRestored) == []


def test_a_moved_peer_without_disco_is_followed_with_limited_credit() -> None:
    """It moves: the server answers there with at most three times what came, then freely once it is confirmed."""
    world = World()
    server = world.node("server", "198.51.100.2:2000")
    client = world.node("client", "192.0.2.1:1000", disco=False)
    here = next(iter(client.addrs.values()))
    remote = server.hold(client)
    client.hold(server)
    client.tell(server, trusted=True)
    remote.handshake_done(here, world.now)
    server.pump()
    world.every(0.1, world.now + 60, lambda: client.send_quic(server))
    world.every(0.001, world.now + 10, lambda: server.send_quic(client))
    world.run(5)
    moved = type(here)("192.0.2.200", 4242)
    client.addrs[here.family] = moved
    at = world.now
    world.run(0.5)
    selected = server.of(PathSelected)[-1]
    assert selected.path == moved
    assert selected.at - at < 0.25
    assert server.quic_copies[moved] <= 3 * 6
    remote.quic_confirmed(moved)
    world.run(0.5)
    assert server.quic_copies[moved] > 300


def test_a_forwarded_packet_does_not_move_a_live_peer() -> None:
    """An attacker who forwards one authentic packet from an address of his own gets pings there, and no traffic."""
    for disco in (True, False):
        world = World()
        server = world.node("server", "198.51.100.2:2000")
        client = world.node("client", "192.0.2.1:1000", disco=disco)
        victim = type(next(iter(client.addrs.values())))("203.0.113.66", 666)
        remote = server.hold(client)
        client.hold(server)
        client.tell(server, trusted=True)
        remote.handshake_done(next(iter(client.addrs.values())), world.now)
        world.traffic(client, server, 20.0)
        world.run(2)
        for _ in range(5):
            remote.quic_heard(victim, world.now, 1200)
            server.pump()
            world.run(0.1)
        world.run(10)
        assert remote.active is not None
        assert remote.active.path != victim
        assert server.quic_copies[victim] <= 15 if not disco else server.quic_copies[victim] == 0
        assert world.sent[victim] - server.quic_copies[victim] <= rules.UNPROVEN_PINGS


def test_forged_records_cost_a_victim_a_bounded_number_of_probes() -> None:
    """A hundred nodes whose records all name one victim: it gets ten packets of 106 bytes, then one in ten seconds."""
    world = World()
    a = world.node("a", "192.0.2.1:1000")
    victim = "203.0.113.53:53"
    peers = [world.node(f"peer{i}", "198.51.100.2:2000", disco=False) for i in range(100)]
    for peer in peers:
        a.hold(peer)
        a.tell(peer, victim)
    seconds = 60.0
    world.run(seconds)
    for peer in peers:
        a.tell(peer, victim)
    world.run(seconds)
    got = world.sent[type(next(iter(a.addrs.values()))).parse(victim)]
    assert 5 <= got <= core_module.ADDRESS_BURST + 2 * seconds * core_module.ADDRESS_RATE


def test_a_record_of_a_thousand_addresses_reaches_sixteen() -> None:
    """What one record can make us probe is bounded, in addresses and in packets, and it gives way to others."""
    world = World()
    a = world.node("a", "192.0.2.1:1000")
    b = world.node("b", "198.51.100.2:2000", disco=False)
    remote = a.hold(b)
    a.tell(b, *(f"203.0.113.{i % 250 + 1}:{1000 + i}" for i in range(1000)))
    world.run(130)  # the tenth ping goes out after 81 s, and is waited for 40 s
    assert len(world.sent) <= rules.MAX_OF_SOURCE
    assert sum(world.sent.values()) <= rules.MAX_OF_SOURCE * rules.UNPROVEN_PINGS
    assert len(remote.paths) <= rules.MAX_OF_SOURCE
    before = sum(world.sent.values())
    world.run(600)
    assert sum(world.sent.values()) == before
    for i in range(2):
        source = f"another {i}"
        a.tell(b, *(f"203.0.114.{i + 1}:{1 + port}" for port in range(rules.MAX_OF_SOURCE)), source=source)
    assert len(remote.paths) == rules.MAX_PATHS
    world.run(130)
    a.tell(b, "203.0.115.1:1", source="a third")
    assert len(remote.paths) == rules.MAX_PATHS
    assert any(str(path) == "203.0.115.1:1" for path in remote.paths)


def test_a_newer_record_takes_the_places_of_an_older_one() -> None:
    """What a replayed record names loses its places, pings and all, to what the newer one names; what answers stays."""
    world = World()
    a = world.node("a", "192.0.2.1:1000")
    b = world.node("b", "198.51.100.2:2000")
    remote = a.hold(b)
    b.hold(a)
    old = [f"203.0.113.{i + 1}:{1000 + i}" for i in range(rules.MAX_OF_SOURCE - 1)]
    a.tell(b, *old, "198.51.100.2:2000")
    world.run(1.0)
    a.tell(b, "203.0.114.1:1")
    assert not any(str(path) == "203.0.114.1:1" for path in remote.paths)
    given = SocketAddr.parse("203.0.113.99:1")
    a.tell(b, str(given), source="caller", trusted=True)
    replaced = [SocketAddr.parse(addr) for addr in (*old, "198.51.100.2:2000")]
    a.core.withdraw_candidates(remote, [*replaced, given], "dht", world.now)
    a.tell(b, "203.0.114.1:1")
    before = sum(world.sent[addr] for addr in replaced[:-1])
    world.run(5.0)
    assert {str(path) for path in remote.paths} == {"198.51.100.2:2000", "203.0.114.1:1", str(given)}
    assert sum(world.sent[addr] for addr in replaced[:-1]) == before > 0


def test_local_addresses_from_records_are_not_probed() -> None:
    """Loopback, private, link-local, multicast and broadcast addresses get nothing, unless local ones are allowed."""
    bad = ["127.0.0.1:1", "10.0.0.1:1", "192.168.0.1:1", "169.254.1.1:1", "[::1]:1", "[fe80::1]:1", "[fd00::1]:1"]
    never = ["224.0.0.1:1", "255.255.255.255:1", "0.0.0.0:1", "[ff02::1]:1", "8.8.8.8:0", "[::ffff:224.0.0.1]:1"]
    world = World()
    a = world.node("a", "192.0.2.1:1000", "[2001:db8::1]:1")
    b = world.node("b", "198.51.100.2:2000")
    a.hold(b)
    a.tell(b, *bad, *never)
    world.run(10)
    assert not world.sent
    world = World()
    a = world.node("a", "192.0.2.1:1000", "[2001:db8::1]:1", allow_local=True)
    a.hold(b)
    a.tell(b, *bad, *never)
    world.run(10)
    assert {str(path) for path in world.sent} == set(bad)


def test_a_released_node_gets_nothing_and_is_forgotten() -> None:
    """After the last user no ping goes out; the table entry is kept for a reconnection and then dropped."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.run(1)
    remote = a.remotes[b.id]
    a.core.release(remote, world.now)
    before = world.disco_sent
    a.core.tick(world.now)
    world.run(5)
    assert world.disco_sent == before
    assert a.core.acquire(b.id, world.now) is remote
    assert remote.usable()
    a.core.release(remote, world.now)
    world.run(core_module.IDLE_KEPT + 1)
    assert a.core.acquire(b.id, world.now) is not remote


def test_idle_nodes_are_bounded() -> None:
    """Thousands of nodes that came and went leave a bounded table."""
    world = World()
    a = world.node("a", "192.0.2.1:1000")
    for i in range(core_module.MAX_IDLE + 50):
        peer = world.node(f"p{i}", "198.51.100.2:2000")
        a.core.release(a.hold(peer), world.now)
    assert len(list(a.core.remotes())) <= core_module.MAX_IDLE + 1


def test_a_peer_that_pings_from_everywhere_fills_no_table() -> None:
    """An authentic peer that pings from a thousand ports leaves a bounded number of paths and gets bounded pings."""
    world = World()
    a, b = pair(world)
    a.tell(b)
    world.run(1)
    remote = a.remotes[b.id]
    start = sum(world.sent.values())
    for port in range(1000):
        remote.ping_received(type(next(iter(b.addrs.values())))("198.51.100.3", 3000 + port), world.now)
    a.pump()
    world.run(30)
    assert len(remote.paths) <= rules.MAX_PATHS
    assert sum(world.sent.values()) - start <= core_module.PEER_BURST + 30 * core_module.PEER_RATE


def test_pings_under_way_are_bounded_and_expire() -> None:
    """Unanswered pings leave no state behind."""
    world = World()
    world.v4.up = world.v6.up = False
    a, b = pair(world)
    a.tell(b, trusted=True)
    world.run(120)
    assert len(a.core._asked) <= 4
    a.core.release(a.remotes[b.id], world.now)
    world.run(60)
    a.core.tick(world.now)
    assert not a.core._asked._by_tx
    assert not a.core._asked._by_stamp
