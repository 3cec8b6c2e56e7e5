"""Scoring where memory does not suffice for a forward: it is divided, and the scores stay.

The model raises what a device's allocator raises, above a number of tokens in one forward.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from transformers import PreTrainedModel

from rewardlab.errors import RewardLabError
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.out_of_memory import is_out_of_memory
from rewardlab.modeling.planner import Layout

OF_CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
OF_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried")


def make_sequences() -> list[list[int]]:
    """Groups of completions of one prompt, as scoring has them: 30 sequences of 6 to 24 tokens."""
    rng = random.Random(0)
    prompts = [[rng.randrange(5, 300) for _ in range(4 + 2 * number)] for number in range(6)]
    return [prompt + [rng.randrange(5, 300) for _ in range(2 + 3 * k)] for prompt in prompts for k in range(5)]


SEQUENCES = make_sequences()


@contextmanager
def memory_for(model: PreTrainedModel, tokens: int, error: RuntimeError = OF_CUDA) -> Iterator[list[int]]:
    """A device that has the memory for so many tokens; what is given are the sizes of the forwards that were tried."""
    tried: list[int] = []

    def allocate(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        tried.append(inputs[0].numel())
        if tried[-1] > tokens:
            raise error

    hook = model.get_input_embeddings().register_forward_pre_hook(allocate)
    try:
        yield tried
    finally:
        hook.remove()


@pytest.mark.parametrize("error", [OF_CUDA, OF_CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_scores_stay_and_the_budget_shrinks_once(
    make_model: Callable[..., PreTrainedModel], layout: Layout, error: RuntimeError, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model("llama")
    expected = Engine(model, layout, 400).score(SEQUENCES)
    engine = Engine(model, layout, 400)
    progress: list[int] = []
    with memory_for(model, 100, error) as tried, caplog.at_level(logging.WARNING):
        found = engine.score(SEQUENCES, progress.append)
    assert found == pytest.approx(expected, rel=0, abs=1e-6)
    assert sum(progress) == len(SEQUENCES)
    assert max(tried) > 100  # the device did run out
    assert engine.planner.tokens_per_batch <= 100
    assert all(size > 100 for size in tried[: len(caplog.records)])
    budgets = [record.getMessage().split("at most ")[1] for record in caplog.records]
    assert len(set(budgets)) == len(budgets)  # each new budget is told once
    assert f"{engine.planner.tokens_per_batch:,} in one" in caplog.records[-1].getMessage()
    with memory_for(model, 100, error) as tried:
        assert engine.score(SEQUENCES) == pytest.approx(expected, rel=0, abs=1e-6)
    assert max(tried) <= 100  # what was learnt is kept: nothing runs out again


def test_down_to_one_sequence(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("llama")
    longest = max(map(len, SEQUENCES))
    expected = Engine(model).score(SEQUENCES)
    with memory_for(model, longest):
        assert Engine(model, "packed", 400).score(SEQUENCES) == pytest.approx(expected, rel=0, abs=1e-5)


@pytest.mark.parametrize("layout", ["tree", "padded"])
def test_one_sequence_that_does_not_fit_is_named(make_model: Callable[..., PreTrainedModel], layout: Layout) -> None:
    model = make_model("llama")
    longest = max(map(len, SEQUENCES))
    with memory_for(model, longest - 1), pytest.raises(RewardLabError, match=rf"{longest} tokens by itself") as caught:
        Engine(model, layout, 400).score(SEQUENCES)
    assert "max_length" in caught.value.hint


def test_read_outs_and_features_stay(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("llama", "token", num_labels=2)
    readouts = [(1, len(ids) - 1) for ids in SEQUENCES]
    whole, divided = Engine(model, "tree", 400), Engine(model, "tree", 400)
    with memory_for(model, 60):
        outputs, features = divided.outputs(SEQUENCES, readouts), divided.features(SEQUENCES, readouts)
    torch.testing.assert_close(torch.cat(outputs), torch.cat(whole.outputs(SEQUENCES, readouts)), rtol=0, atol=1e-5)
    torch.testing.assert_close(features, whole.features(SEQUENCES, readouts), rtol=0, atol=1e-5)


def test_encoders(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("bert")
    expected = Engine(model, "pruned", 400).score(SEQUENCES)
    with memory_for(model, 100):
        assert Engine(model, "pruned", 400).score(SEQUENCES) == pytest.approx(expected, rel=0, abs=1e-6)


def test_other_errors_are_not_taken_for_it(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("llama")
    with memory_for(model, 10, RuntimeError("shapes differ")), pytest.raises(RuntimeError, match="shapes differ"):
        Engine(model).score(SEQUENCES)
    assert not is_out_of_memory(ValueError("can't allocate memory"))
