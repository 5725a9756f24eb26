"""Single questions about our NAT: what decides them, and when silence does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import SocketAddr
from tom_connect.netreport.checks import PATIENCE, SENDS, Check, HairpinCheck, MappingCheck, OtherPortCheck
from tom_connect.netreport.report import Mapping
from tom_connect.netreport.stun import BindingRequest, binding_error, binding_request, binding_success

US = SocketAddr("203.0.113.1", 4000)
SERVER, OTHER = SocketAddr("192.0.2.1", 3478), SocketAddr("192.0.2.1", 3479)
ID = b"transaction!"


def run_out(check: Check) -> list[float]:
    """When it sends, and when it gives up, if nothing comes."""
    times = [0.0]
    check.start(0.0)
    while (at := check.get_timer()) is not None:
        times.append(at)
        assert check.handle_timer(at - 0.001) is None
        assert (check.handle_timer(at) is None) == (check.result is not None)
    return times


@pytest.mark.parametrize(
    ("rtt", "patience"), [(None, PATIENCE[1]), (0.001, PATIENCE[0]), (0.2, 0.8), (9.0, PATIENCE[1])]
)
def test_silence_decides_after_some_round_trips(rtt: float | None, patience: float) -> None:
    """The question is put three times, and given up the sooner the nearer the server is."""
    check = OtherPortCheck(US, SERVER, ID, rtt)
    assert run_out(check) == pytest.approx([*SENDS, SENDS[-1] + patience])
    assert check.result is False
    assert check.receive(binding_success(ID, US), OTHER)
    assert check.result is False  # too late


def test_a_stall_of_our_own_is_not_taken_for_silence() -> None:
    """A last timer that comes late gives what has arrived meanwhile the time to be read, once."""
    check = OtherPortCheck(US, SERVER, ID, 0.001)
    check.start(0.0)
    for at in SENDS[1:]:
        check.handle_timer(at)
    check.handle_timer(50.0)
    assert check.result is None
    at = check.get_timer()
    assert at is not None and 50.0 < at < 50.5
    check.handle_timer(100.0)
    assert check.result is False


def test_a_request_that_comes_back_shows_hairpinning() -> None:
    """What is sent to our outer address arrives as it was; an answer to it does not count."""
    check = HairpinCheck(US, US, ID)
    request = check.start(0.0)
    assert BindingRequest.decode(request).transaction_id == ID
    assert check.receive(binding_success(ID, US), US)
    assert check.result is None
    assert check.receive(request, US)
    assert check.result is True
    assert check.get_timer() is None


@pytest.mark.parametrize(
    ("data", "source", "result"),
    [
        (binding_success(ID, US), OTHER, True),
        (binding_success(ID, US), SERVER, None),
        (binding_success(ID, US), SocketAddr("198.51.100.1", 3479), None),
        (binding_error(ID, 420, unknown=(3,)), OTHER, None),
        (binding_request(ID), OTHER, None),
    ],
    ids=["another port", "the port that was asked", "another host", "an error", "a request"],
)
def test_only_an_answer_from_another_port_shows_an_open_nat(
    data: bytes, source: SocketAddr, result: bool | None
) -> None:
    """Anything else leaves the question open."""
    check = OtherPortCheck(US, SERVER, ID)
    assert BindingRequest.decode(check.start(0.0)).change_port
    assert check.receive(data, source)
    assert check.result is result


@given(st.binary(max_size=60))
def test_noise_decides_nothing(noise: bytes) -> None:
    """Whatever comes with our transaction id or without, nothing is raised and nothing decided."""
    for check in (OtherPortCheck(US, SERVER, ID), HairpinCheck(US, US, ID)):
        check.start(0.0)
        check.receive(noise, OTHER)
        check.receive(b"\x01\x01\x00\x00\x21\x12\xa4\x42" + ID + noise, OTHER)
        assert check.result is None
    mapping = MappingCheck((SERVER, OTHER), lambda size: ID[:size])
    mapping.start(0.0)
    assert not mapping.receive(noise, OTHER, 0.0)
    mapping.receive(b"\x01\x01\x00\x00\x21\x12\xa4\x42" + ID + noise, OTHER, 0.0)
    assert mapping.result is Mapping.UNKNOWN
