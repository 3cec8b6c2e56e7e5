"""What serving is compared with: a plain FastAPI server that answers each request with a forward of its own.

    python benchmarks/one_forward_server.py DIR

It does what such servers do right: text in, the route and the answer's shape of vLLM's `/classify`, transformers' own
forward, in a thread, so that the event loop is never blocked. It gathers nothing. benchmarks/serving.py starts it.
"""

from __future__ import annotations

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def make_app(folder: str) -> FastAPI:
    """The application: one route, and one thread that computes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    one_thread = ThreadPoolExecutor(1)  # more of them would fight for the same cores
    app = FastAPI()

    def score(text: str) -> float:
        with torch.inference_mode():
            return float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0])

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, Any]:
        text = (await request.json())["input"]
        found = await asyncio.get_running_loop().run_in_executor(one_thread, score, text)
        return {"data": [{"index": 0, "probs": [found], "num_classes": 1}]}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a checkpoint")
    options = parser.parse_args()
    uvicorn.run(make_app(options.model), host="127.0.0.1", port=0, access_log=False)


if __name__ == "__main__":
    main()
