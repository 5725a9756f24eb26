"""The lab's own NATs, firewalls and links do what they are named after; all of it in network namespaces."""

from __future__ import annotations

import itertools
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tom_connect.addr import SocketAddr, is_local
from tom_connect.testing.natlab import Host, Lab, LabError, Nat, Router, Wire
from tom_connect.testing.natlab.probe import Behaviour, Dependence, probe

Address = tuple[str, int]
OpenSocket = Callable[..., socket.socket]

PATIENCE = 20.0
ANY, ADDRESS, BOTH = Dependence.NOTHING, Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT
KINDS = {
    Nat.NONE: (ANY, ANY),
    Nat.OPEN: (ANY, ANY),
    Nat.RESTRICTED: (ANY, ADDRESS),
    Nat.MODERATE: (ANY, BOTH),
    Nat.STRICT: (BOTH, BOTH),
}


@pytest.fixture
def udp() -> Iterator[OpenSocket]:
    """Opens UDP sockets in hosts, and closes them after the test."""
    opened: list[socket.socket] = []

    def open_one(host: Host, port: int = 0, *, version: int = 4) -> socket.socket:
        made = host.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
        opened.append(made)
        made.bind((host.addr if version == 4 else host.addr6, port))
        made.settimeout(PATIENCE)
        return made

    yield open_one
    for each in opened:
        each.close()


def tell(sender: socket.socket, receiver: socket.socket) -> Address:
    """Send a datagram that must arrive; returns the address from which it does."""
    token = secrets.token_bytes(8)
    sender.sendto(token, receiver.getsockname())
    while True:
        data, source = receiver.recvfrom(100)
        if data == token:
            return (source[0], source[1])


def come_before(receiver: socket.socket, last: bytes) -> set[bytes]:
    """What arrives up to a datagram that was sent after all others."""
    found = set()
    while (data := receiver.recv(100)) != last:
        found.add(data)
    return found


# NAT kinds


@pytest.mark.parametrize("hairpin", [False, True], ids=["plain", "hairpin"])
@pytest.mark.parametrize("remap", [False, True], ids=["kept", "remapped"])
@pytest.mark.parametrize("kind", Nat, ids=lambda kind: kind.value)
def test_each_kind_of_nat_is_what_it_says(natlab: Lab, kind: Nat, remap: bool, hairpin: bool) -> None:
    """A probe with plain sockets finds mapping, filtering, port preservation and hairpinning of each kind."""
    near, far = natlab.host("near"), natlab.host("far")
    router = natlab.router("router", kind, remap=remap, hairpin=hairpin)
    host, neighbour = natlab.host("host", router), natlab.host("neighbour", router)
    mapping, filtering = KINDS[kind]
    translates = kind is not Nat.NONE
    assert probe(host, near, far, neighbour) == Behaviour(
        mapping,
        filtering,
        translates=translates,
        keeps_ports=not translates or (not remap and kind is not Nat.STRICT),
        hairpins=hairpin or not translates,
    )


def test_public_addresses_pass_our_own_filter(natlab: Lab) -> None:
    """Addresses that a lab takes for public ones are such for tom-connect too, private ones are local."""
    home, office = natlab.router("home", ipv6="firewall"), natlab.router("office", Nat.NONE)
    carrier = natlab.router("carrier")
    laptop, server, relay = natlab.host("laptop", home), natlab.host("server", office), natlab.host("relay")
    customer = natlab.router("customer", behind=carrier)
    public = [home.wan, home.wan6, laptop.addr6, server.addr, relay.addr, relay.addr6]
    assert not any(is_local(SocketAddr(addr, 1)) for addr in public)
    assert all(is_local(SocketAddr(addr, 1)) for addr in (laptop.addr, customer.wan))


def test_inside_addresses_cannot_be_reached_from_outside(natlab: Lab, udp: OpenSocket) -> None:
    """A router without a mapping lets nothing in, not even to a host whose private address is known."""
    outside = udp(natlab.host("outside"))
    inside = udp(natlab.host("inside", natlab.router("router", Nat.OPEN)))
    outside.sendto(b"private", inside.getsockname())
    mapped = tell(inside, outside)
    outside.sendto(b"mapped", mapped)
    assert come_before(inside, b"mapped") == set()


