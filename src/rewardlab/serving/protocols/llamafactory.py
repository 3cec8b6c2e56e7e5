"""LLaMA-Factory's ``/v1/score/evaluation``: what its PPO asks with ``reward_model_type: api``.

Its ``messages`` are whole texts, prompt and answer, decoded from ids with their special tokens; no chat template is
applied to them.

References:
    LLaMA-Factory, ``src/llamafactory/train/ppo/ppo_utils.py`` (``get_rewards_from_server``) and
    ``src/llamafactory/api/protocol.py`` (``ScoreEvaluationRequest``).
"""

from __future__ import annotations

import uuid
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from rewardlab.serving.items import Rendered
from rewardlab.serving.protocols.dialect import Dialect, Json, ModelName, OpenModel, errors
from rewardlab.serving.service import Service

DIALECT = Dialect(
    "LLaMA-Factory",
    ("POST /v1/score/evaluation",),
    "The score on the server's --scale.",
    "Each text is rendered by the policy's chat template, which must be this model's own too.",
)


class EvaluationRequest(OpenModel):
    """Whole conversations, rendered."""

    model: ModelName = None
    messages: list[str] = Field(description="Prompts with their answers, special tokens and all.")
    max_length: int | None = Field(
        None, ge=1, description="Tokens to which a text may be cut, from the left; without it long ones are refused."
    )


class EvaluationAnswer(BaseModel):
    """One number per text, in order."""

    id: str
    object: Literal["score.evaluation"]
    model: str
    scores: list[float]


def router(service: Service) -> APIRouter:
    """Its one route.

    Args:
        service: What scores.
    """
    routes = APIRouter()

    @routes.post("/v1/score/evaluation", response_model=EvaluationAnswer, responses=errors())
    async def evaluation(body: EvaluationRequest) -> Json:
        """Scores of whole conversations."""
        cut_to = body.max_length and min(body.max_length, service.model().max_length)
        scores = await service.scores([Rendered(text, cut_to) for text in body.messages])
        return Json(
            {
                "id": f"scoreval-{uuid.uuid4().hex}",
                "object": "score.evaluation",
                "model": scores.model.name,
                "scores": list(scores.values),
            }
        )

    return routes
