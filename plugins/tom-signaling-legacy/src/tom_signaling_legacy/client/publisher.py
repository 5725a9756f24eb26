"""Having our signed record at hand for those who ask for it through a signaling server."""

from __future__ import annotations

from tom_connect.abc import Publisher, PublishReport
from tom_connect.record import SignedRecord
from tom_signaling_legacy.client.config import host_of
from tom_signaling_legacy.client.service import SignalingService
from tom_signaling_legacy.errors import NotRegisteredError


class SignalingPublisher(Publisher):
    """Answers with the newest record; no server keeps it, so it is published while we are registered with one."""

    name = "signaling"
    serverless = False
    # Askers take a record of up to a day: signed anew each hour it stays far from that.
    republish_after = 3600.0

    def __init__(self, service: SignalingService) -> None:
        self._service = service
        self.timeout = service.config.timeout + 1.0

    async def start(self) -> None:
        """Connect to the servers."""
        self._service.acquire(self)

    async def aclose(self) -> None:
        """Disconnect if nobody else uses them."""
        await self._service.release(self)

    async def publish(self, record: SignedRecord) -> PublishReport:
        """Returns when we are registered with a server; raises NotRegisteredError with each one's reason if with none.

        From now on whoever asks gets this record, also through servers that are reached later.
        """
        held = self._service.record
        if held is None or held.timestamp_us < record.timestamp_us:
            self._service.record = record
        servers = self._service.servers
        if not await self._service.until(
            lambda: any(server.is_registered for server in servers), self._service.config.timeout
        ):
            reasons = "; ".join(f"{host_of(server.url)}: {server.problem}" for server in servers)
            raise NotRegisteredError(f"registered with no signaling server: {reasons}")
        return PublishReport(self.name, sum(server.is_registered for server in servers))
