"""What a NAT really does, found out with plain UDP sockets as RFC 4787 describes it.

A lab's routers are checked with this, so that a test which passes behind one of them says something about such NATs.
"""

from __future__ import annotations

import contextlib
import enum
import secrets
import socket
from collections.abc import Iterator
from typing import Final

import attrs

from tom_connect.testing.natlab.namespaces import LabError
from tom_connect.testing.natlab.node import Host

Address = tuple[str, int]

#: Seconds for a datagram that must come; without wires it takes less than a millisecond.
_PATIENCE: Final = 10.0


class Dependence(enum.Enum):
    """Of what a mapping or a filter depends (RFC 4787, sections 4.1 and 5)."""

    NOTHING = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address- and port-dependent"


@attrs.frozen
class Behaviour:
    """How a NAT treats UDP over IPv4.

    `translates`: a host's address is seen as another one outside; `keeps_ports`: its port is not. `hairpins`: a
    neighbour gets what is sent to its mapped address, from the NAT's outer address (RFC 4787, section 6); None if there
    was no neighbour to ask.
    """

    mapping: Dependence
    filtering: Dependence
    translates: bool
    keeps_ports: bool
    hairpins: bool | None


def probe(host: Host, near: Host, far: Host, neighbour: Host | None = None) -> Behaviour:
    """Find out what is between a host and the internet.

    `near` and `far` are public hosts, `neighbour` another host in the same LAN. Order decides what counts as
    dropped, so the links must not have jitter or loss. Raises LabError if no UDP comes through at all.
    """
    with contextlib.ExitStack() as stack:

        def opened(where: Host) -> socket.socket:
            made = stack.enter_context(contextlib.closing(where.socket()))
            made.bind((where.addr, 0))
            made.settimeout(_PATIENCE)
            return made

        near_one, near_two, far_one = opened(near), opened(near), opened(far)
        inside = opened(host)
        seen = [_seen(inside, outside) for outside in (near_one, near_two, far_one)]
        mapping = Dependence.NOTHING
        if seen[0] != seen[2]:
            mapping = Dependence.ADDRESS if seen[0] == seen[1] else Dependence.ADDRESS_AND_PORT
        own = inside.getsockname()
        fresh = opened(host)
        return Behaviour(
            mapping,
            _filtering(fresh, near_one, near_two, far_one),
            translates=seen[0][0] != own[0],
            keeps_ports=all(address[1] == own[1] for address in seen),
            hairpins=_hairpins(opened(host), opened(neighbour), near_one) if neighbour is not None else None,
        )


def _seen(inside: socket.socket, outside: socket.socket) -> Address:
    """The address from which a socket inside is seen by one outside."""
    token = secrets.token_bytes(8)
    inside.sendto(token, outside.getsockname())
    for data, source in _received(outside):
        if data == token:
            return source
    raise LabError(f"no UDP passes from {inside.getsockname()} to {outside.getsockname()}")


def _received(sock: socket.socket) -> Iterator[tuple[bytes, Address]]:
    with contextlib.suppress(TimeoutError):
        while True:
            yield sock.recvfrom(2048)


def _filtering(
    inside: socket.socket, asked: socket.socket, other_port: socket.socket, other_address: socket.socket
) -> Dependence:
    mapped = _seen(inside, asked)
    for outside in (other_address, other_port, asked):
        outside.sendto(b"unasked", mapped)
    got = set()
    for _, source in _received(inside):
        if source == asked.getsockname():  # sent last, so what has not come by now never will
            break
        got.add(source)
    else:
        raise LabError(f"no UDP passes back to {inside.getsockname()}")
    if other_address.getsockname() in got:
        return Dependence.NOTHING
    return Dependence.ADDRESS if other_port.getsockname() in got else Dependence.ADDRESS_AND_PORT


def _hairpins(inside: socket.socket, neighbour: socket.socket, outside: socket.socket) -> bool:
    mapped, target = _seen(inside, outside), _seen(neighbour, outside)
    token = secrets.token_bytes(8)
    inside.sendto(token, target)
    # By another way, but the first one ends at the router or is as short as this one.
    outside.sendto(b"last", target)
    for data, source in _received(neighbour):
        if data == b"last":
            return False
        if data == token:
            return source[0] == mapped[0]
    raise LabError(f"no UDP passes back to {neighbour.getsockname()}")
