"""The options of section `dht`: what is allowed, and the one-line reason for what is not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from tom_connect.exceptions import ConfigError
from tom_connect.keys import SecretKey
from tom_dht_mainline import DEFAULT_BOOTSTRAP, Mode
from tom_dht_mainline.config import DhtConfig


def test_the_defaults_join_the_public_dht_through_the_shared_socket() -> None:
    """Without any option: public bootstrap nodes, the endpoint's socket, a server once it is reachable."""
    config = DhtConfig()
    assert config.bootstrap == DEFAULT_BOOTSTRAP
    assert not config.own_socket
    assert config.core_config().mode is Mode.ADAPTIVE
    assert config.core_config("on").mode is Mode.SERVER


def test_none_is_no_bootstrap_node() -> None:
    """`none` and an empty list mean a node that waits for others."""
    assert DhtConfig(bootstrap=("none",)).bootstrap_nodes == ()
    assert DhtConfig(bootstrap=()).bootstrap_nodes == ()


def test_contacts_are_read_once_each() -> None:
    """However a node id is written, it names one contact."""
    node_id = SecretKey.generate().node_id
    assert DhtConfig(contacts=[str(node_id), str(node_id).upper()], contacts_only=True).contact_ids == (node_id,)


def test_values_are_frozen_and_lists_become_tuples() -> None:
    """A configuration can be shared: it does not change."""
    config = DhtConfig(bootstrap=["a:1"])
    assert config.bootstrap == ("a:1",)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bootstrap": "a:1"}, "bootstrap"),
        ({"bootstrap": ("a",)}, "HOST:PORT"),
        ({"bootstrap": (1,)}, "bootstrap"),
        ({"server": "yes"}, "auto, on, off"),
        ({"own_socket": 1}, "own_socket"),
        ({"port": 65536, "own_socket": True}, "65535"),
        ({"port": True, "own_socket": True}, "port"),
        ({"port": 6881}, "own_socket"),
        ({"host": "example.org"}, "IP address"),
        ({"host": "::1"}, "IPv4"),
        ({"host6": "127.0.0.1"}, "IPv6"),
        ({"quorum": 0}, "quorum"),
        ({"quorum": 9}, "8"),
        ({"ipv4": False, "ipv6": False}, "at least one"),
        ({"read_legacy_item": "no"}, "True or False"),
        ({"contacts": "00" * 32}, "sequence"),
        ({"contacts": ("alice",)}, "contacts: not a valid node id"),
        ({"contacts": tuple(str(SecretKey.generate().node_id) for _ in range(9))}, "at most 8"),
        ({"contacts_only": True}, "name them in contacts"),
        ({"contacts_only": "yes"}, "True or False"),
    ],
)
def test_wrong_values_name_the_option(options: dict[str, Any], reason: str) -> None:
    """Every wrong value is a ConfigError that names the option and what it expects."""
    with pytest.raises(ConfigError, match=reason):
        DhtConfig(**options)


def test_the_families_decide_what_is_bound() -> None:
    """An own socket is bound for each family in use."""
    config = DhtConfig(own_socket=True, port=7, host="127.0.0.1", ipv6=False)
    assert [str(addr) for addr in config.bind_addrs] == ["127.0.0.1:7"]
    assert [str(addr) for addr in DhtConfig(ipv4=False).bind_addrs] == ["[::]:0"]
