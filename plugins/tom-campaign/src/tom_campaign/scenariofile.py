"""Finds a scenario's file, or one that is shipped, and checks what only this machine can tell."""

from __future__ import annotations

import importlib.resources
import pathlib
from collections.abc import Callable, Mapping
from typing import Final

from tom_campaign.core.errors import ScenarioError
from tom_campaign.core.positions import line_numbers, line_of
from tom_campaign.core.reading import MAX_BYTES, read_scenario
from tom_campaign.core.scenario import Scenario
from tom_campaign.core.schedule import TooManyStepsError, steps_of
from tom_campaign.networks.lab import lab_problem
from tom_campaign.networks.population import node_options
from tom_campaign.nodes.configuring import endpoint_config
from tom_connect.exceptions import ConfigError, InvalidInputError
from tom_connect.tickets import parse_target

SUFFIX: Final = ".toml"


def shipped_scenarios() -> tuple[str, ...]:
    """Names of the scenarios that come with this package."""
    folder = importlib.resources.files("tom_campaign") / "scenarios"
    return tuple(sorted(entry.name.removesuffix(SUFFIX) for entry in folder.iterdir() if entry.name.endswith(SUFFIX)))


def scenario_text(name: str) -> tuple[bytes, str]:
    """The bytes of a scenario, a path or the name of a shipped one, and how messages call it. Raises ScenarioError."""
    if name in shipped_scenarios():
        data = (importlib.resources.files("tom_campaign") / "scenarios" / f"{name}{SUFFIX}").read_bytes()
        return data, f"{name}{SUFFIX} (shipped)"
    path = pathlib.Path(name)
    near = f"; did you mean {name}{SUFFIX}?" if path.with_name(path.name + SUFFIX).is_file() else ""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1), str(path)
    except FileNotFoundError:
        raise ScenarioError(
            f"{path}: there is no such file, and no shipped scenario of that name; shipped: "
            f"{', '.join(shipped_scenarios())}{near}"
        ) from None
    except (OSError, ValueError) as exc:
        raise ScenarioError(f"{path}: {getattr(exc, 'strerror', None) or exc}") from None


def load_scenario(name: str) -> Scenario:
    """A scenario that can be run here; raises ScenarioError with file, line and reason."""
    data, file = scenario_text(name)
    scenario = read_scenario(data, file)
    lines = line_numbers(data.decode("utf-8-sig"))

    def place(index: int, *keys: str) -> str:
        return f"{file}, line {line_of(lines, ('group', index, *keys))}"

    try:
        steps_of(scenario)
    except TooManyStepsError as exc:
        raise ScenarioError(f"{file}, line {line_of(lines, ('phase', exc.phase))}: phase: {exc}") from None
    if "natlab" in scenario.networks and (problem := lab_problem()) is not None:
        index = next(i for i, group in enumerate(scenario.groups) if group.network == "natlab")
        raise ScenarioError(f"{place(index, 'network')}: natlab nodes need {problem} on this machine")
    for index, group in enumerate(scenario.groups):
        if group.network == "remote":
            for target in group.nodes:
                try:
                    parse_target(target)
                except InvalidInputError as exc:
                    raise ScenarioError(f"{place(index, 'nodes')}: {exc}") from None
            continue

        def origin(keys: tuple[str, ...], index: int = index) -> str:
            return place(index, "config", *keys)

        # First as it is written: what a campaign adds can be added to what makes sense only.
        _check_config(group.config, origin)
        options = node_options(
            group,
            bootstrap=["127.0.0.1:1"] if scenario.dht_nodes else None,
            relays=["http://127.0.0.1:1/"] if scenario.relays else [],
        )
        _check_config(options, origin)
    return scenario


def _check_config(options: Mapping[str, object], origin: Callable[[tuple[str, ...]], str]) -> None:
    try:
        endpoint_config(options, origin)
    except ConfigError as exc:
        raise ScenarioError(str(exc)) from None
