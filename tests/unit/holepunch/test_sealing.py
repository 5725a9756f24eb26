"""Keys, replay, budgets and cookies."""

from __future__ import annotations

import random

import pytest

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.holepunch import disco, sealing
from tom_connect.holepunch.core import DiscoCore
from tom_connect.holepunch.disco import DiscoError, Ping, Pong
from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.holepunch.replay import WINDOW, ReplayWindow
from tom_connect.holepunch.sealing import CookieJar, Opened, Sealer
from tom_connect.keys import SecretKey

A, B, C = (SecretKey(bytes((i,)) * 32) for i in (1, 2, 3))
HERE = SocketAddr("192.0.2.1", 1)
PLAIN = disco.encode_message(Ping(bytes(12)))


def reason(sealer: Sealer, data: bytes, source: Path = HERE, now: float = 0.0) -> str:
    with pytest.raises(DiscoError) as caught:
        sealer.open(data, source, now)
    return caught.value.reason


def test_a_reflected_packet_is_refused() -> None:
    """What we sent and get back does not open, though the shared secret is the same in both directions."""
    a = Sealer(A)
    a.pin(B.node_id)
    packet, _ = a.seal(B.node_id, PLAIN)
    assert reason(a, packet) == "not for us"
    # Even with an envelope made for us, which names the peer as its sender: the key is another.
    stamp = packet[2:18]
    header = disco.pack_header(stamp, B.node_id.raw, A.node_id.raw, with_cookie=False)
    assert reason(a, header + packet[disco.HEADER_SIZE :]) == "forged"
    header = disco.pack_header(stamp, A.node_id.raw, A.node_id.raw, with_cookie=False)
    assert reason(a, header + packet[disco.HEADER_SIZE :]) == "own"


def test_keys_differ_by_direction_and_session() -> None:
    """The same message with the same counter is sealed differently by each end and after each start."""
    same = bytes(8)
    a, b = Sealer(A, random=lambda n: bytes(n)), Sealer(B, random=lambda n: bytes(n))
    from_a, stamp_a = a.seal(B.node_id, PLAIN)
    from_b, stamp_b = b.seal(A.node_id, PLAIN)
    assert stamp_a == stamp_b == same + bytes(8)
    assert from_a[disco.HEADER_SIZE :] != from_b[disco.HEADER_SIZE :]
    again, stamp = Sealer(A).seal(B.node_id, PLAIN)
    assert stamp != stamp_a
    assert again[disco.HEADER_SIZE :] != from_a[disco.HEADER_SIZE :]


def test_the_sender_is_not_to_be_read_without_knowing_the_receiver() -> None:
    """The sender's key is nowhere in the packet, and is masked anew each time."""
    a = Sealer(A)
    packets = [a.seal(B.node_id, PLAIN)[0] for _ in range(3)]
    assert all(A.node_id.raw not in packet for packet in packets)
    assert len({packet[26:58] for packet in packets}) == 3


def test_another_receiver_does_not_open() -> None:
    """A packet for B is noise to C, who does no key agreement for it."""
    packet, _ = Sealer(A).seal(B.node_id, PLAIN)
    c = Sealer(C)
    assert reason(c, packet) == "not for us"
    assert c.agreements == 0


def test_a_stranger_can_not_speak_for_another() -> None:
    """A packet that names A as its sender but was sealed by C is forged."""
    c, b = Sealer(C), Sealer(B)
    packet, stamp = c.seal(B.node_id, PLAIN)
    header = disco.pack_header(stamp, A.node_id.raw, B.node_id.raw, with_cookie=False)
    assert reason(b, header + packet[disco.HEADER_SIZE :]) == "forged"


def test_replays_are_refused_and_reordering_is_not() -> None:
    """Each packet opens once, in any order within the window; older ones are refused unseen."""
    a, b = Sealer(A), Sealer(B)
    packets = [a.seal(B.node_id, PLAIN)[0] for _ in range(WINDOW + 10)]
    order = packets[10:]
    random.Random(5).shuffle(order)
    for packet in order:
        assert isinstance(b.open(packet, HERE, 0.0), Opened)
    for packet in packets:
        assert reason(b, packet) == "replay"


