"""What a run says of its own scores: the metrics it logs, and whether they have collapsed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from rewardlab.errors import RewardLabError
from rewardlab.metrics import mean_margin, pairwise_accuracy
from rewardlab.objectives import PairTargets

# Below this standard deviation, in score units, scores or margins hardly differ: a fresh head gives around 0.1 to 1.
COLLAPSED_STD = 1e-3


def collapse_warning(scores: Tensor, margins: Tensor) -> str | None:
    """What to say when scores or margins hardly differ; None when they do.

    Args:
        scores: Scores of some completions, shape (completions,).
        margins: Chosen minus rejected of their pairs, shape (pairs,).
    """
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
    """Metrics over all pairs of some batches at once, under TRL's names.

    Args:
        parts: Scores of some completions, each (completions,), on the CPU, with the pairs between them.

    Returns:
        accuracy, margin, min_reward, mean_reward, max_reward.

    Raises:
        RewardLabError: A score is not finite.
    """
    scores = np.concatenate([scores.double().numpy() for scores, _ in parts])
    if not np.isfinite(scores).all():
        raise RewardLabError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are NaN or infinite: the run has diverged",
            hint="lower the learning rate (--set learning_rate=...), or train in float32",
        )
    chosen = np.concatenate([scores[targets.chosen].double().numpy() for scores, targets in parts])
    rejected = np.concatenate([scores[targets.rejected].double().numpy() for scores, targets in parts])
    return {
        "accuracy": pairwise_accuracy(chosen, rejected),
        "margin": mean_margin(chosen, rejected),
        "min_reward": float(scores.min()),
        "mean_reward": float(scores.mean()),
        "max_reward": float(scores.max()),
    }
