"""A request of each dialect, and what a server answers to it: shown on the API page, and sent by its tests.

Rendered texts are in ChatML; a server's own model may have another chat template. Numbers are made up.
"""

from __future__ import annotations

from typing import Any, Final

_PROMPT = "What is the capital of France?"
_ANSWERS = ["Paris.", "Lyon."]
_RENDERED = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nParis.<|im_end|>\n"
_MESSAGES = [{"role": "user", "content": _PROMPT}, {"role": "assistant", "content": "Paris."}]
_USAGE = {"prompt_tokens": 22, "total_tokens": 22, "completion_tokens": 0, "prompt_tokens_details": None}
_HEAD = {
    "id": "rewards-4f1c",
    "created": 1790000000,
    "model": "rm",
    "fingerprint": "3f9a2c17be04",
    "contract_sha256": None,
}
_REWARD = {
    "raw": 1.734,
    "calibrated": 1.633,
    "z": 1.112,
    "centered": 1.334,
    "percentile": 86.7,
    "step_scores": None,
    "disagreement": None,
    "num_tokens": 22,
    "truncated": False,
}
_WORSE = {**_REWARD, "raw": -0.213, "calibrated": -0.75, "z": -0.511, "centered": -0.613, "percentile": 30.2}
_VLLM_CLASSIFIED = {
    "id": "classify-9b1d",
    "object": "list",
    "created": 1790000000,
    "model": "rm",
    "data": [{"index": 0, "label": "LABEL_0", "probs": [1.734], "num_classes": 1}],
    "usage": _USAGE,
}

_RERANKED = {
    "id": "rerank-1aaf",
    "model": "rm",
    "usage": {"prompt_tokens": 44, "total_tokens": 44},
    "results": [
        {"index": 0, "document": {"text": "Paris."}, "relevance_score": 1.734},
        {"index": 1, "document": {"text": "Lyon."}, "relevance_score": -0.213},
    ],
}

PARAMETERS: Final[dict[str, str]] = {"/sleep": "?level=1"}
"""The query that a route is shown with."""

EXAMPLES: Final[dict[tuple[str, str], tuple[tuple[Any, Any], ...]]] = {
    ("rewardlab", "/v1/rewards"): (
        (
            {"prompt": _PROMPT, "completions": _ANSWERS},
            {
                "object": "list",
                "results": [{"index": 0, **_REWARD}, {"index": 1, **_WORSE}],
                **_HEAD,
                "usage": {"num_tokens": 44, "num_items": 2},
            },
        ),
    ),
    ("rewardlab", "/v1/compare"): (
        (
            {"prompt": _PROMPT, "a": "Paris.", "b": "Lyon."},
            {
                "object": "comparison",
                "probability": 0.916,
                "temperature": 0.817,
                "fitted": True,
                "a": _REWARD,
                "b": _WORSE,
                **_HEAD,
                "usage": {"num_tokens": 44, "num_items": 2},
            },
        ),
    ),
    ("vLLM", "/classify"): (
        ({"model": "rm", "input": _RENDERED, "use_activation": False}, _VLLM_CLASSIFIED),
        ({"model": "rm", "messages": _MESSAGES}, _VLLM_CLASSIFIED),
    ),
    ("vLLM", "/pooling"): (
        (
            {"model": "rm", "messages": _MESSAGES},
            {
                "id": "pool-27aa",
                "object": "list",
                "created": 1790000000,
                "model": "rm",
                "data": [{"index": 0, "object": "pooling", "data": [1.734]}],
                "usage": _USAGE,
            },
        ),
    ),
    ("vLLM", "/score"): (
        (
            {"model": "rm", "queries": _PROMPT, "documents": _ANSWERS},
            {
                "id": "score-c05e",
                "object": "list",
                "created": 1790000000,
                "model": "rm",
                "data": [
                    {"index": 0, "object": "score", "score": 1.734},
                    {"index": 1, "object": "score", "score": -0.213},
                ],
                "usage": _USAGE,
            },
        ),
    ),
    ("vLLM", "/rerank"): (({"model": "rm", "query": _PROMPT, "documents": _ANSWERS}, _RERANKED),),
    ("vLLM", "/v1/rerank"): (({"model": "rm", "query": _PROMPT, "documents": _ANSWERS, "top_n": 2}, _RERANKED),),
    ("SGLang", "/classify"): (
        ({"text": _RENDERED}, {"embedding": [1.734], "meta_info": {"id": "5d2e", "prompt_tokens": 22}}),
    ),
    ("SGLang", "/v1/embeddings"): (
        (
            {"model": "rm", "input": _RENDERED},
            {
                "object": "list",
                "data": [{"object": "embedding", "embedding": [1.734], "index": 0}],
                "model": "rm",
                "usage": _USAGE,
            },
        ),
    ),
    ("OpenRLHF", "/get_reward"): (
        (
            {"query": [_RENDERED], "prompts": [_PROMPT]},
            {"rewards": [1.734], "scores": [1.734], "extra_logs": {}},
        ),
    ),
    ("slime", "/get_reward"): (({"prompt": _PROMPT, "response": "Paris."}, 1.734),),
    ("LLaMA-Factory", "/v1/score/evaluation"): (
        (
            {"model": "rm", "messages": [_RENDERED]},
            {"id": "scoreval-81ff", "object": "score.evaluation", "model": "rm", "scores": [1.734]},
        ),
    ),
    ("text-embeddings-inference", "/predict"): (
        ({"inputs": _RENDERED, "raw_scores": True}, [{"score": 1.734, "label": "LABEL_0"}]),
    ),
    ("text-embeddings-inference", "/rerank"): (
        (
            {"query": _PROMPT, "texts": _ANSWERS, "raw_scores": True},
            [{"index": 0, "score": 1.734}, {"index": 1, "score": -0.213}],
        ),
    ),
}
"""Dialect and shortest path to request bodies, each with its answer."""
