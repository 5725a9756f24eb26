"""Real programs that we did not write, run as child processes for interop tests and benchmarks."""

from __future__ import annotations

from tests.interop.peers.bittorrent_dht import BittorrentDhtNet
from tests.interop.peers.iroh import IrohPeer
from tests.interop.peers.libtorrent import LibtorrentNet
from tests.interop.peers.process import LineProcess, PeerError, PeerMissing

__all__ = ["BittorrentDhtNet", "IrohPeer", "LibtorrentNet", "LineProcess", "PeerError", "PeerMissing"]
