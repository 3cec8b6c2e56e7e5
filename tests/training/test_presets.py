"""The presets: the documented table is the one in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.training.presets import PRESETS

DOCUMENT = Path(__file__).parents[2] / "docs" / "presets.md"


@pytest.mark.parametrize("name", PRESETS)
def test_documented_values_are_those_in_force(name: str) -> None:
    preset = PRESETS[name]
    (row,) = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert float(cells[1]) == preset.learning_rate
    assert float(cells[2].removesuffix(" %")) == pytest.approx(100 * preset.warmup)
    assert int(cells[3]) == preset.max_length
    assert int(cells[4]) == preset.batch_size
    assert cells[5] == preset.precision
    assert cells[6] == preset.reason
