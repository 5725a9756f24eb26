"""Writes the parts of the reference that the code itself knows: API, hooks, configuration, command line.

`python -m tests.docs.reference` rewrites what stands between the markers of each page; a test compares.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from tests.docs.markdown import ROOT

REFERENCE = ROOT / "docs" / "reference"
_MARKED = re.compile(r"(<!-- generated: (\S+?)(?: ([^\n]*?))? -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def signature(name: str, function: Any) -> str:
    """The call as one writes it, annotations as in the source."""
    found = inspect.signature(function)
    parts: list[str] = []
    for parameter in found.parameters.values():
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else stars
        text = f"{stars}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            text += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {shown_argument(parameter.default)}"
        parts.append(text)
    returns = "" if found.return_annotation is found.empty else f" -> {annotation(found.return_annotation)}"
    prefix = "async def " if inspect.iscoroutinefunction(function) else ""
    return f"{prefix}{name}({', '.join(parts)}){returns}"


def shown_argument(default: object) -> str:
    """A default as one writes it; a function by its name, since what it is made of has an address in memory."""
    if inspect.isfunction(default):
        return "..." if default.__name__ == "<lambda>" else default.__name__
    return repr(default)


def annotation(kind: object) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def docstring(thing: object) -> str:
    return inspect.cleandoc(getattr(thing, "__doc__", None) or "")


def table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)]) + "\n"


# API


def fields(cls: type[Any]) -> str:
    """A table of the fields of an attrs class, with the text that the source has below each."""
    notes = field_notes(cls)
    rows = []
    for field in attrs.fields(cls):
        if field.name.startswith("_"):
            continue
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        default = "required" if field.default is attrs.NOTHING else shown_default(field.default)
        rows.append(
            [f"`{field.name}`", f"`{kind}`", default, meaning(field.metadata.get("help"), notes.get(field.name))]
        )
    return table(["field", "type", "default", "meaning"], rows)


def class_attributes(cls: type[Any]) -> str:
    """A table of what subclasses may set, with the text that the source has below each; empty if there is nothing."""
    notes = field_notes(cls)
    found: dict[str, str] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("tom_connect"):
            for name, kind in vars(base).get("__annotations__", {}).items():
                if not name.startswith("_") and name in vars(base):
                    found.setdefault(name, annotation(kind))
    rows = [
        [f"`{name}`", f"`{kind}`", shown_default(getattr(cls, name)), notes.get(name, "")]
        for name, kind in found.items()
    ]
    return table(["attribute", "type", "default", "meaning"], rows) if rows else ""


def meaning(short: str | None, note: str | None) -> str:
    return ". ".join(filter(None, [short, note]))


def shown_default(default: object) -> str:
    return "new" if isinstance(default, attrs.Factory) else f"`{default!r}`"  # type: ignore[arg-type]


def field_notes(cls: type[Any]) -> dict[str, str]:
    """The string literals that stand below fields in the source, by field name."""
    import ast

    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, after in itertools.pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[statement.target.id] = " ".join(inspect.cleandoc(after.value.value).split())
    return found


# Methods that parts of the core call on each other: public in Python's sense alone.
INSIDE = frozenset(
    "link_event link_moved link_closed stream_write stream_backlog stream_sent stream_reset stream_stop "
    "stream_consumed watch_sending unwatch_sending extra_info".split()
)


def own_members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class or a base inside the project defines, in source order."""
    seen = set(INSIDE)
    for base in cls.__mro__:
        if not base.__module__.startswith(("tom_connect", "tom_dht_mainline")):
            continue
        for name, member in vars(base).items():
            if name in seen or name.startswith("_"):
                continue
            seen.add(name)
            if isinstance(member, (classmethod, staticmethod, property)) or inspect.isfunction(member):
                yield name, member


