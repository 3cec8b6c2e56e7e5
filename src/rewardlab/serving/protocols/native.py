"""rewardlab's own dialect: every scale of every score, what is wrong with each item, and preference probabilities.

The one dialect whose answers say of each item why it has no score; all others fail as a whole.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypedDict

from rewardlab.calibration.scale import SCALES
from rewardlab.errors import ConfigError
from rewardlab.metrics.probability import sigmoid
from rewardlab.serving.failures import RequestRefused
from rewardlab.serving.items import Answer, Conversation, ItemRefusal, ItemScore, ModelInfo, RefusalKind
from rewardlab.serving.protocols.dialect import Dialect, Json, ModelName, StrictModel, errors
from rewardlab.serving.service import Service, failure_of
from rewardlab.types import as_text

DIALECT = Dialect(
    "rewardlab",
    ("POST /v1/rewards", "POST /v1/compare"),
    "Every scale at once, each under its own name; one that the model cannot give is null.",
    "An item that cannot be scored has an `error` in place of its numbers, and the others keep theirs.",
)


class ChatMessage(TypedDict):
    """One turn; further keys travel to the model's chat template."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    role: str
    content: str


def _form(value: object) -> str:
    return "messages" if isinstance(value, list) else "text"


Text = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[ChatMessage], Tag("messages")],
    Discriminator(_form),
]
"""Text, or messages."""


class RewardsRequest(StrictModel):
    """Completions to score: each with its own prompt, or all with one."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["prompts"]}, {"required": ["prompt"]}],
            "examples": [{"prompt": "What is 2 + 2?", "completions": ["4", "5"]}],
        }
    )

    model: ModelName = None
    prompts: list[Text] | None = Field(None, description="One per completion: text (one user turn), or messages.")
    prompt: Text | None = Field(None, description="In place of `prompts`: the one prompt of all completions.")
    completions: list[Text] = Field(description="Text, or messages.")
    steps: list[Annotated[list[str], Field(min_length=1)] | None] | None = Field(
        None,
        description="For process models, one per completion: its steps; null where the model's contract says how to "
        "split it.",
    )

    def items(self) -> list[Conversation]:
        """What is to be scored.

        Raises:
            RequestRefused: Both or neither of prompt and prompts, or lists of different lengths.
        """
        if (self.prompt is None) == (self.prompts is None):
            came = "neither" if self.prompt is None else "both"
            raise RequestRefused(
                f"expected either prompts, one per completion, or one prompt for all; got {came}", param="prompts"
            )
        count = len(self.completions)
        # One prompt for all stays one object: the queue works out once per object what it begins with.
        prompts = (
            [as_text(self.prompt)] * count if self.prompt is not None else [as_text(one) for one in self.prompts or ()]
        )
        steps = [None] * count if self.steps is None else self.steps
        for name, values in (("prompts", prompts), ("steps", steps)):
            if len(values) != count:
                raise RequestRefused(
                    f"{name}: {len(values)} for {count} completions",
                    hint=f"give one of {name} per completion, in their order",
                    param=name,
                )
        return [
            Conversation(prompt, as_text(completion), tuple(of_one or ()))
            for prompt, completion, of_one in zip(prompts, self.completions, steps, strict=True)
        ]


class CompareRequest(StrictModel):
    """Two completions of one prompt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "What is 2 + 2?", "a": "4", "b": "5"}]})

    model: ModelName = None
    prompt: Text = Field(description="Text (one user turn), or messages.")
    a: Text = Field(description="A completion: text, or messages.")
    b: Text = Field(description="The other one.")


class ItemScores(StrictModel):
    """What the model says of one completion."""

    raw: float = Field(
        description="The head's own number: only differences within a prompt mean something. Of ensembles the "
        "members' scores on their common scale, combined: /info says how."
    )
    calibrated: float | None = Field(description="A logit: a difference of d wins with probability sigmoid(d).")
    z: float | None = Field(description="Standard deviations above the reference set's mean.")
    centered: float | None = Field(description="Raw, less the reference set's mean.")
    percentile: float | None = Field(description="How many of 100 reference completions score lower.")
    step_scores: list[float] | None = Field(description="Of process models, P(correct) of each step.")
    disagreement: float | None = Field(description="Of ensembles, the standard deviation of the members' scores.")
    num_tokens: int
    truncated: bool = Field(description="Whether the oldest part of the prompt was cut to fit.")


class ScoredItem(ItemScores):
    """An item with its scores."""

    index: int


class ItemError(StrictModel):
    """Why an item has no score."""

    kind: RefusalKind
    message: str
    hint: str


class FailedItem(StrictModel):
    """An item without a score."""

    index: int
    error: ItemError


