"""rewardlab.metrics.rankings: by hand, against SciPy, ties, unranked completions, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats

from rewardlab.errors import DataError
from rewardlab.metrics import evaluate_rankings
from rewardlab.types import PromptGroup, Ranking


def ranked(ranks, prompt: str = "p", texts=None) -> PromptGroup:
    count = len(ranks)
    return PromptGroup(prompt, texts or ["x"] * count, rankings=(Ranking(tuple(range(count)), tuple(ranks)),))


def test_by_hand() -> None:
    """Ranks 0, 1, 2 with scores 3, 1, 2: two pairs agree and one does not, tau 1/3; rho 1 - 6 x 2 / (3 x 8) = 1/2.

    Lengths 1, 2, 3 are the wrong way round: tau -1; the longest is not the best, the shortest is.
    """
    result = evaluate_rankings([ranked([0, 1, 2], texts=["a", "bb", "ccc"])], [[3.0, 1.0, 2.0]])
    assert result.kendall_tau.value == pytest.approx(1 / 3)
    assert result.spearman.value == pytest.approx(1 / 2)
    assert result.top1.value == 1.0
    assert result.longer_kendall_tau.value == -1.0
    assert (result.longest_top1.value, result.shortest_top1.value) == (0.0, 1.0)
    assert result.random_top1.value == pytest.approx(1 / 3)
    assert result.kendall_tau.low is None  # one prompt


def test_means_over_rankings_equal_scipy() -> None:
    """Ranks and scores with ties; two rankings per prompt."""
    generator = np.random.default_rng(0)
    groups, scores, taus, rhos = [], [], [], []
    for index in range(60):
        ranks = [0, *generator.integers(0, 4, 5).tolist(), 4]
        values = (generator.normal(size=7) - np.array(ranks) / 3).round(1)
        groups.append(ranked(ranks, f"p{index // 2}"))
        scores.append(values.tolist())
        taus.append(scipy.stats.kendalltau(values, -np.array(ranks)).statistic)
        rhos.append(scipy.stats.spearmanr(values, -np.array(ranks)).statistic)
    result = evaluate_rankings(groups, scores)
    assert (result.num_rankings, result.num_prompts) == (60, 30)
    assert result.kendall_tau.value == pytest.approx(np.mean(taus))
    assert result.spearman.value == pytest.approx(np.mean(rhos))
    assert result.kendall_tau.low < np.mean(taus) < result.kendall_tau.high


def test_ranks_and_scores_are_read_by_completion() -> None:
    """A ranking of some of the completions, in another order than they stand."""
    group = PromptGroup("p", ("a", "b", "c", "d"), rankings=(Ranking((3, 1), (5, 2)),))  # b before d
    assert evaluate_rankings([group], [[9.0, 2.0, 9.0, 1.0]]).kendall_tau.value == 1.0
    assert evaluate_rankings([group], [[9.0, 1.0, 9.0, 2.0]]).kendall_tau.value == -1.0


def test_unranked_completions_share_the_last_place() -> None:
    """Top-2 lists: [0, 1, -, -] orders as [0, 1, 2, 2] does, and the order of the unranked does not matter."""
    scores = [[4.0, 3.0, 2.0, 1.0]]
    listed = evaluate_rankings([ranked([0, 1, None, None])], scores)
    assert listed == evaluate_rankings([ranked([0, 1, 2, 2])], scores)
    assert listed == evaluate_rankings([ranked([0, 1, None, None])], [[4.0, 3.0, 1.0, 2.0]])
    assert listed.kendall_tau.value == pytest.approx(5 / np.sqrt(6 * 5))
    below = evaluate_rankings([ranked([0, 1, None, None])], [[2.0, 1.0, 4.0, 3.0]])
    assert below.kendall_tau.value < 0


def test_equal_scores_on_top_share_the_choice() -> None:
    """Scores 2, 2, 1: half of the choice is best; with two best-ranked, all of it."""
    assert evaluate_rankings([ranked([0, 1, 2])], [[2.0, 2.0, 1.0]]).top1.value == 0.5
    assert evaluate_rankings([ranked([0, 0, 1])], [[2.0, 2.0, 1.0]]).top1.value == 1.0


def test_constant_scores_are_chance_and_rankings_of_ties_are_left_out() -> None:
    groups = [ranked([0, 1, 2, 3], "p"), ranked([1, 1], "q"), ranked([0, 1, 2, 3], "r")]
    result = evaluate_rankings(groups, [[1.0] * 4, [5.0, 2.0], [0.0] * 4])
    assert (result.num_rankings, result.num_undecided) == (2, 1)
    assert result.kendall_tau.value == result.spearman.value == 0.0
    assert result.top1.value == result.random_top1.value == 0.25
    assert result.above_length_baselines is False


def test_json_and_errors() -> None:
    groups = [ranked([0, 1], f"p{i}") for i in range(9)]
    out = json.loads(json.dumps(evaluate_rankings(groups, [[1.0, 0.0]] * 9).to_dict(), allow_nan=False))
    assert out["kendall_tau"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert out["above_length_baselines"] is True
    with pytest.raises(DataError, match="no ranking puts one completion above another"):
        evaluate_rankings([ranked([0, 0])], [[1.0, 0.0]])
