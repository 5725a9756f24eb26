"""The routing table: states, replacement, limits by address, and nearest nodes."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tom_dht_mainline.core import DhtConfig
from tom_dht_mainline.core.address import Networks, pack_address
from tom_dht_mainline.core.nodeid import as_int
from tom_dht_mainline.core.table import RoutingTable, State

OWN = bytes(20)


def make(config: DhtConfig | None = None) -> RoutingTable:
    config = config or DhtConfig()
    return RoutingTable(OWN, config, Networks(config.trusted_networks))


def address(n: int) -> tuple[str, int]:
    return f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.1", 6881


def respond(table: RoutingTable, node_id: bytes, addr: tuple[str, int], now: float = 0.0) -> bool:
    return table.responded(node_id, addr, node_id + pack_address(addr), now)


def far(n: int) -> bytes:
    """An id in the bucket of least capacity that is still easy to fill: 10 shared bits."""
    return bytes((0, 0x20)) + n.to_bytes(18, "big")


def test_states_of_a_node() -> None:
    """Good after a reply, questionable after 15 silent minutes, bad after two failures, good again after a reply."""
    table = make()
    assert respond(table, far(1), address(1))
    node = table.find(address(1))
    assert node is not None
    assert table.state(node, 10) is State.GOOD
    assert table.state(node, 901) is State.QUESTIONABLE
    assert table.queried_us(far(1), address(1), 900)
    assert table.state(node, 901) is State.GOOD
    table.failed(far(1), address(1))
    assert table.state(node, 901) is State.QUESTIONABLE
    table.failed(far(1), address(1))
    assert table.state(node, 901) is State.BAD
    assert table.closest(0, 8) == []
    respond(table, far(1), address(1), 902)
    assert table.state(node, 902) is State.GOOD


def test_full_bucket_keeps_its_good_nodes() -> None:
    """A good node is never pushed out; a newcomer waits and takes the place of one that turns bad."""
    table = make(DhtConfig(k=8))
    for n in range(8):
        assert respond(table, far(n), address(n))
    assert not respond(table, far(100), address(100))
    assert len(table) == 8
    for _ in range(2):
        table.failed(far(3), address(3))
    assert table.find(address(3)) is None
    assert table.find(address(100)) is not None


def test_heard_of_nodes_are_not_handed_out() -> None:
    """Who never answered is a candidate: worth a ping, not worth naming to others."""
    table = make()
    table.heard_of(far(1), address(1), far(1) + pack_address(address(1)))
    assert table.closest(0, 8) == []
    assert len(table.closest(0, 8, include_candidates=True)) == 1
    (node,) = table.nodes_to_ping(0.0, 10)
    assert node.node_id == far(1)
    assert table.nodes_to_ping(0.0, 10) == []
    table.failed(far(1), address(1))
    assert table.closest(0, 8, include_candidates=True) == []


def test_limits_by_address() -> None:
    """One node an IP, four a /24, whatever their ids; another network still gets in."""
    table = make()
    assert respond(table, far(1), ("20.1.1.1", 1))
    assert not respond(table, far(2), ("20.1.1.1", 2))
    for n in range(2, 10):
        respond(table, far(n), (f"20.1.1.{n}", 1))
    assert len(table) == 4
    assert respond(table, far(50), ("20.1.2.1", 1))
    assert respond(table, far(60), ("2001:db8:1:1::1", 1))
    assert not respond(table, far(61), ("2001:db8:1:1::2", 1))


def test_a_lab_on_loopback_is_not_limited() -> None:
    """Many ports of one trusted IP are many nodes."""
    table = make()
    for n in range(20):
        assert respond(table, far(n), ("127.0.0.1", 1000 + n))
    assert len(table) == 20


def test_a_live_id_cannot_be_taken_over() -> None:
    """A reply from elsewhere under a known id changes nothing while the known node lives."""
    table = make()
    respond(table, far(1), address(1))
    respond(table, far(1), address(2))
    assert [node.address for node in table.nodes()] == [address(1)]
    for _ in range(2):
        table.failed(far(1), address(1))
    respond(table, far(1), address(2))
    assert [node.address for node in table.nodes()] == [address(2)]


def test_an_address_with_a_new_id_replaces_the_old() -> None:
    """A restarted node does not stay in the table twice."""
    table = make()
    respond(table, far(1), address(1))
    respond(table, far(2), address(1))
    assert [node.node_id for node in table.nodes()] == [far(2)]


def test_our_own_id_is_never_taken() -> None:
    """Neither as a reply's id nor as a named node."""
    table = make()
    assert not respond(table, OWN, address(1))
    table.heard_of(OWN, address(1), OWN + pack_address(address(1)))
    assert table.closest(0, 8, include_candidates=True) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_closest_is_what_sorting_all_gives(seed: int, count: int) -> None:
    """The walk over buckets gives the same nodes as sorting the whole table by distance."""
    rng = random.Random(seed)
    table = make(DhtConfig(k=8))
    for n in range(400):
        respond(table, rng.randbytes(20), address(n))
    target = rng.getrandbits(160)
    expected = sorted(table.nodes(), key=lambda node: node.key ^ target)[:count]
    assert table.closest(target, count) == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_table_stays_bounded_and_consistent(seed: int) -> None:
    """Any mix of replies, failures, mentions and id changes keeps every limit and never corrupts the counts."""
    rng = random.Random(seed)
    table = make(DhtConfig(k=4))
    known = [(rng.randbytes(20), address(n)) for n in range(300)]
    for step in range(2000):
        node_id, addr = rng.choice(known)
        if rng.random() < 0.2:
            addr = rng.choice(known)[1]
        match rng.randrange(6):
            case 0 | 1:
                respond(table, node_id, addr, step)
            case 2:
                table.failed(node_id, addr)
            case 3:
                table.heard_of(node_id, addr, node_id + pack_address(addr))
            case 4:
                table.forget(node_id, addr)
            case _:
                table.nodes_to_ping(step, 3)
    table.change_own_id(rng.randbytes(20))
    nodes = table.nodes()
    assert len({node.address for node in nodes}) == len(nodes) == sum(table._hosts.values())
    for index, bucket in enumerate(table._buckets):
        assert len(bucket.nodes) <= max(4, 128 >> index)
        assert len(bucket.candidates) <= 32
    for node in nodes:
        table.forget(node.node_id, node.address)
    assert table._hosts == table._prefixes == {}


def test_refresh_every_fifteen_minutes() -> None:
    """Each bucket in use is due once, then again after 15 minutes."""
    table, rng = make(), random.Random(1)
    for n in range(3):
        respond(table, bytes((0x80 >> n,)) + bytes(19), address(n))
    first = [table.bucket_to_refresh(0.0, rng, filling=False) for _ in range(4)]
    assert sum(target is not None for target in first) == 3
    assert table.bucket_to_refresh(899.0, rng, filling=False) is None
    assert table.bucket_to_refresh(900.0, rng, filling=False) is not None


def test_restored_nodes_go_at_their_first_silence() -> None:
    """Nodes of an earlier run are used at once, but not kept on trust."""
    table = make()
    table.restore(far(1), address(1), far(1) + pack_address(address(1)))
    assert [as_int(node.node_id) for node in table.closest(0, 8)] == [as_int(far(1))]
    assert table.alive == 0
    table.failed(far(1), address(1))
    assert len(table) == 0
