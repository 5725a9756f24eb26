"""The hook reference says of each hook what its specification says; read from both texts, without the generator."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import attrs
import pytest

from tests.docs.markdown import ROOT
from tom_connect import abc, hookspecs
from tom_connect.hookspecs import TomHookSpecs
from tom_connect.plugins import checks, host

PAGE = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
FIRST_WINS = "The first plugin that returns something wins."


def specified() -> dict[str, ast.FunctionDef]:
    """The hooks as their source has them."""
    tree = ast.parse(inspect.getsource(hookspecs))
    (specs,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TomHookSpecs"]
    return {node.name: node for node in specs.body if isinstance(node, ast.FunctionDef)}


@attrs.frozen
class Entry:
    """A hook as the page has it: arguments by name with their types, return type, and the text below."""

    arguments: dict[str, str]
    returns: str
    text: str


def documented() -> dict[str, Entry]:
    """The hooks as the page has them."""
    section = PAGE.partition("## The hooks")[2].partition("\n## ")[0]
    found = {}
    for heading, text in re.findall(r"^### `([^\n]+)`\n(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL):
        match = re.fullmatch(r"(\w+)\((.*)\) -> (.+)", heading)
        assert match, heading
        arguments = dict(part.split(": ") for part in match[2].split(", "))
        found[match[1]] = Entry(arguments, match[3], " ".join(text.replace("<!-- end of generated -->", "").split()))
    return found


SPECIFIED, DOCUMENTED = specified(), documented()


def test_the_page_has_these_hooks_and_no_other() -> None:
    """Every hook of the specification, in its order, and nothing that is none."""
    assert list(DOCUMENTED) == list(SPECIFIED)
    assert set(SPECIFIED) == set(checks.hook_arguments()) and len(SPECIFIED) >= 11


@pytest.mark.parametrize("hook", sorted(SPECIFIED))
def test_arguments_return_type_and_rule(hook: str) -> None:
    """Each hook stands there with its exact arguments, return type and text, and with the rule of the first result."""
    function, entry = SPECIFIED[hook], DOCUMENTED[hook]
    arguments = {a.arg: ast.unparse(a.annotation) for a in function.args.args[1:] if a.annotation is not None}
    assert entry.arguments == arguments
    assert tuple(arguments) == checks.hook_arguments()[hook]
    assert function.returns is not None
    assert entry.returns == ast.unparse(function.returns)
    wins: bool = getattr(TomHookSpecs, hook).tom_connect_spec["firstresult"]
    text = " ".join((ast.get_docstring(function) or "").split())
    assert entry.text == (f"{text} {FIRST_WINS}" if wins else text)


@pytest.mark.parametrize("hook", sorted(host._RESULT_TYPES))
def test_what_a_hook_returns_is_described(hook: str) -> None:
    """The contract that the core accepts from a hook is the one that stands in its return type, and has a section."""
    contract = host._RESULT_TYPES[hook]
    assert re.match(rf"{contract.__name__}\b", DOCUMENTED[hook].returns)
    assert f"\n### `{contract.__name__}`\n" in PAGE


def members(cls: type[Any]) -> dict[str, Any]:
    return {
        name: value
        for base in (cls, *cls.__mro__[1:])
        if base.__module__ == abc.__name__
        for name, value in vars(base).items()
        if not name.startswith("_") and inspect.isfunction(value)
    }


@pytest.mark.parametrize("contract", sorted(host._RESULT_TYPES.values(), key=lambda c: c.__name__))
def test_each_method_of_a_contract_is_there_with_its_arguments(contract: type[Any]) -> None:
    """Name and arguments of each method stand in the contract's section."""
    section = PAGE.partition(f"\n### `{contract.__name__}`\n")[2].partition("\n### ")[0]
    for name, method in members(contract).items():
        heading = re.search(rf"\*\*`(?:async def )?{name}\((.*)\) -> .*`\*\*", section)
        assert heading, f"{contract.__name__}.{name}"
        for argument in list(inspect.signature(method).parameters)[1:]:
            assert re.search(rf"\b{argument}: ", heading[1]), f"{contract.__name__}.{name}: {argument}"


def test_rules_that_hold_for_all_name_what_the_core_does() -> None:
    """The page's general rules: plain functions, fewer arguments, one start and one aclose, public modules."""
    rules = PAGE.partition("Rules that hold")[2].partition("## The hooks")[0]
    for words in ("plain function", "fewer arguments", "`await obj.start()` once", "`await obj.aclose()` once"):
        assert words in " ".join(rules.split())


def test_every_conformance_rule_names_a_place_that_exists() -> None:
    """Where an error says to read there is something to read."""
    from tom_connect.testing.conformance import rules

    every = [*rules.LIFE, *rules.DISCOVERY, *rules.PUBLISHER, *rules.RELAY_TRANSPORT, *rules.DATAGRAM_PROTOCOL]
    assert len({rule.name for rule in every}) == len(every)
    for rule in every:
        name, _, member = rule.where.partition(".")
        cls = getattr(abc, name)
        assert not member or hasattr(cls, member) or member in getattr(cls, "__annotations__", {}), rule
        assert f"`{name}`" in PAGE
        assert not member or f"`{member}" in PAGE or f"{member}(" in PAGE or f"{member}:" in PAGE, rule
