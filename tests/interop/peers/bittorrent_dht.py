"""Real nodes of npm's bittorrent-dht: a small Mainline DHT in one node.js child."""

from __future__ import annotations

import json
from typing import Any

import attrs

from tests.interop.peers.dht import DhtPeer
from tests.interop.peers.loopback import Block
from tests.interop.peers.npm import start_node


@attrs.define(eq=False)
class BittorrentDhtNet(DhtPeer):
    """N bittorrent-dht nodes that know one another, each on an address of its own."""

    @classmethod
    def start(cls, count: int = 20) -> BittorrentDhtNet:
        """Start the nodes and return when each knows at least 12 others; with `count` 0, a process for clients only.

        Raises PeerMissing without node.js or its packages, PeerError if the nodes do not come up.
        """
        block = Block.pick()
        options = json.dumps({"addresses": [block.endpoint(number) for number in range(count)]})
        process = start_node("bittorrent-dht", "dht-process.mjs", options)
        return cls(process, [(host, port) for host, port in process.ready["addresses"]])

    def _seq(self, seq: int, cas: int | None) -> dict[str, Any]:
        return {"seq": seq} if cas is None else {"seq": seq, "cas": cas}
