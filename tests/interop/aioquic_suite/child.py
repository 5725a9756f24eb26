"""Runs tests of aioquic with qlog off and, if asked, with our overrides in the place of its classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest


class Clock:
    """Stands for the `time` module: each look at it takes half a millisecond, however fast the code is."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0

    def time(self) -> float:
        self._now += 0.0005
        return self._now


class Collector:
    """Notes how each test ended, and gives the tests that pace by the wall clock one that is the same in each run."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.errors: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for module in {item.module for item in items}:
            if module.__name__.endswith("test_connection"):
                module.time = Clock()
                module.disable_packet_pacing = never_pace

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
            self.errors[report.nodeid] = str(report.longrepr)[-1500:]
        elif report.when == "call" and report.passed:
            self.passed.append(report.nodeid)


def never_pace(quic: Any) -> None:
    """Do what the suite does by a pacer that always says yes, in a way that leaves the pacer's class alone."""
    pacer = quic._loss._pacer
    pacer.update_rate = lambda **_rate: None


def qlog_off() -> None:
    """Let a configured logger make no trace."""
    from aioquic.quic.connection import QuicConnection

    original = QuicConnection.__init__

    def without_trace(self: Any, *, configuration: Any, **rest: Any) -> None:
        logger, configuration.quic_logger = configuration.quic_logger, None
        original(self, configuration=configuration, **rest)
        configuration.quic_logger = logger

    QuicConnection.__init__ = without_trace  # type: ignore[method-assign]


def overrides_on(counters: dict[str, int]) -> None:
    """Put our classes where aioquic and its tests look for its own."""
    from aioquic.quic import connection, recovery

    from tom_connect.quic.fastack import FastPacer, FastRecovery
    from tom_connect.quic.fastreceive import FastReceive

    class Connection(FastReceive):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.__dict__["fast_packets_sent"] = self.__dict__["fast_packets_received"] = 0

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("fast_packets"):
                counters[name] += value - getattr(self, name)
            super().__setattr__(name, value)

    class Recovery(FastRecovery):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "fast_acks":
                counters[name] += 1
            super().__setattr__(name, value)

    connection.QuicConnection = Connection  # type: ignore[misc]
    connection.QuicPacketRecovery = recovery.QuicPacketRecovery = Recovery  # type: ignore[misc]
    recovery.QuicPacketPacer = FastPacer  # type: ignore[misc]


def main() -> int:
    mode, report, *files = sys.argv[1:]
    sys.path.insert(0, str(Path.cwd()))
    qlog_off()
    counters: dict[str, int] = {}
    if mode == "fast":
        counters = {"fast_packets_sent": 0, "fast_packets_received": 0, "fast_acks": 0}
        overrides_on(counters)
    collector = Collector()
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=short", "-c", "/dev/null"]
    options += ["--rootdir", str(Path.cwd()), "-W", "ignore"]
    pytest.main([*options, *files], plugins=[collector])
    Path(report).write_text(
        json.dumps(
            {
                "passed": collector.passed,
                "failed": collector.failed,
                "errors": collector.errors,
                "counters": counters,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
