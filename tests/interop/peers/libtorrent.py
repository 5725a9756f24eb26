"""Real libtorrent nodes: a small Mainline DHT in one child process."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import attrs

from tests.interop.peers.dht import DhtPeer
from tests.interop.peers.loopback import Block, scattered
from tests.interop.peers.process import LineProcess, PeerMissing, python_module


@attrs.define(eq=False)
class LibtorrentNet(DhtPeer):
    """N libtorrent nodes that know one another, each on an address of its own."""

    @classmethod
    def start(cls, count: int = 20, *, links: int = 6, seed: int = 1, protections: bool = False) -> LibtorrentNet:
        """Start the nodes and return when each knows at least 12 others; with `count` 0, a process for clients only.

        With `protections` libtorrent's defaults stay on (few packets a second from one address, one node a prefix), and
        each node has a prefix of its own. Raises PeerMissing without libtorrent or the addresses for that, PeerError if
        the nodes do not come up.
        """
        if importlib.util.find_spec("libtorrent") is None:
            raise PeerMissing("libtorrent is not installed: pip install libtorrent (dependency group interop)")
        block = Block.pick()
        addresses = [block.endpoint(number) for number in range(count)]
        if protections:
            try:
                addresses = scattered(count)
            except OSError as error:
                raise PeerMissing(f"nodes in different prefixes can't be had: {error}") from error
        options: dict[str, Any] = {
            "addresses": addresses,
            "links": links,
            "seed": seed,
            "protections": protections,
        }
        process = LineProcess.start(python_module("tests.interop.peers.libtorrent_process", json.dumps(options)))
        return cls(process, [(host, port) for host, port in process.ready["addresses"]])
