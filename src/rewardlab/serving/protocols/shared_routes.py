"""The routes that two dialects share, each told by the keys of its body.

=============== =============================== ============================
route           one dialect                     the other
=============== =============================== ============================
/classify       vLLM: input, or messages        SGLang: text, or input_ids
/rerank         vLLM: documents                 TEI: texts
/get_reward     OpenRLHF: query                 slime: response
=============== =============================== ============================
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Request
from pydantic import Tag

from rewardlab.serving.protocols import openrlhf, sglang, slime, tei, vllm, vllm_bodies
from rewardlab.serving.protocols.dialect import Json, errors
from rewardlab.serving.protocols.vllm_bodies import told_by
from rewardlab.serving.service import Service

AnyClassifyRequest: TypeAlias = Annotated[
    Annotated[vllm_bodies.TextRequest, Tag("with input")]
    | Annotated[vllm_bodies.ChatRequest, Tag("with messages")]
    | Annotated[sglang.RenderedRequest, Tag("with text")]
    | Annotated[sglang.TokenIdsRequest, Tag("with input_ids")],
    told_by(
        *("input", "messages", "text", "input_ids"),
        expected="an object with one of input or messages (vLLM), text or input_ids (SGLang)",
    ),
]
AnyRerankRequest: TypeAlias = Annotated[
    Annotated[vllm_bodies.RerankRequest, Tag("with documents")] | Annotated[tei.RankRequest, Tag("with texts")],
    told_by("documents", "texts", expected="an object with either documents (vLLM) or texts (TEI)"),
]
AnyRewardRequest: TypeAlias = Annotated[
    Annotated[openrlhf.RewardRequest, Tag("with query")] | Annotated[slime.SampleRequest, Tag("with response")],
    told_by("query", "response", expected="an object with either query (OpenRLHF) or response (slime)"),
]


async def _word_errors_as_asked(request: Request) -> None:
    """Errors of a ``/rerank`` with ``texts`` are worded as TEI's; told before the body is checked, which may fail."""
    try:
        body = await request.json()
    except ValueError:  # no body at all, which is refused next
        return
    if isinstance(body, dict) and body.get("texts") is not None:
        request.state.error_shape = "tei"


def router(service: Service) -> APIRouter:
    """The shared routes.

    Args:
        service: What scores.
    """
    routes = APIRouter()

    @routes.post(
        "/classify",
        response_model=vllm_bodies.ClassifyAnswer | sglang.ScoreEmbedding | list[sglang.ScoreEmbedding],
        responses=errors(),
    )
    async def classify(body: AnyClassifyRequest) -> Json:
        """Scores of rendered text or ids, or of a conversation: vLLM's, or SGLang's."""
        if isinstance(body, vllm_bodies.TextRequest | vllm_bodies.ChatRequest):
            return await vllm.answer_classify(service, body)
        return await sglang.answer_classify(service, body)

    @routes.post(
        "/rerank",
        response_model=vllm_bodies.RerankAnswer | list[tei.Rank],
        responses=errors("openai", "tei"),
        dependencies=[Depends(_word_errors_as_asked)],
    )
    async def rerank(body: AnyRerankRequest) -> Json:
        """Completions of one prompt, the best first: vLLM's, as Cohere and Jina ask; or text-embeddings-inference's."""
        if isinstance(body, vllm_bodies.RerankRequest):
            return await vllm.answer_rerank(service, body)
        return await tei.answer_rerank(service, body)

    @routes.post("/get_reward", response_model=openrlhf.RewardAnswer | float, responses=errors())
    async def get_reward(body: AnyRewardRequest) -> Json:
        """Rewards: OpenRLHF's, or slime's, whose body is the number."""
        if isinstance(body, openrlhf.RewardRequest):
            return await openrlhf.answer_get_reward(service, body)
        return await slime.answer_get_reward(service, body)

    return routes
