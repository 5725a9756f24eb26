"""What a connection logs: aioquic's lines under our name, and none louder than debug."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

logger = logging.getLogger("tom_connect.quic")


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the connection's first id before each line.

    aioquic warns of every peer that breaks the protocol or holds another key. The application gets that as an error;
    a library that also writes it to stderr would let strangers fill its user's screen.
    """

    def __init__(self, connection_id: bytes) -> None:
        super().__init__(logger, {})
        self._prefix = f"[{connection_id.hex()}] "

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the prefix."""
        return f"{self._prefix}{msg}", kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Write the line at debug level, whatever aioquic asked for."""
        if self.logger.isEnabledFor(logging.DEBUG):
            super().log(logging.DEBUG, msg, *args, **kwargs)
