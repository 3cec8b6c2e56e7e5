"""SGLang's reward model routes: ``/classify`` with ``text`` or ``input_ids``, and ``/v1/embeddings``, as verl calls it.

Text is already rendered. ``/v1/embeddings`` gives the score as an embedding of one number, in base64 where it is asked
for, as the openai client does when not told.

References:
    SGLang, ``python/sglang/srt/managers/io_struct.py`` (``EmbeddingReqInput``) and
    ``srt/entrypoints/openai/serving_embedding.py``.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from rewardlab.serving.protocols.dialect import Dialect, Json, ModelName, OpenModel, errors
from rewardlab.serving.protocols.vllm import items_of, packed_as_base64, usage_of
from rewardlab.serving.protocols.vllm_bodies import Input, Sequences, TokenUsage, refuse_unless_harmless
from rewardlab.serving.service import Service

DIALECT = Dialect(
    "SGLang",
    ("POST /classify", "POST /v1/embeddings"),
    "The score on the server's --scale, never through an activation; an embedding of one number.",
    "Text must be rendered by this model's own chat template; over the model's length it is refused.",
)

_HARMLESS: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("image_data", "audio_data", "video_data", "input_embeds", "dimensions"), ()
)


class _Request(OpenModel):
    without_effect: ClassVar[frozenset[str]] = frozenset({*_HARMLESS, "user", "priority", "sampling_params"})

    model: ModelName = None
    rid: str | None = Field(None, max_length=256, description="Comes back as the answer's id.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_would_change_the_score(cls, data: Any) -> Any:
        refuse_unless_harmless(data, _HARMLESS)
        return data


class RenderedRequest(_Request):
    """Rendered text, or several."""

    text: str | list[str] = Field(description="Rendered text, one or several.")


class TokenIdsRequest(_Request):
    """Token ids, or several."""

    input_ids: Sequences = Field(description="Token ids of one sequence, or of several; they are never cut.")


class MetaInfo(BaseModel):
    """What else is known of an item."""

    id: str
    prompt_tokens: int


class ScoreEmbedding(BaseModel):
    """The score of one item."""

    embedding: list[float] = Field(description="The score alone.")
    meta_info: MetaInfo


class EmbeddingsRequest(_Request):
    """Rendered text, token ids, or several."""

    input: Input = Field(description="Rendered text or token ids, one or several.")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64 is of little-endian float32.")


class Embedding(BaseModel):
    """The score of one item, as an embedding of one number; base64 is of little-endian float32."""

    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class EmbeddingsAnswer(BaseModel):
    """Of ``/v1/embeddings``."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: TokenUsage


def router(service: Service) -> APIRouter:
    """The routes that SGLang alone has; ``/classify`` is in :mod:`.shared_routes`.

    Args:
        service: What scores.
    """
    routes = APIRouter()

    @routes.post("/v1/embeddings", response_model=EmbeddingsAnswer, responses=errors())
    async def embeddings(body: EmbeddingsRequest) -> Json:
        """Scores as embeddings of one number."""
        scores = await service.scores(items_of(body.input))
        data = [
            {
                "object": "embedding",
                "embedding": [value] if body.encoding_format == "float" else packed_as_base64([value]),
                "index": index,
            }
            for index, value in enumerate(scores.values)
        ]
        return Json({"object": "list", "data": data, "model": scores.model.name, "usage": usage_of(scores)})

    return routes


async def answer_classify(service: Service, body: RenderedRequest | TokenIdsRequest) -> Json:
    """``/classify``: of one item an object, of several a list."""
    value = body.text if isinstance(body, RenderedRequest) else body.input_ids
    scores = await service.scores(items_of(value))
    name = body.rid or uuid.uuid4().hex
    is_one = isinstance(value, str) or isinstance(value[0], int)
    answers = [
        {
            "embedding": [score],
            "meta_info": {"id": name if is_one else f"{name}_{index}", "prompt_tokens": result.num_tokens},
        }
        for index, (score, result) in enumerate(zip(scores.values, scores.results, strict=True))
    ]
    return Json(answers[0] if is_one else answers)
