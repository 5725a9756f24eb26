"""Responders far away, asked over connections of tom-connect's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from tom_campaign.core.control import CONTROL_ALPN
from tom_campaign.core.errors import ControlError
from tom_campaign.networks.channel import Channel
from tom_campaign.nodes.responder import stream_lines
from tom_connect import BiStream, Endpoint, EndpointConfig, TomError
from tom_connect.tickets import parse_target

DIAL_TIMEOUT: Final = 60.0
"""Seconds to find and reach a responder."""


@contextlib.asynccontextmanager
async def responders(
    targets: Mapping[str, str], config: EndpointConfig, on_death: Callable[[str], None]
) -> AsyncIterator[dict[str, Channel]]:
    """Control responders by name; `config` has the key that they know. `on_death` hears of one that is lost.

    Raises ControlError if one can't be reached or refuses us.
    """
    async with Endpoint.bind(config) as endpoint, contextlib.AsyncExitStack() as stack:
        channels: dict[str, Channel] = {}
        dying = on_death

        async def control(name: str, target: str) -> None:
            channels[name] = await stack.enter_async_context(
                _controlled(name, target, endpoint, lambda who: dying(who))
            )

        try:
            for name, target in targets.items():
                await control(name, target)
            yield channels
        finally:
            dying = lambda _name: None  # noqa: E731 - what ends now ends because we are done


@contextlib.asynccontextmanager
async def _controlled(
    name: str, target: str, endpoint: Endpoint, on_death: Callable[[str], None]
) -> AsyncIterator[Channel]:
    try:
        connection = await endpoint.connect(parse_target(target), CONTROL_ALPN, timeout=DIAL_TIMEOUT)
    except TomError as exc:
        raise ControlError(
            f"{name}: {exc}; the responder is to be started with: "
            f"tom-connect campaign respond --allow {endpoint.node_id}"
        ) from None
    try:
        stream = await connection.open_bi()
        stream.write(b"\n")  # the other side learns of a stream by its first bytes
        channel = Channel(name, stream.write)
        reader = asyncio.create_task(_read(stream, channel, on_death), name=f"answers of {name}")
        try:
            yield channel
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
    finally:
        await connection.close()


async def _read(stream: BiStream, channel: Channel, on_death: Callable[[str], None]) -> None:
    why = f"{channel.name} closed the control connection"
    try:
        async for line in stream_lines(stream):
            channel.line_received(line)
    except TomError as exc:
        why = f"{channel.name}: {exc}"
    channel.ended(why)
    on_death(channel.name)