def test_one_machine_has_the_addresses_of_many(natlab: Lab, udp: OpenSocket) -> None:
    """A public host gets further addresses, which others reach and from which it answers; one behind a router none."""
    many, other = natlab.host("many"), natlab.host("other")
    many.add_addresses(["60.1.2.3"])
    many.add_addresses(["60.1.2.3", "61.1.2.3"])
    asker = udp(other)
    for addr in ("60.1.2.3", "61.1.2.3"):
        with many.socket() as sock:
            sock.bind((addr, 6881))
            sock.settimeout(PATIENCE)
            sock.sendto(b"hello", asker.getsockname())
            assert asker.recvfrom(100) == (b"hello", (addr, 6881))
            assert tell(asker, sock)[0] == other.addr
    with pytest.raises(LabError, match="behind a router"):
        natlab.host("inside", natlab.router("router")).add_addresses(["62.1.2.3"])


def test_names_are_those_of_the_lab(natlab: Lab) -> None:
    """Programs on machines of the lab, made before or after, resolve the lab's names alone; its end leaves no files."""
    ask = [sys.executable, "-c", "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"]
    early = natlab.host("early")
    natlab.set_names({"dht.example.org": "198.18.0.77"})
    for host in (early, natlab.host("late")):
        assert host.run([*ask, "dht.example.org"]).stdout == "198.18.0.77\n"
        assert host.run([*ask, "www.example.org"], check=False).returncode != 0
    files = Path("/etc/netns", early.namespace)
    assert files.is_dir()
    natlab.close()
    assert not files.exists()


def test_carrier_grade_nat_adds_its_own_behaviour(natlab: Lab) -> None:
    """A home router behind a carrier's strict one has an address of RFC 6598, and its hosts meet a strict NAT."""
    near, far = natlab.host("near"), natlab.host("far")
    carrier = natlab.router("carrier", Nat.STRICT)
    home = natlab.router("home", Nat.OPEN, behind=carrier)
    assert home.wan.startswith("100.64.")
    found = probe(natlab.host("host", home), near, far)
    assert (found.mapping, found.filtering, found.translates) == (BOTH, BOTH, True)


@pytest.mark.parametrize("hairpin", [False, True])
def test_customers_of_one_carrier_meet_if_it_hairpins(natlab: Lab, udp: OpenSocket, hairpin: bool) -> None:
    """Two homes behind one carrier reach each other at their mapped addresses where the carrier hairpins, else not."""
    outside = udp(natlab.host("outside"))
    carrier = natlab.router("carrier", Nat.MODERATE, hairpin=hairpin)
    homes = [natlab.router(name, Nat.MODERATE, behind=carrier) for name in ("one", "two")]
    a, b = (udp(natlab.host(f"host-{number}", home)) for number, home in enumerate(homes))
    at_a, at_b = tell(a, outside), tell(b, outside)
    assert at_a[0] == at_b[0] == carrier.wan
    b.sendto(b"opens b's home router", at_a)
    a.sendto(b"from a", at_b)
    outside.sendto(b"last", at_b)
    assert come_before(b, b"last") == ({b"from a"} if hairpin else set())


def test_a_router_that_rejects_tracks_what_it_answers(natlab: Lab, udp: OpenSocket) -> None:
    """Where unsolicited packets are answered, who opens too early is later seen another port of ours (a known trap)."""
    outside = udp(natlab.host("outside"))
    drops, rejects = natlab.router("drops"), natlab.router("rejects", reject=True)
    for router in (drops, rejects):
        inside = udp(natlab.host(f"behind-{router.name}", router))
        stranger = udp(natlab.host(f"stranger-of-{router.name}"))
        mapped = tell(inside, outside)
        stranger.sendto(b"too early", mapped)
        # The router has dealt with it when it has dealt with what came after it.
        outside.sendto(b"last", mapped)
        assert come_before(inside, b"last") == set()
        assert (tell(inside, stranger) == mapped) == (router is drops)


def test_a_packet_with_a_low_ttl_opens_only_its_own_router(natlab: Lab, udp: OpenSocket) -> None:
    """A packet that dies on the way leaves no trace at the other router, but lets answers into its own."""
    outside = udp(natlab.host("outside"))
    near, far = natlab.router("near"), natlab.router("far", reject=True)
    a, b = udp(natlab.host("a", near)), udp(natlab.host("b", far))
    at_a, at_b = tell(a, outside), tell(b, outside)
    a.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 3)
    a.sendto(b"dies on the way", at_b)
    a.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
    # b's packet gets through a's router, and leaves from the port that a was told: both show what the text says.
    b.sendto(b"hello", at_a)
    data, source = a.recvfrom(100)
    assert (data, source) == (b"hello", at_b)


