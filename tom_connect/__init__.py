"""tom-connect: dial a node by its public key, wherever it is.

The public names; each is imported when it is first used, so that `import tom_connect` costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tom_connect.abc import PathInfo as PathInfo
    from tom_connect.addr import NodeAddr as NodeAddr
    from tom_connect.addr import RelayUrl as RelayUrl
    from tom_connect.addr import SocketAddr as SocketAddr
    from tom_connect.config import EndpointConfig as EndpointConfig
    from tom_connect.connection import Connection as Connection
    from tom_connect.connection import ConnectionStats as ConnectionStats
    from tom_connect.endpoint import Endpoint as Endpoint
    from tom_connect.exceptions import *  # noqa: F403
    from tom_connect.hookspecs import hookimpl as hookimpl
    from tom_connect.incoming import Incoming as Incoming
    from tom_connect.keyfile import load_or_create_secret_key as load_or_create_secret_key
    from tom_connect.keys import NodeId as NodeId
    from tom_connect.keys import SecretKey as SecretKey
    from tom_connect.router import Router as Router
    from tom_connect.streams import BiStream as BiStream
    from tom_connect.streams import RecvStream as RecvStream
    from tom_connect.streams import SendStream as SendStream
    from tom_connect.tickets import encode_ticket as encode_ticket
    from tom_connect.tickets import parse_ticket as parse_ticket
    from tom_connect.watch import Watch as Watch

_HOMES = {
    "abc": ("PathInfo",),
    "addr": ("NodeAddr", "RelayUrl", "SocketAddr"),
    "config": ("EndpointConfig",),
    "connection": ("Connection", "ConnectionStats"),
    "endpoint": ("Endpoint",),
    "exceptions": (
        "AlpnError",
        "ConfigError",
        "ConnectionClosedError",
        "ConnectionError",
        "ConnectionLostError",
        "ConnectionRefusedError",
        "DatagramTooLargeError",
        "DialError",
        "DiscoveryError",
        "EndpointClosedError",
        "InvalidAddrError",
        "InvalidInputError",
        "InvalidKeyError",
        "KeyFileError",
        "LocalError",
        "NetworkError",
        "PeerIdentityError",
        "PluginError",
        "ProtocolError",
        "RecordError",
        "RemoteError",
        "StreamError",
        "StreamResetError",
        "StreamStoppedError",
        "TomError",
    ),
    "hookspecs": ("hookimpl",),
    "incoming": ("Incoming",),
    "keyfile": ("load_or_create_secret_key",),
    "keys": ("NodeId", "SecretKey"),
    "router": ("Router",),
    "streams": ("BiStream", "RecvStream", "SendStream"),
    "tickets": ("encode_ticket", "parse_ticket"),
    "watch": ("Watch",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
