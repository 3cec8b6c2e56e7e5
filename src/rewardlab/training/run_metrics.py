"""What a run says of its own scores: the metrics it logs, and whether they have collapsed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rewardlab.errors import RewardLabError
from rewardlab.metrics import mean_margin, pairwise_accuracy
from rewardlab.metrics.bootstrap import FloatArray
from rewardlab.objectives import PairTargets, RankingTargets, RatingTargets, StepTargets, TokenTargets

# Below this standard deviation, in score units, scores or margins hardly differ: a fresh head gives around 0.1 to 1.
COLLAPSED_STD = 1e-3


def collapse_warning(scores: Tensor, margins: Tensor | None = None) -> str | None:
    """What to say when scores or margins hardly differ; None when they do.

    Args:
        scores: Scores of some completions, shape (completions,).
        margins: Chosen minus rejected of their pairs, shape (pairs,); None where they are not compared.
    """
    margins = scores if margins is None else margins
    spread, margin_spread = float(scores.std(correction=0)), float(margins.std(correction=0))
    if not math.isfinite(spread):
        return "scores are not finite: the run has diverged; lower the learning rate"
    if len(margins) < 2 or min(spread, margin_spread) >= COLLAPSED_STD:
        return None
    what = "scores" if spread < COLLAPSED_STD else "margins"
    return (
        f"the {what} of {len(scores)} completions hardly differ (standard deviation {min(spread, margin_spread):.1e}). "
        "Usual causes: the padding id is the EOS id, so the score is read at the wrong token; completions are cut away "
        "by max_length; the labels are balanced to coin flips; center_rewards_coefficient is so large that only 0 pays"
    )


def pair_metrics(parts: Sequence[tuple[Tensor, PairTargets]]) -> dict[str, float]:
    """Metrics over all pairs of some batches at once, under TRL's names; ties are no preference and are left out.

    Args:
        parts: Scores of some completions, each (completions,), on the CPU, with the pairs between them.

    Returns:
        accuracy and margin (none where all pairs are ties), min_reward, mean_reward, max_reward.

    Raises:
        RewardLabError: A score is not finite.
    """
    rewards = _rewards([scores for scores, _ in parts])
    chosen = _joined([scores[targets.chosen[~targets.tie]] for scores, targets in parts])
    rejected = _joined([scores[targets.rejected[~targets.tie]] for scores, targets in parts])
    return {**_of_preferences(chosen, rejected), **rewards}


def ranking_metrics(parts: Sequence[tuple[Tensor, RankingTargets]]) -> dict[str, float]:
    """Metrics over all pairs that some rankings imply, as :func:`pair_metrics`; unranked completions are below all.

    Args:
        parts: Scores of some completions, each (completions,), on the CPU, with their rankings.
    """
    rewards = _rewards([scores for scores, _ in parts])
    chosen, rejected = [], []
    for scores, targets in parts:
        there = targets.index >= 0
        ranks = targets.ranks.masked_fill(targets.ranks < 0, targets.ranks.shape[1])
        better = (ranks[:, :, None] < ranks[:, None, :]) & there[:, :, None] & there[:, None, :]
        row, first, second = torch.nonzero(better, as_tuple=True)
        chosen.append(scores[targets.index[row, first]])
        rejected.append(scores[targets.index[row, second]])
    return {**_of_preferences(_joined(chosen), _joined(rejected)), **rewards}


def rating_metrics(parts: Sequence[tuple[Tensor, RatingTargets]]) -> dict[str, float]:
    """Correlation of scores with ratings, and the scores' range.

    Args:
        parts: Scores of some completions, each (completions,), on the CPU, with their ratings.
    """
    rewards = _rewards([scores for scores, _ in parts])
    scores = _joined([scores[targets.index] for scores, targets in parts])
    ratings = _joined([targets.rating for _, targets in parts])
    varied = len(scores) > 1 and scores.std() > 0 and ratings.std() > 0
    return {**({"correlation": float(np.corrcoef(scores, ratings)[0, 1])} if varied else {}), **rewards}


def token_metrics(parts: Sequence[tuple[Tensor, TokenTargets]]) -> dict[str, float]:
    """How many completion tokens have their completion's outcome (P > 1/2 where the label is), and the logits' range.

    Args:
        parts: Logits of some tokens, each (tokens,), on the CPU, with their labels.
    """
    rewards = _rewards([scores for scores, _ in parts])
    scores = _joined([scores[targets.label >= 0] for scores, targets in parts])
    labels = _joined([targets.label[targets.label >= 0] for _, targets in parts])
    return {"accuracy": float(((scores > 0) == (labels > 0.5)).mean()), **rewards}


def step_metrics(parts: Sequence[tuple[Tensor, StepTargets]]) -> dict[str, float]:
    """How many labelled steps are classified right, and how often the commonest class would be.

    Args:
        parts: Class logits of some steps, each (steps, classes), on the CPU, with their classes.
    """
    _rewards([scores for scores, _ in parts])
    found = np.concatenate([scores.argmax(dim=1)[targets.label >= 0].numpy() for scores, targets in parts])
    labels = np.concatenate([targets.label[targets.label >= 0].numpy() for _, targets in parts])
    return {"accuracy": float((found == labels).mean()), "majority": float(np.bincount(labels).max() / len(labels))}


def _of_preferences(chosen: FloatArray, rejected: FloatArray) -> dict[str, float]:
    if not len(chosen):
        return {}
    return {"accuracy": pairwise_accuracy(chosen, rejected), "margin": mean_margin(chosen, rejected)}


def _joined(parts: Sequence[Tensor]) -> FloatArray:
    return np.concatenate([part.double().numpy() for part in parts])


def _rewards(parts: Sequence[Tensor]) -> dict[str, float]:
    """Range and mean of some scores, all of which must be finite."""
    scores = _joined(parts)
    if not np.isfinite(scores).all():
        raise RewardLabError(
            f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are NaN or infinite: the run has diverged",
            hint="lower the learning rate (--set learning_rate=...), or train in float32",
        )
    return {
        "min_reward": float(scores.min()),
        "mean_reward": float(scores.mean()),
        "max_reward": float(scores.max()),
    }
