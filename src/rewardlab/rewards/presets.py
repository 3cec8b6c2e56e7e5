"""Chains of others, and the default one, as configurations. Where a source has another default, it is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewardlab.rewards.scaling import FLOAT32_EPS

Spec = list[str | dict[str, dict[str, Any]]]

PRESETS: Mapping[str, Spec] = {
    "default": [{"delta": {"optional": True}}, "clip", "running"],
    "trl": ["norm", "clip"],
    "trl_scaling": [{"running": {"eps": FLOAT32_EPS}}, "clip"],
    "trlx": ["clip", {"running": {"of": "sequences"}}],
    "trlx_ref": ["clip", {"ref": {"of": "sequences"}}],
    "openrlhf": [{"group": {"eps": 1e-9}}, "clip"],
    "grpo": ["group"],
    "dr_grpo": [{"group": {"scale": "none"}}],
    "rloo": [{"group": {"scale": "none", "baseline": "leave_one_out"}}],
}
"""Name to configuration.

``default``
    Delta where there are baselines, clip to 10, update, divide by the running std.
``trl``
    TRL <= 0.11, ``use_score_scaling`` and ``use_score_norm``: update, (s - mean) / (std + eps), then ``score_clip``.
    There both are off by default, and ``score_clip`` has no default: the 10 is this one's.
``trl_scaling``
    TRL <= 0.11, ``use_score_scaling`` alone: update, s / (std + eps), then ``score_clip``.
``trlx``
    trlX, ``scale_reward="running"``: clip to ``cliprange_reward``, update with each completion's sum, divide by std.
``trlx_ref``
    trlX, ``scale_reward="ref"``: clip, then divide by the first batch's std; of all ranks here, of each rank's own
    there.
``openrlhf``
    OpenRLHF, ``advantage_estimator=group_norm``: (s - group mean) / (group std + 1e-9), then ``reward_clip_range``. Its
    default estimator, ``gae``, clips alone. The KL penalty comes after the clip there, and is none of a chain's
    business.
``grpo``, ``dr_grpo``, ``rloo``
    TRL's GRPO; the same undivided, which is also OpenRLHF's ``dr_grpo`` and ``reinforce_baseline``; leave-one-out.
"""