def api_class(name: str, cls: type[Any], level: int = 3) -> str:
    parts = [f"{'#' * level} `{name}`\n", docstring(cls) + "\n"]
    if (
        attrs.has(cls)
        and not issubclass(cls, BaseException)
        and any(not f.name.startswith("_") for f in attrs.fields(cls))
    ):
        parts.append(fields(cls))
    elif not issubclass(cls, (BaseException, tuple)) and (told := class_attributes(cls)):
        parts.append(told)
    for member_name, member in own_members(cls):
        if isinstance(member, property):
            title = f"`{member_name}`"
            if (
                member.fget is not None
                and (kind := inspect.signature(member.fget).return_annotation) is not inspect.Signature.empty
            ):
                title = f"`{member_name}: {kind if isinstance(kind, str) else kind.__name__}`"
        else:
            title = f"`{signature(member_name, getattr(cls, member_name))}`"
        text = docstring(member)
        parts.append(f"**{title}**  \n{text}\n" if text else f"**{title}**\n")
    return "\n".join(parts)


def api(module_name: str) -> str:
    """Everything in a module's `__all__`, or its public classes and functions."""
    module = importlib.import_module(module_name)
    names = list(getattr(module, "__all__", ())) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module_name
    ]  # fmt: skip
    things = [(name, getattr(module, name)) for name in names]
    classes = [(n, t) for n, t in things if inspect.isclass(t) and not issubclass(t, BaseException)]
    functions = [(n, t) for n, t in things if inspect.isfunction(t)]
    errors = [(n, t) for n, t in things if inspect.isclass(t) and issubclass(t, BaseException)]
    parts = [api_class(name, cls) for name, cls in classes]
    parts += [f"### `{signature(name, function)}`\n\n{docstring(function)}\n" for name, function in functions]
    if errors:
        rows = [[f"`{n}`", f"`{t.__base__.__name__}`", " ".join(docstring(t).split())] for n, t in errors]
        parts.append(table(["error", "is a", "meaning"], rows))
    return "\n".join(parts)


# Hooks


def hooks() -> str:
    from tom_connect.hookspecs import TomHookSpecs

    parts = []
    for name, function in vars(TomHookSpecs).items():
        if name.startswith("tom_"):
            rule = getattr(function, "tom_connect_spec", {})
            note = "\n\nThe first plugin that returns something wins." if rule.get("firstresult") else ""
            parts.append(f"### `{signature(name, function)}`\n\n{docstring(function)}{note}\n")
    return "\n".join(parts)


# What tests have


def rules() -> str:
    """The rules that conformance checks look after, by contract."""
    from tom_connect.testing.conformance import rules as known

    groups = {
        "Every object that a hook returns": known.LIFE,
        "Discovery": known.DISCOVERY,
        "Publisher": known.PUBLISHER,
        "RelayTransport": known.RELAY_TRANSPORT,
        "DatagramProtocol": known.DATAGRAM_PROTOCOL,
    }
    return "\n".join(
        f"### {title}\n\n{table(['rule', 'what holds'], [[f'`{rule.name}`', rule.text] for rule in group])}"
        for title, group in groups.items()
    )


def fixtures() -> str:
    """The fixtures that the pytest plugin brings."""
    from tom_connect.testing import pytest_plugin

    found = {name: value for name, value in vars(pytest_plugin).items() if type(value).__name__ == FIXTURE}
    rows = [[f"`{name}`", " ".join(docstring(value).split())] for name, value in found.items()]
    return table(["fixture", "what it gives"], rows)


FIXTURE = "FixtureFunctionDefinition"


# Configuration


def config(section: str = "", path: str = "") -> str:
    from tom_connect.config.schema import endpoint_options, section_options

    if section:
        module, _, name = path.partition(":")
        options = section_options(section, getattr(importlib.import_module(module), name))
    else:
        options = endpoint_options()
    rows = [
        [
            f"`{spec.name}`",
            spec.expected,
            f"`{spec.default}`" if spec.default not in (None, ()) else "none",
            f"`{spec.env}`",
            f"`{spec.flag}`" if spec.on_cli else "none",
            spec.help,
        ]
        for spec in options
    ]
    return table(["in the file", "value", "default", "environment", "option", "meaning"], rows)


