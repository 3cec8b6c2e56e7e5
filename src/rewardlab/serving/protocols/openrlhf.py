"""OpenRLHF's ``/get_reward``: whole conversations as its rollouts have them, decoded with their special tokens.

OpenRLHF sends one item per request, tries 5 times, one second apart, and then goes on with no reward at all: only its
log tells. ``scores`` are the same numbers as ``rewards``; OpenRLHF reads them for its dynamic filtering alone, which
keeps prompts whose mean score lies within ``--dynamic_filtering_reward_range``, by default 0 to 1.

References:
    OpenRLHF 0.11, ``openrlhf/utils/agent.py`` (the client) and ``openrlhf/cli/serve_rm.py`` (its own server).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rewardlab.serving.items import Rendered
from rewardlab.serving.protocols.dialect import Dialect, Json, OpenModel
from rewardlab.serving.service import Service

DIALECT = Dialect(
    "OpenRLHF",
    ("POST /get_reward",),
    "The score on the server's --scale, as rewards and as scores.",
    "The query is rendered by the policy's chat template, which must be this model's own too. Dynamic filtering reads "
    "the scores: its reward range must be one on the server's scale (--scale percentile: 0 to 100).",
)


class RewardRequest(OpenModel):
    """Whole conversations, rendered."""

    query: list[str] = Field(description="Prompts with their answers, special tokens and all.")
    prompts: list[str] | None = Field(None, description="Not read: each query begins with its own.")
    labels: list[Any] | None = Field(None, description="Not read.")


class RewardAnswer(BaseModel):
    """One number per query, in order."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]] = Field(description="disagreement, of ensembles; else empty.")


async def answer_get_reward(service: Service, body: RewardRequest) -> Json:
    """``/get_reward``."""
    scores = await service.scores([Rendered(query) for query in body.query])
    values = list(scores.values)
    disagreement = [result.disagreement for result in scores.results if result.disagreement is not None]
    logs = {"disagreement": disagreement} if disagreement else {}
    return Json({"rewards": values, "scores": values, "extra_logs": logs})
