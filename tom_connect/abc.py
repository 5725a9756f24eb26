"""The contracts between the core and its plugins, with defaults that do nothing.

A hook (see `tom_connect.hookspecs`) is a synchronous factory; it returns objects of these classes. The endpoint calls
`start()` once after it has bound and `aclose()` once before it goes; all that is asynchronous happens in between, in
tasks that the object owns or gives to `PluginContext.create_task`.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import pathlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr
from tom_connect.keys import NodeId
from tom_connect.watch import Watch

if TYPE_CHECKING:
    from tom_connect.record import SignedRecord

T = TypeVar("T")


class Clock(Protocol):
    """Time as plugins see it, so that tests can turn it."""

    def monotonic(self) -> float:
        """Seconds that only grow; only differences mean something."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, as the system believes."""


class Signer(Protocol):
    """Signs typed things with the node's key; never bare bytes, so that no plugin can sign what it likes."""

    @property
    def node_id(self) -> NodeId:
        """The key that signs."""

    def sign_record(self, addr: NodeAddr, timestamp_us: int) -> SignedRecord:
        """Sign our address record. `timestamp_us`: microseconds since 1970, higher than the last one published."""

    def sign_mutable_item(self, salt: bytes, seq: int, value: bytes) -> bytes:
        """The 64-byte BEP 44 signature of an item with a salt of ours (1 to 64 bytes).

        `value` is the bencoded value. The unsalted item is the address record, for which `sign_record` is.
        """

    def sign_relay_challenge(self, digest: bytes) -> bytes:
        """The 64-byte signature by which we prove our key to a relay. `digest`: 32 bytes, a hash of its challenge."""

    def shared_secret(self, node_id: NodeId, purpose: bytes) -> bytes:
        """The 32 bytes that only this node and another one can work out, for one purpose and no other.

        X25519 of the two keys, then HKDF-SHA256 (see docs/reference/wire-formats.md). `purpose`: 1 to 64 bytes.
        """


class SharedSocket(Protocol):
    """The endpoint's UDP sockets, as a datagram protocol may use them."""

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        """Send one datagram now; False if it was dropped (no socket of that family, or buffers full). Never raises."""

    @property
    def local_addrs(self) -> Sequence[SocketAddr]:
        """The addresses that the sockets are bound to, one a family; hosts may be wildcards."""


class DirectStream(Protocol):
    """A stream of a DirectConnection, which both ends may write; `tom_connect.BiStream` is one."""

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes as soon as there are any, b"" at the end; raises ConnectionError."""

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes; raises asyncio.IncompleteReadError at an earlier end, ConnectionError."""

    def write(self, data: bytes) -> None:
        """Queue bytes; raises ConnectionError once the connection has ended."""

    async def drain(self) -> None:
        """Wait until there is room for more."""

    def finish(self) -> None:
        """Say that no more is written."""


