"""A caller written a second time, from docs/reference/rendezvous.md alone: plain sockets, nothing of the project."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.unit.holepunch import reference_disco as disco

Address = tuple[str, int]
KNOCK = b"\x07\x01" + bytes(14)


def bencode(value: Any) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def bdecode(data: bytes, at: int = 0) -> tuple[Any, int]:
    if data[at : at + 1] == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if data[at : at + 1] in (b"l", b"d"):
        items, kind, at = [], data[at : at + 1], at + 1
        while data[at : at + 1] != b"e":
            item, at = bdecode(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2], strict=True))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end], end


def compact(raw: bytes) -> Address:
    return socket.inet_ntoa(raw[:4]), int.from_bytes(raw[4:6], "big")


class Caller:
    """One socket, a DHT client in it, and a key."""

    def __init__(self, bootstrap: list[Address], seed: bytes) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.bootstrap = bootstrap
        self.dht_id = os.urandom(20)
        self.seed = seed
        self.node_id = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        self.others: list[tuple[bytes, Address]] = []
        """What came that is no answer of the DHT."""

    def close(self) -> None:
        self.sock.close()

    def receive(self, until: float) -> tuple[bytes, Address] | None:
        left = until - time.monotonic()
        if left <= 0:
            return None
        self.sock.settimeout(left)
        try:
            return self.sock.recvfrom(2048)
        except TimeoutError:
            return None

    def ask(self, node: Address, method: bytes, /, **arguments: Any) -> dict[bytes, Any]:
        """The results of a query; empty for an error, or silence for a second."""
        tid = os.urandom(4)
        body = {b"id": self.dht_id} | {name.encode(): value for name, value in arguments.items()}
        self.sock.sendto(bencode({b"t": tid, b"y": b"q", b"q": method, b"ro": 1, b"a": body}), node)
        until = time.monotonic() + 1.0
        while (got := self.receive(until)) is not None:
            data, source = got
            if data[:1] != b"d":
                self.others.append(got)
            elif source == node and (reply := bdecode(data)[0]).get(b"t") == tid:
                result: dict[bytes, Any] = reply.get(b"r", {})
                return result
        return {}

    def nearest(self, target: bytes, method: bytes, /, **arguments: Any) -> list[tuple[Address, dict[bytes, Any]]]:
        """The 8 nodes nearest to a target that answer, and their answers."""
        known: dict[Address, bytes] = dict.fromkeys(self.bootstrap, b"")
        answers: dict[Address, tuple[bytes, dict[bytes, Any]]] = {}

        def distance(node_id: bytes) -> int:
            return int.from_bytes(node_id, "big") ^ int.from_bytes(target, "big")

        asked: set[Address] = set()
        while waiting := sorted((n for n in known if n not in asked), key=lambda n: distance(known[n] or target)):
            best = sorted(distance(node_id) for node_id, _ in answers.values())[:8]
            if len(best) == 8 and known[waiting[0]] and distance(known[waiting[0]]) > best[-1]:
                break
            node = waiting[0]
            asked.add(node)
            answer = self.ask(node, method, **arguments)
            if b"id" in answer:
                answers[node] = (answer[b"id"], answer)
            raw = answer.get(b"nodes", b"")
            for at in range(0, len(raw), 26):
                known.setdefault(compact(raw[at + 20 : at + 26]), raw[at : at + 20])
        ranked = sorted(answers.items(), key=lambda item: distance(item[1][0]))[:8]
        return [(node, answer) for node, (_, answer) in ranked]

    def get(self, key: bytes, salt: bytes = b"") -> bytes | None:
        """The newest byte string that is stored and signed under a key."""
        target = hashlib.sha1(key + salt).digest()
        best: tuple[int, bytes] | None = None
        for _, answer in self.nearest(target, b"get", target=target, seq=0):
            if answer.get(b"k") != key or b"v" not in answer:
                continue
            value = bencode(answer[b"v"])
            signed = (b"4:salt" + bencode(salt) if salt else b"") + b"3:seq" + bencode(answer[b"seq"]) + b"1:v" + value
            Ed25519PublicKey.from_public_bytes(key).verify(answer[b"sig"], signed)
            best = max(best or (0, b""), (answer[b"seq"], answer[b"v"]))
        return best[1] if best is not None else None

    def put(self, key: Ed25519PrivateKey, value: bytes) -> int:
        """Store a byte string under a key; how many nodes took it."""
        public = key.public_key().public_bytes_raw()
        target = hashlib.sha1(public).digest()
        signature = key.sign(b"3:seqi1e1:v" + bencode(value))
        stored = 0
        for node, answer in self.nearest(target, b"get", target=target, seq=0):
            if token := answer.get(b"token"):
                taken = self.ask(node, b"put", token=token, v=value, k=public, sig=signature, seq=1)
                stored += b"id" in taken
        return stored

    def invitation(self, node_id: bytes) -> dict[str, Any]:
        """How a node says that it is to be called."""
        value = self.get(node_id, b"tom-rv-1")
        assert value is not None and len(value) >= 73 and value[0] == 1
        return {
            "filtered": value[1] & 3 == 1,
            "ports_differ": bool(value[1] & 4),
            "interval": int.from_bytes(value[2:4], "big") / 100,
            "nodes": value[4],
            "mailbox": value[5:25],
            "key": value[25:57],
        }

    def announce(self, mailbox: bytes, port: int | None = None) -> int:
        """Leave a call; how many nodes took it."""
        own = port or self.sock.getsockname()[1]
        implied = int(port is None)
        taken = 0
        for node, answer in self.nearest(mailbox, b"get_peers", info_hash=mailbox):
            token = answer.get(b"token")
            if token:
                reply = self.ask(node, b"announce_peer", info_hash=mailbox, token=token, port=own, implied_port=implied)
                taken += b"id" in reply
        return taken

    def knocked(self, patience: float) -> Address | None:
        """Where the first knock comes from."""
        until = time.monotonic() + patience
        while True:
            for data, source in self.others:
                if data == KNOCK:
                    return source
            got = self.receive(until)
            if got is None:
                return None
            self.others.append(got)

    def opened(self, data: bytes, sender: bytes) -> bytes | None:
        """The message in a disco packet of a node for us."""
        if data[:2] != b"\x04\x01":
            return None
        mask = hashlib.blake2b(data[:18], key=self.node_id, digest_size=40, person=b"tom-disco-mask-1").digest()
        if mask[:8] != data[18:26] or bytes(a ^ b for a, b in zip(data[26:58], mask[8:], strict=True)) != sender:
            return None
        shared = disco.x25519(disco.scalar(self.seed), disco.ed25519_to_montgomery(sender))
        key = disco.hkdf32(data[2:10], shared, b"tom-connect disco v1" + sender + self.node_id)
        return ChaCha20Poly1305(key).decrypt(bytes(4) + data[10:18], data[58:], data[:58])

    def await_message(self, kind: int, sender: bytes, patience: float) -> tuple[bytes, Address] | None:
        """The next message of a kind from a node, and where it came from."""
        until = time.monotonic() + patience
        while (got := self.receive(until)) is not None:
            plain = self.opened(got[0], sender)
            if plain is not None and plain[0] == kind:
                return plain, got[1]
        return None

    def ping(self, node_id: bytes, there: Address, patience: float) -> bool:
        """Whether a node answers a disco ping at an address."""
        tx = os.urandom(12)
        message = b"\x01" + tx + bytes(19)
        self.sock.sendto(disco.seal(self.seed, self.node_id, node_id, os.urandom(8), 0, message), there)
        answer = self.await_message(2, node_id, patience)
        return answer is not None and answer[0][1:13] == tx and answer[1] == there

    def leave_sealed_call(self, node_id: bytes, ip: str) -> int:
        """Leave a sealed call with our address in it; how many nodes took the item."""
        told = self.invitation(node_id)
        key, raw_ip = told["key"], socket.inet_aton(ip)
        port = 1024 + int.from_bytes(os.urandom(4), "big") % 64512
        raw_port = port.to_bytes(2, "big")
        digest = hmac.digest(key, b"tom-rv-1 port" + raw_ip + raw_port, "sha256")
        check = 1024 + int.from_bytes(digest[:4], "big") % 64512
        seed = disco.hkdf32(bytes(32), key + raw_ip + raw_port, b"tom-rv-1 item")
        here = bytes(10) + b"\xff\xff" + raw_ip + self.sock.getsockname()[1].to_bytes(2, "big")
        words = disco.seal(
            self.seed, self.node_id, node_id, os.urandom(8), 0, b"\x03" + os.urandom(12) + b"\x01" + here
        )
        fresh = X25519PrivateKey.generate()
        public = fresh.public_key().public_bytes_raw()
        secret = disco.hkdf32(public + key, fresh.exchange(X25519PublicKey.from_public_bytes(key)), b"tom-rv-1 call")
        padded = len(words).to_bytes(2, "big") + words.ljust(798, b"\0")
        value = b"\x01" + public + ChaCha20Poly1305(secret).encrypt(bytes(12), padded, raw_ip + raw_port)
        stored = self.put(Ed25519PrivateKey.from_private_bytes(seed), value)
        self.announce(told["mailbox"], port)
        self.announce(told["mailbox"], check)
        return stored