def test_a_forged_packet_does_not_close_the_window() -> None:
    """A forgery with a counter far ahead is refused without making the real packets look old."""
    a, b = Sealer(A), Sealer(B)
    real, stamp = a.seal(B.node_id, PLAIN)
    b.pin(A.node_id)
    header = disco.pack_header(stamp[:8] + b"\xff" * 8, A.node_id.raw, B.node_id.raw, with_cookie=False)
    assert reason(b, header + real[disco.HEADER_SIZE :]) == "forged"
    assert isinstance(b.open(real, HERE, 0.0), Opened)


def test_a_restarted_peer_is_heard_at_once() -> None:
    """New sessions need no negotiation; more than four at once push the oldest out, and replays stay refused."""
    b = Sealer(B)
    first, _ = Sealer(A).seal(B.node_id, PLAIN)
    assert isinstance(b.open(first, HERE, 0.0), Opened)
    for _ in range(sealing.MAX_SESSIONS - 1):
        packet, _ = Sealer(A).seal(B.node_id, PLAIN)
        assert isinstance(b.open(packet, HERE, 0.0), Opened)
        assert reason(b, packet) == "replay"
    assert reason(b, first) == "replay"


def test_replay_window_agrees_with_a_set() -> None:
    """Against a plain set of seen counters, the window is right about everything that it can still tell."""
    rng = random.Random(3)
    window, seen, top = ReplayWindow(), set(), -1
    for _ in range(5000):
        counter = max(0, top + rng.randint(-WINDOW - 5, 40))
        expected = counter not in seen and counter > top - WINDOW
        assert window.fresh(counter) is expected
        if expected:
            window.accept(counter)
            seen.add(counter)
            top = max(top, counter)
    assert window.fresh(2**64 - 1)


def strangers(count: int) -> list[Sealer]:
    rng = random.Random(7)
    return [Sealer(SecretKey(rng.randbytes(32))) for _ in range(count)]


def test_under_load_strangers_need_a_cookie_and_friends_do_not() -> None:
    """Beyond the budget unknown keys are challenged; a cookie gets one in, a pinned peer needs none."""
    b = Sealer(B)
    friend = Sealer(A)
    b.pin(A.node_id)
    many = strangers(int(sealing.STRANGER_BURST) + 20)
    answers = [b.open(s.seal(B.node_id, PLAIN)[0], HERE, 0.0) for s in many]
    assert sum(isinstance(answer, Opened) for answer in answers) == sealing.STRANGER_BURST
    assert b.agreements == sealing.STRANGER_BURST + 1
    last = many[-1]
    packet, stamp = last.seal(B.node_id, PLAIN)
    answer = b.open(packet, HERE, 0.0)
    assert isinstance(answer, bytes)
    assert len(answer) < len(packet)
    challenge = disco.decode_challenge(answer)
    assert challenge.stamp == stamp
    paid, _ = last.seal(B.node_id, PLAIN, challenge.cookie)
    elsewhere = SocketAddr("192.0.2.2", 1)
    assert isinstance(b.open(paid, elsewhere, 0.0), bytes), "a cookie is good for its own address alone"
    assert b.open(paid, HERE, 0.0) == Opened(last.node_id, PLAIN)
    assert isinstance(b.open(friend.seal(B.node_id, PLAIN)[0], HERE, 0.0), Opened)


def test_one_source_can_not_spend_the_budget_of_all() -> None:
    """Cookies in hand, one address (or one IPv6 /64) gets a few agreements; others still get theirs."""
    b = Sealer(B)
    b._free.take(0.0, sealing.STRANGER_BURST)
    jar = b._cookies
    greedy = [SocketAddr(f"2001:db8::{i:x}", 1) for i in range(1, 60)]
    results = [
        b.open(s.seal(B.node_id, PLAIN, jar.make(source, 0.0))[0], source, 0.0)
        for s, source in zip(strangers(59), greedy, strict=True)
    ]
    assert sum(isinstance(r, Opened) for r in results) == sealing.SOURCE_BURST
    other = SocketAddr("2001:db8:1::1", 1)
    modest = Sealer(A).seal(B.node_id, PLAIN, jar.make(other, 0.0))[0]
    assert isinstance(b.open(modest, other, 0.0), Opened)


