"""Certificates: files, faults in them, and the one for development."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from tom_relay.errors import RelayServerError
from tom_relay.qad import ServerCertificate


def pem(key: object) -> bytes:
    """A private key as a file has it."""
    return key.private_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def made() -> ServerCertificate:
    return ServerCertificate.self_signed(("relay.example", "192.0.2.1", "2001:db8::1"))


def test_the_development_certificate_names_hosts_and_addresses(made: ServerCertificate) -> None:
    """Host names and IP addresses are in the certificate as what they are."""
    names = made.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["relay.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]


def test_files_round_trip(made: ServerCertificate, tmp_path: Path) -> None:
    """A chain and a key that were written come back, the first certificate first."""
    other = ServerCertificate.self_signed()
    (tmp_path / "cert").write_bytes(made.pem + other.pem)
    (tmp_path / "key").write_bytes(pem(made.private_key))
    loaded = ServerCertificate.load(tmp_path / "cert", tmp_path / "key")
    assert loaded.certificate == made.certificate
    assert loaded.chain == (other.certificate,)
    assert "private_key" not in repr(loaded)


def test_faults_in_files_name_the_file(made: ServerCertificate, tmp_path: Path) -> None:
    """A missing, broken, foreign or unusable file is an error that names it, and no traceback of a library."""
    certificate, key, bad = tmp_path / "cert", tmp_path / "key", tmp_path / "bad"
    certificate.write_bytes(made.pem)
    key.write_bytes(pem(made.private_key))
    for content in (b"", b"nonsense", made.pem[:100], made.pem[:-60]):
        bad.write_bytes(content)
        with pytest.raises(RelayServerError, match="bad: not a certificate"):
            ServerCertificate.load(bad, key)
        with pytest.raises(RelayServerError, match="bad: not a private key"):
            ServerCertificate.load(certificate, bad)
    with pytest.raises(RelayServerError, match="none: No such file"):
        ServerCertificate.load(tmp_path / "none", key)
    bad.write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(RelayServerError, match="bad: not the key of the certificate"):
        ServerCertificate.load(certificate, bad)
    bad.write_bytes(pem(x25519.X25519PrivateKey.generate()))
    with pytest.raises(RelayServerError, match="bad: a key that TLS"):
        ServerCertificate.load(certificate, bad)
    locked = made.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    bad.write_bytes(locked)
    with pytest.raises(RelayServerError, match="without a password"):
        ServerCertificate.load(certificate, bad)
