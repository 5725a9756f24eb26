"""Fixtures: a lab whose internet is a DHT alone, for all tests of a module that leave it as it was; UDP sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.interop.peers.process import PeerMissing
from tests.netns.datagrams import OpenSocket, opener
from tests.netns.town import Town
from tom_connect.testing.natlab import missing


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """A DHT of 50 nodes, and 5 dead ones; each worker of pytest-xdist has its own."""
    if lacking := missing():
        pytest.skip(f"a network lab needs {', '.join(lacking)}")
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Town.start())
        except PeerMissing as lacks:
            pytest.skip(str(lacks))
        yield made


@pytest.fixture
def udp() -> Iterator[OpenSocket]:
    """Opens UDP sockets in hosts, and closes them after the test."""
    yield from opener()
