"""Which source found how many nodes, kept over many runs: it tells an operator which source is still needed."""

from __future__ import annotations

import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Final

import attrs

from tom_connect.config import EndpointConfig
from tom_connect.discovery.health import SourceCounts

logger = logging.getLogger(__name__)

FILE: Final = "discovery-statistics.jsonl"
MAX_FILE: Final = 256 << 10
"""Bytes at which the lines of all runs are made one."""
MAX_SOURCES: Final = 64
_MAX_NAME = 64


def keep_statistics(config: EndpointConfig, counts: Mapping[str, SourceCounts]) -> None:
    """Keep the look-ups of an endpoint that closes, if its configuration lets anything be kept; never raises."""
    directory = config.data_path()
    if directory is not None:
        try:
            add_statistics(directory, counts)
        except OSError as exc:
            logger.info("the look-ups of this run are not counted: %s", exc)


def read_statistics(directory: pathlib.Path) -> dict[str, SourceCounts]:
    """The look-ups of each source in all runs so far; empty if none were kept. Lines that can't be read are left out.

    Raises OSError where the file is there and can't be read.
    """
    try:
        with (directory / FILE).open("rb") as file:
            data = file.read(4 * MAX_FILE)
    except FileNotFoundError:
        return {}
    total: dict[str, SourceCounts] = {}
    for line in data.splitlines():
        for name, counts in _line(line).items():
            if name in total or len(total) < MAX_SOURCES:
                total.setdefault(name, SourceCounts()).add(counts)
    return total


def add_statistics(directory: pathlib.Path, counts: Mapping[str, SourceCounts]) -> None:
    """Keep the look-ups of one run beside those of earlier ones. Raises OSError.

    Each run appends one line in one write, so that programs which end together lose nothing of each other's.
    """
    asked = {name[:_MAX_NAME]: attrs.asdict(count) for name, count in counts.items() if count.asked}
    if not asked:
        return
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / FILE
    line = json.dumps(asked, separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        os.write(descriptor, line)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if size > MAX_FILE:
        _shorten(directory, path)


def _shorten(directory: pathlib.Path, path: pathlib.Path) -> None:
    # What another program appends in this moment is lost: a count or two of a quarter of a megabyte of lines.
    total = {name: attrs.asdict(count) for name, count in read_statistics(directory).items()}
    fresh = directory / f".{FILE}.{os.getpid()}"
    fresh.write_text(json.dumps(total, separators=(",", ":")) + "\n", encoding="utf-8")
    fresh.replace(path)


def _line(line: bytes) -> dict[str, SourceCounts]:
    try:
        read = json.loads(line)
        return {
            str(name)[:_MAX_NAME]: SourceCounts(**{key: _count(value) for key, value in counts.items()})
            for name, counts in read.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise TypeError("not a count")
    return value
