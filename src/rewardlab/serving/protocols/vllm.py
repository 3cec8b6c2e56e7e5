"""vLLM's pooling routes: ``/classify``, ``/pooling``, ``/score``, ``/rerank``, shaped as vLLM 0.33 has them.

Text sent to ``/classify`` and ``/pooling`` is already rendered, as verl sends it; ``/score`` and ``/rerank`` take a
query for the prompt and a document for the completion; ``messages`` are a whole conversation.

References:
    vLLM, ``vllm/entrypoints/pooling/{base,classify,pooling,scoring}/protocol.py`` and ``pooling/utils.py``; the
    activation is ``vllm/model_executor/layers/pooler/activations.py``.
"""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Response

from rewardlab.metrics.probability import sigmoid
from rewardlab.serving.failures import RequestRefused
from rewardlab.serving.items import Conversation, Ids, Item, ModelInfo, Rendered
from rewardlab.serving.protocols.dialect import LABEL, Dialect, Json, errors
from rewardlab.serving.protocols.vllm_bodies import (
    ChatRequest,
    Data,
    Documents,
    Input,
    Options,
    PoolingAnswer,
    PoolingChatRequest,
    PoolingOptions,
    PoolingRequest,
    PoolingTextRequest,
    QueriesDocuments,
    QueriesItems,
    RerankAnswer,
    RerankRequest,
    ScoreAnswer,
    ScoreRequest,
    TextRequest,
    Texts,
    Turn,
)
from rewardlab.serving.service import Scores, Service
from rewardlab.types import Message, Scale

DIALECT = Dialect(
    "vLLM",
    (
        "POST /classify",
        "POST /pooling",
        "POST /score",
        "POST /v1/score",
        "POST /rerank",
        "POST /v1/rerank",
        "POST /v2/rerank",
    ),
    "The score on the server's --scale, through a sigmoid only where vLLM would take one: of a model whose config does "
    'not say problem_type="regression", unless use_activation is false; of a percentile its '
    "hundredth, and no sigmoid. /pooling of a process model gives [1 - P(correct), P(correct)] of each step.",
    "Text sent to /classify and /pooling must be rendered by this model's own chat template. The begin token is there "
    "exactly once, whatever add_special_tokens says. Text over the model's length is refused unless "
    "truncate_prompt_tokens allows to cut it, from the left.",
)

_MOST_DESCRIBED = 50
"""Items of one answer as bytes: each takes about 120 characters of a header, of which aiohttp reads 8190."""


def router(service: Service) -> APIRouter:
    """The routes that vLLM alone has; ``/classify`` and ``/rerank`` are in :mod:`.shared_routes`.

    Args:
        service: What scores.
    """
    routes = APIRouter()
    binary: dict[int | str, dict[str, Any]] = {
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    }

    @routes.post("/pooling", response_model=PoolingAnswer, responses={**errors(), **binary})
    async def pooling(body: PoolingRequest) -> Response:
        """Scores, or a process model's step probabilities; as numbers, base64 or bytes."""
        return await answer_pooling(service, body)

    @routes.post("/score", response_model=ScoreAnswer, responses=errors())
    @routes.post("/v1/score", response_model=ScoreAnswer, responses=errors())
    async def score(body: ScoreRequest) -> Json:
        """Scores of documents, each a completion, to queries, each a prompt."""
        return await answer_score(service, body)

    @routes.post("/v1/rerank", response_model=RerankAnswer, responses=errors())
    @routes.post("/v2/rerank", response_model=RerankAnswer, responses=errors())
    async def rerank(body: RerankRequest) -> Json:
        """Documents, each a completion, to one query, the prompt; the best first: as Cohere and Jina ask."""
        return await answer_rerank(service, body)

    return routes


async def answer_classify(service: Service, body: TextRequest | ChatRequest) -> Json:
    """``/classify``."""
    scores = await service.scores(_items(service, body))
    values = _activated(service, scores, body)
    data = [{"index": i, "label": LABEL, "probs": [value], "num_classes": 1} for i, value in enumerate(values)]
    return Json({**_head("classify", body, scores), "data": data})


