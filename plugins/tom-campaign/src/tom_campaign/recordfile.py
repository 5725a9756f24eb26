"""The file of a campaign's records: written line by line, read to go on or to be shown."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import IO, Final

import attrs

from tom_campaign.core.errors import RecordFileError
from tom_campaign.core.records import (
    CampaignStarted,
    CampaignSummary,
    EnduranceRolling,
    PhaseResult,
    Record,
    decoded,
    encoded,
)
from tom_campaign.core.scenario import Scenario

MAX_BYTES: Final = 1 << 30
"""A file larger than this is not read: 100,000 records have a few hundred MiB."""


@attrs.frozen
class Recorded:
    """What a file tells of all runs of a campaign together."""

    started: tuple[CampaignStarted, ...]
    results: tuple[PhaseResult, ...]
    rolling: tuple[EnduranceRolling, ...]
    """Without the windows of steps that were interrupted and then done anew."""
    summary: CampaignSummary | None
    """The last one."""
    elapsed_s: float
    """Seconds that all runs took; of a run without a summary, from its start to its last record."""
    dead_nodes: frozenset[str]
    """Nodes that died in any run, as far as summaries tell."""
    whole: int
    """Bytes up to the end of the last whole line."""


def read_records(path: pathlib.Path) -> Recorded:
    """Read a file; raises RecordFileError with file, line and reason. A last line that is cut off is left out."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordFileError(f"{path}: larger than {MAX_BYTES} bytes")
        data = path.read_bytes()
    except OSError as exc:
        raise RecordFileError(f"{path}: {exc.strerror or exc}") from None
    whole = data.rfind(b"\n") + 1
    records: list[Record] = []
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            records.append(decoded(line.decode()))
        except UnicodeDecodeError:
            raise RecordFileError(f"{path}, line {number}: not UTF-8 text") from None
        except RecordFileError as exc:
            raise RecordFileError(f"{path}, line {number}: {exc}") from None
    return _sorted(records, whole)


def _sorted(records: Iterable[Record], whole: int) -> Recorded:
    started: list[CampaignStarted] = []
    results: dict[str, PhaseResult] = {}
    rolling: list[EnduranceRolling] = []
    summary: CampaignSummary | None = None
    dead: set[str] = set()
    elapsed, began, last = 0.0, None, 0.0
    for record in records:
        if isinstance(record, CampaignStarted):
            elapsed += 0.0 if began is None else max(0.0, last - began)  # a run that was killed
            began = last = record.at
            started.append(record)
            rolling = [window for window in rolling if window.step in results]
        elif isinstance(record, CampaignSummary):
            elapsed, began = record.elapsed_s, None
            summary = record
            dead.update(record.dead_nodes)
        else:
            last = record.at
            if isinstance(record, PhaseResult):
                results[record.step] = record
            else:
                rolling.append(record)
    return Recorded(
        started=tuple(started),
        results=tuple(results.values()),
        rolling=tuple(rolling),
        summary=summary,
        elapsed_s=elapsed + (0.0 if began is None else max(0.0, last - began)),
        dead_nodes=frozenset(dead),
        whole=whole,
    )


def resumed(path: pathlib.Path, scenario: Scenario) -> Recorded:
    """What was done already of a scenario; raises RecordFileError if the file is of another one."""
    if not path.exists():
        raise RecordFileError(f"{path}: there is no such file to go on with; without --resume a campaign begins")
    found = read_records(path)
    for started in found.started:
        if started.digest != scenario.digest:
            raise RecordFileError(
                f"{path}: these are records of another scenario, or it was changed since ({started.campaign}, "
                f"digest {started.digest[:12]}; now {scenario.name}, {scenario.digest[:12]}); begin a new file"
            )
    never_began = path.stat().st_size == 0  # it was killed while its nodes were being started
    if not found.started and (found.results or found.summary is None) and not never_began:
        raise RecordFileError(f"{path}: it does not say of which scenario it is, so it can't be continued")
    return found


class RecordWriter:
    """Appends records to a file; each is in the file when `write` returns."""

    def __init__(self, path: pathlib.Path, *, keep: int | None = None) -> None:
        """Make the file, or go on after its first `keep` bytes. Raises RecordFileError."""
        try:
            if keep is None:
                self._file: IO[str] = path.open("x", encoding="utf-8", newline="\n")
            else:
                self._file = path.open("r+", encoding="utf-8", newline="\n")
                self._file.truncate(keep)
                self._file.seek(0, 2)
        except FileExistsError:
            raise RecordFileError(
                f"{path}: there is such a file already; go on with --resume {path}, or name another with --output"
            ) from None
        except OSError as exc:
            raise RecordFileError(f"{path}: {exc.strerror or exc}") from None

    def write(self, record: Record) -> None:
        """Append a record; raises OSError."""
        self._file.write(encoded(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
