"""A new aioquic that moved a name fails with a clear error, or switches an override off."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic import connection, recovery, stream

from tom_connect.exceptions import LocalError, TomError
from tom_connect.quic import fastpath, names
from tom_connect.quic.fastreceive import FastReceive


def test_the_installed_aioquic_has_all_names() -> None:
    """The aioquic that the tests run with has everything that we use."""
    assert names.missing_names() == []
    names.require()


@pytest.mark.parametrize(
    ("owner", "name", "told"),
    [
        (tls.Context, "_set_peer_certificate", "Context._set_peer_certificate"),
        (tls.Context, "_server_expect_finished", "Context._server_expect_finished"),
        (connection.QuicConnection, "_initialize", "QuicConnection._initialize"),
        (connection.QuicConnection, "_write_stream_limits", "QuicConnection._write_stream_limits"),
        (recovery.QuicPacketRecovery, "reschedule_data", "QuicPacketRecovery.reschedule_data"),
        (connection, "Limit", "Limit"),
    ],
)
def test_a_name_that_moved_is_told(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, told: str) -> None:
    """A missing name is a TomError that names it and says which versions to install."""
    monkeypatch.delattr(owner, name)
    with pytest.raises(names.IncompatibleAioquicError) as caught:
        names.require()
    assert told in str(caught.value)
    assert "aioquic>=1.7.2,<1.8" in str(caught.value) and "pip install" in str(caught.value)
    assert isinstance(caught.value, TomError) and isinstance(caught.value, LocalError)


def test_other_parameters_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that now takes other parameters counts as moved."""
    monkeypatch.setattr(connection.QuicConnection, "_initialize", lambda self, peer_cid, extra: None)
    assert names.missing_names() == ["aioquic.quic.connection.QuicConnection._initialize(self, peer_cid, extra)"]


def test_an_instance_attribute_that_moved_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes that only instances have are checked on instances."""
    original = connection.QuicConnection.__init__

    def changed(self: Any, **arguments: Any) -> None:
        original(self, **arguments)
        del self._datagrams_pending

    monkeypatch.setattr(connection.QuicConnection, "__init__", changed)
    assert names.missing_names() == ["QuicConnection._datagrams_pending"]


def test_the_error_comes_at_import() -> None:
    """Importing the transport with such an aioquic fails with that message and nothing else."""
    program = (
        "import aioquic.quic.connection as c\n"
        "del c.QuicConnection._initialize\n"
        "try:\n    import tom_connect.quic.engine\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("IncompatibleAioquicError tom-connect needs aioquic")
    assert "QuicConnection._initialize" in done.stdout


def test_all_overrides_run_with_the_installed_aioquic() -> None:
    """With the aioquic that they were written against, every speed override is on."""
    assert fastpath.detect() == fastpath.FastPaths(send=True, receive=True, ack=True, pacer=True)
    assert set(fastpath.REPORT.values()) == {"on"}


@pytest.mark.parametrize(
    ("owner", "name", "off"),
    [
        (connection.QuicConnection, "_write_application", {"send"}),
        (connection.QuicConnection, "receive_datagram", {"receive"}),
        (stream.QuicStreamReceiver, "handle_frame", {"receive"}),
        (stream.QuicStreamSender, "on_data_delivery", {"send", "ack"}),
        (recovery.QuicPacketRecovery, "on_ack_received", {"ack"}),
        (recovery.QuicPacketPacer, "update_rate", {"pacer"}),
    ],
)
def test_an_override_of_changed_code_is_off(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, off: set[str]
) -> None:
    """Where a body that an override stands in for has changed, that override is off and the others stay on."""

    def other(self: Any, *arguments: Any, **named: Any) -> None:
        """Not the code that was reviewed."""

    monkeypatch.setattr(owner, name, other)
    found = fastpath.detect()
    assert {kind for kind in fastpath.FUNCTIONS if not getattr(found, kind)} == off


@pytest.mark.parametrize("override", sorted(fastpath.FUNCTIONS))
def test_an_override_without_its_function_is_off(monkeypatch: pytest.MonkeyPatch, override: str) -> None:
    """A function that is gone switches the override off without an error."""
    module, path = fastpath.FUNCTIONS[override][0]
    cls, _, method = path.rpartition(".")
    monkeypatch.delattr(names.lookup(module, cls), method)
    assert not fastpath.usable(override)


def test_without_sources_the_version_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a frozen application there is no source to compare, so only the reviewed version is trusted."""
    monkeypatch.setattr(fastpath, "digest", lambda _functions: None)
    monkeypatch.setattr(fastpath.importlib.metadata, "version", lambda _name: "1.7.2")
    assert fastpath.usable("send")
    monkeypatch.setattr(fastpath.importlib.metadata, "version", lambda _name: "1.7.3")
    assert not fastpath.usable("send")


def test_the_engine_works_with_the_overrides_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every override off a transfer still arrives, and the counters show that none ran."""
    from tests.unit.quic.pair import Network
    from tom_connect.quic.fastack import FastPacer, FastRecovery

    monkeypatch.setattr(FastReceive, "fast_send", False)
    monkeypatch.setattr(FastReceive, "fast_receive", False)
    monkeypatch.setattr(FastRecovery, "fast_ack", False)
    monkeypatch.setattr(FastPacer, "fast", False)
    network = Network()
    client, server = network.connect()
    network.links(loss=0.02)
    stream_id = client.open_stream(uni=True)
    client.send_stream_data(stream_id, bytes(300_000), end_stream=True)
    network.pump(network.client)
    network.run(lambda: stream_id in network.server.finished, 120)
    assert len(network.server.received[stream_id]) == 300_000
    assert client.stats.fast_packets_sent == server.stats.fast_packets_received == 0


def test_an_aioquic_that_does_not_import_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where aioquic or something below it is missing, the error says that and not that every name has moved."""
    monkeypatch.setitem(sys.modules, "aioquic.quic.connection", None)
    with pytest.raises(names.IncompatibleAioquicError, match="in working order") as caught:
        names.require()
    assert "_initialize" not in str(caught.value)
