"""The reference says what the code does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.docs.reference import REFERENCE, generated_pages, regenerated


@pytest.mark.parametrize("page", generated_pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_generated_parts_are_up_to_date(page: Path) -> None:
    """What a page says of names, arguments, options and defaults is what the code has: else run
    `python -m tests.docs.reference`."""
    text = page.read_text(encoding="utf-8")
    assert text == regenerated(text), f"{page.name} is out of date: run python -m tests.docs.reference"


def test_every_hook_is_in_the_reference() -> None:
    """Each hook of the specification is named in the hook reference."""
    from tom_connect.hookspecs import TomHookSpecs

    text = (REFERENCE / "hooks.md").read_text(encoding="utf-8")
    assert [name for name in vars(TomHookSpecs) if name.startswith("tom_") and f"`{name}(" not in text] == []


def test_every_public_name_is_in_the_reference() -> None:
    """Each public name of the package is named in the API reference."""
    import tom_connect

    text = (REFERENCE / "api.md").read_text(encoding="utf-8")
    assert [name for name in tom_connect.__all__ if f"`{name}`" not in text and f"`{name}(" not in text] == []


def printed_events() -> set[str]:
    """The names of the events that commands print, as their sources spell them."""
    names = set()
    for source in (*ROOT.glob("tom_connect/cli/*.py"), *ROOT.glob("plugins/*/src/**/cli.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"event", "table", "_step"}
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                names.add(node.args[0].value)
    return names


def test_every_event_is_in_the_reference() -> None:
    """Each event that a command prints with --json stands in the table of events."""
    names = printed_events()
    assert {"online", "published", "resolved", "connected", "path", "pong", "summary", "stored", "value"} <= names
    table = (REFERENCE / "cli.md").read_text(encoding="utf-8").partition("## Events")[2].partition("## Commands")[0]
    named = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    assert [name for name in sorted(names) if f"`{name}`" not in named] == []
