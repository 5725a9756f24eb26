"""One side of port probing, and the packets of each (docs/reference/disco.md, docs/reference/rendezvous.md)."""

import asyncio
import random
from collections.abc import Callable
from ipaddress import IPv4Address

from .dht import Node
from .disco import Addr
from .wire import Wire

_SOCKETS, _OPEN_FOR = 256, 12.0
_PROBES, _PROBES_A_SECOND = 2048, 600
_ATTESTED_BY = 3


def attested(ip: str, nodes: list[Node]) -> bool:
    """Whether nodes of three networks (/24) name an IP in the mailbox."""
    networks = {IPv4Address(node.addr[0]).packed[:3] for node in nodes if any(value[0] == ip for value in node.values)}
    return len(networks) >= _ATTESTED_BY


async def open_sockets(wires: list[Wire], there: Addr, ping: Callable[[Wire, Addr, int], None]) -> None:
    """The end whose NAT shifts ports: a mapping for each socket, first behind our own NAT alone."""
    began = asyncio.get_running_loop().time()
    half = len(wires) // 2
    for number, wire in enumerate(wires):
        ping(wire, there, 2 if number < half else 3 + number % 2)
    for after, part in ((1.2, wires[:half]), (2.4, wires[half:])):
        await asyncio.sleep(began + after - asyncio.get_running_loop().time())
        for wire in part:
            ping(wire, there, 64)
    await asyncio.sleep(began + _OPEN_FOR - asyncio.get_running_loop().time())


def further_wires(host: str, on_packet: Callable[[Wire, bytes, Addr], None]) -> list[Wire]:
    """As many sockets as an attempt has."""
    return [Wire(host, 0, on_packet) for _ in range(_SOCKETS)]


async def probe(ip: str, ping: Callable[[Addr], None]) -> None:
    """The other end: a ping to each of many ports, drawn at random, none twice."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, port in enumerate(random.sample(range(1024, 65536), _PROBES)):
        if (early := began + number / _PROBES_A_SECOND - loop.time()) > 0:
            await asyncio.sleep(early)
        ping((ip, port))
