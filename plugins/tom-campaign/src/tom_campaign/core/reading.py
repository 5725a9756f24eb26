"""Reads a scenario from TOML; each mistake is told with file, line and reason."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import attrs

from tom_campaign.core.errors import ScenarioError
from tom_campaign.core.positions import KeyPath, line_numbers, line_of
from tom_campaign.core.scenario import (
    CHOICES,
    EVENTS,
    KINDS,
    MAX_NODES,
    NAT_EVENTS,
    NAT_KINDS,
    NETWORKS,
    PARAMETERS,
    Group,
    PairChoice,
    Parameter,
    Phase,
    Scenario,
    WireSpec,
)

MAX_BYTES: Final = 1 << 20
"""A scenario larger than this is some other file."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")


@attrs.frozen
class Table:
    """A table of the file, with what is needed to tell where a mistake stands."""

    file: str
    lines: Mapping[KeyPath, int]
    path: KeyPath
    values: Mapping[str, Any]

    def wrong(self, key: str, reason: str) -> NoReturn:
        """Raise ScenarioError for a key, or for the table itself if `key` is empty."""
        path = (*self.path, key) if key else self.path
        shown = ".".join(str(part) for part in path if isinstance(part, str))
        where = f"{self.file}, line {line_of(self.lines, path)}"
        raise ScenarioError(f"{where}: {shown}: {reason}" if shown else f"{where}: {reason}")

    def only(self, known: Iterable[str]) -> None:
        """Refuse keys that mean nothing here."""
        known = list(known)
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
                self.wrong(key, f"unknown key; {hint}")

    def table(self, key: str) -> Table:
        """The table below a key, empty if it is not there."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.wrong(key, "expected a table")
        return Table(self.file, self.lines, (*self.path, key), value)

    def tables(self, key: str) -> list[Table]:
        """The tables of `[[key]]`; at least one."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.wrong(key, f"expected tables, each begun by [[{key}]]")
        if not value:
            self.wrong("", f"there is no [[{key}]]; at least one is needed")
        return [Table(self.file, self.lines, (*self.path, key, index), item) for index, item in enumerate(value)]

    def text(self, key: str, default: str | None = None) -> str:
        """A text; raises ScenarioError if it is missing and has no default."""
        value = self.values.get(key, default)
        if value is None:
            self.wrong("", f'{key} is missing; say {key} = "..."')
        if not isinstance(value, str) or len(value) > 2000:
            self.wrong(key, f"{_shown(value)} is not allowed; expected a text")
        return value

    def word(self, key: str, words: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        if key not in self.values and default is None:
            self.wrong("", f"{key} is missing; expected one of {', '.join(words)}")
        value = self.text(key, default)
        if value not in words:
            self.wrong(key, f"{_shown(value)} is not allowed; expected one of {', '.join(words)}")
        return value

    def name(self, key: str, default: str | None = None) -> str:
        """A name of lower-case letters, digits and hyphens."""
        value = self.text(key, default)
        if not _NAME.fullmatch(value):
            self.wrong(key, f"{_shown(value)} is not allowed; expected 1 to 20 lower-case letters, digits and hyphens")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number in a range."""
        value = self.values.get(key, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not low <= value <= high:
            self.wrong(key, f"{_shown(value)} is not allowed; expected a number from {low:,.10g} to {high:,.10g}")
        return float(value)

    def whole(self, key: str, default: int, low: float, high: float) -> int:
        """A whole number in a range."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            expected = f"a whole number from {int(low):,} to {int(high):,}"
            self.wrong(key, f"{_shown(value)} is not allowed; expected {expected}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.wrong(key, f"{_shown(value)} is not allowed; expected true or false")
        return value


def _shown(value: object) -> str:
    """A value about as TOML writes it, not too long."""
    text = str(value).lower() if isinstance(value, (bool, datetime.date, datetime.time)) else repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def read_scenario(data: bytes, file: str) -> Scenario:
    """The scenario in the bytes of a TOML file; `file` is its name in messages. Raises ScenarioError."""
    root = _parse(data, file)
    root.only(("name", "description", "seed", "jobs", "find", "dht", "relay", "pairs", "group", "phase"))
    dht, relay = root.table("dht"), root.table("relay")
    dht.only(("nodes",))
    relay.only(("count",))
    groups = _groups(root)
    default_pairs = _pairs(root.table("pairs"), PairChoice())
    has_dht = "dht" in root.values
    scenario = Scenario(
        name=root.name("name"),
        description=root.text("description", ""),
        seed=root.whole("seed", 0, 0, 2**63 - 1),
        jobs=root.whole("jobs", 4, 1, 64),
        find=root.word("find", ("id", "ticket"), "id" if has_dht else "ticket"),  # type: ignore[arg-type]
        dht_nodes=dht.whole("nodes", 30, 8, 200) if has_dht else 0,
        relays=relay.whole("count", 1, 1, 4) if "relay" in root.values else 0,
        groups=groups,
        phases=_phases(root, default_pairs),
        digest=hashlib.sha256(data).hexdigest(),
    )
    _check_together(root, scenario)
    return scenario


def _parse(data: bytes, file: str) -> Table:
    if len(data) > MAX_BYTES:
        raise ScenarioError(f"{file}: larger than {MAX_BYTES} bytes, so it is no scenario")
    try:
        text = data.decode("utf-8-sig")
        return Table(file, line_numbers(text), (), tomllib.loads(text))
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise ScenarioError(f"{file}, line {line}: not UTF-8 text") from None
    except (ValueError, RecursionError) as exc:
        reason = " ".join(str(exc).split())
        at = re.search(r"\s*\(at line (\d+), column \d+\)", reason)
        line = int(at[1]) if at else text.count("\n") + 1
        raise ScenarioError(f"{file}, line {line}: not valid TOML: {_toml_reason(reason, at)}") from None


def _toml_reason(reason: str, at: re.Match[str] | None) -> str:
    """What `tomllib` says, with a hint where its words are those of a parser."""
    said = reason[: at.start()] if at else reason
    if twice := re.fullmatch(r"Cannot declare \('(\w+)',\) twice", said):
        return f"there is a [{twice[1]}] already; each one of several is begun by [[{twice[1]}]]"
    if said == "Cannot overwrite a value":
        return "this key stands there already"
    if said == r"Illegal character '\n'":
        return "a text ends on the line on which it begins; is a quotation mark missing?"
    if said == "Invalid value":
        return "there is no value that TOML knows; texts stand in quotation marks"
    return said


def _groups(root: Table) -> tuple[Group, ...]:
    groups: list[Group] = []
    for table in root.tables("group"):
        table.only(("name", "network", "count", "nat", "wire", "config", "nodes", "published"))
        network = table.word("network", NETWORKS)
        for key, where in (("nat", "natlab"), ("wire", "natlab"), ("nodes", "remote")):
            if key in table.values and network != where:
                table.wrong(key, f"only a group with network = {where!r} has it")
        if network == "remote":
            for key in ("config", "count"):
                if key in table.values:
                    table.wrong(key, "a responder has its own configuration; list the responders in nodes")
        name = table.name("name")
        if name.startswith("campaign-"):
            table.wrong("name", "names that begin with campaign- are kept for the campaign's own DHT and relays")
        if name in [group.name for group in groups]:
            table.wrong("name", f"{name!r} is the name of an earlier group")
        nodes = _remote_nodes(table) if network == "remote" else ()
        groups.append(
            Group(
                name=name,
                network=network,  # type: ignore[arg-type]
                count=len(nodes) if network == "remote" else table.whole("count", 1, 1, MAX_NODES),
                nat=table.word("nat", NAT_KINDS, "moderate") if network == "natlab" else None,
                wire=_wire(table.table("wire")) if "wire" in table.values else None,
                config=table.table("config").values,
                nodes=nodes,
                published=table.flag("published", True),
            )
        )
    if (total := sum(group.count for group in groups)) > MAX_NODES:
        root.wrong("group", f"{total} nodes are too many; at most {MAX_NODES} in all")
    if total < 2:
        root.wrong("group", "one node has nobody to talk to; at least two are needed")
    return tuple(groups)


def _remote_nodes(table: Table) -> tuple[str, ...]:
    value = table.values.get("nodes")
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        table.wrong("nodes" if "nodes" in table.values else "", "nodes: expected a list of node ids or tickets")
    if len(set(value)) != len(value):
        table.wrong("nodes", "a node is named twice")
    return tuple(value)


def _wire(table: Table) -> WireSpec:
    table.only(("delay_ms", "jitter_ms", "loss_pct", "rate_mbit"))
    return WireSpec(
        delay_ms=table.number("delay_ms", 0.0, 0.0, 10_000.0),
        jitter_ms=table.number("jitter_ms", 0.0, 0.0, 10_000.0),
        loss_pct=table.number("loss_pct", 0.0, 0.0, 100.0),
        rate_mbit=table.number("rate_mbit", 1.0, 0.001, 100_000.0) if "rate_mbit" in table.values else None,
    )


def _pairs(table: Table, default: PairChoice) -> PairChoice:
    table.only(("choose", "count"))
    choose = table.word("choose", CHOICES, default.choose)
    if choose == "all" and "count" in table.values:
        table.wrong("count", "with choose = 'all' there is nothing to count")
    return PairChoice(
        choose=choose,  # type: ignore[arg-type]
        count=table.whole("count", default.count, 1, 10_000),
    )


def _phases(root: Table, default_pairs: PairChoice) -> tuple[Phase, ...]:
    phases: list[Phase] = []
    for table in root.tables("phase"):
        kind = table.word("kind", KINDS)
        parameters = PARAMETERS[kind]  # type: ignore[index]
        table.only(("kind", "name", "pairs", "judged", *parameters))
        name = table.name("name", kind)
        if name in [phase.name for phase in phases]:
            table.wrong("name" if "name" in table.values else "kind", f"a phase is called {name!r} already; name it")
        phases.append(
            Phase(
                name=name,
                kind=kind,  # type: ignore[arg-type]
                pairs=_pairs(table.table("pairs"), default_pairs) if "pairs" in table.values else default_pairs,
                judged=table.flag("judged", True),
                parameters={key: _parameter(table, key, spec) for key, spec in parameters.items()},
            )
        )
        _check_times(table, phases[-1])
    return tuple(phases)


def _parameter(table: Table, key: str, spec: Parameter) -> Any:
    if isinstance(spec.default, bool):
        return table.flag(key, spec.default)
    if isinstance(spec.default, str):
        return table.word(key, spec.words, spec.default)
    if isinstance(spec.default, int):
        return table.whole(key, spec.default, spec.low, spec.high)
    return table.number(key, spec.default, spec.low, spec.high)


def _check_times(table: Table, phase: Phase) -> None:
    values = phase.parameters
    if phase.kind == "failover" and values["before"] >= values["duration"]:
        table.wrong("before", "it must happen before the end: before is to be less than duration")
    if phase.kind == "endurance" and values["every"] > values["duration"]:
        table.wrong("every", "no rolling record would come: every is to be at most duration")


def _check_together(root: Table, scenario: Scenario) -> None:
    """What depends on more than one table."""
    if {"local", "natlab"} <= scenario.networks:
        root.wrong("group", "local and natlab nodes can't reach each other; choose one network for all groups")
    if "remote" in scenario.networks and "natlab" in scenario.networks:
        root.wrong("group", "natlab nodes can't reach remote ones: nothing leaves a lab")
    if "remote" in scenario.networks:
        for key, given in (("dht", scenario.dht_nodes), ("relay", scenario.relays)):
            if given:
                root.wrong(key, "remote responders can't use the campaign's own; configure theirs")
    if scenario.find == "id" and not scenario.dht_nodes:
        for table, group in zip(root.tables("group"), scenario.groups, strict=True):
            if group.network != "remote" and "plugins" not in group.config:
                table.wrong("", "with find = 'id' something must find its nodes; add [dht], or plugins to its config")
    for table, phase in zip(root.tables("phase"), scenario.phases, strict=True):
        if phase.kind == "discovery" and scenario.find != "id":
            table.wrong("kind", "nodes that are dialed by ticket are not looked up; add [dht], or say find = 'id'")
        if phase.pairs.choose == "nat" and scenario.networks != {"natlab"}:
            where = table if "pairs" in table.values else root
            where.wrong("pairs", "choose = 'nat' needs natlab nodes: only theirs are NATs that we know")
        if phase.kind != "failover":
            continue
        event, natlab = phase.parameters["event"], scenario.networks == {"natlab"}
        assert event in EVENTS
        if event in NAT_EVENTS and not natlab:
            table.wrong("event", f"{event} needs natlab nodes: no other network is ours to change")
        if event == "kill_relay" and not scenario.relays:
            table.wrong("event", "there is no relay to kill; add [relay]")
        if event == "kill_node" and "remote" in scenario.networks:
            table.wrong("event", "remote responders are not ours to kill")