class Usage(StrictModel):
    """What the request held."""

    num_tokens: int
    num_items: int


class _Answered(StrictModel):
    id: str
    created: int = Field(description="Unix seconds.")
    model: str
    fingerprint: str = Field(description="Equal for equal checkpoints.")
    contract_sha256: str | None = Field(description="Of the contract; null of a model without one.")
    usage: Usage


class RewardsAnswer(_Answered):
    """One result per completion, in order."""

    object: Literal["list"]
    results: list[ScoredItem | FailedItem]


class CompareAnswer(_Answered):
    """How probably the first completion is preferred to the second."""

    object: Literal["comparison"]
    probability: float = Field(description="P(a preferred to b) = sigmoid((raw of a - raw of b) / temperature).")
    temperature: float = Field(description="The temperature fitted on preferences; 1 where there is none.")
    fitted: bool = Field(
        description="Whether the temperature was fitted. One fitted on outcomes of single completions is not that of "
        "preferences, and is not used here."
    )
    a: ItemScores
    b: ItemScores


def router(service: Service) -> APIRouter:
    """The routes of this dialect.

    Args:
        service: What scores.
    """
    routes = APIRouter()

    @routes.post("/v1/rewards", response_model=RewardsAnswer, responses=errors())
    async def rewards(body: RewardsRequest) -> Json:
        """Scores of completions, in every scale that the model has."""
        items = body.items()
        _require_steps_are_read(service, body)
        answer = await service.answer(items)
        return Json({"object": "list", "results": _results(answer), **_head("rewards", answer)})

    @routes.post("/v1/compare", response_model=CompareAnswer, responses=errors())
    async def compare(body: CompareRequest) -> Json:
        """How probably one completion is preferred to another."""
        prompt = as_text(body.prompt)
        items = [Conversation(prompt, as_text(text)) for text in (body.a, body.b)]
        answer = await service.answer(items)
        for number, (name, result) in enumerate(zip("ab", answer.results, strict=True)):
            if isinstance(result, ItemRefusal):
                kind = type(failure_of(result, number))
                raise kind(f"{name}: {result.message}", hint=result.hint, param=name)
        a, b = _results(answer)
        temperature = answer.model.temperature if answer.model.unit == "pair" else None
        return Json(
            {
                "object": "comparison",
                "probability": float(sigmoid(np.array((a["raw"] - b["raw"]) / (temperature or 1.0)))),
                "temperature": temperature or 1.0,
                "fitted": temperature is not None,
                "a": _without_index(a),
                "b": _without_index(b),
                **_head("compare", answer),
            }
        )

    return routes


def _require_steps_are_read(service: Service, body: RewardsRequest) -> None:
    if body.steps is not None and (kind := service.model().kind) != "step":
        raise RequestRefused(
            f"steps: this model is read per {kind}, not per step", hint="leave steps out", param="steps"
        )


def _head(what: str, answer: Answer) -> dict[str, Any]:
    scored = [result for result in answer.results if isinstance(result, ItemScore)]
    return {
        "id": f"{what}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": answer.model.name,
        "fingerprint": answer.model.fingerprint,
        "contract_sha256": answer.model.contract_sha256,
        "usage": {"num_tokens": sum(result.num_tokens for result in scored), "num_items": len(answer.results)},
    }


def _results(answer: Answer) -> list[dict[str, Any]]:
    scored = [result for result in answer.results if isinstance(result, ItemScore)]
    columns = iter(_in_all_scales([result.score for result in scored], answer.model))
    return [
        _failed(index, result) if isinstance(result, ItemRefusal) else _scored(index, result, next(columns))
        for index, result in enumerate(answer.results)
    ]


def _in_all_scales(scores: Sequence[float], model: ModelInfo) -> list[dict[str, float | None]]:
    """Per score, its value in each scale; None in those that the model cannot give."""
    columns: dict[str, Sequence[float | None]] = {}
    for scale in SCALES:
        try:
            model.scale.require(scale)
        except ConfigError:
            columns[scale] = [None] * len(scores)
        else:
            columns[scale] = model.scale.transform(scores, scale)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _scored(index: int, result: ItemScore, scales: dict[str, float | None]) -> dict[str, Any]:
    return {
        "index": index,
        **scales,
        "step_scores": list(result.steps) or None,
        "disagreement": result.disagreement,
        "num_tokens": result.num_tokens,
        "truncated": result.truncated,
    }


def _failed(index: int, refusal: ItemRefusal) -> dict[str, Any]:
    return {"index": index, "error": {"kind": refusal.kind, "message": refusal.message, "hint": refusal.hint}}


def _without_index(scored: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scored.items() if name != "index"}
