"""How an error of the system is told in a message of ours."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from tom_connect.exceptions import reason_of


class Wrapped(OSError):
    """As aiohttp wraps what the system said."""

    def __init__(self, inner: OSError) -> None:
        super().__init__(inner.errno, f"Cannot connect to host x:443 ssl:default [{inner.strerror}]")
        self.os_error = inner


class Unsafe(Exception):
    """As aiohttp wraps what TLS said of a certificate."""

    def __init__(self, inner: ssl.SSLError) -> None:
        super().__init__("Cannot connect to host x:443 ssl:True [SSLCertVerificationError: (1, '...')]")
        self.certificate_error = inner


REFUSED = os.strerror(errno.ECONNREFUSED)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
        (socket.gaierror(socket.EAI_AGAIN, "Try later"), "Try later"),
        (OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)"), REFUSED),
        (Wrapped(OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)")), REFUSED),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION] wrong version (_ssl.c:1006)"), "wrong version"),
        (Unsafe(ssl.SSLError(1, "[SSL: BAD] self-signed certificate (_ssl.c:1006)")), "self-signed certificate"),
        (OSError("Multiple exceptions: [Errno 111] no, [Errno -2] never"), "Multiple exceptions: no, never"),
        (ValueError("two\nlines  of it"), "two lines of it"),
        (ValueError("x" * 300), "x" * 200),
        (EOFError(), "EOFError"),
    ],
)
def test_words(error: Exception, text: str) -> None:
    """One line of words, never more than a message can hold; what says nothing is named by its kind."""
    assert reason_of(error) == text
