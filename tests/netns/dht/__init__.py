"""A Mainline DHT as the one thing on a lab's internet: libtorrent's nodes, older ones without BEP 44, and dead ones."""

from __future__ import annotations

from tests.netns.dht.net import BOOTSTRAP_NAMES, DhtNet

__all__ = ["BOOTSTRAP_NAMES", "DhtNet"]
