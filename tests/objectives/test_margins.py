"""Margins by name: each mapping's numbers, ties, and what is asked for when a strength is missing."""

from __future__ import annotations

from bisect import bisect

import numpy as np
import pytest
import torch

from rewardlab.errors import ConfigError, DataError
from rewardlab.objectives import MARGINS, BradleyTerry, PairTargets, margin_of


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


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mapping", ["llama2_small", "llama2_large"])
def test_margins_raise_the_held_out_correlation_of_score_difference_and_strength(seed: int, mapping: str) -> None:
    """A linear scorer of 24 features, 150 pairs, and a true utility: what people perceive is noisy, and so is its size.

    The logistic noise gives Bradley-Terry its labels, and the size of what was perceived the strength (cut at 1, 2.5
    and 4). A linear scorer is fitted to the end, so that nothing but the margins differs. How large a correlation can
    be is set by the noise: the true utilities themselves are the ceiling.
    """

    def correlation(margin_from: str) -> tuple[float, float]:
        generator = np.random.default_rng(seed)
        direction = generator.normal(size=24)
        direction *= 2 / np.linalg.norm(direction)

        def draw(pairs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[float]]:
            features = generator.normal(size=(2 * pairs, 24))
            utility = features @ direction
            perceived = utility[:pairs] - utility[pairs:] + generator.logistic(size=pairs)
            first, second = np.arange(pairs), np.arange(pairs, 2 * pairs)
            chosen, rejected = np.where(perceived > 0, first, second), np.where(perceived > 0, second, first)
            strength = [float(bisect((1.0, 2.5, 4.0), abs(size))) for size in perceived]
            return torch.tensor(features), torch.tensor(chosen), torch.tensor(rejected), strength

        features, chosen, rejected, strength = draw(150)
        margin = torch.tensor([margin_of(None, level, False, margin_from, 1.0) for level in strength])
        targets = PairTargets(chosen, rejected, margin.double(), torch.ones(150), torch.arange(150))
        weights = torch.zeros(24, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = BradleyTerry()(features @ weights, targets) / 150
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        features, chosen, rejected, strength = draw(4000)
        found = []
        for of_each in (weights.detach(), torch.tensor(direction)):
            scores = features @ of_each
            found.append(float(np.corrcoef(scores[chosen] - scores[rejected], strength)[0, 1]))
        return found[0], found[1]

    without, ceiling = correlation("column")
    with_margins, _ = correlation(mapping)
    assert with_margins > without + 0.004
    assert with_margins < ceiling