def test_cookies_are_good_for_minutes() -> None:
    """A cookie is taken for two minutes at least and four at most, and by the node that made it alone."""
    rng = random.Random(1)
    jar, other = CookieJar(rng.randbytes), CookieJar(rng.randbytes)
    for source in (HERE, RelayPath(RelayUrl.parse("https://r.test"), A.node_id)):
        cookie = jar.make(source, 1000.0)
        assert jar.good(cookie, source, 1000.0 + sealing.COOKIE_LIFE)
        assert not other.good(cookie, source, 1000.0)
        assert not jar.good(cookie[:-1], source, 1000.0)
    cookie = jar.make(HERE, 2000.0)
    jar.make(HERE, 2000.0 + sealing.COOKIE_LIFE)
    assert jar.good(cookie, HERE, 2000.0 + sealing.COOKIE_LIFE)
    assert not jar.good(cookie, HERE, 2000.0 + 2 * sealing.COOKIE_LIFE)


def test_the_table_of_strangers_is_bounded() -> None:
    """More strangers than there is room for push each other out, never a pinned peer."""
    b = Sealer(B)
    b.pin(A.node_id)
    for at, stranger in enumerate(strangers(sealing.MAX_STRANGERS + 20)):
        b.open(stranger.seal(B.node_id, PLAIN)[0], HERE, float(at))
    assert len(b._strangers) == sealing.MAX_STRANGERS
    before = b.agreements
    b.open(Sealer(A).seal(B.node_id, PLAIN)[0], HERE, 0.0)
    assert b.agreements == before


def test_a_forger_leaves_no_trace() -> None:
    """Forged packets of unknown keys enter no table."""
    b = Sealer(B)
    packet, stamp = Sealer(C).seal(B.node_id, PLAIN)
    for i in range(10):
        sender = SecretKey(bytes((i + 100,)) * 32).node_id.raw
        header = disco.pack_header(stamp, sender, B.node_id.raw, with_cookie=False)
        assert reason(b, header + packet[disco.HEADER_SIZE :]) == "forged"
    assert not b._strangers


def test_bad_keys_are_refused() -> None:
    """Senders of low order, off the curve or not canonical are refused before any agreement."""
    b = Sealer(B)
    packet, stamp = Sealer(C).seal(B.node_id, PLAIN)
    for sender in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"\x02" + bytes(31)):
        header = disco.pack_header(stamp, sender, B.node_id.raw, with_cookie=False)
        assert reason(b, header + packet[disco.HEADER_SIZE :]) == "key"
    assert b.agreements == 0


# --- through the whole core -------------------------------------------------------------------------------------


def flooded(core: DiscoCore, now: float) -> None:
    """Spend the budget for strangers."""
    core.sealer._free.take(now, sealing.STRANGER_BURST)


def test_a_dialer_gets_through_a_node_under_load() -> None:
    """The challenge is answered at once with its cookie, and the path is proven one round trip later."""
    a, b = DiscoCore(A), DiscoCore(B)
    flooded(b, 0.0)
    there = SocketAddr("198.51.100.2", 2)
    remote = a.acquire(B.node_id, 0.0)
    a.add_candidates(remote, [there], "dht", 0.0, trusted=False)
    a.tick(0.0)
    for now in (0.001, 0.002):
        for _path, data in a.outbox:
            b.receive(data, HERE, now)
        a.outbox.clear()
        assert b.outbox
        for _path, data in b.outbox:
            a.receive(data, there, now)
        b.outbox.clear()
        a.tick(now)
    assert b.counters["disco: challenged"] == 1
    assert remote.active is not None
    assert remote.active.path == there