class DirectConnection(Protocol):
    """A QUIC connection of a plugin's own, over one UDP path, with a node whose key is proven.

    It is no part of what the endpoint has with that node: it never goes through a relay, and follows the peer alone.
    """

    @property
    def remote_node_id(self) -> NodeId:
        """The peer's proven key."""

    @property
    def remote_addr(self) -> SocketAddr:
        """Where the peer is now."""

    @property
    def rtt(self) -> float:
        """The smoothed round-trip time, seconds."""

    @property
    def max_datagram_size(self) -> int:
        """Bytes that a datagram may have now; it follows the path."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""

    @property
    def local_node_id(self) -> NodeId:
        """The key that we have proven: ours, or a fresh one."""

    async def datagrams_sent(self, below: int) -> None:
        """Wait until fewer than `below` datagrams are queued; raises ConnectionError once the connection has ended."""

    def send_datagram(self, data: bytes) -> None:
        """Queue a datagram, to be sent unreliably; when many are queued the oldest is dropped.

        Raises DatagramTooLargeError, or ConnectionError once the connection has ended.
        """

    async def read_datagram(self) -> bytes:
        """The next datagram; raises ConnectionError once the connection has ended."""

    async def open_bi(self) -> DirectStream:
        """Open a stream; the peer hears of it with the first bytes."""

    async def accept_bi(self) -> DirectStream:
        """The next stream that the peer opened; raises ConnectionError once the connection has ended."""

    async def close(self, code: int = 0, reason: str = "") -> None:
        """End the connection with an application error code and a text."""

    async def closed(self) -> Exception:
        """Wait for the end, and return what ended it."""


class DirectConnections(Protocol):
    """QUIC connections that plugins have of their own, on the endpoint's socket and with its key."""

    async def dial(
        self,
        target: NodeAddr | SocketAddr,
        alpn: str,
        *,
        trusted: bool = False,
        timeout: float = 5.0,
        anonymous: bool = False,
    ) -> DirectConnection:
        """Connect to a node at its direct addresses, found by discovery if none is given, or to whoever is at one.

        Given a mere address, the key is whatever the peer proves: see `remote_node_id`. `trusted`: the user named the
        address; if not, it may not lead into networks that are ours alone. `anonymous`: with a fresh key, forgotten
        afterwards. To an address that has not answered go at most 3 datagrams of 1200 bytes, and not again at once.
        Raises DialError, DiscoveryError, PeerIdentityError or ConnectionError.
        """

    def serve(self, alpn: str, handler: Callable[[DirectConnection], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        """Take connections that speak `alpn`, each in a task that runs `handler`; its end closes the connection.

        Returns what ends it: no more are taken then, and those that there are end. Raises PluginError if the ALPN is
        taken.
        """


@attrs.frozen
class Reachability:
    """Whether strangers reach our socket unasked. `addrs`: where, the best first; `why_not`: why there is none."""

    addrs: tuple[SocketAddr, ...] = ()
    why_not: str | None = "nothing is known of our network yet"


@attrs.frozen
class PluginContext:
    """What a plugin gets from the endpoint that it serves."""

    node_id: NodeId
    signer: Signer
    config: Any
    """The plugin's own configuration: an instance of the class it registered, or None if it registered none."""
    clock: Clock
    logger: logging.Logger
    local_addrs: Watch[NodeAddr]
    """Our own address as we know it now, before any publishing filter."""
    socket: SharedSocket
    data_dir: pathlib.Path | None
    """A directory of the plugin's own for what should survive a restart; None: keep nothing."""
    allow_local: bool
    """Whether private, loopback and link-local addresses may be published and dialed."""
    create_task: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    """Runs a coroutine under the endpoint's care: cancelled at close, its failure reported as this plugin's."""
    report_external_addr: Callable[[SocketAddr], None]
    """Tells the endpoint the address at which others see its shared socket; port 0: each of them another port."""
    shared: dict[str, Any]
    """The plugin's own, one for each endpoint: where its factories find what they have in common."""
    relay_urls: tuple[RelayUrl, ...] = ()
    """The relays that the user wants to be reachable through."""
    direct: bool = True
    """Whether the endpoint sends and takes direct packets; one that does not has no wish to be found at its address."""
    public_relays: tuple[str, ...] = ()
    """Names of lists of public relays that may be used where no other relay can be."""
    dht_only: bool = False
    """Whether nothing is to be used but the DHT, and what is found through it."""
    connections: DirectConnections | None = None
    """QUIC connections of the plugin's own; None where there are none, as in tests."""
    reachability: Watch[Reachability] | None = None
    """Whether strangers reach our socket, as far as the endpoint knows; None where nobody finds out."""
    directories: Callable[[], Sequence[TopicDirectory]] = tuple
    """The topic directories of all plugins, once they have started."""
    direct_peers: Watch[tuple[SocketAddr, ...]] = attrs.Factory(lambda: Watch(()))
    """Addresses from which nodes that we are connected to directly have proven to answer, at most 16, newest last."""


class PluginObject(abc.ABC):
    """Base of everything that a hook returns."""

    name: str = ""
    """How reports and events call this object; the plugin's name if empty."""

    async def start(self) -> None:  # noqa: B027 - a default that does nothing
        """Begin to work; the endpoint's sockets are bound. An error leaves this object out."""

    async def aclose(self) -> None:  # noqa: B027 - a default that does nothing
        """Stop and let go of everything; called once, also after a failed start."""


@attrs.frozen
class FoundAddr:
    """An address that a discovery source found.

    `timestamp_us`: when its owner signed it, microseconds since 1970, None if unsigned; of two, the newer is right.
    `record`: the signed record that it was read from, of the same timestamp; it is remembered if it leads to the node.
    """

    addr: NodeAddr
    source: str
    timestamp_us: int | None = None
    record: SignedRecord | None = attrs.field(default=None, eq=False, repr=False)


class Discovery(PluginObject):
    """Finds where a node is."""

    serverless: bool = False
    """Whether it works without any server that somebody must run; others are left out by `dht_only`."""
    stage: float = 0.0
    """Seconds after the start of a look-up at which this source is asked: 0 for the DHT; a hedge for others.

    A hedge adapts to what the earlier sources usually take, within a factor of two above, and is none for a source that
    is quicker than they are.
    """
    stage_is_fixed: bool = False
    """Whether `stage` is kept as it is, for a last resort."""
    asks_nobody: bool = False
    """Whether it answers from what it has: how quick it is then says nothing of how long others take."""

    @property
    def ready(self) -> bool:
        """Whether it can answer soon. One that is still joining its network, say, is asked too but not waited for."""
        return True

    @abc.abstractmethod
    def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """What is found, as it is found, better things later; ends when nothing more will come.

        Closing the iterator cancels the work. Raise DiscoveryError with a reason where nothing could be asked.
        """


@attrs.frozen
class PublishReport:
    """What publishing reached: `by`, the publisher's name; `nodes`, how many servers or DHT nodes stored it.

    `enough`: whether so many were wanted; if not, the core publishes again soon, at growing intervals.
    """

    by: str
    nodes: int
    enough: bool = True


class Publisher(PluginObject):
    """Tells the world where we are."""

    serverless: bool = False
    """Whether it works without any server that somebody must run; others are left out by `dht_only`."""
    republish_after: float = 3600.0
    """Seconds after which the core publishes again although nothing changed."""
    timeout: float = 30.0
    """Seconds after which the core gives an attempt up."""

    @abc.abstractmethod
    async def publish(self, record: SignedRecord) -> PublishReport:
        """Store the record. The core owns task, time-out, retry and newest-wins; raise NetworkError on failure."""


class TopicDirectory(PluginObject):
    """Where nodes say that they are there for something, and are found by those who look for it.

    A topic is 20 bytes. Nobody vouches for an address that is found: it may be dead, a stranger's, or an attacker's.
    """

    serverless: bool = False
    """Whether it works without any server that somebody must run; others are left out by `dht_only`."""
    lifetime: float = 1800.0
    """Seconds for which an announcement holds."""

    @abc.abstractmethod
    async def announce(self, topic: bytes, port: int | None = None) -> int:
        """Say that we are there, at the address from which we are seen; returns how many servers or nodes took it.

        `port`: the one to name, None: that of our shared socket as others see it. Raises NetworkError on failure.
        """

    @abc.abstractmethod
    def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        """The addresses under a topic, as they are found, each once; closing the iterator cancels the work.

        Raises NetworkError where nobody could be asked.
        """


class DatagramProtocol(PluginObject):
    """Shares the magic socket: gets the datagrams that it claims, through a bounded queue of its own."""

    priority: int = 0
    """Higher ones are asked first."""

    @abc.abstractmethod
    def claims(self, head: bytes) -> bool:
        """Whether a datagram that begins with these (up to 8) bytes is ours. Called for each one: be quick."""

    @abc.abstractmethod
    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        """Take a batch. Must not block; what it raises is counted and reported, never passed on."""


@attrs.frozen
class RelayInfo:
    """One relay as its transport knows it.

    `kind`: "configured", "public" (a fall-back of somebody's that was asked for), "volunteer" (a node's, found in a
    topic directory) or "found" (named by a peer's address); `connected`: whether datagrams pass now; `rtt`: seconds to
    the relay and back, None before it is known; `home`: whether it is the one at which we are reachable; `problem`: why
    it is not connected, or what it told us.
    """

    url: RelayUrl
    kind: str
    connected: bool
    rtt: float | None = None
    home: bool = False
    problem: str | None = None


@attrs.frozen
class ProbeServer:
    """A relay's services that tell us over UDP at which address we are seen.

    `host`: a name or IP address (IPv6 without brackets); `stun_port` and `qad_port`: None where that service is not
    there; `stun_other_port`: from where it answers requests that ask for another port (RFC 5780), None: it does not;
    `certain`: whether the relay says so itself, so that silence means that UDP does not pass. `qad_verify`: whether
    the certificate of QUIC address discovery must be valid for `host`; `qad_ca`: PEM with authorities to trust besides
    the system's.
    """

    relay: RelayUrl
    host: str
    stun_port: int | None = 3478
    qad_port: int | None = 7842
    stun_other_port: int | None = None
    certain: bool = False
    qad_verify: bool = True
    qad_ca: bytes | None = attrs.field(default=None, repr=False)


class RelayTransport(PluginObject):
    """Carries datagrams through relays of the URL schemes that it claims."""

    schemes: frozenset[str] = frozenset()
    """The URL schemes that it claims, in lower case; the first transport to claim one keeps it."""

    @property
    def publishes_standby(self) -> bool:
        """Whether the standby relay is published beside the home relay."""
        return False

    @abc.abstractmethod
    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        """Queue datagrams for a node at a relay, connecting to it if need be; False if some were dropped.

        Must not block; the queue is bounded.
        """

    @abc.abstractmethod
    def set_receiver(self, receive: Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]) -> None:
        """Say who takes what arrives: relay, sender, datagrams, ECN bits."""

    @abc.abstractmethod
    def home_relay(self) -> Watch[RelayUrl | None]:
        """The relay at which we are reachable now."""

    def standby_relay(self) -> Watch[RelayUrl | None]:
        """Another relay at which we are reachable too: peers that we talk to hear of it before it is needed."""
        return Watch(None)

    def open(self, relay: RelayUrl, *, trusted: bool) -> None:
        """Datagrams for a node at this relay will follow: connect to it.

        `trusted`: the user named it; if not, an address record or a peer did, and it must not lead into networks
        that are ours alone (unless local addresses are allowed).
        """

    def attest(self, relay: RelayUrl, node_id: NodeId) -> None:
        """Ask a relay from which IP address a node is connected to it; what it says goes to `set_attested`'s callback.

        Only a relay counts that the user named, or asked for by a public list: one that a peer named could say what
        the peer wants. There may be no answer.
        """

    def set_attested(self, callback: Callable[[RelayUrl, NodeId, str], None]) -> None:
        """Say who takes the answers: relay, node, and the IP address as text, without a port."""

    def network_changed(self) -> None:
        """The network is another one: find out at once which connections still live, and try again what failed."""

    def suspect(self) -> None:
        """Somebody had to call by other means: find out whether the relays where we are reachable pass packets on.

        Anybody can leave calls, so what is done about one must be bounded. Must not block.
        """

    def missed(self, relay: RelayUrl, caller: str) -> None:
        """A node that uses such relays had to call by other means, and nothing of it came through one where we are.

        `caller`: its IP address, as text, as several parties say that are independent of it. It has proven a key, but
        anybody has keys: what is done about one such word must be bounded. Must not block.
        """

    def relays(self) -> Sequence[RelayInfo]:
        """The relays that are in use or wanted, the home relay first."""
        return ()

    def probes(self) -> Sequence[ProbeServer]:
        """Where the user's own relays tell us our address, the home relay first. Asked again now and then."""
        return ()


class AddressSource(PluginObject):
    """Knows further addresses of ours: port mappings, reflexive addresses."""

    @abc.abstractmethod
    def watch(self) -> Watch[tuple[SocketAddr, ...]]:
        """The addresses now and later."""

    def router_addresses(self) -> Sequence[str]:
        """The IPv4 addresses that our routers say they have outside: a private one shows another NAT behind theirs."""
        return ()

    def network_changed(self) -> None:
        """The network is another one: find out at once which addresses still hold. Must not block."""


@attrs.frozen
class Call:
    """Somebody wants to reach us.

    `addrs`: where it may be, and nobody vouches for that; `sealed`: what it says, a disco packet for us that the core
    opens and judges, None if it left nothing but its address; `attested`: the IP addresses, as text, from which
    several parties that are independent of the caller and of one another say that the call came.
    """

    addrs: tuple[SocketAddr, ...] = ()
    sealed: bytes | None = None
    attested: tuple[str, ...] = ()


@attrs.frozen
class Callee:
    """What a node has to say about being called.

    `filtered`: whether a NAT that filters stands before it, so that a packet of ours that comes before it has let us in
    may spoil the way; None if that is not known.
    `ports_differ`: whether its NAT gives each destination another port; `attested`: as in `Call`, where it is;
    `told`: whether what we have to say has been left for it as well.
    """

    filtered: bool | None = None
    ports_differ: bool = False
    attested: tuple[str, ...] = ()
    told: bool = False


class Rendezvous(PluginObject):
    """Leaves calls for nodes to which no path exists yet, and finds those that others left for us."""

    serverless: bool = False

    @abc.abstractmethod
    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """Leave a call of ours for a node; the core cancels it when it is not wanted any more.

        `words`: what we have to say as of now, sealed for the node alone: to be asked for when it is left, as a node
        that has just started learns its own address meanwhile. A rendezvous by which the node learns our address may
        leave it out where that is enough. `opened`: set once our NAT lets in what comes from the node's addresses;
        whatever makes the node send there must wait for it. `learned`: called with what is found out about the node.
        Raises NetworkError if the call could not be left.
        """

    async def say(self, node_id: NodeId, sealed: bytes) -> None:
        """Leave what we have to say, whatever addresses say: no path led to the node, and we can be met at a relay.

        For a rendezvous whose `call` may leave the words out; it is called while `call` runs or after that, perhaps
        again when what is said has changed. Raises NetworkError if it could not be left.
        """

    @abc.abstractmethod
    def calls(self) -> AsyncIterator[Call]:
        """The calls that others leave for us, until it is closed."""

    def network_changed(self) -> None:
        """The network is another one: be found there too. Must not block."""


class ConnectionGuard(PluginObject):
    """Accepts or refuses connections."""

    def before_handshake(self, remote: SocketAddr | RelayUrl) -> bool:
        """Whether a handshake from this address may begin; no key is known yet."""
        return True

    def after_handshake(self, node_id: NodeId, alpn: str) -> bool:
        """Whether a node that proved its key may speak this protocol with us."""
        return True


@attrs.frozen
class PathInfo:
    """One path to a node as the magic socket knows it.

    `addr`: the UDP address or relay; `kind`: "direct" or "relay"; `rtt`: seconds, None before the first answer;
    `active`: whether traffic goes there now; `last_heard`: seconds since something authentic came from there; `mtu`:
    bytes that a datagram may have; `proven`: whether the node answers there; `loss`: the share of our last pings, 0 to
    1, that got no answer, None before there were any; `bytes_sent`, `bytes_received`: of QUIC's datagrams; `source`:
    who named the address; `why`: who made it what it is now and why, in a few words.
    """

    addr: SocketAddr | RelayUrl
    kind: str
    rtt: float | None
    active: bool
    last_heard: float | None
    mtu: int = 1200
    proven: bool = False
    loss: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    source: str = ""
    why: str = ""


class PathSelector(PluginObject):
    """Chooses the path that carries traffic."""

    @abc.abstractmethod
    def select(self, node_id: NodeId, paths: Sequence[PathInfo]) -> PathInfo | None:
        """The path to use now, or None to leave the choice to the next selector or the core."""


Diagnostics = Mapping[str, object]
