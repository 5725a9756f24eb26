"""The fenced blocks of a Markdown page, each with what the comment before it says about running it.

A comment `<!-- doc: key=value flag -->` right before a block directs the test; a reader never sees it.

| key | meaning |
|---|---|
| `skip="reason"` | not run; the reason must be given |
| `file=NAME` | saved under that name in the page's folder, not run |
| `on=NAME` | run on that machine of a lab, by the page's own test in tests/netns; such a page is not run elsewhere |
| `background=NAME` | started, and left running until the end of the page or `stop` |
| `wait=REGEX` | with `background`: go on when its output matches |
| `set="NAME=REGEX"` | the first group found in the output replaces the word NAME in later commands |
| `stdin=TEXT` | what the command reads |
| `stop=NAME` | a comment before any block: interrupt that background program once the block has run |
| `code=N` | the exit status expected, 0 if not given |
| `output` | a text block: what the block before it printed; `...` stands for anything |
| `shows=NAME` | a text block: what the background program NAME has printed by then, somewhere |
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import attrs
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
_DIRECTIVE = re.compile(r"<!--\s*doc:(.*?)-->", re.DOTALL)
KEYS = frozenset({"skip", "file", "on", "background", "wait", "set", "stdin", "stop", "code", "output", "shows"})


@attrs.frozen
class Block:
    """One fenced block: its language, text, first line in the page, and directions (key to values)."""

    page: Path
    line: int
    language: str
    text: str
    directions: dict[str, list[str]]

    def get(self, key: str) -> str | None:
        """The last value of a direction, "" for one without a value, None if it is not there."""
        values = self.directions.get(key)
        return values[-1] if values else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def directions(comment: str) -> dict[str, list[str]]:
    """Read the directions in a comment; a key that does not exist is a ValueError."""
    found: dict[str, list[str]] = {}
    for match in _DIRECTIVE.finditer(comment):
        for word in shlex.split(match[1]):
            key, _, value = word.partition("=")
            if key not in KEYS:
                raise ValueError(f"unknown direction {key!r} in {comment.strip()!r}")
            found.setdefault(key, []).append(value)
    return found


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    before: dict[str, list[str]] = {}
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            before = directions(token.content)
        elif token.type == "fence":
            line = token.map[0] + 1 if token.map else 0
            found.append(Block(page, line, token.info.strip(), token.content, before))
            before = {}
        elif not token.hidden and not token.type.endswith("_close"):
            before = {}
    return found


def pages() -> list[Path]:
    """Every page that a reader of the repository may meet."""
    return sorted(
        [
            *ROOT.glob("*.md"),
            *ROOT.glob("docs/**/*.md"),
            *ROOT.glob("examples/**/*.md"),
            *ROOT.glob("benchmarks/*.md"),
            *ROOT.glob("plugins/*/*.md"),
        ]
    )
