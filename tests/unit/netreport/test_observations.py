"""What follows from what witnesses say about our address."""

from __future__ import annotations

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.netreport.observations import (
    MAX_PEERS,
    MAX_REFLEXIVE,
    MAX_WITNESSES,
    PEER_TRUST,
    SERVER_TRUST,
    SUSPECT_TRUST,
    Kind,
    Observations,
)
from tom_connect.netreport.report import Mapping

LOCAL = [SocketAddr("192.168.1.5", 4000)]
SEEN = SocketAddr("203.0.113.1", 4000)
OTHER_PORT = SocketAddr("203.0.113.1", 5000)
LIE = SocketAddr("198.51.100.66", 666)


def test_one_witness_is_believed_while_nobody_contradicts() -> None:
    """Its word may be published; what kind of NAT there is can't be known from it."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    verdict = seen.verdict(4, LOCAL)
    assert verdict.reflexive == verdict.confirmed == (SEEN,)
    assert verdict.mapping is Mapping.UNKNOWN
    assert (verdict.nat, verdict.port_preserved) == (True, True)
    assert seen.verdict(6, LOCAL).reflexive == ()


def test_one_liar_is_outvoted_by_two() -> None:
    """The address that two independent witnesses name is published; the liar's is still one that peers may try."""
    seen = Observations()
    seen.told(Kind.STUN, "liar:3478", LIE, 0.0, origin="liar")
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    seen.told(Kind.PLUGIN, "dht", SEEN, 0.0)
    verdict = seen.verdict(4, LOCAL)
    assert verdict.reflexive == (SEEN, LIE)
    assert verdict.confirmed == (SEEN,)
    assert verdict.mapping is Mapping.ENDPOINT_INDEPENDENT


def test_of_two_that_contradict_each_other_none_is_published() -> None:
    """Both stay candidates, and as the IP addresses differ, nothing is said about the NAT."""
    seen = Observations()
    seen.told(Kind.STUN, "liar:3478", LIE, 0.0, origin="liar")
    seen.told(Kind.QAD, "a:7842", SEEN, 0.0, origin="a")
    verdict = seen.verdict(4, LOCAL)
    assert set(verdict.reflexive) == {SEEN, LIE}
    assert verdict.confirmed == ()
    assert verdict.mapping is Mapping.UNKNOWN


def test_two_services_of_one_relay_do_not_confirm_each_other() -> None:
    """A relay that lies by STUN and QAD alike does not outvote another one."""
    seen = Observations()
    seen.told(Kind.STUN, "liar:3478", LIE, 0.0, origin="liar")
    seen.told(Kind.QAD, "liar:7842", LIE, 0.0, origin="liar")
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    assert seen.verdict(4, LOCAL).confirmed == ()


@pytest.mark.parametrize("origins", [("a", "b"), ("a", "a")])
def test_one_port_each_means_an_endpoint_dependent_mapping(origins: tuple[str, str]) -> None:
    """Two destinations that see one IP address with two ports; they may be two ports of one relay."""
    seen = Observations()
    seen.told(Kind.STUN, f"{origins[0]}:3478", SEEN, 0.0, origin=origins[0])
    seen.told(Kind.QAD, f"{origins[1]}:7842", OTHER_PORT, 0.0, origin=origins[1])
    verdict = seen.verdict(4, LOCAL)
    assert verdict.mapping is Mapping.ENDPOINT_DEPENDENT
    assert set(verdict.reflexive) == {SEEN, OTHER_PORT}
    assert verdict.confirmed == ()


def test_a_plugin_may_say_that_each_destination_sees_another_port() -> None:
    """Port 0 of the DHT's vote and one server's word together show an endpoint-dependent mapping."""
    seen = Observations()
    seen.told(Kind.PLUGIN, "dht", SocketAddr(SEEN.host, 0), 0.0)
    assert seen.verdict(4, LOCAL).reflexive == ()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    verdict = seen.verdict(4, LOCAL)
    assert (verdict.mapping, verdict.reflexive, verdict.confirmed) == (Mapping.ENDPOINT_DEPENDENT, (SEEN,), ())


def test_two_ports_of_one_relay_that_agree_show_an_endpoint_independent_mapping() -> None:
    """The port does not depend on the destination's port, at least."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    seen.told(Kind.QAD, "a:7842", SEEN, 0.0, origin="a")
    assert seen.verdict(4, LOCAL).mapping is Mapping.ENDPOINT_INDEPENDENT


def test_without_a_nat_the_reflexive_address_is_the_local_one() -> None:
    """Then one witness is enough to know that there is none."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    verdict = seen.verdict(4, [SEEN])
    assert verdict.nat is False
    assert verdict.mapping is Mapping.ENDPOINT_INDEPENDENT


