"""The simulated networks themselves, checked by probes as a real lab is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_connect.testing.fakenet import Depends, FakeNet, FakeSocket, Firewall, Host, Link, Nat
from tom_connect.testing.fakerelay import DEAD_AFTER, FakeRelay

pytest_plugins = ["tom_connect.testing.pytest_plugin"]


class Probe:
    """A socket that keeps what it receives."""

    def __init__(self, host: Host, port: int = 0) -> None:
        self.got: list[tuple[bytes, SocketAddr]] = []
        self.socket: FakeSocket = host.socket(lambda data, source: self.got.append((data, source)), port)
        self.host = host

    def send(self, dest: SocketAddr, data: bytes = b"x", ttl: int = 64) -> None:
        self.socket.send(data, dest, ttl=ttl)
        self.host.net.advance(1.0)

    def seen_by(self, other: Probe) -> SocketAddr:
        other.got.clear()
        self.send(other.host.addr(other.socket.port))
        return other.got[-1][1]

    def gets_from(self, other: Probe, dest: SocketAddr) -> bool:
        self.got.clear()
        other.send(dest)
        return bool(self.got)


KINDS = {
    "open": (Nat.OPEN, Depends.NOTHING, Depends.NOTHING),
    "restricted": (Nat.RESTRICTED, Depends.NOTHING, Depends.ADDRESS),
    "moderate": (Nat.MODERATE, Depends.NOTHING, Depends.ADDRESS_AND_PORT),
    "strict": (Nat.STRICT, Depends.ADDRESS_AND_PORT, Depends.ADDRESS_AND_PORT),
    "address-dependent": (
        Nat(mapping=Depends.ADDRESS, filtering=Depends.ADDRESS, preserve=False),
        Depends.ADDRESS,
        Depends.ADDRESS,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_nat_maps_and_filters_as_its_kind_says(name: str, fake_net: FakeNet) -> None:
    """Probing from two servers with two ports each finds the mapping and the filtering that were asked for."""
    kind, mapping, filtering = KINDS[name]
    inside = Probe(fake_net.host("inside", fake_net.router("r", kind)), 5000)
    one, two = fake_net.host("one"), fake_net.host("two")
    first, second, elsewhere = Probe(one), Probe(one), Probe(two)
    seen = inside.seen_by(first)
    other_port, other_host = inside.seen_by(second), inside.seen_by(elsewhere)
    assert seen == inside.seen_by(first)
    if mapping is Depends.NOTHING:
        assert seen == other_port == other_host
    elif mapping is Depends.ADDRESS:
        assert seen == other_port != other_host
    else:
        assert len({seen, other_port, other_host}) == 3
    if mapping is Depends.NOTHING:
        assert (seen.port == 5000) is kind.preserve
    # Filtering, with a mapping that only `first` was spoken to through.
    fresh = Probe(inside.host)
    seen = fresh.seen_by(first)
    assert fresh.gets_from(first, seen)
    assert fresh.gets_from(second, seen) is (filtering is not Depends.ADDRESS_AND_PORT)
    assert fresh.gets_from(elsewhere, seen) is (filtering is Depends.NOTHING)


@pytest.mark.parametrize("hairpin", [True, False])
def test_hairpinning_is_there_where_asked_for(hairpin: bool, fake_net: FakeNet) -> None:
    """Two hosts inside meet at their outside addresses only through a router that turns packets round."""
    router = fake_net.router("r", Nat(filtering=Depends.NOTHING, hairpin=hairpin))
    a, b = Probe(fake_net.host("a", router), 5000), Probe(fake_net.host("b", router), 6000)
    server = Probe(fake_net.host("server"))
    outside = b.seen_by(server)
    assert b.gets_from(a, outside) is hairpin
    if hairpin:
        assert b.got[0][1] == SocketAddr(outside.host, 5000)
    assert b.gets_from(a, b.host.addr(6000))
    assert b.got[0][1] == a.host.addr(5000)


def test_ports_are_kept_where_free_and_random_elsewhere(fake_net: FakeNet) -> None:
    """The second host with a port gets another one outside; with remapping nobody keeps his."""
    router = fake_net.router("r", Nat())
    server = Probe(fake_net.host("server"))
    assert Probe(fake_net.host("a", router), 5000).seen_by(server).port == 5000
    assert Probe(fake_net.host("b", router), 5000).seen_by(server).port != 5000
    remapping = fake_net.router("s", Nat(preserve=False, ports=(10000, 13999)))
    ports = {Probe(fake_net.host("c", remapping)).seen_by(server).port for _ in range(20)}
    assert len(ports) == 20
    assert all(10000 <= port <= 13999 for port in ports)


@pytest.mark.parametrize("refreshes", [True, False])
def test_a_mapping_ends_with_silence(refreshes: bool, fake_net: FakeNet) -> None:
    """After its time without a packet nothing enters any more; packets from outside keep it alive only if told to."""
    router = fake_net.router("r", Nat(timeout=30.0, preserve=False, inbound_refreshes=refreshes))
    inside, server = Probe(fake_net.host("inside", router)), Probe(fake_net.host("server"))
    seen = inside.seen_by(server)
    for _ in range(3):
        fake_net.advance(20)
        inside.gets_from(server, seen)
    assert bool(inside.got) is refreshes
    fake_net.advance(31)
    assert not inside.gets_from(server, seen)
    assert inside.seen_by(server) != seen


def test_rebinding_and_new_addresses(fake_net: FakeNet) -> None:
    """A router that restarts forgets its mappings and gives other ports; a new outer address replaces the old one."""
    router = fake_net.router("r", Nat.MODERATE)
    inside, server = Probe(fake_net.host("inside", router), 5000), Probe(fake_net.host("server"))
    seen = inside.seen_by(server)
    router.rebind()
    assert not inside.gets_from(server, seen)
    rebound = inside.seen_by(server)
    assert rebound.host == seen.host and rebound.port != seen.port
    router.new_address()
    assert not inside.gets_from(server, rebound)
    assert inside.seen_by(server).host not in (seen.host, "")


def test_carriers_translate_again(fake_net: FakeNet) -> None:
    """Two homes of one carrier share its address, each home has one of 100.64.0.0/10, and replies find the way back."""
    carrier = fake_net.router("carrier", Nat.MODERATE)
    homes = [fake_net.router(f"home{i}", Nat.MODERATE, behind=carrier, lan="192.168.1") for i in range(2)]
    assert all(home.wan is not None and home.wan.startswith("100.64.") for home in homes)
    server = Probe(fake_net.host("server"))
    probes = [Probe(fake_net.host(f"h{i}", home), 5000) for i, home in enumerate(homes)]
    seen = [probe.seen_by(server) for probe in probes]
    assert {addr.host for addr in seen} == {carrier.wan}
    assert seen[0] != seen[1]
    for probe, addr in zip(probes, seen, strict=True):
        assert probe.gets_from(server, addr)
    # In the carrier's network the homes meet at its inner addresses, as on any network.
    assert homes[1].wan is not None
    probes[1].send(SocketAddr(str(homes[0].wan), 5000))
    assert probes[1].gets_from(probes[0], SocketAddr(homes[1].wan, 5000))


def test_an_ipv6_firewall_lets_in_only_answers(fake_net: FakeNet) -> None:
    """Addresses are the hosts' own; nothing enters before something left for there; without a firewall all enters."""
    guarded = Probe(fake_net.host("guarded", fake_net.router("g", Nat.MODERATE, ipv6=Firewall())), 5000)
    free = Probe(fake_net.host("free", fake_net.router("f", Nat.MODERATE, ipv6=True)), 6000)
    assert not guarded.gets_from(free, guarded.host.addr6(5000))
    assert free.gets_from(guarded, free.host.addr6(6000))
    assert free.got[0][1] == guarded.host.addr6(5000)
    assert guarded.gets_from(free, guarded.host.addr6(5000))
    fake_net.advance(121)
    assert not guarded.gets_from(free, guarded.host.addr6(5000))
    assert fake_net.host("old", fake_net.router("o", Nat.MODERATE)).v6 is None


