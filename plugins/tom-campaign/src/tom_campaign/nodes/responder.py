"""A responder: a node that does what its controllers ask, within limits, and nothing for anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

import attrs

from tom_campaign.core.control import CONTROL_ALPN, LineSplitter, hello_line
from tom_campaign.nodes.serving import Write, serve_requests
from tom_campaign.nodes.worker import Worker
from tom_connect import BiStream, Incoming, NodeId, TomError

_logger = logging.getLogger("tom_connect.plugin.campaign")
OPEN_TIMEOUT: Final = 10.0
"""Seconds that a controller has to open its stream."""
_CHUNK: Final = 16 * 1024


@attrs.define(eq=False)
class Responder:
    """Serves controllers, one after the other, and the nodes that the present one admits."""

    worker: Worker
    allowed: frozenset[NodeId]
    _controller: NodeId | None = None

    async def serve(self) -> None:
        """Take connections until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for incoming in self.worker.endpoint.accept():
                if incoming.alpn != CONTROL_ALPN:
                    self.worker.take(incoming, group)
                elif incoming.remote_node_id not in self.allowed:
                    incoming.refuse("this responder has other controllers")
                elif self._controller is not None:
                    incoming.refuse("a campaign is under way here")
                else:
                    self._controller = incoming.remote_node_id
                    group.create_task(self._controlled(incoming), name="controlled")

    async def _controlled(self, incoming: Incoming) -> None:
        _logger.info("controlled by %s", incoming.remote_node_id)
        try:
            connection = await incoming.accept()
            async with connection:
                async with asyncio.timeout(OPEN_TIMEOUT):
                    stream = await connection.accept_bi()
                stream.write(hello_line(self.worker.hello()))
                await serve_requests(stream_lines(stream), _writer(stream), self.worker.answer)
        except (TomError, TimeoutError) as exc:
            _logger.info("control by %s ended: %s", incoming.remote_node_id, exc)
        finally:
            # What its campaign opened ends with it: nobody else may use it.
            self.worker.acceptor.admitted = frozenset()
            with contextlib.suppress(TomError):
                await self.worker.aclose()
            self._controller = None


async def stream_lines(stream: BiStream) -> AsyncIterator[bytes]:
    """The lines that come on a stream; raises ControlError for one that is too long, TomError if the stream breaks."""
    splitter = LineSplitter()
    while data := await stream.read(_CHUNK):
        for line in splitter.feed(data):
            yield line


def _writer(stream: BiStream) -> Write:
    def write(line: bytes) -> None:
        try:
            stream.write(line)
        except TomError as exc:  # the controller is gone, which ends its lines too
            _logger.debug("an answer was not sent: %s", exc)

    return write
