"""Answers to queries (BEP 5, 32, 42, 44), small against their queries and bounded in what they make us keep."""

from __future__ import annotations

from .address import Address, Family
from .bencode import encode
from .context import Context, FamilyState
from .items import (
    MAX_ENCODED_VALUE,
    MAX_SALT,
    MAX_SEQ,
    ImmutableItem,
    Item,
    MutableItem,
    immutable_target,
    mutable_target,
)
from .krpc import (
    BAD_SIGNATURE,
    CAS_MISMATCH,
    METHOD_UNKNOWN,
    PROTOCOL,
    SALT_TOO_BIG,
    SEQ_TOO_SMALL,
    SERVER,
    VALUE_TOO_BIG,
    Message,
    build_error,
    build_reply,
)
from .nodeid import as_int
from .storage import ItemStore, PeerStore, Tokens

_NODES_PER_REPLY = 8
"""BEP 5's k; more would only help whoever wants to amplify."""


class _RefusedError(Exception):
    """A query that is answered with an error."""

    def __init__(self, code: int, text: bytes) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class Server:
    """The serving side of a node."""

    def __init__(self, context: Context, now: float) -> None:
        self._context = context
        self._tokens = Tokens(context.rng, now)
        self.items = ItemStore(context.config)
        self.peers = PeerStore(context.config, context.rng)
        self._methods = {
            b"ping": self._ping,
            b"find_node": self._find_node,
            b"get_peers": self._get_peers,
            b"announce_peer": self._announce_peer,
            b"get": self._get,
            b"put": self._put,
        }

    def answer(self, query: Message, state: FamilyState, address: Address, ip: bytes, now: float) -> bytes:
        """The datagram that answers a query; `ip` is the sender's compact address."""
        counters, version = self._context.counters, self._context.config.version
        method = self._methods.get(query.method)
        try:
            if method is None:
                # Unknown methods that name a target are answered like find_node elsewhere; BEP 5 only has 204 for them.
                raise _RefusedError(METHOD_UNKNOWN, b"Method Unknown")
            body = method(query, state, address, now)
        except _RefusedError as refused:
            counters.errors_out[refused.code] += 1
            return build_error(query.tid, refused.code, refused.text, ip, version)
        counters.queries_in[query.method.decode("ascii")] += 1
        return build_reply(query.tid, body, ip, version, read_only=self._context.rpc.read_only)

    # Reads

    @staticmethod
    def _ping(query: Message, state: FamilyState, address: Address, now: float) -> bytes:
        return b"d2:id20:%be" % state.table.own_id

    def _find_node(self, query: Message, state: FamilyState, address: Address, now: float) -> bytes:
        target = _target(query, b"target")
        return b"d2:id20:%b%be" % (state.table.own_id, self._nodes(query, state, target))

    def _nodes(self, query: Message, state: FamilyState, target: bytes) -> bytes:
        want = query.body.get(b"want")
        number = as_int(target)
        parts = []
        for family, word, key in ((Family.IPV4, b"n4", b"5:nodes"), (Family.IPV6, b"n6", b"6:nodes6")):
            other = self._context.families.get(family)
            wanted = word in want if type(want) is list else family is state.family
            if other is not None and wanted:
                nodes = b"".join([node.compact for node in other.table.closest(number, _NODES_PER_REPLY)])
                parts.append(b"%b%d:%b" % (key, len(nodes), nodes))
        return b"".join(parts)

    def _get_peers(self, query: Message, state: FamilyState, address: Address, now: float) -> bytes:
        info_hash = _target(query, b"info_hash")
        peers = self.peers.peers(info_hash, state.family, now)
        values = b"6:valuesl%be" % b"".join([b"%d:%b" % (len(peer), peer) for peer in peers]) if peers else b""
        return b"d2:id20:%b%b5:token8:%b%be" % (
            state.table.own_id,
            self._nodes(query, state, info_hash),
            self._tokens.issue(address[0], info_hash, now),
            values,
        )

    def _get(self, query: Message, state: FamilyState, address: Address, now: float) -> bytes:
        target = _target(query, b"target")
        seq = query.body.get(b"seq")
        key = number = signature = value = b""
        item = self.items.get(target, now)
        if isinstance(item, MutableItem):
            number = b"3:seqi%de" % item.seq
            if type(seq) is not int or seq < item.seq:
                key, signature = b"1:k32:" + item.public_key, b"3:sig64:" + item.signature
                value = b"1:v" + item.encoded
        elif item is not None:
            value = b"1:v" + item.encoded
        return b"d2:id20:%b%b%b%b%b5:token8:%b%be" % (
            state.table.own_id,
            key,
            self._nodes(query, state, target),
            number,
            signature,
            self._tokens.issue(address[0], target, now),
            value,
        )

    # Writes

    def _announce_peer(self, query: Message, state: FamilyState, address: Address, now: float) -> bytes:
        info_hash = _target(query, b"info_hash")
        body, ip = query.body, address[0]
        if not self._tokens.accepts(body.get(b"token"), ip, info_hash, now):
            raise _RefusedError(PROTOCOL, b"invalid token")
        port = address[1] if body.get(b"implied_port") == 1 else body.get(b"port")
        if type(port) is not int or not 0 < port < 65536:
            raise _RefusedError(PROTOCOL, b"invalid port")
        if not self.peers.announce(info_hash, (ip, port), now, unlimited=ip in self._context.trusted):
            raise _RefusedError(SERVER, b"too many peers from this address")
        return b"d2:id20:%be" % state.table.own_id

    def _put(self, query: Message, state: FamilyState, address: Address, now: float) -> bytes:
        body, ip = query.body, address[0]
        if b"v" not in body:
            raise _RefusedError(PROTOCOL, b"missing v")
        encoded = encode(body[b"v"])
        if len(encoded) > MAX_ENCODED_VALUE:
            raise _RefusedError(VALUE_TOO_BIG, b"message (v field) too big")
        item = _mutable(body, encoded) if b"k" in body else ImmutableItem(encoded)
        mutable = isinstance(item, MutableItem)
        target = (
            mutable_target(item.public_key, item.salt) if isinstance(item, MutableItem) else immutable_target(encoded)
        )
        if body.get(b"target", target) != target:
            raise _RefusedError(PROTOCOL, b"target does not match")
        # The token before the signature: it costs 2 us, that 100.
        if not self._tokens.accepts(body.get(b"token"), ip, target, now):
            raise _RefusedError(PROTOCOL, b"invalid token")
        if mutable:
            self._check_successor(item, self.items.get(target, now), body.get(b"cas"))
        if not self.items.put(target, item, ip, now, unlimited=ip in self._context.trusted):
            raise _RefusedError(SERVER, b"too many items from this network")
        return b"d2:id20:%be" % state.table.own_id

    def _check_successor(self, item: Item, stored: Item | None, cas: object) -> None:
        assert isinstance(item, MutableItem)
        if isinstance(stored, MutableItem):
            if type(cas) is int and stored.seq != cas:
                raise _RefusedError(CAS_MISMATCH, b"CAS mismatch")
            if stored == item:
                return
            if stored.seq >= item.seq:
                raise _RefusedError(SEQ_TOO_SMALL, b"sequence number less than current")
        if not self._context.verifier.check(item):
            raise _RefusedError(BAD_SIGNATURE, b"invalid signature")


def _target(query: Message, key: bytes) -> bytes:
    target = query.body.get(key)
    if type(target) is not bytes or len(target) != 20:
        raise _RefusedError(PROTOCOL, b"missing or invalid %b" % key)
    return target


def _mutable(body: dict[bytes, object], encoded: bytes) -> MutableItem:
    key, seq, signature, salt = body[b"k"], body.get(b"seq"), body.get(b"sig"), body.get(b"salt", b"")
    if type(salt) is not bytes:
        raise _RefusedError(PROTOCOL, b"invalid salt")
    if len(salt) > MAX_SALT:
        raise _RefusedError(SALT_TOO_BIG, b"salt too big")
    if (
        type(key) is not bytes
        or len(key) != 32
        or type(seq) is not int
        or not 0 <= seq <= MAX_SEQ
        or type(signature) is not bytes
        or len(signature) != 64
    ):
        raise _RefusedError(PROTOCOL, b"invalid k, seq or sig")
    return MutableItem(key, encoded, seq, signature, salt)