def test_blocked_udp_and_cut_links(fake_net: FakeNet) -> None:
    """A router that blocks UDP, a link that is down and one that works in one direction stop just what they say."""
    router = fake_net.router("r", Nat.OPEN)
    inside, server = Probe(fake_net.host("inside", router)), Probe(fake_net.host("server"))
    there = server.host.addr(server.socket.port)
    seen = inside.seen_by(server)
    for stop, out, back in (
        (lambda: setattr(router, "block_udp", True), False, False),
        (lambda: setattr(router, "block_udp", False), True, True),
        (lambda: setattr(router.link, "up", False), False, False),
        (lambda: setattr(router.link, "up", True), True, True),
        (lambda: setattr(router.link, "inward", False), True, False),
        (lambda: setattr(inside.host.link, "outward", False), False, False),
    ):
        assert isinstance(stop, Callable)  # type: ignore[arg-type]
        stop()
        assert server.gets_from(inside, there) is out
        assert inside.gets_from(server, seen) is back


def test_a_link_delays_loses_doubles_and_mixes(fake_net: FakeNet) -> None:
    """Of ten thousand packets the shares and the times are those of the link, and the order is not kept."""
    link = Link(delay=0.050, jitter=0.020, loss=0.1, duplicate=0.05)
    a, b = fake_net.host("a", link=link), fake_net.host("b")
    times: list[tuple[int, float]] = []
    b.socket(lambda data, _source: times.append((int(data), fake_net.now)), 7)
    sender = Probe(a)
    start = fake_net.now
    for i in range(10_000):
        sender.socket.send(str(i).encode(), b.addr(7))
    fake_net.advance(1.0)
    assert 0.050 <= min(at for _, at in times) - start < max(at for _, at in times) - start <= 0.070
    assert 9000 < len(times) < 9900
    assert 8800 < len({i for i, _ in times}) < 9200
    assert [i for i, _ in times] != sorted(i for i, _ in times)