def program_only() -> str:
    from tom_connect.config import EndpointConfig

    notes = field_notes(EndpointConfig)
    rows = [
        [f"`{f.name}`", f"`{f.type}`", shown_default(f.default), meaning(f.metadata["help"], notes.get(f.name))]
        for f in attrs.fields(EndpointConfig)
        if f.metadata.get("program_only")
    ]
    return table(["field", "type", "default", "meaning"], rows)


# Command line


def cli() -> str:
    """Each command with its own options."""
    return "\n".join(text for path, command, context in commands() for text in command_parts(path, command, context))


def cli_shared() -> str:
    """The options that every command has, by the headings under which help shows them."""
    _path, command, context = next(commands())
    headings: dict[str, list[click.Parameter]] = {}
    for parameter in command.get_params(context):
        if heading := getattr(parameter, "heading", ""):
            headings.setdefault(heading, []).append(parameter)
    return "\n".join(f"### {heading}\n\n{option_table(found, context)}" for heading, found in headings.items())


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command: its whole name, what it is, and a context to ask it in."""
    from tom_connect.cli.main import cli as group

    def below(path: str, command: click.Command, context: click.Context) -> Iterator[Any]:
        if not isinstance(command, click.Group):
            yield path, command, context
            return
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from below(f"{path} {name}", found, click.Context(found, info_name=name, parent=context))

    yield from below("tom-connect", group, click.Context(group, info_name="tom-connect"))


def command_parts(path: str, command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"### `{path}`\n\n```text\n{path} {usage}\n```\n\n{inspect.cleandoc(command.help or '')}\n"
    own = [parameter for parameter in command.get_params(context) if not getattr(parameter, "heading", "")]
    if text := option_table(own, context):
        yield text


def option_table(parameters: list[click.Parameter], context: click.Context) -> str:
    rows = []
    for parameter in parameters:
        if isinstance(parameter, click.Option) and not parameter.hidden and "--help" not in parameter.opts:
            record = parameter.get_help_record(context)
            assert record is not None
            rows.append([f"`{record[0]}`", " ".join(record[1].split())])
    return table(["option", "meaning"], rows) if rows else ""


# Campaigns


def campaign_phases() -> str:
    """The parameters of each kind of phase."""
    from tom_campaign.core.scenario import PARAMETERS

    rows = []
    for kind, parameters in PARAMETERS.items():
        for name, spec in parameters.items():
            values = ", ".join(spec.words) or f"{spec.low:,.10g} to {spec.high:,.10g}"
            values = "true or false" if isinstance(spec.default, bool) else values
            default = str(spec.default).lower() if isinstance(spec.default, bool) else f"{spec.default}"
            rows.append([f"`{kind}`", f"`{name}`", default, values, spec.meaning])
    return table(["kind", "parameter", "default", "values", "meaning"], rows)


GENERATORS: dict[str, Callable[..., str]] = {
    "api": api,
    "hooks": hooks,
    "rules": rules,
    "fixtures": fixtures,
    "config": config,
    "program_only": program_only,
    "cli": cli,
    "cli_shared": cli_shared,
    "campaign_phases": campaign_phases,
}


def regenerated(text: str) -> str:
    """The page with its generated parts as the code has them now."""

    def part(match: re.Match[str]) -> str:
        arguments = match[3].split() if match[3] else []
        return f"{match[1]}\n{GENERATORS[match[2]](*arguments).strip()}\n\n{match[4]}"

    return _MARKED.sub(part, text)


def generated_pages() -> list[Path]:
    return [page for page in sorted(REFERENCE.glob("*.md")) if _MARKED.search(page.read_text(encoding="utf-8"))]


def main() -> int:
    for page in generated_pages():
        old = page.read_text(encoding="utf-8")
        new = regenerated(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
