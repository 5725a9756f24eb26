"""Relay maps and the client's options."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect import ConfigError
from tom_relay.client.config import RelayClientConfig
from tom_relay.client.maps import parse_map, public_relays, read_map
from tom_relay.client.standing import Standing


def test_lines_and_json_say_the_same() -> None:
    """One URL a line with comments, a JSON list, or an object with relays that have scores and roles."""
    lines = parse_map("# ours\nhttps://a.example\n\nhttp://b.example:3340/  # next door\nhttps://a.example/\n")
    assert [str(entry.url) for entry in lines] == ["https://a.example/", "http://b.example:3340/"]
    assert parse_map(json.dumps(["https://a.example", "http://b.example:3340"])) == lines
    (entry,) = parse_map(json.dumps({"relays": [{"url": "https://a.example", "score": 3, "role": "peer"}]}))
    assert (entry.standing, entry.kind) == (Standing(3.0, "peer"), "configured")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[1]",
        '{"relays": 3}',
        "{",
        '[{"url": "https://a", "score": NaN}]',
        '[{"url": "https://a", "score": 1' + "0" * 400 + "}]",
        '[{"url": "https://a", "role": 1}]',
    ],
)
def test_a_wrong_map_is_a_config_error(text: str) -> None:
    """What is wrong is said in one line."""
    with pytest.raises(ConfigError):
        parse_map(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is raised."""
    try:
        parse_map(text)
    except ConfigError:
        pass


def test_files_that_cannot_be_read_are_config_errors(tmp_path: pathlib.Path) -> None:
    """A missing file, bytes that are no text, and a file that is too large."""
    for name, data in (("no", None), ("bytes", b"\xff\xfe"), ("large", b"#" * (1 << 20) + b"#")):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ConfigError, match=name):
            read_map(path)


def test_public_relays_are_those_of_iroh() -> None:
    """They are marked as public; a list that does not exist is refused."""
    entries = public_relays(["n0"])
    assert {entry.kind for entry in entries} == {"public"}
    assert all(entry.url.host.endswith(".relay.n0.iroh.link") and entry.url.scheme == "https" for entry in entries)
    with pytest.raises(ConfigError, match="n0"):
        public_relays(["nobody"])


def test_secrets_are_not_shown() -> None:
    """Neither the token nor a proxy's password is in the options' text, nor in the message about a wrong one."""
    config = RelayClientConfig(token="hush", proxy="http://u:hush@127.0.0.1:1")
    assert "hush" not in repr(config)
    for wrong in ({"token": "hu\nsh"}, {"proxy": "socks:hu-sh"}):
        with pytest.raises(ConfigError) as caught:
            RelayClientConfig(**wrong)  # type: ignore[arg-type]
        assert "hu" not in str(caught.value)
