"""rewardlab.metrics.ratings: against SciPy, within prompts, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats

from rewardlab.errors import DataError
from rewardlab.metrics import evaluate_ratings
from rewardlab.types import PromptGroup


def simulated(offset: float) -> tuple[list[PromptGroup], list[list[float]]]:
    """Scores follow the ratings within a prompt; ``offset`` is by how much each prompt's scores are off."""
    generator = np.random.default_rng(0)
    groups, scores = [], []
    for index in range(50):
        ratings = generator.integers(1, 6, 4).astype(float)
        groups.append(PromptGroup(f"p{index}", ["x" * int(n) for n in generator.integers(1, 40, 4)], ratings=ratings))
        scores.append((ratings + generator.normal(size=4) + offset * generator.normal()).tolist())
    return groups, scores


def test_equals_scipy() -> None:
    groups, scores = simulated(0.0)
    result = evaluate_ratings(groups, scores)
    ratings = np.array([group.ratings for group in groups])
    lengths = np.array([[len(text) for text in group.completions] for group in groups])
    values = np.array(scores)
    assert result.pearson.value == pytest.approx(scipy.stats.pearsonr(values.ravel(), ratings.ravel()).statistic)
    assert result.spearman.value == pytest.approx(scipy.stats.spearmanr(values.ravel(), ratings.ravel()).statistic)
    assert result.longer_pearson.value == pytest.approx(
        scipy.stats.pearsonr(lengths.ravel(), ratings.ravel()).statistic
    )
    own = [(column - column.mean(axis=1, keepdims=True)).ravel() for column in (values, ratings)]
    assert result.within_prompt.value == pytest.approx(scipy.stats.pearsonr(*own).statistic)
    assert result.pearson.low < result.pearson.value < result.pearson.high


def test_offsets_of_prompts_hurt_the_pooled_correlation_only() -> None:
    plain, moved = (evaluate_ratings(*simulated(offset)) for offset in (0.0, 50.0))
    assert moved.within_prompt.value == pytest.approx(plain.within_prompt.value, abs=0.1)
    assert moved.pearson.value < 0.3 < plain.pearson.value


def test_unrated_completions_are_counted_and_constants_have_no_correlation() -> None:
    groups = [PromptGroup("p", ("a", "b", "c"), ratings=(1.0, None, 3.0)), PromptGroup("q", ("a",), ratings=(2.0,))]
    result = evaluate_ratings(groups, [[0.1, 9.0, 0.1], [0.1]])
    assert (result.num_completions, result.num_prompts, result.num_unrated) == (3, 2, 1)
    out = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert out["pearson"] is out["within_prompt"] is out["longer_pearson"] is None


def test_scores_that_vary_between_prompts_only_have_none_within() -> None:
    """0.1 three times has a mean that is not 0.1: rounding must not pass for variation."""
    groups = [PromptGroup(f"p{i}", ("a", "b", "c"), ratings=(1.0, 2.0, 4.0)) for i in range(4)]
    result = evaluate_ratings(groups, [[0.1 * i] * 3 for i in range(4)])
    assert result.within_prompt is None
    assert result.pearson.value == pytest.approx(0.0, abs=1e-12)


def test_nothing_rated() -> None:
    with pytest.raises(DataError, match="no completion has a rating"):
        evaluate_ratings([PromptGroup("p", ("a",))], [[1.0]])
