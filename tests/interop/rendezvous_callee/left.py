"""What a callee leaves in the DHT: its record, its invitation, and both for a contact."""

import secrets
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.interop.rendezvous_parts import bencode, disco, formats
from tests.interop.rendezvous_parts.disco import Addr

_Z32 = "ybndrfg8ejkmcpqxot1uwisza345h769"
_POINTER_TO_FIRST_NAME = b"\xc0\x0c"
_CONTENT = 960

Put = dict[bytes, bencode.Value]


def z_base_32(raw: bytes) -> str:
    """The letters of some bytes, five bits each, zeros behind the last."""
    bits = "".join(f"{byte:08b}" for byte in raw)
    return "".join(_Z32[int(bits[at : at + 5].ljust(5, "0"), 2)] for at in range(0, len(bits), 5))


def dns_packet(node_id: bytes, addrs: list[Addr]) -> bytes:
    """The DNS reply that names these addresses."""
    packet = struct.pack("!HHHHHH", 0, 0x8000, 0, len(addrs), 0, 0)
    name = b"".join(bytes([len(label)]) + label for label in (b"_iroh", z_base_32(node_id).encode())) + b"\0"
    for ip, port in addrs:
        text = f"addr={ip}:{port}".encode()
        packet += name + struct.pack("!HHIH", 16, 1, 30, len(text) + 1) + bytes([len(text)]) + text
        name = _POINTER_TO_FIRST_NAME
    return packet


def invitation(said: formats.Invitation) -> bytes:
    """The 73 bytes of an invitation."""
    bits = {None: 0, True: 1, False: 2}[said.filtered] | (4 if said.port_each else 0)
    ip = bytes(16)
    if said.ip is not None:
        ip = IPv6Address(said.ip).packed if ":" in said.ip else IPv6Address(f"::ffff:{said.ip}").packed
    return struct.pack("!BBHB", 1, bits, round(said.interval * 100), said.nodes) + said.mailbox + said.key + ip


@dataclass(frozen=True)
class Place:
    """Where the owner of one of a pair's places leaves something on a day, and the key to what lies there."""

    seed: bytes
    box: ChaCha20Poly1305

    def item(self, content: bytes, seq: int) -> tuple[bytes, Put]:
        """Target and put of the sealed content."""
        return formats.signed_item(self.seed, self.sealed(content), seq)

    def sealed(self, content: bytes, nonce: bytes | None = None) -> bytes:
        """The 989 bytes that hide a content; the nonce is drawn at random."""
        plain = (struct.pack("!H", len(content)) + content).ljust(_CONTENT, b"\0")
        nonce = nonce or secrets.token_bytes(12)
        return b"\x01" + nonce + self.box.encrypt(nonce, plain, None)


def record_content(seed: bytes, packet: bytes, timestamp: int) -> bytes:
    """A signed record without its key."""
    sig = formats.signed_item(seed, packet, timestamp)[1][b"sig"]
    assert isinstance(sig, bytes)
    return sig + timestamp.to_bytes(8, "big") + packet


def place(seed: bytes, contact: bytes, owner: bytes, kind: str, day: int) -> Place:
    """The place for `kind`, record or invitation, of us (the key of `seed`) and a contact."""
    ours = disco.Seal(seed, contact).node_id
    salt = b"".join(sorted((ours, contact)))
    secret = disco.hkdf(disco.agree(seed, contact), salt, b"tom-connect secret: tom-rv-1 contact")
    info = b"tom-rv-1 contact " + kind.encode() + owner + struct.pack("!I", day)
    keys = disco.hkdf(secret, b"", info, 64)
    return Place(keys[:32], ChaCha20Poly1305(keys[32:]))


def days(now: float) -> set[int]:
    """The days for which something is left: that of 2 hours ago and that of in 3 hours."""
    return {int(now - 2 * 3600) // 86400, int(now + 3 * 3600) // 86400}
