"""The parent's side: puts a DHT onto the internet of a lab, and changes it while others use it."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import attrs

from tests.interop.peers.process import LineProcess, PeerMissing, python_module
from tom_connect.testing.natlab import Host, Lab, Wire

Address = tuple[str, int]

PORT: Final = 6881
NAMED_PORTS: Final = {"router.bittorrent.com": 6881, "dht.libtorrent.org": 25401}
BOOTSTRAP_NAMES: Final = tuple(f"{name}:{port}" for name, port in NAMED_PORTS.items())
"""By which programs on the lab's machines find the DHT; they are the names of the public one, of which nothing is
reached from a lab, so that commands for the public DHT work as they are written."""

#: First bytes that stand for nobody's network in particular: not those that libtorrent takes for dark (3, 6, 7, ...),
#: none that are private, shared or kept for other purposes, and none of the lab's own (198).
_FIRST_BYTES: Final = [
    byte
    for byte in range(12, 224)
    if byte not in {19, 21, 22, 25, 26, 28, 29, 30, 33, 34, 48, 51, 56, 100, 127, 169, 172, 192, 198, 203}
]


def public_addresses(chooser: random.Random) -> Iterator[str]:
    """IPv4 addresses, at first in as many /8 as there are, then others; no two in one /16."""
    taken: set[tuple[int, int]] = set()
    while True:
        for first in chooser.sample(_FIRST_BYTES, len(_FIRST_BYTES)):
            second = chooser.randrange(1, 255)
            if (first, second) not in taken:
                taken.add((first, second))
                yield f"{first}.{second}.{chooser.randrange(1, 255)}.{chooser.randrange(2, 255)}"


@attrs.define(eq=False)
class DhtNet:
    """A DHT in one process on one machine of the lab, each node with an address of its own in a prefix of its own.

    Of `nodes`, the share `without_bep44` answers error 204 to get and put; beside them, `dead` nodes stand in the
    tables of others and are silent. The lab's wires make delay and loss.
    """

    host: Host
    modern: list[Address]
    """Nodes of libtorrent's."""
    old: list[Address]
    """Nodes that know nothing of BEP 44."""
    dead: list[Address]
    _process: LineProcess
    _chooser: random.Random
    _addresses: Iterator[str]
    _bootstrap: list[Address]

    @classmethod
    def start(
        cls,
        lab: Lab,
        nodes: int = 50,
        *,
        without_bep44: float = 0.3,
        dead: int = 5,
        wire: Wire | None = None,
        seed: int = 1,
        name: str = "dht",
    ) -> DhtNet:
        """Build the machine and start the nodes; returns when they know each other, after a second or some.

        Programs in the lab then resolve BOOTSTRAP_NAMES to two nodes of it. Raises PeerMissing without libtorrent,
        PeerError if the nodes don't come up.
        """
        if importlib.util.find_spec("libtorrent") is None:
            raise PeerMissing("libtorrent is not installed: pip install libtorrent (dependency group interop)")
        chooser = random.Random(seed)
        addresses = public_addresses(chooser)
        old_count = round(nodes * without_bep44)
        ports = [*NAMED_PORTS.values()]
        modern = [
            (next(addresses), ports[number] if number < len(ports) else PORT) for number in range(nodes - old_count)
        ]
        old = [(next(addresses), PORT) for _ in range(old_count)]
        gone = [(next(addresses), PORT) for _ in range(dead)]
        host = lab.host(name, wire=wire, ipv6=False)
        host.add_addresses([each for each, _ in (*modern, *old, *gone)])
        options = {"modern": modern, "old": [*old, *gone], "seed": seed}
        command = host.command(python_module("tests.netns.dht.net_process", json.dumps(options)))
        process = LineProcess.start(command)
        net = cls(host, modern, old, gone, process, chooser, addresses, modern[: len(ports)])
        process.call_sync("silence", nodes=gone)
        net.set_names(lab)
        return net

    def set_names(self, lab: Lab) -> None:
        """Let programs in the lab resolve BOOTSTRAP_NAMES, as from the start."""
        lab.set_names(dict(zip(NAMED_PORTS, (each for each, _ in self._bootstrap), strict=True)))

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """Two nodes as HOST:PORT."""
        return tuple(f"{host}:{port}" for host, port in self._bootstrap)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the same two, BOOTSTRAP_NAMES."""
        return BOOTSTRAP_NAMES

    async def replace(self, share: float) -> int:
        """End a share of the nodes, of both kinds, and let as many newcomers join; returns how many.

        Those that programs bootstrap from stay.
        """
        gone_modern = self._chooser.sample(self.modern[len(self._bootstrap) :], round(len(self.modern) * share))
        gone_old = self._chooser.sample(self.old, round(len(self.old) * share))
        modern = [(next(self._addresses), PORT) for _ in gone_modern]
        old = [(next(self._addresses), PORT) for _ in gone_old]
        self.host.add_addresses([each for each, _ in (*modern, *old)])
        await self._process.call("replace", gone=[*gone_modern, *gone_old], modern=modern, old=old)
        self.modern = [each for each in self.modern if each not in gone_modern] + modern
        self.old = [each for each in self.old if each not in gone_old] + old
        return len(modern) + len(old)

    async def known(self) -> list[tuple[str, str, int]]:
        """Id in hex, host and port of each node."""
        return [(node_id, host, port) for node_id, host, port in (await self._process.call("known"))["nodes"]]

    async def meet(self, strangers: list[tuple[str, str, int]]) -> None:
        """Have nodes that somebody else runs known to all, as they would be after a while."""
        await self._process.call("meet", strangers=strangers)

    async def counters(self) -> dict[str, int]:
        """What all of libtorrent's nodes have counted together, under its names without the leading dht."""
        total: dict[str, int] = (await self._process.call("counters"))["total"]
        return total

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
