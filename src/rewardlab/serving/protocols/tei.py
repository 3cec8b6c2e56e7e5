"""text-embeddings-inference's ``/predict`` and ``/rerank``, with its errors: 422, 424, and 429 on overload.

One string is rendered text; a pair is a prompt and its completion, and so are a query and each of its texts. Scores go
through a sigmoid unless ``raw_scores`` is true, as TEI does with a model of one label.

References:
    text-embeddings-inference, ``docs/openapi.json`` and ``router/src/http/types.rs``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter
from pydantic import BaseModel, Discriminator, Field, Tag

from rewardlab.serving.failures import RequestRefused
from rewardlab.serving.items import Conversation, Item, Rendered
from rewardlab.serving.protocols.dialect import LABEL, Dialect, Json, OpenModel, errors
from rewardlab.serving.protocols.vllm import best_first, shares
from rewardlab.serving.service import Scores, Service
from rewardlab.types import Scale

DIALECT = Dialect(
    "text-embeddings-inference",
    ("POST /predict", "POST /rerank"),
    "The sigmoid of the score on the server's --scale, or of a percentile its hundredth; with raw_scores the score "
    "itself.",
    "A single string must be rendered by this model's own chat template. Truncation is from the left alone: the end of "
    "a completion is never cut.",
)

StringOrPair: TypeAlias = Annotated[list[str], Field(min_length=1, max_length=2)]
"""A string, or a pair."""


def _form(value: object) -> str | None:
    if not isinstance(value, list):
        return "string" if isinstance(value, str) else None
    if value and isinstance(value[0], list):
        return "batch"
    return None if len(value) > 2 else "sequence"


Inputs: TypeAlias = Annotated[
    Annotated[str, Tag("string")]
    | Annotated[StringOrPair, Tag("sequence")]
    | Annotated[list[StringOrPair], Tag("batch")],
    Discriminator(
        _form,
        custom_error_type="which_input",
        custom_error_message='a string, a pair of strings, or a batch such as [["a"], ["b"], ["c"]]',
    ),
]
"""A string, a pair, or a batch of them; told by the first, so that an error is about the form that was meant."""


class _Options(OpenModel):
    raw_scores: bool = Field(False, description="No sigmoid.")
    truncate: bool | None = Field(None, description="Whether a single string may be cut to the model's length.")
    truncation_direction: Literal["left", "Left", "right", "Right"] | None = Field(
        None, description='"left", which it is here when not given; "right" would cut the completion.'
    )

    def require_left(self) -> None:
        """Refuse to cut the end, where the score is read.

        Raises:
            RequestRefused: It was asked for.
        """
        if self.truncate and (self.truncation_direction or "").lower() == "right":
            raise RequestRefused(
                "truncation from the right would cut the end of the completion, where the score is read",
                hint='say "left", or leave truncation_direction out',
                param="truncation_direction",
            )


class PredictRequest(_Options):
    """A string, a pair, or a batch of them."""

    inputs: Inputs = Field(description='A string; ["a", "b"], one pair; or a batch, [["a"], ["a", "b"]].')


class Prediction(BaseModel):
    """The score under the one label."""

    score: float
    label: str


class RankRequest(_Options):
    """A prompt and its completions."""

    query: str = Field(description="The prompt: text, one user turn.")
    texts: list[str] = Field(description="Its completions.")
    return_text: bool = Field(False, description="Whether each text comes back with its score.")


class Rank(BaseModel):
    """The score of one text."""

    index: int
    score: float
    text: str | None = None


def router(service: Service) -> APIRouter:
    """The routes that TEI alone has; ``/rerank`` is in :mod:`.shared_routes`.

    Args:
        service: What scores.
    """
    routes = APIRouter()

    @routes.post("/predict", response_model=list[Prediction] | list[list[Prediction]], responses=errors("tei"))
    async def predict(body: PredictRequest) -> Json:
        """Scores of strings or pairs."""
        body.require_left()
        cut_to = service.model().max_length if body.truncate else None
        is_batch = isinstance(body.inputs, list) and isinstance(body.inputs[0], list)
        sequences: Any = body.inputs if is_batch else [[body.inputs] if isinstance(body.inputs, str) else body.inputs]
        items: list[Item] = [
            _pair("inputs", number, *sequence) if len(sequence) == 2 else Rendered(sequence[0], cut_to)
            for number, sequence in enumerate(sequences)
        ]
        scores = await service.scores(items)
        answers = [[{"score": value, "label": LABEL}] for value in _values(scores, body, service.settings.scale)]
        return Json(answers if is_batch else answers[0])

    return routes


async def answer_rerank(service: Service, body: RankRequest) -> Json:
    """``/rerank``: the best first."""
    body.require_left()
    scores = await service.scores([_pair("texts", number, body.query, text) for number, text in enumerate(body.texts)])
    values = _values(scores, body, service.settings.scale)
    ranks: list[dict[str, Any]] = []
    for index in best_first(scores):
        text = {"text": body.texts[index]} if body.return_text else {}
        ranks.append({"index": index, **text, "score": values[index]})
    return Json(ranks)


def _pair(field: str, number: int, prompt: str, completion: str) -> Conversation:
    """A pair, one of which may be empty, as TEI takes it."""
    if not prompt and not completion:
        raise RequestRefused(
            f"item {number}: both texts are empty", hint="send at least one", param=f"{field}.{number}"
        )
    return Conversation(prompt, completion)


def _values(scores: Scores, body: _Options, scale: Scale) -> list[float]:
    return list(scores.values) if body.raw_scores else shares(scores, scale)