def test_a_forged_challenge_changes_nothing() -> None:
    """A challenge for no packet, from elsewhere or by one who does not know the peer's key is counted and dropped."""
    a = DiscoCore(A)
    there = SocketAddr("198.51.100.2", 2)
    remote = a.acquire(B.node_id, 0.0)
    a.add_candidates(remote, [there], "dht", 0.0, trusted=False)
    a.tick(0.0)
    stamp = a.outbox[0][1][2:18]
    a.outbox.clear()
    good = disco.encode_challenge(disco.Challenge(stamp, bytes(16)), B.node_id.raw)
    a.receive(good, HERE, 0.01)
    a.receive(disco.encode_challenge(disco.Challenge(stamp, bytes(16)), C.node_id.raw), there, 0.01)
    a.receive(disco.encode_challenge(disco.Challenge(bytes(16), bytes(16)), B.node_id.raw), there, 0.01)
    assert a.counters["disco: challenge for no packet"] == 3
    assert remote.paths[there].cookie is None
    a.receive(good, there, 0.01)
    assert remote.paths[there].cookie == bytes(16)


def test_a_pong_counts_only_for_its_ping_and_address() -> None:
    """A pong from another peer, from elsewhere, of an unknown transaction or replayed proves nothing."""
    a, b, c = DiscoCore(A), Sealer(B), Sealer(C)
    there, elsewhere = SocketAddr("198.51.100.2", 2), SocketAddr("203.0.113.3", 3)
    remote = a.acquire(B.node_id, 0.0)
    a.acquire(C.node_id, 0.0)
    a.add_candidates(remote, [there], "dht", 0.0, trusted=False)
    a.tick(0.0)
    opened = b.open(a.outbox.pop()[1], HERE, 0.0)
    assert isinstance(opened, Opened)
    ping = disco.decode_message(opened.plain)
    assert isinstance(ping, Ping)
    pong = disco.encode_message(Pong(ping.tx, HERE))
    a.receive(c.seal(A.node_id, pong)[0], there, 0.01)
    a.receive(b.seal(A.node_id, disco.encode_message(Pong(bytes(12), HERE)))[0], there, 0.01)
    assert a.counters["disco: pong for no ping"] == 2
    a.receive(b.seal(A.node_id, pong)[0], elsewhere, 0.01)
    assert a.counters["disco: pong from elsewhere"] == 1
    assert not any(state.proven for state in remote.paths.values())
    real = b.seal(A.node_id, pong)[0]
    a.receive(real, there, 0.02)
    assert remote.paths[there].proven
    assert remote.paths[there].rtt == pytest.approx(0.02)
    a.receive(real, there, 0.03)
    assert a.counters["disco: replay"] == 1


def test_strangers_get_pongs_and_nothing_else() -> None:
    """A node that nobody holds gets an equally large pong for its ping, within a rate, and leaves no paths."""
    a, b = Sealer(A), DiscoCore(B)
    for _ in range(2000):
        b.receive(a.seal(B.node_id, PLAIN)[0], HERE, 0.0)
    assert 0 < len(b.outbox) <= 500
    assert {path for path, _data in b.outbox} == {HERE}
    assert all(len(data) <= 106 for _path, data in b.outbox)
    assert list(b.remotes()) == []
    assert b.counters["disco: pong beyond the limit"] > 0


def test_no_datagram_makes_the_core_raise() -> None:
    """Truncated, random and perturbed datagrams of every kind are counted, never raised."""
    rng = random.Random(11)
    core, a = DiscoCore(B), Sealer(A)
    core.acquire(A.node_id, 0.0)
    real = a.seal(B.node_id, PLAIN)[0]
    for _ in range(3000):
        data = bytearray(real if rng.random() < 0.5 else rng.randbytes(rng.randint(1, 200)))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        data = data[: rng.randint(1, len(data))]
        data[0] = rng.randint(4, 15)
        core.receive(bytes(data), HERE, 0.0)
    assert sum(core.counters.values()) == 3000
