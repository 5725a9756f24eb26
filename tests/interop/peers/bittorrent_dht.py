"""Real nodes of npm's bittorrent-dht: a small Mainline DHT in one node.js child."""

from __future__ import annotations

import json
import shutil
from typing import Any

import attrs

from tests.interop.peers.dht import DhtPeer
from tests.interop.peers.loopback import Block
from tests.interop.peers.process import REPOSITORY, LineProcess, PeerMissing

NPM = REPOSITORY / "tests" / "interop" / "npm"


@attrs.define(eq=False)
class BittorrentDhtNet(DhtPeer):
    """N bittorrent-dht nodes that know one another, each on an address of its own."""

    @classmethod
    def start(cls, count: int = 20) -> BittorrentDhtNet:
        """Start the nodes and return when each knows at least 12 others; with `count` 0, a process for clients only.

        Raises PeerMissing without node.js or its packages, PeerError if the nodes do not come up.
        """
        node = shutil.which("node")
        if node is None:
            raise PeerMissing("node.js is not installed: bittorrent-dht needs node 18 or newer")
        if not (NPM / "node_modules" / "bittorrent-dht").is_dir():
            raise PeerMissing("bittorrent-dht is not installed: npm ci --prefix tests/interop/npm")
        block = Block.pick()
        options = json.dumps({"addresses": [block.endpoint(number) for number in range(count)]})
        process = LineProcess.start([node, str(NPM / "dht-process.mjs"), options])
        return cls(process, [(host, port) for host, port in process.ready["addresses"]])

    def _seq(self, seq: int, cas: int | None) -> dict[str, Any]:
        return {"seq": seq} if cas is None else {"seq": seq, "cas": cas}
