"""The X.509 certificate with which a relay's QUIC answers."""

from __future__ import annotations

import datetime
import ipaddress
import pathlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tom_relay.errors import RelayServerError

T = TypeVar("T")

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey
"""The keys with which aioquic can sign (TLS 1.3)."""

VALID = datetime.timedelta(days=7)
"""For how long a certificate for development holds."""
_CLOCK_SKEW = datetime.timedelta(hours=1)


@attrs.frozen
class ServerCertificate:
    """A certificate, the rest of its chain, and its private key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = attrs.field(repr=False)

    @classmethod
    def load(cls, certificate: pathlib.Path, key: pathlib.Path) -> ServerCertificate:
        """Read PEM files, the chain in the first; raises RelayServerError that names the file."""
        first, *chain = _read(certificate, "a certificate", x509.load_pem_x509_certificates)
        private_key = _read(key, "a private key without a password", _private_key)
        if not isinstance(private_key, PrivateKey):
            raise RelayServerError(f"{key}: a key that TLS 1.3 can't use; make one with ECDSA, Ed25519 or RSA")
        if private_key.public_key() != first.public_key():
            raise RelayServerError(f"{key}: not the key of the certificate in {certificate}; give the pair")
        return cls(first, tuple(chain), private_key)

    @classmethod
    def self_signed(cls, names: Sequence[str] = ("localhost", "127.0.0.1", "::1")) -> ServerCertificate:
        """A fresh one for development, for these host names and IP addresses, valid for a week."""
        private_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + VALID)
            .add_extension(x509.SubjectAlternativeName([_general_name(text) for text in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(private_key, hashes.SHA256())
        )
        return cls(certificate, (), private_key)

    @property
    def pem(self) -> bytes:
        """The certificate alone, as a client that is to trust it reads it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def _private_key(data: bytes) -> object:
    return serialization.load_pem_private_key(data, password=None)


def _read(path: pathlib.Path, what: str, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(path.read_bytes())
    except OSError as exc:
        raise RelayServerError(f"{path}: {exc.strerror or exc}") from exc
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise RelayServerError(f"{path}: not {what} in PEM") from exc


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