def test_a_rate_delays_and_then_drops(fake_net: FakeNet) -> None:
    """A link of 10,000 bytes a second passes a second's worth in a second, and only its queue more."""
    a, b = fake_net.host("a", link=Link(rate=10_000, queue=0.55)), Probe(fake_net.host("b"), 7)
    sender = Probe(a)
    for _ in range(100):
        sender.socket.send(bytes(1000), b.host.addr(7))
    fake_net.advance(0.25)
    assert len(b.got) == 2
    fake_net.advance(10)
    assert len(b.got) == 6
    sender.socket.send(bytes(1473), b.host.addr(7))
    fake_net.advance(1)
    assert len(b.got) == 6


def test_a_low_ttl_opens_the_near_router_and_never_meets_the_far_one(fake_net: FakeNet) -> None:
    """The trap of routers that remember what they refused: it costs the far side its port, unless the TTL ran out."""
    for ttl, costs in ((64, True), (4, False)):
        near, far = fake_net.router("near", Nat.MODERATE), fake_net.router("far", Nat(tracks_unsolicited=True))
        a, b = Probe(fake_net.host("a", near), 5000), Probe(fake_net.host("b", far), 6000)
        server = Probe(fake_net.host("server"))
        outside_a, outside_b = a.seen_by(server), b.seen_by(server)
        a.send(outside_b, ttl=ttl)
        assert not b.got
        b.send(outside_a)
        assert bool(a.got) is not costs
        b.send(server.host.addr(server.socket.port))
        assert server.got[-1][1] == outside_b