# IPv6


@pytest.mark.parametrize("firewall", ["open", "firewall"])
def test_ipv6_firewalls(natlab: Lab, udp: OpenSocket, firewall: str) -> None:
    """By IPv6 nothing is translated; a firewall drops what nobody inside asked for and passes answers."""
    outside, stranger = (udp(natlab.host(name), version=6) for name in ("outside", "stranger"))
    router = natlab.router("router", ipv6="open" if firewall == "open" else "firewall")
    inside = udp(natlab.host("inside", router), version=6)
    here = inside.getsockname()
    assert tell(inside, outside) == here[:2]
    stranger.sendto(b"unasked", here)
    outside.sendto(b"last", here)
    assert come_before(inside, b"last") == ({b"unasked"} if firewall == "open" else set())


def test_nets_of_one_family(natlab: Lab, udp: OpenSocket) -> None:
    """A net without IPv4 has IPv6 alone, the usual one IPv4 alone, and a host says which address it lacks."""
    six = natlab.host("six", natlab.router("only6", ipv4=False, ipv6="firewall"))
    four = natlab.host("four", natlab.router("only4"))
    both = natlab.host("both")
    tell(udp(six, version=6), udp(both, version=6))
    tell(udp(four), udp(both))
    with pytest.raises(LabError, match="six has no IPv4"):
        _ = six.addr
    with pytest.raises(LabError, match="four has no IPv6"):
        _ = four.addr6
    for host, family, target in ((six, socket.AF_INET, both.addr), (four, socket.AF_INET6, both.addr6)):
        with host.socket(family) as sock, pytest.raises(OSError, match="unreachable"):
            sock.sendto(b"x", (target, 9))


def test_ipv6_behind_a_carrier_is_routed_through(natlab: Lab, udp: OpenSocket) -> None:
    """A home behind a carrier has public IPv6 addresses that are reached through both routers."""
    carrier = natlab.router("carrier", ipv6="open")
    home = natlab.router("home", behind=carrier, ipv6="open")
    inside, outside = (udp(natlab.host("inside", home), version=6), udp(natlab.host("outside"), version=6))
    tell(outside, inside)
    tell(inside, outside)


# Changes


def listening(host: Host) -> socket.socket:
    """A TCP server's socket in a host."""
    made = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind((host.addr, 0))
    made.listen()
    return made


def test_blocked_udp_leaves_tcp(natlab: Lab, udp: OpenSocket) -> None:
    """A router that blocks UDP lets TCP through, and UDP again when it is told so."""
    router, outside = natlab.router("router", block_udp=True), natlab.host("outside")
    host = natlab.host("inside", router)
    inside, outer = udp(host), udp(outside)
    inside.sendto(b"blocked", outer.getsockname())
    with listening(outside) as server, host.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(server.getsockname())
    router.block_udp(False)
    inside.sendto(b"last", outer.getsockname())
    assert come_before(outer, b"last") == set()
    router.block_udp()
    inside.sendto(b"blocked again", outer.getsockname())
    router.block_udp(False)
    inside.sendto(b"last", outer.getsockname())
    assert come_before(outer, b"last") == set()


@pytest.mark.parametrize("kind", [Nat.OPEN, Nat.RESTRICTED, Nat.MODERATE, Nat.STRICT], ids=lambda kind: kind.value)
def test_rebinding_forgets_mappings(natlab: Lab, udp: OpenSocket, kind: Nat) -> None:
    """After a rebinding the old mapped address is dead, and packets leave from another port."""
    router = natlab.router("router", kind)
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    before = tell(inside, outside)
    for _ in range(5):
        router.rebind()
        outside.sendto(b"to the old port", before)
        after = tell(inside, outside)
        outside.sendto(b"last", after)
        assert come_before(inside, b"last") == set()
        assert after[0] == before[0]
        if kind is not Nat.STRICT:  # its ports are random, also the same one may come
            assert after != before
        before = after


def test_rebinding_can_keep_ports(natlab: Lab, udp: OpenSocket) -> None:
    """A router that rebinds with the same ports lets nothing in until the host has sent."""
    router = natlab.router("router")
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    before = tell(inside, outside)
    router.rebind(keep_ports=True)
    outside.sendto(b"too early", before)
    assert tell(inside, outside) == before
    outside.sendto(b"last", before)
    assert come_before(inside, b"last") == set()


