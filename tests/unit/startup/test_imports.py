"""What is imported when: whoever imports the package, or a part of it, does not pay for the rest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tom_connect

HEAVY = ("aioquic", "OpenSSL", "cryptography", "attr", "attrs", "pluggy", "click", "rich", "dns", "aiohttp", "asyncio")


def loaded_by(statement: str) -> set[str]:
    """The modules that a new interpreter has after a statement and had not before."""
    program = (
        "import json, sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_package_imports_nothing_but_itself() -> None:
    """`import tom_connect` loads none of its modules, no dependency, and not even asyncio."""
    loaded = loaded_by("import tom_connect")
    assert {name for name in loaded if name.startswith("tom_connect")} == {"tom_connect"}
    assert not packages(loaded).intersection(HEAVY)


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("SecretKey", ("aioquic", "asyncio", "pluggy", "dns", "aiohttp", "click")),
        ("parse_ticket", ("aioquic", "asyncio", "pluggy", "dns", "aiohttp", "click")),
        ("EndpointConfig", ("aioquic", "asyncio", "pluggy", "dns", "aiohttp", "click")),
        ("Endpoint", ("dns", "aiohttp", "websockets", "click", "rich")),
    ],
)
def test_a_name_brings_what_it_needs(name: str, absent: tuple[str, ...]) -> None:
    """QUIC comes with the endpoint and not with keys, tickets or options; DNS and HTTP not even with that."""
    assert not packages(loaded_by(f"from tom_connect import {name}")).intersection(absent)


def test_every_public_name_is_where_the_package_says() -> None:
    """Each name of `__all__` can be had, and `dir()` shows it."""
    for name in tom_connect.__all__:
        assert getattr(tom_connect, name) is not None
    assert set(tom_connect.__all__) <= set(dir(tom_connect))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = tom_connect.nonsense


@pytest.mark.parametrize(
    "module",
    [
        "tom_connect.cli.main",
        "tom_dht_mainline.plugin",
        "tom_pkarr.client.plugin",
        "tom_pkarr.dns.plugin",
        "tom_pkarr.server.plugin",
        "tom_portmap.plugin",
        "tom_relay.plugin",
        "tom_relay.server.plugin",
        "tom_relay.volunteer.plugin",
        "tom_signaling_legacy.client.plugin",
        "tom_signaling_legacy.server.plugin",
    ],
)
def test_plugins_and_the_command_line_are_light(module: str) -> None:
    """To find out which plugins there are, and to show help, loads no QUIC, DNS, HTTP or WebSocket, and no DHT."""
    pytest.importorskip(module.partition(".")[0], reason="needs all plugins")
    loaded = loaded_by(f"import {module}")
    assert not packages(loaded).intersection(
        ("aioquic", "dns", "aiohttp", "websockets", "prometheus_client", "sqlite3")
    )
    assert not any(
        name.startswith(("tom_dht_mainline.core", "tom_dht_mainline.node", "tom_relay.wire")) for name in loaded
    )


def test_finding_plugins_parses_no_mail() -> None:
    """Which plugins are installed is read without the parsers of `email`, which take longer to import."""
    loaded = loaded_by("from tom_connect.plugins.catalog import scan_entry_points; assert scan_entry_points()")
    assert "tom_connect.plugins.catalog" in loaded
    assert not loaded.intersection(("email.parser", "email.policy"))


def test_binding_an_endpoint_brings_no_http_and_no_server() -> None:
    """With every plugin and no relay, server or domain configured, none of what only those need is imported."""
    loaded = loaded_by(
        "import asyncio\n"
        "from tom_connect import Endpoint, EndpointConfig\n"
        "async def main():\n"
        "    config = EndpointConfig(bind=('127.0.0.1:0',), persist=False, disable_plugins=('dht', 'portmap'))\n"
        "    async with Endpoint.bind(config):\n"
        "        pass\n"
        "asyncio.run(main())"
    )
    assert "tom_connect.quic.engine" in loaded
    assert not packages(loaded).intersection(("dns", "aiohttp", "websockets", "prometheus_client", "sqlite3", "click"))
    # Nor the options of servers, which commands run; they are registered by light modules.
    assert any(name.endswith(".server.plugin") for name in loaded)
    assert not any(name.endswith(".server.config") for name in loaded)
    # Nor what looks for volunteers, which begins later.
    assert not any(name.startswith(("tom_relay.wire", "tom_relay.client.volunteers")) for name in loaded)
