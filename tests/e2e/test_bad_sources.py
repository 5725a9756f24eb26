"""A look-up in which every source but the DHT is bad: it goes on, and says of each what happened."""

from __future__ import annotations

import asyncio
import json
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import dns.message
import dns.rcode
import pytest

from tests.e2e.commands import LOOPBACK, run
from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, sign_record

pytestmark = pytest.mark.timeout(120)
KEY = SecretKey(bytes(31) + b"\x09")
PLACE = "192.0.2.1:4433"
Answer = Callable[[socket.socket], None]


def record(hours: float = 0.0, key: SecretKey = KEY, addr: str = "192.0.2.66:66") -> SignedRecord:
    return sign_record(key, NodeAddr(key.node_id, (), [addr]), time.time_ns() // 1000 + int(hours * 3600e6))


def http(status: str, body: bytes = b"") -> Answer:
    """Answers one request with that, and hangs up."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        )

    return answer


def noise(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"\x00\x01 not HTTP at all \xff\r\n\r\n")


def silence(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve TCP on loopback, each connection in a thread; gives HOST:PORT."""
    open_now: list[socket.socket] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def handle(connection: socket.socket) -> None:
            try:
                answer(connection)
            except OSError:
                pass
            finally:
                connection.close()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                open_now.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in open_now:
                connection.close()


@contextmanager
def failing_name_server() -> Iterator[str]:
    """A name server by UDP that answers SERVFAIL; gives HOST:PORT."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        place = server.getsockname()

        def answer() -> None:
            while True:
                try:
                    data, addr = server.recvfrom(4096)
                except OSError:
                    return
                if not data:
                    return
                response = dns.message.make_response(dns.message.from_wire(data))
                response.set_rcode(dns.rcode.SERVFAIL)
                server.sendto(response.to_wire(), addr)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield f"{place[0]}:{place[1]}"
        finally:
            server.sendto(b"", place)
            thread.join(10)


async def publish(bootstrap: str) -> None:
    """Put the node's record of now into the DHT."""
    from tom_connect.addr import SocketAddr
    from tom_dht_mainline import CoreConfig, DhtNode, UdpTransport

    good = record(addr=PLACE)
    transport = UdpTransport((SocketAddr("127.0.0.1", 0),))
    async with DhtNode(transport, config=CoreConfig(ipv6=False), bootstrap=(bootstrap,)) as node:
        await node.put_mutable(KEY, good.dns_packet, seq=good.timestamp_us)


def test_a_look_up_goes_on_with_the_sources_that_work(tmp_path: pathlib.Path, bootstrap: tuple[str, ...]) -> None:
    """Relays that answer 500, garbage, nothing, forged, foreign, future and old records; DNS and signaling fail too."""
    pytest.importorskip("tom_pkarr", reason="needs tom-pkarr")
    pytest.importorskip("tom_signaling_legacy", reason="needs tom-signaling-legacy")
    asyncio.run(publish(bootstrap[1]))
    forged = bytearray(record().relay_payload())
    forged[0] ^= 1
    relays: dict[str, tuple[Answer, str]] = {
        "500": (http("500 Oops"), "HTTP status 500"),
        "garbage": (noise, "not HTTP"),
        "silent": (silence, "no answer in 2 s"),
        "forged": (http("200 OK", bytes(forged)), "signature is not that of"),
        "foreign": (http("200 OK", record(key=SecretKey.generate()).relay_payload()), "signature is not that of"),
        "future": (http("200 OK", record(hours=3).relay_payload()), "3.0 h ahead of this machine's clock"),
        "old": (http("200 OK", record(hours=-25).relay_payload()), "25.0 h old"),
    }
    with ExitStack() as stack:
        places = {name: stack.enter_context(serving(answer)) for name, (answer, _) in relays.items()}
        options = [text for place in places.values() for text in ("--pkarr-relays", f"http://{place}/")]
        options += ["--pkarr-timeout", "2", "--dns-origins", "nodes.example"]
        options += ["--dns-servers", stack.enter_context(failing_name_server())]
        options += ["--signaling-urls", f"ws://{stack.enter_context(serving(noise))}"]
        done = run(tmp_path, "resolve", str(KEY.node_id), "--json", *LOOPBACK, *bootstrap, *options)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    failures = {event["source"]: event["failure"] for event in told if event["event"] == "source"}
    assert failures["dht"] is None
    by_relay = dict(part.split(": ", 1) for part in failures["pkarr"].split("; "))
    for name, (_, words) in relays.items():
        assert words in by_relay[places[name]], name
    assert "SERVFAIL" in failures["dns"]
    assert failures["signaling"]
    assert [event["direct_addrs"] for event in told if event["event"] == "found"] == [[PLACE]]
    assert (told[-1]["event"], told[-1]["newest"], told[-1]["direct_addrs"]) == ("resolved", "dht", [PLACE])
    assert "Traceback" not in done.stderr
