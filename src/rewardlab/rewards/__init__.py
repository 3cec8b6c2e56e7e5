"""From scores to rewards: what RL consumes. No model is computed here, and no trainer is known.

The KL estimators need torch, and are imported when one of them is first asked for. Checks, which read texts, are not
exported from here: they stand in ``checks.py`` and ``unit_tests.py``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rewardlab.rewards.batch import Offence, RewardBatch, RewardResult
from rewardlab.rewards.best_of_n import (
    BestOfNCurve,
    best_of_n_curve,
    effective_sample_size,
    expected_best_of_n,
    kl_of_best_of_n,
    reward_weighted_indices,
    reward_weights,
    top_k,
)
from rewardlab.rewards.beta import BetaProposal, expected_kl, propose_beta
from rewardlab.rewards.chain import RewardChain
from rewardlab.rewards.combining import CombinedResult, CombinedReward, RewardPart
from rewardlab.rewards.entries import Entries, Transform
from rewardlab.rewards.gathering import gather_ranks
from rewardlab.rewards.moments import RunningMoments
from rewardlab.rewards.preference_pairs import PreferencePairs, preference_pairs
from rewardlab.rewards.presets import PRESETS
from rewardlab.rewards.token_rewards import on_last_token, to_token_rewards
from rewardlab.rewards.transforms import (
    TRANSFORMS,
    Center,
    Clip,
    Delta,
    Group,
    MissingEos,
    Norm,
    RefScale,
    Running,
    Temperature,
    Whiten,
)

if TYPE_CHECKING:
    from rewardlab.rewards.kl import AdaptiveKL, FixedKL, kl_per_token, sequence_kl

__all__ = [
    "PRESETS",
    "TRANSFORMS",
    "AdaptiveKL",
    "BestOfNCurve",
    "BetaProposal",
    "Center",
    "Clip",
    "CombinedResult",
    "CombinedReward",
    "Delta",
    "Entries",
    "FixedKL",
    "Group",
    "MissingEos",
    "Norm",
    "Offence",
    "PreferencePairs",
    "RefScale",
    "RewardBatch",
    "RewardChain",
    "RewardPart",
    "RewardResult",
    "Running",
    "RunningMoments",
    "Temperature",
    "Transform",
    "Whiten",
    "best_of_n_curve",
    "effective_sample_size",
    "expected_best_of_n",
    "expected_kl",
    "gather_ranks",
    "kl_of_best_of_n",
    "kl_per_token",
    "on_last_token",
    "preference_pairs",
    "propose_beta",
    "reward_weighted_indices",
    "reward_weights",
    "sequence_kl",
    "to_token_rewards",
    "top_k",
]

_KL = ("AdaptiveKL", "FixedKL", "kl_per_token", "sequence_kl")


def __getattr__(name: str) -> Any:
    """Import torch's part when it is first asked for."""
    if name not in _KL:
        raise AttributeError(f"module 'rewardlab.rewards' has no attribute {name!r}")
    return getattr(import_module("rewardlab.rewards.kl"), name)
