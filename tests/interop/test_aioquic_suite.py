"""aioquic's own tests, run against our speed overrides; needs the package index for aioquic's sdist."""

from __future__ import annotations

import pytest

from tests.interop.aioquic_suite import suite


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_overrides_break_no_test_of_aioquic() -> None:
    """With the overrides in place every test of aioquic's suite ends as it does without them, and they ran."""
    try:
        stock, fast = suite.compare()
    except suite.SuiteUnavailableError as error:
        pytest.skip(f"needs aioquic's sdist from the package index: {error}")
    assert len(stock.passed) > 300, "the suite did not run"
    faults = suite.broken(stock, fast)
    assert not faults, "\n".join(f"{node}\n{fast.errors.get(node, '')}" for node in faults)
    assert all(fast.counters.values()), fast.counters
