"""TLS 1.3 with raw Ed25519 public keys on both sides (RFC 7250), as a subclass of aioquic's TLS context."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tom_connect.exceptions import InvalidKeyError
from tom_connect.keys import KEY_SIZE, NodeId, SecretKey

SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""What precedes the 32-byte key in its SubjectPublicKeyInfo (RFC 8410 section 10.1)."""

CLIENT_CERTIFICATE_TYPE = 19
SERVER_CERTIFICATE_TYPE = 20
RAW_PUBLIC_KEY = 2
_OFFER = bytes([1, RAW_PUBLIC_KEY])
_ANSWER = bytes([RAW_PUBLIC_KEY])
MAX_MESSAGE = 16_384
"""Bytes of a TLS message. Its header may announce 16 MiB, which aioquic would gather, copying all for each packet,
before it knows who sends; with raw public keys no message has 4 KiB."""
_TYPES = (CLIENT_CERTIFICATE_TYPE, SERVER_CERTIFICATE_TYPE)

CIPHER_SUITES = [
    tls.CipherSuite.AES_128_GCM_SHA256,
    tls.CipherSuite.AES_256_GCM_SHA384,
    tls.CipherSuite.CHACHA20_POLY1305_SHA256,
]


class AlertCertificateRequired(tls.Alert):
    """The client did not prove a key (RFC 8446 section 6.2, alert 116)."""

    description = tls.AlertDescription.certificate_required


class RawPublicKey:
    """Stands where aioquic expects an X.509 certificate: a bare Ed25519 key."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id

    def public_bytes(self, encoding: Any = None) -> bytes:
        """The 44-byte SubjectPublicKeyInfo, which is the whole `certificate` (RFC 7250 section 3)."""
        return SPKI_PREFIX + self.node_id.raw

    def public_key(self) -> Ed25519PublicKey:
        """The key to check the peer's CertificateVerify with."""
        return Ed25519PublicKey.from_public_bytes(self.node_id.raw)

    @classmethod
    def parse(cls, data: bytes) -> RawPublicKey:
        """Read a SubjectPublicKeyInfo; raises a TLS alert for anything but a sound Ed25519 key."""
        if len(data) != len(SPKI_PREFIX) + KEY_SIZE or not data.startswith(SPKI_PREFIX):
            raise tls.AlertUnsupportedCertificate("the peer's certificate is not a raw Ed25519 public key")
        try:
            return cls(NodeId(data[len(SPKI_PREFIX) :]))
        except InvalidKeyError as exc:
            raise tls.AlertBadCertificate(str(exc)) from None


class RawKeyContext(tls.Context):
    """One side of a TLS handshake in which both prove an Ed25519 key.

    Attributes: `proven_peer`, the key whose signature was checked; `wrong_peer`, the key that answered where
    another was dialed.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        secret_key: SecretKey,
        alpns: list[str],
        expected_peer: NodeId | None = None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        super().__init__(
            is_client=is_client,
            alpn_protocols=alpns,
            cipher_suites=list(CIPHER_SUITES),
            logger=logger,
            verify_mode=ssl.CERT_NONE,  # the key itself is the identity; there is no chain to verify
        )
        self.certificate = RawPublicKey(secret_key.node_id)  # type: ignore[assignment]
        self.certificate_private_key = secret_key.private_key
        self._signature_algorithms = [tls.SignatureAlgorithm.ED25519]
        self._supported_groups = [tls.Group.X25519]  # one key share: generating others costs 1 ms a handshake
        self._expected_peer = expected_peer
        self.proven_peer: NodeId | None = None
        self.wrong_peer: NodeId | None = None

    @property
    def _request_client_certificate(self) -> bool:
        # A resumed handshake has no certificates: a server that waited for one would wait for ever.
        return not self._is_client and not self._session_resumed

    @_request_client_certificate.setter
    def _request_client_certificate(self, value: bool) -> None:
        """aioquic's constructor sets it; the property decides."""

    def offer(self) -> list[tuple[int, bytes]]:
        """Extensions 19 and 20 as the ClientHello carries them."""
        return [(kind, _OFFER) for kind in _TYPES]

    def negotiate_certificate_types(self) -> list[tuple[int, bytes]]:
        """Check extensions 19 and 20 of the peer; a server gets those that it answers with.

        Raises a TLS alert where the peer does not use raw public keys.
        """
        received = {kind: body for kind, body in self.received_extensions or () if kind in _TYPES}
        if self._is_client:
            for kind in _TYPES:
                body = received.get(kind)
                # A server need not repeat them when no certificate will be sent.
                if body != _ANSWER and not (body is None and self._session_resumed):
                    raise tls.AlertUnsupportedCertificate("the server does not use raw public keys (RFC 7250)")
            return []
        for kind in _TYPES:
            body = received.get(kind, b"")
            if not body or len(body) != 1 + body[0] or RAW_PUBLIC_KEY not in body[1:]:
                raise tls.AlertUnsupportedCertificate("the client does not use raw public keys (RFC 7250)")
        return [(kind, _ANSWER) for kind in _TYPES]

    def handle_message(self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer]) -> None:
        """Take bytes of the peer's handshake messages; raises a TLS alert."""
        head = (self._receive_buffer + input_data[:4])[:4]
        if len(head) == 4 and int.from_bytes(head[1:], "big") > MAX_MESSAGE:
            raise tls.AlertDecodeError("the peer announces a TLS message of absurd size")
        super().handle_message(input_data, output_buf)

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        if len(certificate.certificates) != 1:
            raise tls.AlertBadCertificate("a raw public key stands alone in its Certificate message")
        key = RawPublicKey.parse(certificate.certificates[0][0])
        if self._expected_peer is not None and key.node_id != self._expected_peer:
            self.wrong_peer = key.node_id
            raise tls.AlertBadCertificate(f"dialed {self._expected_peer}, but {key.node_id} answered")
        self._peer_certificate = key  # type: ignore[assignment]

    def _check_certificate_verify_signature(self, verify: tls.CertificateVerify) -> None:
        super()._check_certificate_verify_signature(verify)
        peer: Any = self._peer_certificate
        self.proven_peer = peer.node_id

    def _server_expect_finished(self) -> None:
        # aioquic goes on when the client's Certificate is empty (RFC 8446 section 4.4.2.4 lets it).
        if self.proven_peer is None and not self._session_resumed:
            raise AlertCertificateRequired("the client did not prove a key")
        super()._server_expect_finished()
