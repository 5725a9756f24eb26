"""Fixtures: real peers. A DHT is made anew for each test: nodes of ours that have left it would slow the next.

One that is missing skips its tests, which fails them in CI (tests/suites.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest

from tests.interop.peers import BittorrentDhtNet, IrohPeer, LibtorrentNet, PeerMissing

Peer = TypeVar("Peer", bound=AbstractContextManager[Any])


def running(start: Callable[[], Peer]) -> Iterator[Peer]:
    """Start a peer and end it when the fixture ends."""
    try:
        peer = start()
    except PeerMissing as missing:
        pytest.skip(str(missing))
    with peer:
        yield peer


@pytest.fixture
def libtorrent_net() -> Iterator[LibtorrentNet]:
    """Twenty libtorrent nodes that know one another."""
    yield from running(lambda: LibtorrentNet.start(20))


@pytest.fixture
def bittorrent_dht_net() -> Iterator[BittorrentDhtNet]:
    """Twenty bittorrent-dht nodes that know one another."""
    yield from running(lambda: BittorrentDhtNet.start(20))


@pytest.fixture(scope="session")
def iroh_peer() -> Iterator[IrohPeer]:
    """An iroh endpoint that echoes."""
    yield from running(IrohPeer.start)


@pytest.fixture(scope="session")
def second_iroh_peer() -> Iterator[IrohPeer]:
    """Another iroh endpoint that echoes, with a secret key that was given to it."""
    yield from running(lambda: IrohPeer.start(secret_key=bytes(31) + b"\x01"))