def test_a_new_address_replaces_the_old_one(natlab: Lab, udp: OpenSocket) -> None:
    """After a new dial-in packets leave from the new outer address, and the old one leads nowhere."""
    router = natlab.router("router", Nat.OPEN)
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    before = tell(inside, outside)
    assert before[0] == router.wan
    router.new_address()
    outside.sendto(b"to the old address", before)
    after = tell(inside, outside)
    assert after[0] == router.wan != before[0]
    outside.sendto(b"last", after)
    assert come_before(inside, b"last") == set()


def test_a_router_without_nat_keeps_its_network_under_a_new_address(natlab: Lab, udp: OpenSocket) -> None:
    """A public network stays reachable when the router in front of it gets another address."""
    router = natlab.router("router", Nat.NONE)
    inside, outside = udp(natlab.host("inside", router)), udp(natlab.host("outside"))
    router.new_address()
    tell(outside, inside)
    tell(inside, outside)


def test_a_home_behind_a_carrier_gets_a_new_address(natlab: Lab, udp: OpenSocket) -> None:
    """Behind a carrier too a router gets another address of the carrier's net, and works with it."""
    home = natlab.router("home", behind=natlab.router("carrier"))
    inside, outside = udp(natlab.host("inside", home)), udp(natlab.host("outside"))
    tell(inside, outside)
    before = home.wan
    home.new_address()
    assert home.wan != before
    tell(inside, outside)


def test_a_host_moves_between_nets(natlab: Lab, udp: OpenSocket) -> None:
    """A host that moves loses its address, gets one of the new net, and sockets bound to all addresses work on."""
    outside = udp(natlab.host("outside"))
    one, two = natlab.router("one"), natlab.router("two", ipv6="firewall")
    host = natlab.host("host", one)
    with host.socket() as sock:
        sock.bind(("", 0))
        assert tell(sock, outside)[0] == one.wan
        before = host.addr
        host.move(two)
        assert host.addr != before
        assert tell(sock, outside)[0] == two.wan
        assert before not in host.run(["ip", "address"]).stdout
        assert host.addr6 in host.run(["ip", "address"]).stdout
        host.move(None)
        assert tell(sock, outside)[0] == host.addr
        host.move(one)
        assert host.addr == before
        assert tell(sock, outside)[0] == one.wan


def test_a_flap_takes_addresses_and_routes_away(natlab: Lab, udp: OpenSocket) -> None:
    """While an interface is down nothing can be sent, and what comes is lost; afterwards all is as before."""
    outside, router = udp(natlab.host("outside")), natlab.router("router", ipv6="firewall")
    host = natlab.host("host", router)
    with host.socket() as sock:
        sock.bind(("", 0))
        mapped, before = tell(sock, outside), (host.addr, host.addr6)
        host.flap(down=True)
        with pytest.raises(OSError, match="unreachable"):
            sock.sendto(b"x", outside.getsockname())
        assert host.addr not in host.run(["ip", "address"]).stdout
        outside.sendto(b"lost", mapped)
        host.flap(down=False)
        assert (host.addr, host.addr6) == before
        assert tell(sock, outside) == mapped
        sock.settimeout(PATIENCE)
        outside.sendto(b"last", mapped)
        assert come_before(sock, b"last") == set()
    tell(udp(host, version=6), udp(natlab.host("other"), version=6))


def test_a_cut_link_swallows_packets_without_a_sign(natlab: Lab, udp: OpenSocket) -> None:
    """On a cut link sending succeeds and nothing arrives, in either direction, until it is mended."""
    outside, router = udp(natlab.host("outside")), natlab.router("router")
    host = natlab.host("host", router)
    inside = udp(host)
    mapped = tell(inside, outside)
    for node in (router, host):
        with natlab.cut(node):
            inside.sendto(b"lost", outside.getsockname())
            outside.sendto(b"lost", mapped)
            assert "state UP" in host.run(["ip", "link", "show", "eth0"]).stdout
        inside.sendto(b"last", outside.getsockname())
        assert come_before(outside, b"last") == set()
        outside.sendto(b"last", mapped)
        assert come_before(inside, b"last") == set()


