"""Who counts as one source."""

from __future__ import annotations

import pytest

from tom_connect.serving.sources import source_prefix


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:23ff::1", "2001:db8:1:2300::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("nonsense", ""),
    ],
)
def test_sources(host: str, prefix: str) -> None:
    """An IPv4 address and an IPv6 /56 are one source each."""
    assert source_prefix(host) == prefix
