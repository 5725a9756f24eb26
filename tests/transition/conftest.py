"""What a phase of the transition away from signaling is: a DHT always, a signaling server until phase 4.

The environment variable TOM_TRANSITION_PHASE names the phase, as the tox environments transition-1 to transition-4 do;
without it the phase is 3, the default, where tom-signaling-legacy is installed, else 4. The tests know nothing of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest
import pytest_asyncio

from tom_connect import EndpointConfig
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.testing import Testnet

INSTALLED = importlib.util.find_spec("tom_signaling_legacy") is not None


@attrs.frozen
class Surroundings:
    """What a node of today finds: first nodes of a DHT, and the options of a signaling server if there still is one."""

    bootstrap: tuple[str, ...]
    signaling: dict[str, Any]

    def node(self, **options: Any) -> EndpointConfig:
        """The configuration of a node, with every plugin that is installed and concerned."""
        dht = DhtConfig(bootstrap=self.bootstrap, host="127.0.0.1", ipv6=False)
        return EndpointConfig(
            alpns=("transition/1",),
            bind=("127.0.0.1:0",),
            allow_local=True,
            persist=False,
            plugins=("dht", "signaling*") if INSTALLED else ("dht",),
            plugin_configs={"dht": dht, **self.signaling},
            **options,
        )


@pytest.fixture(scope="session")
def phase() -> int:
    """The phase that is tested; that it is the one that is installed is made sure of."""
    phase = int(os.environ.get("TOM_TRANSITION_PHASE", "3" if INSTALLED else "4"))
    assert (phase < 4) == INSTALLED, f"phase {phase}, and tom-signaling-legacy is installed: {INSTALLED}"
    return phase


@pytest_asyncio.fixture
async def surroundings(phase: int) -> AsyncIterator[Surroundings]:
    """A DHT on loopback, and before phase 4 a signaling server."""
    async with contextlib.AsyncExitStack() as stack:
        net = await stack.enter_async_context(Testnet(8))
        signaling: dict[str, Any] = {}
        if phase < 4:
            from tom_signaling_legacy.client.config import SignalingConfig
            from tom_signaling_legacy.server import SignalingServer, SignalingServerConfig

            serving = SignalingServerConfig.dev(listen=("127.0.0.1:0",))
            server = await stack.enter_async_context(SignalingServer(serving))
            signaling = {"signaling": SignalingConfig(urls=(server.url,), phase=phase, timeout=10.0)}
        yield Surroundings(net.bootstrap, signaling)


Node = Callable[..., EndpointConfig]


@pytest.fixture
def node(surroundings: Surroundings) -> Node:
    """`node(**options)`: the configuration of a node in these surroundings."""
    return surroundings.node
