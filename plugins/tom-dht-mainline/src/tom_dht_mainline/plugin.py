"""The hooks by which tom-connect uses the Mainline DHT."""

from __future__ import annotations

from collections.abc import Sequence

from tom_connect.abc import (
    DatagramProtocol,
    Diagnostics,
    Discovery,
    PluginContext,
    Publisher,
    Rendezvous,
    TopicDirectory,
)
from tom_connect.addr import SocketAddr
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry

from .address_records import DhtDiscovery, DhtPublisher
from .config import DhtConfig
from .rendezvous import DhtRendezvous
from .service import DhtService, LiveDiagnostics
from .topics import DhtTopics
from .transport import SharedTransport

TOM_CONNECT_API = (1, 1)


class DhtDatagrams(DatagramProtocol):
    """The DHT's share of the endpoint's socket: KRPC messages."""

    name = "dht"

    def __init__(self, service: DhtService, transport: SharedTransport) -> None:
        self._service = service
        self._transport = transport

    async def start(self) -> None:
        """Start the node if it does not run yet."""
        await self._service.acquire(self)

    async def aclose(self) -> None:
        """Close the node if nobody else uses it."""
        await self._service.release(self)

    def claims(self, head: bytes) -> bool:
        """A bencoded dict whose first key has 1 to 9 bytes: `d`, a digit, `:` (BEP 5); no QUIC packet to us does."""
        return head[:1] == b"d" and head[2:3] == b":" and head[1:2].isdigit()

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        """Queue a batch; it is handled in turns of its own."""
        self._transport.feed(datagrams)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `dht.*`."""
    registry.register("dht", DhtConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery:
    """Find nodes in the DHT."""
    return DhtDiscovery(DhtService.of(ctx))


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher:
    """Publish our address in the DHT."""
    return DhtPublisher(DhtService.of(ctx))


@hookimpl
def tom_topic_directory(ctx: PluginContext) -> TopicDirectory:
    """Announce and find addresses under topics in the DHT."""
    return DhtTopics(DhtService.of(ctx))


@hookimpl
def tom_datagram_protocol(ctx: PluginContext) -> DatagramProtocol | None:
    """Share the endpoint's socket, unless the DHT is configured to have its own."""
    service = DhtService.of(ctx)
    transport = service.shared_transport
    return None if transport is None else DhtDatagrams(service, transport)


@hookimpl
def tom_rendezvous(ctx: PluginContext) -> Rendezvous | None:
    """Meet through the DHT, unless it has a socket of its own: nodes would then see that one's address."""
    service = DhtService.of(ctx)
    wanted = service.config.rendezvous and service.shared_transport is not None and ctx.direct
    return DhtRendezvous(service) if wanted else None


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics:
    """Where the DHT node stands."""
    return LiveDiagnostics(DhtService.of(ctx))


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """`tom-connect dht`."""
    from .cli import dht  # only the command line needs it

    cli.add(dht)
