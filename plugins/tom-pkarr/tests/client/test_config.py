"""The options, and what a plugin does that is not configured."""

from __future__ import annotations

from typing import Any

import pytest

from tom_connect.exceptions import ConfigError
from tom_pkarr.client import plugin
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.dns import plugin as dns_plugin
from tom_pkarr.dns.config import DnsConfig


@pytest.mark.parametrize(
    "fields",
    [
        {"relays": "https://one.example"},
        {"relays": ("one.example",)},
        {"relays": ("ftp://one.example",)},
        {"relays": tuple(f"https://r{n}.example" for n in range(9))},
        {"timeout": 0},
        {"delay": -1},
        {"republish": True},
        {"publish": "yes"},
    ],
)
def test_wrong_options(fields: dict[str, Any]) -> None:
    """A wrong value is refused with the option's name."""
    with pytest.raises(ConfigError, match=next(iter(fields))):
        PkarrConfig(**fields)


def test_urls_in_normal_form() -> None:
    """Relays are told apart by their normal form, and keep their path."""
    config = PkarrConfig(relays=("HTTPS://One.example", "https://one.example/", "https://dns.example/pkarr/"))
    assert config.urls == ("https://one.example", "https://dns.example/pkarr")


@pytest.mark.parametrize("config", [None, PkarrConfig()])
def test_nothing_is_asked_unless_configured(config: PkarrConfig | None, lend: Any) -> None:
    """Without a relay and without an origin domain there is no source, no publisher and nothing to show."""
    ctx = lend(config)
    assert (plugin.tom_discovery(ctx), plugin.tom_publisher(ctx), plugin.tom_diagnostics(ctx)) == (None, None, None)
    assert dns_plugin.tom_discovery(lend(None)) is None
    assert dns_plugin.tom_discovery(lend(DnsConfig())) is None


def test_asking_without_publishing(lend: Any) -> None:
    """With `publish` off the relays are only asked; neither source counts as serverless."""
    ctx = lend(PkarrConfig(relays=("https://one.example",), publish=False, delay=0.7))
    source = plugin.tom_discovery(ctx)
    assert source is not None
    assert (source.serverless, source.stage, plugin.tom_publisher(ctx)) == (False, 0.7, None)
    shown = plugin.tom_diagnostics(ctx)
    assert shown is not None
