"""UPnP gateways with the whims that real ones have, played in memory."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.signing import SystemClock
from tom_portmap import igd as igd_module
from tom_portmap.core.eligible import IP
from tom_portmap.core.values import Candidate, Grant, Probed
from tom_portmap.errors import RefusedError, SilentError, WireError
from tom_portmap.igd import OTHER_PORTS, IgdAsking
from tom_portmap.wire import soap
from tom_portmap.wire.location import Location
from tom_portmap.wire.markup import read_xml

GATEWAY, LOCAL, PORT = "192.168.1.1", "192.168.1.2", 4000
PUBLIC: IP = ipaddress.ip_address("11.0.0.1")
V2, V1, PPP = soap.SERVICES


class Whimsical:
    """A gateway. `table`: (internal address, port, lease) by external port; `faults`: an error code by action."""

    def __init__(self) -> None:
        self.port = 5000
        self.external = {"/0": "11.0.0.1"}
        self.services = [V1]
        self.table: dict[int, tuple[str, int, int]] = {}
        self.faults: dict[str, int] = {}
        self.permanent_only = False
        self.description: bytes | None = None
        self.status = 200
        self.calls: list[str] = []

    @property
    def location(self) -> Location:
        return Location(GATEWAY, self.port, "/desc.xml")

    async def fetch(self, location: Location, *, body: bytes = b"", **_: Any) -> tuple[int, bytes]:
        if location.port != self.port:
            raise SilentError("nobody there")
        if not body:
            services = "".join(
                f"<service><serviceType>{kind}</serviceType><controlURL>/{number}</controlURL></service>"
                for number, kind in enumerate(self.services)
            )
            return self.status, self.description or f"<root>{services}</root>".encode()
        element = read_xml(body).all("Body")[0].children[0]
        self.calls.append(element.name)
        code, values = self.call(element.name, location.target, {c.name: c.text for c in element.children})
        code = self.faults.get(element.name, code)
        if code:
            detail = f"<detail><UPnPError><errorCode>{code}</errorCode></UPnPError></detail>"
            return 500, f"<Envelope><Body><Fault>{detail}</Fault></Body></Envelope>".encode()
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
        answer = f"<{element.name}Response>{inner}</{element.name}Response>"
        return 200, f"<Envelope><Body>{answer}</Body></Envelope>".encode()

    def call(self, action: str, target: str, given: Mapping[str, str]) -> tuple[int, Mapping[str, object]]:
        external = int(given.get("NewExternalPort", 0))
        match action:
            case "GetExternalIPAddress":
                return 0, {"NewExternalIPAddress": self.external.get(target, "")}
            case "DeletePortMapping":
                return 0 if self.table.pop(external, None) else 714, {}
            case "GetSpecificPortMappingEntry":
                entry = self.table.get(external)
                return (714, {}) if entry is None else (0, {"NewInternalClient": entry[0]})
        client, lease = given["NewInternalClient"], int(given["NewLeaseDuration"])
        if self.permanent_only and lease:
            return 725, {}
        if self.table.get(external, (client,))[0] != client:
            return 718, {}
        self.table[external] = (client, int(given["NewInternalPort"]), lease)
        return 0, {"NewReservedPort": external}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Whimsical:
    gateway = Whimsical()

    async def locations(_self: IgdAsking) -> AsyncGenerator[Location, None]:
        yield gateway.location

    monkeypatch.setattr(igd_module, "fetch", gateway.fetch)
    monkeypatch.setattr(IgdAsking, "_locations", locations)
    return gateway


@pytest.fixture
def malformed() -> Counter[str]:
    return Counter()


@pytest.fixture
def asking(gateway: Whimsical, malformed: Counter[str]) -> IgdAsking:
    candidate = Candidate("upnp", GATEWAY, LOCAL)
    return IgdAsking(candidate, PORT, clock=SystemClock(), rng=random.Random(0), malformed=malformed)


async def mapped(asking: IgdAsking, suggested: SocketAddr | None = None) -> Grant:
    probed = await asking.probe(None)
    assert probed.external is not None
    return await asking.map(probed.external, suggested, 7200)


async def test_our_port_is_mapped_to_itself_and_back(gateway: Whimsical, asking: IgdAsking) -> None:
    """To our address, with the lease; a release ends it."""
    grant = await mapped(asking)
    assert grant == Grant(SocketAddr("11.0.0.1", PORT), 7200.0)
    assert gateway.table == {PORT: (LOCAL, PORT, 7200)}
    assert await asking.probe(grant) == Probed(PUBLIC)
    await asking.release(grant)
    assert gateway.table == {}
    assert await asking.probe(grant) == Probed(PUBLIC, gone=True)


async def test_another_port_is_tried_where_ours_is_taken(gateway: Whimsical, asking: IgdAsking) -> None:
    """The other machine keeps its mapping; the renewal asks for what was granted."""
    gateway.table[PORT] = ("192.168.1.9", PORT, 0)
    grant = await mapped(asking)
    assert grant.external.port != PORT
    assert gateway.table[PORT][0] == "192.168.1.9"
    assert await mapped(asking, grant.external) == grant


async def test_few_ports_are_tried(gateway: Whimsical, asking: IgdAsking) -> None:
    """A gateway that says of every port that it is taken is not asked for ever."""
    gateway.faults["AddPortMapping"] = soap.CONFLICT
    with pytest.raises(RefusedError, match="every port"):
        await mapped(asking)
    assert gateway.calls.count("AddPortMapping") == 1 + OTHER_PORTS


async def test_a_gateway_without_leases_maps_without_an_end(gateway: Whimsical, asking: IgdAsking) -> None:
    """Error 725: the mapping has no lifetime, and the grant says so."""
    gateway.permanent_only = True
    assert (await mapped(asking)).lifetime is None
    assert gateway.table == {PORT: (LOCAL, PORT, 0)}


@pytest.mark.parametrize(("fault", "action"), [(None, "AddAnyPortMapping"), (401, "AddPortMapping")])
async def test_version_2_chooses_the_port_itself(
    gateway: Whimsical, asking: IgdAsking, fault: int | None, action: str
) -> None:
    """Where it says that it can; where it can't, it is asked as version 1."""
    gateway.services = [V2]
    if fault is not None:
        gateway.faults["AddAnyPortMapping"] = fault
    assert (await mapped(asking)).external == SocketAddr("11.0.0.1", PORT)
    assert gateway.calls[-1] == action


