"""What addresses that nobody vouches for get from us."""

from __future__ import annotations

from collections import Counter

from tom_connect.addr import SocketAddr
from tom_connect.rendezvous import knocks
from tom_connect.rendezvous.knocks import Knock, Knocks


def addr(host: int, port: int = 4433) -> SocketAddr:
    return SocketAddr(f"198.18.{host >> 8}.{host & 255}", port)


def drain(taken: Knocks, until: float) -> list[tuple[float, Knock]]:
    """All knocks up to a time, with their times."""
    out = []
    while (due := taken.due) is not None and due <= until:
        out += [(due, knock) for knock in taken.take(due)]
    return out


def test_an_address_is_opened_to_first_and_told_then() -> None:
    """The first knock dies behind our own router, the others travel, and then there is silence."""
    taken = Knocks()
    taken.called([addr(1)], 10.0)
    sent = drain(taken, 1000.0)
    assert [(round(at - 10.0, 6), knock.opener) for at, knock in sent] == list(knocks.TIMES)
    assert {knock.addr for _, knock in sent} == {addr(1)}
    assert taken.due is None


def test_who_calls_all_the_time_is_knocked_at_now_and_then() -> None:
    """Repeated calls of one address cost a fixed number of packets a minute."""
    taken = Knocks()
    count = 0
    for second in range(60):
        taken.called([addr(1)], float(second))
        count += len(drain(taken, second + 1.0))
    assert count <= 3 * len(knocks.TIMES)


def test_one_call_names_few_addresses() -> None:
    """An answer with a hundred invented addresses gets as many knocks as one with eight."""
    taken = Knocks()
    taken.called([addr(number) for number in range(100)], 0.0)
    assert len({knock.addr for _, knock in drain(taken, 10.0)}) == knocks.OF_CALL


def test_one_host_is_not_flooded_by_naming_its_ports() -> None:
    """However many ports of one IP are named, it gets a few knocks at once and one more every 5 seconds."""
    taken = Knocks()
    for second in range(61):
        taken.called([addr(7, 1000 + 8 * second + n) for n in range(8)], float(second))
    hosts = Counter(knock.addr.port for _, knock in drain(taken, 100.0))
    assert len(hosts) <= knocks.OF_HOST + 60 / knocks.HOST_AGAIN + 1
    assert taken.refused > 0


def test_invented_addresses_cost_a_bounded_number_of_packets_a_minute() -> None:
    """Nodes that invent 8 addresses a second make us send no more than the stated number of 16-byte packets."""
    taken = Knocks()
    for second in range(600):
        taken.called([addr(8 * second + n) for n in range(8)], float(second))
    sent = drain(taken, 700.0)
    last_minute = [at for at, _ in sent if 500.0 <= at < 560.0]
    assert len(last_minute) <= 60 * knocks.RATE * len(knocks.TIMES) + len(knocks.TIMES)
    assert len(sent) <= (knocks.BURST + 600 * knocks.RATE) * len(knocks.TIMES)
