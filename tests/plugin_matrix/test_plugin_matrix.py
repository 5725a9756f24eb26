"""Each set of plugins in an environment of its own, installed from wheels as users install them."""

from __future__ import annotations

from pathlib import Path

from tests.plugin_matrix.environments import environment
from tests.plugin_matrix.programs import DIAL
from tom_connect.plugins import API_VERSION, OLDEST_API_VERSION

OLDEST, NEWEST = (".".join(map(str, version)) for version in (OLDEST_API_VERSION, API_VERSION))


def test_core_alone(tmp_path: Path, wheels: dict[str, Path]) -> None:
    """Without any plugin there are no plugins, every core command has its help, and a full NodeAddr can be dialed."""
    alone = environment(tmp_path, wheels)
    assert alone.plugins() == {}
    told = alone.run("plugins")
    assert told.stdout == "No plugin is installed; 'pip install tom-connect[all]' brings them.\n"
    assert alone.run("--help").returncode == 0
    assert alone.run("dht", "get").returncode == 2
    done = alone.script("-c", DIAL)
    assert (done.stdout, done.stderr) == ("ekoms []\n", "")


def test_core_and_dht(tmp_path: Path, wheels: dict[str, Path]) -> None:
    """With the DHT plugin its hooks, command, options and table are there; blocked or uninstalled, the rest goes on."""
    both = environment(tmp_path, wheels, "tom-dht-mainline")
    row = both.plugins()["tom-dht-mainline"]
    assert (row["name"], row["state"], row["reason"]) == ("dht", "loaded", "")
    assert {"tom_discovery", "tom_publisher", "tom_register_config", "tom_cli_commands"} <= set(row["hooks"])
    assert "\n  dht " in both.run("--help").stdout
    assert "--dht-bootstrap" in both.run("id", "--help").stdout

    config = both.home / "c.toml"
    config.write_text('[dht]\nbootstrap = ["127.0.0.1:6881"]\n')
    assert "127.0.0.1:6881" in both.run("config", "--config", config).stdout
    for words, arguments, variables in (
        ("--dht-bootstrap: ", ["--dht-bootstrap", "nowhere"], {}),
        ("--bootstrap: ", ["--bootstrap", "1.2.3.4:99999"], {}),
        ("environment TOM_CONNECT_DHT_BOOTSTRAP: ", [], {"TOM_CONNECT_DHT_BOOTSTRAP": "nowhere"}),
    ):
        done = both.run("id", *arguments, **variables)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert done.stderr.startswith(f"tom-connect: error: {words}")

    blocked = both.plugins("--config", config, TOM_CONNECT_DISABLE_PLUGINS="dht")["tom-dht-mainline"]
    assert (blocked["state"], blocked["reason"]) == ("blocked", "blocked by TOM_CONNECT_DISABLE_PLUGINS")
    not_allowed = both.plugins(TOM_CONNECT_PLUGINS="other")["tom-dht-mainline"]
    assert (not_allowed["state"], not_allowed["reason"]) == (
        "blocked",
        "not among those allowed by TOM_CONNECT_PLUGINS",
    )
    assert both.run("dht", "--help", TOM_CONNECT_DISABLE_PLUGINS="dht").returncode == 2

    both.uninstall("tom-dht-mainline")
    assert both.plugins("--config", config) == {}
    assert both.script("-c", DIAL).stdout == "ekoms []\n"


def test_third_party(tmp_path: Path, others: dict[str, Path]) -> None:
    """A package that knows only the public modules brings discovery, options and a command."""
    third = environment(tmp_path, others, "tom-third")
    assert third.plugins() == {
        "tom-third": {
            "name": "third",
            "package": "tom-third",
            "version": "3.1",
            "api": "1.0",
            "hooks": ["tom_cli_commands", "tom_discovery", "tom_register_config"],
            "state": "loaded",
            "reason": "",
        }
    }
    assert third.run("third").stdout == "command of third\n"
    shown = third.run("config", "--third-greeting", "hi").stdout
    assert any(line.split()[:3] == ["third.greeting", "hi", "--third-greeting"] for line in shown.splitlines())
    assert third.script("-c", DIAL).stdout == "ekoms [('third', 'loaded')]\n"


def test_bad_company(tmp_path: Path, others: dict[str, Path]) -> None:
    """Broken, too old, too new, undeclared, duplicate, asynchronous and failing plugins say why, and harm no other."""
    bad = ("tom-broken", "tom-old", "tom-new", "tom-silent", "tom-twin", "tom-asynchronous", "tom-failing")
    company = environment(tmp_path, others, "tom-third", *bad)
    rows = company.plugins()
    expected = {
        "tom-third": ("loaded", ""),
        "tom-broken": ("failed", "can't be imported: ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        "tom-old": (
            "incompatible",
            f"too old: written for plugin API 0.9, this core serves {OLDEST} to {NEWEST}; upgrade it",
        ),
        "tom-new": (
            "incompatible",
            f"too new: written for plugin API 1.99, this core has {NEWEST}; upgrade tom-connect",
        ),
        "tom-silent": ("incompatible", f"declares no plugin API version; it must set TOM_CONNECT_API = {API_VERSION}"),
        "tom-twin": ("duplicate", "the name 'third' is taken by the plugin of tom-third 3.1"),
        "tom-asynchronous": ("failed", "tom_cli_commands is async; hooks are plain functions"),
        "tom-failing": ("loaded", ""),  # its factory fails only when an endpoint binds
    }
    assert {package: row["state"] for package, row in rows.items()} == {p: state for p, (state, _) in expected.items()}
    for package, (_, words) in expected.items():
        assert rows[package]["reason"].startswith(words), rows[package]
    assert company.run("third").stdout == "command of third\n"

    done = company.script("-c", DIAL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ekoms [")
    for shown in ("('failing', 'failed')", "('third', 'loaded')", "('broken', 'failed')"):
        assert shown in done.stdout
