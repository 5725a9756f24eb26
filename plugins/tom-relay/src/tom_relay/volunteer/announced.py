"""A relay server that is a node as well: nodes without a relay find it through the DHT, and reach it by QUIC."""

from __future__ import annotations

import asyncio
from typing import Final

import attrs

from tom_connect.abc import Discovery, PluginContext, PluginObject
from tom_connect.cli.options import Invocation
from tom_connect.exceptions import ConfigError
from tom_connect.hookspecs import hookimpl
from tom_relay.server.server import RelayServer
from tom_relay.volunteer.config import SECTION, RelayForOthersConfig
from tom_relay.volunteer.service import ClientsDiscovery, Volunteer

LOOK: Final = 0.25
"""Seconds between looks at what is to be told."""


@attrs.define(eq=False)
class Announcing:
    """The plugin of the relay's own endpoint: it serves the hub of the server."""

    server: RelayServer
    config: RelayForOthersConfig
    volunteer: Volunteer | None = None
    name: str = "relay-announced"

    @hookimpl
    def tom_service(self, ctx: PluginContext) -> PluginObject:
        """Serve by QUIC, and announce that."""
        self.volunteer = Volunteer(ctx, self.config, hub=self.server.hub, sessions=self.server.quic)
        return self.volunteer

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery | None:
        """Know where our clients are."""
        return None if self.volunteer is None else ClientsDiscovery(self.volunteer)


def limits_of(run: Invocation) -> RelayForOthersConfig:
    """What the endpoint of a relay may pass on; raises ConfigError where it can't be announced."""
    if not run.config.direct:
        raise ConfigError("--announce needs direct packets; leave --no-direct out")
    given = run.config.plugin_configs.get(SECTION)
    limits = given if isinstance(given, RelayForOthersConfig) else RelayForOthersConfig()
    if not limits.announce:
        raise ConfigError("--announce says the opposite of announce = false in [relay_for_others]; leave one out")
    return limits


async def keep_announced(run: Invocation, server: RelayServer, limits: RelayForOthersConfig) -> None:
    """Run the endpoint of a relay until cancelled, and tell whether it can be found."""
    from tom_connect import Endpoint

    sections = {**run.config.plugin_configs, SECTION: attrs.evolve(limits, enabled=False)}
    announcing = Announcing(server, attrs.evolve(limits, enabled=True))
    config = run.endpoint_config(
        alpns=(), plugin_configs=sections, extra_plugins=(*run.config.extra_plugins, announcing)
    )
    async with Endpoint.bind(config) as endpoint:
        volunteer = announcing.volunteer
        assert volunteer is not None
        run.output.event(
            "node",
            f"As a node: {endpoint.node_id} on {', '.join(map(str, endpoint.local_addrs))}",
            node_id=endpoint.node_id,
        )
        told: object = None
        while True:
            state = (volunteer.url, volunteer.why_not, any(volunteer.announced.values()))
            if state != told:
                told = state
                _tell(run, volunteer)
            await asyncio.sleep(LOOK)


def _tell(run: Invocation, volunteer: Volunteer) -> None:
    nodes = sum(volunteer.announced.values())
    if nodes:
        text = f"Found through the DHT: {volunteer.url}, {nodes} nodes hold the announcement"
        run.output.event("announced", text, url=str(volunteer.url), nodes=nodes)
    elif volunteer.why_not:
        run.output.event("not_announced", f"Not announced: {volunteer.why_not}", reason=volunteer.why_not)


__all__ = ["keep_announced", "limits_of"]