@pytest.mark.parametrize("wire", [None, Wire()], ids=["plain", "wire"])
def test_a_cut_between_two_leaves_others_alone(natlab: Lab, udp: OpenSocket, wire: Wire | None) -> None:
    """A cut between two nodes stops what they send each other, by both families, and nothing else."""
    router = natlab.router("router", Nat.NONE, ipv6="open", wire=wire)
    inside, here, there = natlab.host("inside", router), natlab.host("here", wire=wire), natlab.host("there")
    sockets = [(udp(host), udp(host, version=6)) for host in (inside, here, there)]
    cut = natlab.cut(here, router)
    for ours, near, far in zip(*sockets, strict=True):
        ours.sendto(b"cut", near.getsockname())
        near.sendto(b"cut", ours.getsockname())
        tell(ours, far)
        tell(far, ours)
        tell(near, far)
        far.sendto(b"last", near.getsockname())
        assert come_before(near, b"last") == set()
    cut.mend()
    cut.mend()
    for ours, near, _ in zip(*sockets, strict=True):
        tell(ours, near)
        tell(near, ours)


# Wires


def test_a_wire_delays_both_directions(natlab: Lab, udp: OpenSocket) -> None:
    """A packet takes at least the delay of each wire on its way; without one it takes far less."""
    plain, slow = natlab.host("plain"), natlab.host("slow", wire=Wire(delay=0.1))
    near, far, other = udp(plain), udp(slow), udp(natlab.host("other"))

    def seconds(sender: socket.socket, receiver: socket.socket) -> float:
        began = time.monotonic()
        tell(sender, receiver)
        return time.monotonic() - began

    assert min(seconds(near, other) for _ in range(5)) < 0.05
    for pair in ((near, far), (far, near)):
        taken = [seconds(*pair) for _ in range(3)]
        assert all(each >= 0.1 for each in taken)
        assert min(taken) < 0.5
    slow.set_wire(Wire(delay=0.2))
    assert seconds(near, far) >= 0.2
    with pytest.raises(LabError, match="plain link"):
        plain.set_wire(Wire())


def test_a_wire_loses_its_share(natlab: Lab, udp: OpenSocket) -> None:
    """A wire loses about the share of packets that it is told to lose."""
    near, far = udp(natlab.host("near")), udp(natlab.host("far", wire=Wire(loss=0.3)))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for number in range(300):
        near.sendto(b"%d" % number, far.getsockname())
    got: set[bytes] = set()
    far.settimeout(0.2)
    deadline = time.monotonic() + PATIENCE
    while b"last" not in got:
        assert time.monotonic() < deadline
        near.sendto(b"last", far.getsockname())  # again, for it may get lost as well
        try:
            while True:
                got.add(far.recv(100))
        except TimeoutError:
            pass
    # 210 are expected, with a standard deviation of 8.
    assert 160 <= len(got - {b"last"}) <= 260


def test_a_wire_with_a_rate_queues_and_drops(natlab: Lab, udp: OpenSocket) -> None:
    """Packets beyond the rate wait behind each other, and those beyond the queue are lost."""
    near, far = udp(natlab.host("near")), udp(natlab.host("far", wire=Wire(rate=200_000, queue=0.2)))
    tell(near, far)
    began = time.monotonic()
    for number in range(100):
        near.sendto(number.to_bytes(1, "big") * 1000, far.getsockname())
    got, taken = [far.recv(2000)[0]], 0.0
    far.settimeout(2.0)
    try:
        while True:
            got.append(far.recv(2000)[0])
            taken = time.monotonic() - began
    except TimeoutError:
        pass
    # 100 packets of 40 ms each come in at once, so 0.2 s of them and little more get through.
    assert got == sorted(got)
    assert 2 <= len(got) < 100
    assert taken >= 0.9 * len(got) * 0.040


def test_jitter_lets_packets_overtake(natlab: Lab, udp: OpenSocket) -> None:
    """With jitter, packets sent at once arrive in another order, and all of them."""
    near, far = udp(natlab.host("near")), udp(natlab.host("far", wire=Wire(jitter=0.2)))
    for number in range(50):
        near.sendto(b"%02d" % number, far.getsockname())
    got = [far.recv(100) for _ in range(50)]
    assert len(set(got)) == 50
    assert got != sorted(got)