async def answer_pooling(service: Service, body: PoolingTextRequest | PoolingChatRequest) -> Response:
    """``/pooling``."""
    items = _items(service, body)
    of_steps = _reads_steps(service.model(), body)
    if body.encoding_format == "bytes" and len(items) > _MOST_DESCRIBED:
        raise RequestRefused(
            f"{len(items)} items as bytes: the header that says where each lies would be too long for clients to read, "
            f"and at most {_MOST_DESCRIBED} are taken",
            hint='send encoding_format "base64" or "bytes_only", or fewer items',
            param="encoding_format",
        )
    scores = await service.scores(items)
    rows: list[list[Any]] = [[value] for value in _activated(service, scores, body)]
    if of_steps:
        rows = [[[1.0 - correct, correct] for correct in result.steps] for result in scores.results]
    head = _head("pooling", body, scores)
    if body.encoding_format.startswith("bytes"):
        return _binary(head, rows, body)
    if body.encoding_format == "base64":
        rows = [packed_as_base64(row) for row in rows]  # type: ignore[misc]
    return Json({**head, "data": [{"index": i, "object": "pooling", "data": row} for i, row in enumerate(rows)]})


def _reads_steps(model: ModelInfo, body: PoolingTextRequest | PoolingChatRequest) -> bool:
    """Whether the steps are asked for; refuses what the model has not."""
    has_steps = model.kind == "step"
    if body.task == "token_classify" and not has_steps:
        raise RequestRefused("this model scores no steps", hint='leave out the task, or say "classify"', param="task")
    of_steps = has_steps and body.task != "classify"
    if of_steps and body.use_activation is False:
        raise RequestRefused(
            "steps are given as probabilities, not as logits", hint="leave use_activation out", param="use_activation"
        )
    return of_steps


def _binary(head: dict[str, Any], rows: Sequence[list[Any]], body: PoolingOptions) -> Response:
    """All rows as one run of float32; where each lies is told by the header ``metadata``."""
    packed = [_packed(row) for row in rows]
    headers = {}
    if body.encoding_format == "bytes":
        described: list[dict[str, Any]] = []
        for index, (row, one) in enumerate(zip(rows, packed, strict=True)):
            start = described[-1]["end"] if described else 0
            described.append(
                {
                    "index": index,
                    "embed_dtype": body.embed_dtype,
                    "endianness": body.endianness,
                    "start": start,
                    "end": start + len(one),
                    "shape": [len(row), 2] if row and isinstance(row[0], list) else [len(row)],
                }
            )
        headers["metadata"] = json.dumps({**head, "data": described})
    return Response(b"".join(packed), media_type="application/octet-stream", headers=headers)


def _packed(row: Sequence[Any]) -> bytes:
    numbers = [number for part in row for number in (part if isinstance(part, list) else [part])]
    return struct.pack(f"<{len(numbers)}f", *numbers)


def packed_as_base64(row: Sequence[Any]) -> str:
    """Numbers as base64 of little-endian float32, as vLLM and SGLang send them.

    Args:
        row: Numbers, or lists of numbers.
    """
    return base64.b64encode(_packed(row)).decode("ascii")


async def answer_score(service: Service, body: QueriesDocuments | QueriesItems | Texts | Data) -> Json:
    """``/score``."""
    if isinstance(body, QueriesDocuments):
        first, second = body.queries, body.documents
    elif isinstance(body, QueriesItems):
        first, second = body.queries, body.items
    elif isinstance(body, Texts):
        first, second = body.text_1, body.text_2
    else:
        first, second = body.data_1, body.data_2
    prompts, completions = _texts(first), _texts(second)
    if len(prompts) not in (1, len(completions)):
        raise RequestRefused(
            f"{len(prompts)} prompts and {len(completions)} completions",
            hint="send one prompt for all completions, or as many",
        )
    prompts = prompts * len(completions) if len(prompts) == 1 else prompts
    scores = await _pair_scores(service, body, prompts, completions)
    values = enumerate(_activated(service, scores, body))
    data = [{"index": i, "object": "score", "score": value} for i, value in values]
    return Json({**_head("score", body, scores), "data": data})


async def answer_rerank(service: Service, body: RerankRequest) -> Json:
    """``/rerank``."""
    texts = _texts(body.documents)
    scores = await _pair_scores(service, body, _texts(body.query) * len(texts), texts)
    values = _activated(service, scores, body)
    results: list[dict[str, Any]] = []
    for index in best_first(scores)[: body.top_n or None]:
        document = {} if body.return_documents is False else {"document": {"text": texts[index]}}
        results.append({"index": index, **document, "relevance_score": values[index]})
    head = _head("rerank", body, scores)
    usage = {name: head["usage"][name] for name in ("prompt_tokens", "total_tokens")}
    return Json({"id": head["id"], "model": head["model"], "usage": usage, "results": results})


