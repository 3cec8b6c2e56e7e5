"""Ranks that share the forwards of an evaluation: the scores of one, bit for bit; in shards as many forwards."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewardlab.data.encoding import EncodedGroup
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.modeling.ranks import Ranks
from rewardlab.training.rank_engine import RankEngine, scores_of
from rewardlab.types import Pair, PromptGroup

SEQUENCES = [[*range(3, 3 + 7 * (1 + i % 3)), *range(60, 64 + i * 5 % 23)] for i in range(17)]
EXAMPLE = EncodedGroup(PromptGroup("a", ["b", "c"], [Pair()]), ((3, 4, 5), (3, 4, 6)), 2)


class TwoThreads:
    """Ranks in two threads of one process."""

    def __init__(self) -> None:
        self.found: list[Any] = [None, None]
        self.barrier = threading.Barrier(2, timeout=60)

    def as_seen_by(self, index: int) -> Any:
        outer = self

        class Seen(Ranks):
            __slots__ = ()

            def gather(self, value: Any) -> list[Any]:
                outer.found[index] = value
                outer.barrier.wait()
                return outer.found

        return Seen(index, 2)


@pytest.mark.parametrize("is_sharded", [False, True])
def test_two_ranks_give_the_scores_of_one(base_model: Path, is_sharded: bool) -> None:
    """In shards both call the wrapped model equally often, and outside of inference mode."""
    found: dict[int, torch.Tensor] = {}
    forwards = {0: 0, 1: 0}

    def compute(index: int, threads: TwoThreads) -> None:
        model = prepare_for_training(base_model, seed=0).model

        class Wrapper(nn.Module):
            def forward(self, **inputs: Any) -> Any:
                assert not torch.is_inference_mode_enabled()
                forwards[index] += 1
                return model(**inputs)

        engine = RankEngine(model, "tree", 90, threads.as_seen_by(index), EXAMPLE, Wrapper() if is_sharded else None)
        found[index] = engine.rows(SEQUENCES, None, None, scores_of)

    threads = TwoThreads()
    workers = [threading.Thread(target=compute, args=(index, threads)) for index in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    expected = torch.tensor(Engine(prepare_for_training(base_model, seed=0).model, "tree", 90).score(SEQUENCES))
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected)
    assert (forwards[0] == forwards[1] > 0) is is_sharded