@pytest.mark.parametrize(
    "wrong",
    [{"delay": -1}, {"loss": 1.5}, {"rate": 0}, {"jitter": -0.1}, {"queue": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wires_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """A wire with a negative time, an impossible loss or no rate is a ValueError."""
    with pytest.raises(ValueError, match=r"at least 0|more than 0"):
        Wire(**wrong)


# Programs and the lab itself


def test_programs_run_inside(natlab: Lab) -> None:
    """Programs run in a host's namespace, with their output, status and time-out as subprocess has them."""
    host = natlab.host("host")
    assert host.addr in host.run(["ip", "-4", "address"]).stdout
    assert host.run(["cat"], input="text").stdout == "text"
    assert host.run(["false"], check=False).returncode == 1
    with pytest.raises(subprocess.CalledProcessError):
        host.run(["false"])
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "60"], timeout=0.1)


async def test_programs_end_with_the_lab(natlab: Lab) -> None:
    """What was started in a lab and still runs is ended when the lab is closed, also what refuses SIGTERM."""
    host = natlab.host("host")
    polite = host.popen(["sleep", "600"])
    stubborn = await host.process(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None
    assert await stubborn.stdout.readline() == b"ready\n"
    natlab.close()
    natlab.close()
    assert polite.poll() == -15
    assert await stubborn.wait() == -9
    assert host.namespace not in namespaces()


def namespaces() -> set[str]:
    """The names of all network namespaces of this machine."""
    found = Path("/run/netns")
    return {each.name for each in found.iterdir()} if found.is_dir() else set()


CRASH = """
import os, signal, subprocess
from tom_connect.testing.natlab import Lab, Nat, Wire
lab = Lab()
host = lab.host("host", lab.router("router", Nat.MODERATE, wire=Wire()))
sleeper = host.popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(host.namespace, sleeper.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_a_crash_are_removed(natlab: Lab) -> None:
    """The next lab removes namespaces and programs of a process that was killed, and touches no living lab's."""
    mine = natlab.host("mine")
    ended = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False, timeout=60)
    namespace, pid = ended.stdout.split()
    with Lab():
        assert namespace not in namespaces()
        assert mine.namespace in namespaces()
        deadline = time.monotonic() + PATIENCE
        while is_alive(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_alive(int(pid))
    prefix = namespace.removesuffix("-host")
    assert not any(name.startswith(prefix) for name in namespaces())


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_labs_exist_side_by_side(natlab: Lab, udp: OpenSocket) -> None:
    """Two labs use the same addresses and never meet."""
    with Lab() as other:
        pairs = [(udp(lab.host("one")), udp(lab.host("two"))) for lab in (natlab, other)]
        assert pairs[0][1].getsockname()[0] == pairs[1][1].getsockname()[0]
        words = (b"first", b"second")
        for (one, two), word in zip(pairs, words, strict=True):
            two.sendto(word, one.getsockname())
        for (one, two), word in zip(pairs, words, strict=True):
            two.sendto(b"last", one.getsockname())
            assert come_before(one, b"last") == {word}


@pytest.mark.parametrize("name", ["", "-x", "Host", "a b", "a/b", "x" * 33, "taken", "internet"])
def test_names_that_cannot_be_are_refused(natlab: Lab, name: str) -> None:
    """A name is short, of plain letters, and used once."""
    natlab.host("taken")
    with pytest.raises(LabError, match="name"):
        natlab.host(name)


def test_a_router_without_nat_needs_the_internet(natlab: Lab) -> None:
    """A public network behind a carrier's NAT does not exist, and is refused."""
    with pytest.raises(LabError, match="without NAT"):
        natlab.router("home", Nat.NONE, behind=natlab.router("carrier"))


def test_a_small_lab_is_built_quickly(natlab: Lab) -> None:
    """Two routers and three hosts take well under a second on an idle machine, and a few on a busy one."""
    began = time.monotonic()
    one, two = natlab.router("one"), natlab.router("two", Nat.STRICT)
    for number, router in enumerate((one, two, None)):
        natlab.host(f"host-{number}", router)
    assert time.monotonic() - began < 5.0


def test_many_hosts_hear_each_other(natlab: Lab, udp: OpenSocket) -> None:
    """Thirty hosts behind ten routers all reach one another's routers: no table of neighbours overflows."""
    routers: list[Router] = [natlab.router(f"router-{number}", Nat.NONE) for number in range(10)]
    hosts = [udp(natlab.host(f"host-{number}", router)) for number, router in enumerate(routers * 3)]
    for one, other in itertools.pairwise([*hosts, hosts[0]]):
        tell(one, other)
