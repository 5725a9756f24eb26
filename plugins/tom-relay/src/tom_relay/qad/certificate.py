"""The X.509 certificate with which a relay's QUIC answers."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


@attrs.frozen
class ServerCertificate:
    """A certificate, the rest of its chain, and its private key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKeyTypes = attrs.field(repr=False)

    @classmethod
    def load(cls, certificate: pathlib.Path, key: pathlib.Path) -> ServerCertificate:
        """Read PEM files, the chain in the first; raises RelayServerError that names the file."""
        raise NotImplementedError

    @classmethod
    def self_signed(cls, names: Sequence[str] = ("localhost", "127.0.0.1", "::1")) -> ServerCertificate:
        """A fresh one for development, for these host names and IP addresses, valid for a week."""
        raise NotImplementedError

    @property
    def pem(self) -> bytes:
        """The certificate alone, as a client that is to trust it reads it."""
        raise NotImplementedError
