"""The converters and validators that configuration classes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from tom_connect.config import (
    as_path,
    as_tuple,
    is_flag,
    is_path,
    number_between,
    seconds_between,
    whole_number_between,
)
from tom_connect.exceptions import ConfigError


def field(validator: Any, value: object) -> object:
    """What a field with this validator takes `value` for."""
    cls = attrs.make_class("Options", {"thing": attrs.field(validator=validator)})
    return cls(value).thing


@pytest.mark.parametrize(
    ("validator", "good", "bad", "says"),
    [
        (is_flag, [True, False], [0, 1, "true", None], "True or False"),
        (is_path, [Path("x")], ["x", None], "a path"),
        (whole_number_between(1, 5), [1, 5], [0, 6, 2.0, True, "3"], "a whole number from 1 to 5"),
        (number_between(0, 2.5, "a share"), [0, 2.5, 1], [-0.1, 2.6, True, "1", float("nan")], "a share from 0 to 2.5"),
        (seconds_between(0.1, 60), [0.1, 60], [0, 61, None, float("inf")], "a number of seconds from 0.1 to 60"),
    ],
)
def test_bounds_are_kept_and_the_field_is_named(validator: Any, good: list[Any], bad: list[Any], says: str) -> None:
    """Values within the bounds are taken; any other is refused, with the field and what is expected."""
    for value in good:
        assert field(validator, value) == value
    for value in bad:
        with pytest.raises(ConfigError) as caught:
            field(validator, value)
        assert str(caught.value) == f"thing: {value!r} is not allowed; expected {says}"


def test_converters_leave_what_they_do_not_know() -> None:
    """A text is no sequence of letters, and what is no text is no path: both stay as they are, for the validator."""
    assert as_tuple(["a", "b"]) == ("a", "b")
    assert as_tuple(x for x in (1, 2)) == (1, 2)
    assert [as_tuple(value) for value in ("ab", b"ab", None, 5)] == ["ab", b"ab", None, 5]
    assert as_path("~/x") == Path.home() / "x"
    assert [as_path(value) for value in ("", None, 5, Path("x"))] == ["", None, 5, Path("x")]
