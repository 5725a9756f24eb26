"""EndpointConfig refuses what can't be, and says which field it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from tom_connect.addr import SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.exceptions import ConfigError
from tom_connect.keys import SecretKey


def test_defaults() -> None:
    """The defaults bind any port of both families and publish nothing local."""
    config = EndpointConfig()
    assert config.bind == ("0.0.0.0:0", "[::]:0")
    assert config.bind_addrs == (SocketAddr("0.0.0.0", 0), SocketAddr("::", 0))
    assert (config.alpns, config.secret_key, config.allow_local, config.dht_only) == ((), None, False, False)
    assert config.idle_timeout > 60


def test_sequences_become_tuples() -> None:
    """Lists do where tuples are meant, so that a configuration never changes later."""
    config = EndpointConfig(alpns=["a", "b"], bind=["127.0.0.1:0"], plugin_configs={"x": 1})
    assert (config.alpns, config.bind) == (("a", "b"), ("127.0.0.1:0",))
    with pytest.raises(TypeError):
        config.plugin_configs["y"] = 2  # type: ignore[index]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.persist = False  # type: ignore[misc]


def test_texts_become_paths() -> None:
    """Paths may be given as texts, with `~` for the home directory."""
    assert EndpointConfig(data_dir="~/x").data_dir == Path.home() / "x"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpns", "chat/1"),
        ("alpns", (b"chat/1",)),
        ("alpns", ("",)),
        ("alpns", ("x" * 256,)),
        ("alpns", ("a", "a")),
        ("alpns", None),
        ("bind", "0.0.0.0:0"),
        ("bind", ()),
        ("bind", ("localhost:0",)),
        ("bind", ("1.2.3.4",)),
        ("bind", ("1.2.3.4:65536",)),
        ("bind", ("1.2.3.4:-1",)),
        ("bind", ("1.2.3.4:1", "1.2.3.4:2")),
        ("bind", (("1.2.3.4", 1),)),
        ("secret_key", b"\0" * 32),
        ("secret_key", "00" * 32),
        ("secret_key_file", 5),
        ("secret_key_file", ""),
        ("data_dir", 5),
        ("persist", 1),
        ("allow_local", "yes"),
        ("dht_only", None),
        ("plugins", "dht"),
        ("plugins", (1,)),
        ("disable_plugins", "dht"),
        ("extra_plugins", "dht"),
        ("plugin_configs", ()),
        ("connect_timeout", 0),
        ("connect_timeout", -1.0),
        ("connect_timeout", "5"),
        ("connect_timeout", float("nan")),
        ("connect_timeout", float("inf")),
        ("connect_timeout", True),
        ("idle_timeout", None),
        ("keep_alive", 0),
        ("keep_alive", 75.0),
        ("early_data_alpns", "x"),
        ("one_connection_alpns", "x"),
        ("max_incoming", 0),
        ("max_incoming", 1.5),
        ("max_incoming", True),
    ],
)
def test_refused(field: str, value: Any) -> None:
    """A value of the wrong type or range gives a ConfigError of one line that begins with the field."""
    with pytest.raises(ConfigError) as caught:
        EndpointConfig(**{field: value})
    assert str(caught.value).startswith(f"{field}: ")
    assert "\n" not in str(caught.value)


def test_one_connection_goes_with_no_early_data() -> None:
    """With 0-RTT both ends would have their connection before either hears of the other's."""
    with pytest.raises(ConfigError, match=r"^one_connection_alpns: 'chat/1' is in early_data_alpns too"):
        EndpointConfig(one_connection_alpns=("chat/1",), early_data_alpns=("chat/1",))


def test_secret_is_never_shown() -> None:
    """Neither an error nor the configuration's own text shows a secret key."""
    seed = bytes(range(32))
    with pytest.raises(ConfigError) as caught:
        EndpointConfig(secret_key=seed.hex())  # type: ignore[arg-type]
    assert seed.hex() not in str(caught.value)
    assert seed.hex() not in repr(EndpointConfig(secret_key=SecretKey(seed)))


def test_one_key() -> None:
    """A key and a file of a key together are refused: it would not be clear who we are."""
    with pytest.raises(ConfigError, match="either secret_key or secret_key_file"):
        EndpointConfig(secret_key=SecretKey.generate(), secret_key_file=Path("x"))


@pytest.mark.parametrize(("idle_timeout", "keep_alive"), [(75.0, 20.0), (300.0, 20.0), (6.0, 2.0)])
def test_keep_alive_follows(idle_timeout: float, keep_alive: float) -> None:
    """A shorter idle time-out brings a shorter keep-alive with it, where none was given."""
    assert EndpointConfig(idle_timeout=idle_timeout).keep_alive == keep_alive


def test_no_keep_alive() -> None:
    """Keep-alive can be turned off."""
    assert EndpointConfig(keep_alive=None).keep_alive is None
