"""Print how many tests passed in each environment, and at last in all: `N passed, N failed, N skipped`.

Takes the folder of the JUnit files that pytest wrote. Exits 1 if no test ran at all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def counts(path: Path) -> tuple[int, int, int, float]:
    """Return tests passed, failed (errors included), skipped, and seconds of one JUnit file."""
    total = failed = skipped = 0
    seconds = 0.0
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
        seconds += float(suite.get("time", 0))
    return total - failed - skipped, failed, skipped, seconds


def main() -> int:
    passed = failed = skipped = 0
    for path in sorted(Path(sys.argv[1]).glob("*.xml")):
        p, f, s, seconds = counts(path)
        print(f"{path.stem}: {p} passed, {f} failed, {s} skipped in {seconds:.0f} s")
        passed, failed, skipped = passed + p, failed + f, skipped + s
    if not passed + failed:
        print("no test was run")
        return 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
