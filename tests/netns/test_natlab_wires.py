"""The lab's wires delay, lose, queue and reorder what they carry."""

from __future__ import annotations

import socket
import time

import pytest

from tests.netns.datagrams import PATIENCE, OpenSocket, tell
from tom_connect.testing.natlab import Lab, LabError, Wire


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