def test_ttl_counts_every_router(fake_net: FakeNet) -> None:
    """A packet needs one for each router on its way and those of the internet, and none within a LAN."""
    router = fake_net.router("r", Nat.OPEN)
    a, b, c = (Probe(fake_net.host(name, where)) for name, where in (("a", router), ("b", router), ("c", None)))
    b.send(c.host.addr(c.socket.port), ttl=fake_net.core_hops + 1)
    assert not c.got
    b.send(c.host.addr(c.socket.port), ttl=fake_net.core_hops + 2)
    assert c.got
    a.send(b.host.addr(b.socket.port), ttl=1)
    assert b.got


def test_moving_and_sleeping(fake_net: FakeNet) -> None:
    """A host that moves has other addresses and the same sockets; one that sleeps hears nothing."""
    home, cafe = fake_net.router("home"), fake_net.router("cafe")
    laptop, server = Probe(fake_net.host("laptop", home)), Probe(fake_net.host("server"))
    before = laptop.seen_by(server)
    laptop.host.move(cafe)
    assert not laptop.gets_from(server, before)
    after = laptop.seen_by(server)
    assert (before.host, after.host) == (home.wan, cafe.wan)
    rang: list[float] = []
    timer = laptop.host.timer(lambda: rang.append(laptop.host.now()))
    for stood in (True, False):
        rang.clear()
        due = laptop.host.now() + 5
        timer.set(due)
        laptop.host.sleep()
        assert not laptop.gets_from(server, after)
        fake_net.advance(59)
        assert rang == []
        laptop.host.wake(clock_stood=stood)
        fake_net.advance(4.9)
        assert bool(rang) is not stood
        fake_net.advance(0.2)
        assert len(rang) == 1
        if stood:
            assert abs(rang[0] - due) < 1e-6


def test_the_same_seed_gives_the_same_hour() -> None:
    """Two worlds of one seed lose and delay the same packets; another seed does not."""

    def arrivals(seed: int) -> list[float]:
        net = FakeNet(seed)
        a, b = net.host("a", net.router("r", Nat.STRICT, link=Link(0.01, jitter=0.05, loss=0.3))), net.host("b")
        times: list[float] = []
        b.socket(lambda _data, source: times.append(net.now + source.port), 7)
        sender = a.socket(lambda _data, _source: None)
        net.every(1.0, net.now + 100, lambda: sender.send(b"x", b.addr(7)))
        net.advance(200)
        return times

    assert arrivals(1) == arrivals(1) != arrivals(2)


def test_a_relay_carries_what_udp_can_not(fake_net: FakeNet) -> None:
    """Through a router that blocks UDP, with loss, all datagrams arrive in order; a killed relay carries them again."""
    relay = FakeRelay(fake_net, link=Link(delay=0.01))
    got: list[bytes] = []
    ids = [SecretKey(bytes([i]) * 32).node_id for i in range(2)]
    router = fake_net.router("r", Nat.MODERATE, link=Link(delay=0.02, loss=0.1))
    router.block_udp = True
    a = relay.client(fake_net.host("a", router), ids[0], lambda _from, _data: None)
    relay.client(fake_net.host("b"), ids[1], lambda sender, data: got.append(data) if sender == ids[0] else None)
    fake_net.advance(2)
    assert a.connected
    for i in range(50):
        a.send(ids[1], b"%d" % i)
    fake_net.advance(5)
    assert got == [b"%d" % i for i in range(50)]
    relay.kill()
    fake_net.advance(5)
    relay.restart()
    fake_net.advance(5)
    a.send(ids[1], b"again")
    fake_net.advance(1)
    assert got[-1] == b"again"
    router.new_address()
    a.send(ids[1], b"unaware")
    fake_net.advance(DEAD_AFTER / 2)
    assert got[-1] == b"again"
    fake_net.advance(DEAD_AFTER + 1)
    assert got[-1] == b"unaware"


def test_actions_without_end_are_an_error(fake_net: FakeNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that goes round in circles ends the test instead of hanging it."""
    monkeypatch.setattr("tom_connect.testing.clock.MAX_STEPS", 1000)

    def again() -> None:
        fake_net.at(fake_net.now, again)

    again()
    with pytest.raises(RuntimeError, match="no end"):
        fake_net.advance(1)
