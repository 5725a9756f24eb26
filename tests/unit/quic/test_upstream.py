"""aioquic's own tests, run against our speed overrides."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parent / "upstream" / "suite.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_overrides_break_no_test_of_aioquic() -> None:
    """With the overrides in place every test of aioquic's suite ends as it does without them, and they ran."""
    spec = importlib.util.spec_from_file_location("aioquic_upstream_suite", PATH)
    assert spec is not None and spec.loader is not None
    suite = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = suite
    spec.loader.exec_module(suite)
    try:
        stock, fast = suite.compare()
    except suite.SuiteUnavailableError as error:
        pytest.skip(f"needs aioquic's sdist from the package index: {error}")
    assert len(stock.passed) > 300, "the suite did not run"
    faults = suite.broken(stock, fast)
    assert not faults, "\n".join(f"{node}\n{fast.errors.get(node, '')}" for node in faults)
    assert all(fast.counters.values()), fast.counters