async def _pair_scores(service: Service, body: Options, prompts: Sequence[str], completions: Sequence[str]) -> Scores:
    _cut_to(body, service.model(), may_be_shorter=False)
    return await service.scores([Conversation(*pair) for pair in zip(prompts, completions, strict=True)])


def _texts(value: Documents) -> list[str]:
    return [one if isinstance(one, str) else one.text for one in (value if isinstance(value, list) else [value])]


def _items(service: Service, body: TextRequest | ChatRequest) -> list[Item]:
    if isinstance(body, ChatRequest):
        _cut_to(body, service.model(), may_be_shorter=False)
        *prompt, last = [message_of(message) for message in body.messages]
        return [Conversation(tuple(prompt) if prompt else "", (last,))]
    cut_to = _cut_to(body, service.model(), may_be_shorter=True)
    items = items_of(body.input, cut_to)
    for number, item in enumerate(items):
        if isinstance(item, Ids) and cut_to is not None and len(item.ids) > cut_to:
            raise RequestRefused(
                f"item {number} has {len(item.ids)} token ids, and truncate_prompt_tokens allows {cut_to}: text is cut "
                "here, ids are not",
                hint="send text, or cut the ids",
                param="truncate_prompt_tokens",
            )
    return items


def items_of(value: Input, cut_to: int | None = None) -> list[Item]:
    """The items of rendered text, token ids, or several.

    Args:
        value: What came.
        cut_to: As :class:`~rewardlab.serving.items.Rendered` has it; ids are never cut.
    """
    if isinstance(value, str):
        return [Rendered(value, cut_to)]
    if value and isinstance(value[0], int):
        return [Ids(tuple(value))]
    return [Rendered(one, cut_to) if isinstance(one, str) else Ids(tuple(one)) for one in value]  # type: ignore[arg-type]


def message_of(message: Turn) -> Message:
    """A turn as the template takes it; parts are joined by line ends, as vLLM joins them."""
    content = message.content
    if isinstance(content, list):
        content = "\n".join(part.text for part in content)
    return {**(message.model_extra or {}), "role": message.role, "content": content}


def _cut_to(body: Options, model: ModelInfo, *, may_be_shorter: bool) -> int | None:
    """To how many tokens text may be cut.

    Raises:
        RequestRefused: To fewer than the model takes, of what is a prompt and a completion: those are cut to the
            model's length alone.
    """
    if body.truncate_prompt_tokens is None:
        return None
    wanted = model.max_length if body.truncate_prompt_tokens == -1 else body.truncate_prompt_tokens
    if wanted < model.max_length and not may_be_shorter:
        raise RequestRefused(
            f"a conversation is cut to the model's {model.max_length} tokens, not to {wanted}",
            hint="send -1, or leave it out",
            param="truncate_prompt_tokens",
        )
    return min(wanted, model.max_length)


def _activated(service: Service, scores: Scores, body: Options) -> list[float]:
    """What vLLM's activation makes of the scores; what a process or outcome model gives is a probability already."""
    if scores.model.activation == "identity" or scores.model.kind != "sequence" or body.use_activation is False:
        return list(scores.values)
    return shares(scores, service.settings.scale)


def shares(scores: Scores, scale: Scale) -> list[float]:
    """Each score as a number from 0 to 1: its sigmoid, or of a percentile, which is a share of 100 already, that.

    Args:
        scores: The scores.
        scale: The scale that they are on.
    """
    if scale == "percentile":
        return [value / 100.0 for value in scores.values]
    values: list[float] = sigmoid(np.asarray(scores.values, dtype=np.float64)).tolist()
    return values


def best_first(scores: Scores) -> list[int]:
    """The items by score, the best first, ties in their order; a sigmoid of large scores would tie what they do not.

    Args:
        scores: The scores.
    """
    return sorted(range(len(scores.values)), key=lambda index: (-scores.values[index], index))


def usage_of(scores: Scores) -> dict[str, Any]:
    """``usage`` as vLLM, SGLang and OpenAI count it.

    Args:
        scores: The scores.
    """
    count = scores.num_tokens
    return {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0, "prompt_tokens_details": None}


def _head(prefix: str, body: Options, scores: Scores) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{body.request_id or uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": scores.model.name,
        "usage": usage_of(scores),
    }
