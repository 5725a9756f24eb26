"""Every command and snippet of the documentation does what its page says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, Block, blocks, pages
from tests.docs.runner import TIMEOUT, PageRun

RUN = {"python", "console", "sh", "bash"}
CHECKED = {"toml", "json"}
SHOWN = {"text", "mermaid"}

WALK = [ROOT / "docs" / "how-to" / f"{verb}-a-plugin.md" for verb in ("write", "test", "publish")]
"""Pages that go on where the one before ends: a newcomer's way to a published plugin."""
PAGES = [page for page in pages() if blocks(page)]
IN_LABS = [page for page in PAGES if any("on" in block.directions for block in blocks(page))]
"""Pages whose commands belong on several machines: tests/netns runs them."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runs(block: Block) -> bool:
    return "skip" not in block.directions and (
        block.language in RUN or bool({"file", "output", "shows"} & block.directions.keys())
    )


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p not in (*IN_LABS, *WALK) and any(map(runs, blocks(p)))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    """The blocks of a page, run in order in an empty folder, print what the page shows."""
    with PageRun(tmp_path) as run:
        for block in filter(runs, blocks(page)):
            run.run(block)


@pytest.mark.parametrize("page", IN_LABS, ids=name)
def test_pages_of_labs_have_a_test_there(page: Path) -> None:
    """A page with machines is named by a test of tests/netns, and each block that runs says on which machine."""
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/netns/test_*.py"))
    assert f'"{page.name}"' in tests
    for block in filter(runs, blocks(page)):
        assert "on" in block.directions or {"output", "shows"} & block.directions.keys(), f"{block}: on which machine?"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_run_or_say_why_not(page: Path) -> None:
    """No block escapes: each has a language that is run or checked, is plain text, or gives a reason."""
    for block in blocks(page):
        assert block.language in RUN | CHECKED | SHOWN, f"{block}: language {block.language!r}"
        if "skip" in block.directions:
            assert len(block.get("skip") or "") > 10, f"{block}: a block that is not run says why"


@pytest.mark.parametrize(
    "block", [b for p in PAGES for b in blocks(p) if b.language in CHECKED and not runs(b)], ids=str
)
def test_data_blocks_parse(block: Block) -> None:
    """TOML blocks are TOML, JSON blocks hold one JSON value a line."""
    if block.language == "toml":
        tomllib.loads(block.text)
    else:
        for line in filter(None, block.text.splitlines()):
            json.loads(line)


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.name != "posix", reason="the walk is written for a POSIX shell")
def test_a_newcomer_makes_a_plugin(tmp_path: Path) -> None:
    """The pages for plugin authors, word for word, in an environment that has only what they install.

    What they install of ours are wheels, as users get them.
    """
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, by which the pages install everything")
    wheels = tmp_path / "wheels"
    build = [uv, "build", "--quiet", "--wheel", "--no-sources", "--out-dir", wheels, ROOT]
    subprocess.run(list(map(str, build)), check=True, timeout=TIMEOUT, cwd=tmp_path)
    folder = tmp_path / "tom-address-book"
    folder.mkdir()
    with PageRun(folder, clean={"UV_FIND_LINKS": str(wheels)}) as run:
        for page in WALK:
            for block in filter(runs, blocks(page)):
                run.run(block)


def test_the_walk_ends_with_the_example() -> None:
    """What the pages have the reader save is what stands in examples/tom-address-book."""
    example = ROOT / "examples" / "tom-address-book"
    saved = {name: block.text for page in WALK for block in blocks(page) if (name := block.get("file"))}
    kept = {name: text for name, text in saved.items() if name not in {"README.md", "meet.py"}}
    assert sorted(kept) == [
        "pyproject.toml",
        "src/tom_address_book/__init__.py",
        "tests/conftest.py",
        "tests/test_address_book.py",
    ]
    assert {name: (example / name).read_text(encoding="utf-8") for name in kept} == kept