def test_any_number_of_peers_is_one_witness() -> None:
    """Keys cost nothing: made-up peers can't outvote a server, a single one counts for nothing."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    seen.told(Kind.PEER, "p0", LIE, 0.0)
    assert seen.verdict(4, LOCAL).confirmed == (SEEN,)
    assert LIE not in seen.verdict(4, LOCAL).reflexive
    for number in range(1, 20):
        seen.told(Kind.PEER, f"p{number}", LIE, 0.0)
    assert seen.verdict(4, LOCAL).confirmed == ()
    seen.told(Kind.PLUGIN, "dht", SEEN, 0.0)
    assert seen.verdict(4, LOCAL).confirmed == (SEEN,)


def test_peers_alone_are_better_than_nothing() -> None:
    """What one peer sees other peers may try; what two see may be published."""
    seen = Observations()
    seen.told(Kind.PEER, "p", SEEN, 0.0)
    assert (seen.verdict(4, LOCAL).reflexive, seen.verdict(4, LOCAL).confirmed) == ((SEEN,), ())
    seen.told(Kind.PEER, "q", SEEN, 0.0)
    assert seen.verdict(4, LOCAL).confirmed == (SEEN,)


def test_a_server_in_our_own_network_contradicts_nobody() -> None:
    """It sees our local address, which is right and says nothing about the one outside."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    seen.told(Kind.STUN, "192.168.1.1:3478", LOCAL[0], 0.0, origin="home")
    assert seen.verdict(4, LOCAL).confirmed == (SEEN,)


def test_words_run_out() -> None:
    """A server or peer that does not repeat its word is believed for a while only; a plugin tells changes itself."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    seen.told(Kind.PEER, "p", SEEN, 0.0)
    seen.told(Kind.PLUGIN, "dht", SEEN, 0.0)
    assert seen.get_timer() == SERVER_TRUST
    assert not seen.expire(SERVER_TRUST - 0.1)
    assert seen.expire(SERVER_TRUST)
    assert seen.get_timer() == PEER_TRUST
    assert seen.expire(PEER_TRUST)
    assert seen.get_timer() is None
    assert seen.verdict(4, LOCAL).reflexive == (SEEN,)


def test_after_a_change_of_network_old_words_give_way() -> None:
    """What is not said again runs out within seconds; a plugin's old word, once a server has said otherwise."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    seen.told(Kind.STUN, "b:3478", SEEN, 0.0, origin="b")
    seen.told(Kind.PLUGIN, "dht", SEEN, 0.0)
    seen.suspect(10.0)
    assert seen.verdict(4, LOCAL).confirmed == (SEEN,)
    new = SocketAddr("192.0.2.9", 7)
    assert seen.told(Kind.STUN, "a:3478", new, 10.1, origin="a")
    seen.expire(10.0 + SUSPECT_TRUST)
    assert seen.verdict(4, LOCAL).reflexive == (new,)
    assert seen.told(Kind.PLUGIN, "dht", SEEN, 16.0) is False
    assert seen.verdict(4, LOCAL).confirmed == ()
    assert seen.told(Kind.PLUGIN, "dht", new, 17.0)
    assert seen.verdict(4, LOCAL).confirmed == (new,)


def test_everything_is_bounded() -> None:
    """However many witnesses speak, a bounded number is kept, and few addresses are told to peers."""
    seen = Observations()
    for number in range(3 * MAX_WITNESSES):
        seen.told(Kind.STUN, f"s{number}", SocketAddr("203.0.113.1", 1 + number), 0.0, origin=f"s{number}")
    assert len(seen._words) == MAX_WITNESSES
    assert len(seen.verdict(4, LOCAL).reflexive) == MAX_REFLEXIVE


def test_peers_do_not_push_servers_out() -> None:
    """Any number of peers leaves room for servers, and peers that say the same again change nothing."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    for number in range(10 * MAX_PEERS):
        seen.told(Kind.PEER, f"p{number}", SEEN, 0.0)
    version = seen.version
    for number in range(10 * MAX_PEERS):
        seen.told(Kind.PEER, f"p{number}", SEEN, 1.0)
    assert seen.version == version
    seen.told(Kind.STUN, "b:3478", SEEN, 0.0, origin="b")
    assert seen.version == version + 1
    assert len(seen._words) == 2 + MAX_PEERS
    seen.expire(PEER_TRUST + 1.0)
    assert not seen.heard_from_peers()


@pytest.mark.parametrize("host", ["0.0.0.0", "224.0.0.1", "::", "ff02::1"])
def test_impossible_addresses_are_not_noted(host: str) -> None:
    """Nobody can see us at an unspecified or multicast address."""
    seen = Observations()
    seen.told(Kind.STUN, "a:3478", SocketAddr(host, 1), 0.0)
    assert seen.verdict(4, LOCAL) == seen.verdict(6, LOCAL)


@pytest.mark.parametrize("behaviour", list(Mapping))
def test_how_another_socket_is_mapped_counts_where_nothing_better_is_known(behaviour: Mapping) -> None:
    """One witness says nothing about the NAT, so the other socket decides; two that agree know better, and so does an
    address of our own."""
    seen = Observations()
    assert seen.verdict(4, LOCAL, behaviour).mapping is Mapping.UNKNOWN
    seen.told(Kind.STUN, "a:3478", SEEN, 0.0, origin="a")
    verdict = seen.verdict(4, LOCAL, behaviour)
    assert verdict.mapping is behaviour
    assert verdict.reflexive == (SEEN,)
    assert verdict.confirmed == (() if behaviour is Mapping.ENDPOINT_DEPENDENT else (SEEN,))
    assert seen.verdict(4, [SEEN], behaviour).mapping is Mapping.ENDPOINT_INDEPENDENT
    seen.told(Kind.STUN, "b:3478", SEEN, 0.0, origin="b")
    assert seen.verdict(4, LOCAL, behaviour).mapping is Mapping.ENDPOINT_INDEPENDENT
    assert seen.verdict(4, LOCAL, behaviour).confirmed == (SEEN,)
