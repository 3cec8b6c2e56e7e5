"""A request of each dialect, and what a server answers to it: shown on the API page, and sent by its tests.

Rendered texts are in ChatML; the page puts in its place what the served model's own chat template makes of the same
conversation (``rendered_example`` of ``/info``). Numbers are made up.
"""

from __future__ import annotations

from typing import Any, Final

_PROMPT = "What is the capital of France?"
_ANSWERS = ["Paris.", "Lyon."]
RENDERED: Final = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nParis.<|im_end|>\n"
)
"""The user asks the prompt, the assistant answers with the first answer."""

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

_MODEL: dict[str, Any] = {
    "name": "rm",
    "fingerprint": "3f9a2c17be04",
    "contract_sha256": None,
    "kind": "sequence",
    "architecture": "Qwen3ForSequenceClassification",
    "max_length": 1024,
    "dtype": "bfloat16",
    "device": "cuda:0",
    "layout": "tree",
    "tokens_per_batch": 32768,
    "activation": "identity",
    "reads_rendered_text": True,
    "members": [],
    "how": None,
    "members_scale": None,
    "rendered_example": RENDERED,
    "reference": None,
    "temperature": None,
    "unit": "pair",
    "versions": {"torch": "2.13.0"},
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
                "id": "compare-8d20",
                "usage": {"num_tokens": 44, "num_items": 2},
            },
        ),
    ),
    ("vLLM", "/classify"): (
        ({"model": "rm", "input": RENDERED, "use_activation": False}, _VLLM_CLASSIFIED),
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
        ({"text": RENDERED}, {"embedding": [1.734], "meta_info": {"id": "5d2e", "prompt_tokens": 22}}),
    ),
    ("SGLang", "/v1/embeddings"): (
        (
            {"model": "rm", "input": RENDERED},
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
            {"query": [RENDERED], "prompts": [_PROMPT]},
            {"rewards": [1.734], "scores": [1.734], "extra_logs": {}},
        ),
    ),
    ("slime", "/get_reward"): (({"prompt": _PROMPT, "response": "Paris."}, 1.734),),
    ("LLaMA-Factory", "/v1/score/evaluation"): (
        (
            {"model": "rm", "messages": [RENDERED]},
            {"id": "scoreval-81ff", "object": "score.evaluation", "model": "rm", "scores": [1.734]},
        ),
    ),
    ("text-embeddings-inference", "/predict"): (
        ({"inputs": RENDERED, "raw_scores": True}, [{"score": 1.734, "label": "LABEL_0"}]),
    ),
    ("text-embeddings-inference", "/rerank"): (
        (
            {"query": _PROMPT, "texts": _ANSWERS, "raw_scores": True},
            [{"index": 0, "score": 1.734}, {"index": 1, "score": -0.213}],
        ),
    ),
    ("System", "/health"): ((None, {"status": "ready"}),),
    ("System", "/ping"): ((None, {"status": "ready"}),),
    ("System", "/v1/models"): (
        (
            None,
            {
                "object": "list",
                "data": [
                    {
                        "id": "rm",
                        "object": "model",
                        "created": 1790000000,
                        "owned_by": "rewardlab",
                        "max_model_len": 1024,
                        "fingerprint": "3f9a2c17be04",
                    }
                ],
            },
        ),
    ),
    ("System", "/info"): (),
    ("System", "/sleep"): ((None, {"is_sleeping": True}),),
    ("System", "/wake_up"): ((None, {"is_sleeping": False}),),
    ("System", "/is_sleeping"): ((None, {"is_sleeping": False}),),
    ("System", "/reload"): (({"path": "runs/rm-2"}, _MODEL),),
}
"""Dialect and shortest path to request bodies, each with its answer; in the order in which they are shown."""
