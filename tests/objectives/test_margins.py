"""Margins by name: each mapping's numbers, ties, and what is asked for when a strength is missing."""

from __future__ import annotations

import pytest

from rewardlab.errors import ConfigError, DataError
from rewardlab.objectives import MARGINS, margin_of


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("column", [0.7, 0.7, 0.7, 0.7]),
        ("constant", [2.0, 2.0, 2.0, 2.0]),
        ("difference", [0.0, 2.0, 4.0, 6.0]),
        ("llama2_large", [0.0, 2.0, 4.0, 6.0]),
        ("llama2_small", [0.0, 2 / 3, 4 / 3, 2.0]),
    ],
)
def test_margins_of_strengths_0_to_3_at_scale_2(mapping: str, expected: list[float]) -> None:
    """Llama 2's table 27: large 3, 2, 1, 0 and small 1, 2/3, 1/3, 0 from significantly to negligibly better."""
    assert [margin_of(0.7, s, False, mapping, 2.0) for s in (0, 1, 2, 3)] == pytest.approx(expected)


def test_difference_takes_any_strength() -> None:
    assert margin_of(None, 0.25, False, "difference", 0.5) == 0.125


def test_a_row_without_a_margin_has_none() -> None:
    assert margin_of(None, 3.0, False, "column", 2.0) == 0.0


@pytest.mark.parametrize("mapping", MARGINS)
def test_a_tie_has_no_margin(mapping: str) -> None:
    """A tie that had one would be asked to be a preference. No strength is asked of it either."""
    assert margin_of(0.7, None, True, mapping, 2.0) == 0.0


@pytest.mark.parametrize("mapping", ["difference", "llama2_large", "llama2_small"])
def test_a_missing_strength_is_asked_for(mapping: str) -> None:
    with pytest.raises(DataError, match=f"no strength.*{mapping}") as raised:
        margin_of(0.7, None, False, mapping, 1.0)
    assert "strength" in raised.value.hint


@pytest.mark.parametrize("strength", [4, 0.5, 2.9])
@pytest.mark.parametrize("mapping", ["llama2_large", "llama2_small"])
def test_a_strength_that_is_no_level_is_refused(mapping: str, strength: float) -> None:
    """Rounding 2.9 down to 2 would be silent."""
    with pytest.raises(DataError, match=f"strength {strength:g} is no level") as raised:
        margin_of(None, strength, False, mapping, 1.0)
    assert "difference" in raised.value.hint


def test_an_unknown_mapping_names_the_known() -> None:
    with pytest.raises(ConfigError, match="'llama2'") as raised:
        margin_of(None, None, False, "llama2", 1.0)
    assert "llama2_large" in raised.value.hint