async def test_the_connection_with_a_public_address_is_used(gateway: Whimsical, asking: IgdAsking) -> None:
    """A router has several, of which one is up: the others have no address or a private one."""
    gateway.services = [V1, V1, PPP]
    gateway.external = {"/0": "", "/1": "10.0.0.7", "/2": "11.0.0.1"}
    assert (await asking.probe(None)).external == PUBLIC
    gateway.external["/2"] = "11.0.0.2"
    assert (await asking.probe(None)).external == ipaddress.ip_address("11.0.0.2")


async def test_a_private_address_is_told_where_there_is_no_other(gateway: Whimsical, asking: IgdAsking) -> None:
    """So that a second NAT can be named."""
    gateway.external = {"/0": "100.64.0.9"}
    assert (await asking.probe(None)).external == ipaddress.ip_address("100.64.0.9")


async def test_a_gateway_that_comes_back_at_another_port_is_found_again(gateway: Whimsical, asking: IgdAsking) -> None:
    """After a restart its description is looked for anew."""
    grant = await mapped(asking)
    gateway.port, gateway.table = 6000, {}
    assert await asking.probe(grant) == Probed(PUBLIC, gone=True)


async def test_a_mapping_that_another_machine_took_is_gone(gateway: Whimsical, asking: IgdAsking) -> None:
    """The entry is there, and leads elsewhere; a gateway that can't be asked for entries says nothing of it."""
    grant = await mapped(asking)
    gateway.faults["GetSpecificPortMappingEntry"] = 401
    assert not (await asking.probe(grant)).gone
    del gateway.faults["GetSpecificPortMappingEntry"]
    gateway.table[PORT] = ("192.168.1.9", PORT, 0)
    assert (await asking.probe(grant)).gone


@pytest.mark.parametrize(
    ("spoil", "error", "kind"),
    [
        (lambda g: setattr(g, "description", b"<root/>"), RefusedError, None),
        (lambda g: setattr(g, "description", b"<!DOCTYPE x><root/>"), WireError, "malformed"),
        (lambda g: setattr(g, "status", 404), WireError, "malformed"),
        (lambda g: g.external.update({"/0": "not an address"}), RefusedError, None),
        (lambda g: g.external.update({"/0": "::1"}), RefusedError, None),
        (lambda g: g.faults.update({"GetExternalIPAddress": 501}), RefusedError, None),
    ],
)
async def test_a_gateway_that_is_none_is_an_error(
    gateway: Whimsical,
    asking: IgdAsking,
    malformed: Counter[str],
    spoil: Callable[[Whimsical], object],
    error: type[Exception],
    kind: str | None,
) -> None:
    """No service, no XML, no address: each an error of the plugin's own; what is malformed is counted."""
    spoil(gateway)
    with pytest.raises(error):
        await asking.probe(None)
    assert malformed == ({} if kind is None else {kind: 1})


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", ""])
async def test_a_port_that_is_none_is_refused(
    gateway: Whimsical, asking: IgdAsking, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    """What version 2 says that it reserved."""
    gateway.services = [V2]
    probed = await asking.probe(None)
    monkeypatch.setattr(gateway, "call", lambda *_: (0, {"NewReservedPort": port}))
    with pytest.raises(WireError):
        await asking.map(probed.external or PUBLIC, None, 7200)


async def test_nothing_is_asked_of_an_unknown_service(gateway: Whimsical, asking: IgdAsking) -> None:
    """Before a probe has found it."""
    with pytest.raises(SilentError):
        await asking.map(PUBLIC, None, 7200)
    await asking.release(Grant(SocketAddr("11.0.0.1", PORT), None))
    assert gateway.calls == []
