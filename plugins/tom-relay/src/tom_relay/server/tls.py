"""TLS from certificate files, read again when they change."""

from __future__ import annotations

import logging
import pathlib
import ssl

from tom_relay.errors import RelayServerError
from tom_relay.server.access import FileState

_logger = logging.getLogger("tom_connect.plugin.relay-server")


class Certificate:
    """A TLS context for servers whose certificate follows two files; raises RelayServerError if they can't be used."""

    def __init__(self, cert: pathlib.Path, key: pathlib.Path) -> None:
        self.cert = cert
        self.key = key
        self._states = self._seen()
        self.context = self._load()

    def refresh(self) -> bool:
        """Read the files again if they changed, for new handshakes; what does not fit together is not used."""
        states = self._seen()
        if states == self._states:
            return False
        try:
            self._load()  # a context of its own shows whether they fit together
            self.context.load_cert_chain(self.cert, self.key)
        except (RelayServerError, OSError) as exc:
            # Perhaps only one of the two has been written yet: looked at again until they fit.
            _logger.warning("the new certificate is not used yet: %s", exc)
            return False
        self._states = states
        _logger.info("certificate %s was read again", self.cert)
        return True

    def _seen(self) -> tuple[FileState | None, FileState | None]:
        return FileState.of(self.cert), FileState.of(self.key)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])

        def no_password() -> str:  # without it OpenSSL asks on the terminal
            raise RelayServerError(f"{self.key}: the key is encrypted; write it without a password")

        try:
            context.load_cert_chain(self.cert, self.key, password=no_password)
        except ssl.SSLError as exc:
            raise RelayServerError(f"{self.cert}, {self.key}: not a certificate and its key: {exc.reason}") from None
        except OSError as exc:
            missing = next((file for file in (self.cert, self.key) if FileState.of(file) is None), self.cert)
            raise RelayServerError(f"{missing}: {exc.strerror or exc}") from None
        return context
