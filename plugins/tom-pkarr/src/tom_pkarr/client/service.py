"""What discovery and publisher of one endpoint have in common: the relays, one HTTP session, and what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from tom_connect.abc import PluginContext
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.core.answers import Held
from tom_pkarr.core.cache import FreshCache
from tom_pkarr.core.retry import Standing

if TYPE_CHECKING:
    import aiohttp

    from tom_pkarr.client.relay import PkarrRelayClient

_KEY = "service"


class PkarrService:
    """Opens the session with its first user and closes it with its last."""

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.config: PkarrConfig = ctx.config if ctx.config is not None else PkarrConfig()
        self.cache: FreshCache[Held] = FreshCache()
        self.standings = {url: Standing() for url in self.config.urls}
        self._session: aiohttp.ClientSession | None = None
        self._relays: tuple[PkarrRelayClient, ...] = ()
        self._users: set[object] = set()

    @classmethod
    def of(cls, ctx: PluginContext) -> PkarrService:
        """The service of an endpoint, made at the first call."""
        if _KEY not in ctx.shared:
            ctx.shared[_KEY] = cls(ctx)
        return cast(PkarrService, ctx.shared[_KEY])

    @property
    def relays(self) -> tuple[PkarrRelayClient, ...]:
        """The relays to ask; empty while nobody uses the service."""
        return self._relays

    def acquire(self, user: object) -> None:
        """Count a user in."""
        self._users.add(user)
        if self._session is None:
            from tom_pkarr.client.relay import PkarrRelayClient, new_session  # aiohttp: not for those without relays

            self._session = session = new_session()
            self._relays = tuple(
                PkarrRelayClient(session, url, self.config.timeout, self.ctx.clock.wall, standing)
                for url, standing in self.standings.items()
            )

    async def release(self, user: object) -> None:
        """Count a user out; harmless for one that was never in."""
        self._users.discard(user)
        if not self._users and self._session is not None:
            session, self._session, self._relays = self._session, None, ()
            await session.close()


class LiveDiagnostics(Mapping[str, object]):
    """How each relay did when it was last asked, read at the moment it is shown."""

    def __init__(self, service: PkarrService) -> None:
        self._service = service

    def _read(self) -> dict[str, object]:
        now = asyncio.get_running_loop().time()
        shown: dict[str, object] = {}
        for url, standing in self._service.standings.items():
            pause = standing.pause(now)
            text = standing.problem or "no problem"
            shown[url] = f"{text}; not asked for {pause:.0f} s" if pause else text
        return {**shown, "records known": len(self._service.cache)}

    def __getitem__(self, key: str) -> object:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
