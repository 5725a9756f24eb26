"""Running a check on a mutant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from tom_connect.testing.conformance import ConformanceError, Rule


def named(part: object) -> str:
    """How a parameter is shown in a test's name."""
    return part.name if isinstance(part, Rule) else getattr(part, "__name__", str(part))


async def breaks(rule: Rule, checking: Awaitable[None]) -> None:
    """The check fails by this rule, and says where to read and what was seen; what is left running is ended."""
    before = asyncio.all_tasks()
    try:
        with pytest.raises(ConformanceError) as caught:
            await checking
        assert caught.value.rule is rule, caught.value
        assert rule.text in str(caught.value) and rule.where in str(caught.value) and caught.value.seen
    finally:
        left = asyncio.all_tasks() - before
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
