"""Aggregates against plain probability arithmetic, and where that overflows against what must hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import ConfigError
from rewardlab.modeling.aggregation import (
    AGGREGATIONS,
    aggregate,
    correctness_logits,
    group_outputs,
    mean_of_heads,
    score_of,
    scores_by_head,
    step_logits,
    step_scores_of,
)
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.ensemble_heads import Heads, use_heads
from rewardlab.types import PromptGroup, ReadOut

LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=12)


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


@given(LOGITS)
def test_aggregates_are_those_of_the_probabilities(logits: list[float]) -> None:
    p = [probability(logit) for logit in logits]
    expected = {"mean": math.fsum(p) / len(p), "min": min(p), "product": math.prod(p), "last": p[-1]}
    for how, value in expected.items():
        assert probability(aggregate(torch.tensor(logits, dtype=torch.float64), how)) == pytest.approx(value, rel=1e-9)


@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=50))
def test_product_is_at_most_min_is_at_most_mean_is_at_most_max(logits: list[float]) -> None:
    """Also far outside of what a probability in float64 can hold, since all are logits."""
    values = torch.tensor(logits, dtype=torch.float64)
    product, least, mean = (aggregate(values, how) for how in ("product", "min", "mean"))
    slack = 1e-9 * max(1.0, *map(abs, logits))
    assert product <= least + slack
    assert least <= mean + slack
    assert mean <= max(logits) + slack
    assert all(map(math.isfinite, (product, least, mean)))


def test_a_product_over_many_tokens_does_not_underflow() -> None:
    """2,000 factors of 1/2 are 2^-2000, which float64 cannot hold; its logit is -2000 log 2 = -1386.294361."""
    assert aggregate(torch.zeros(2000), "product") == pytest.approx(-1386.294361, abs=1e-5)
    assert aggregate(torch.zeros(2001), "product") < aggregate(torch.zeros(2000), "product")


def test_a_product_of_near_certainties_keeps_its_order() -> None:
    """1 - product of n factors 1 - e^-50 is n e^-50: the logit is 50 - log n, also where float64 rounds all to 1."""
    assert aggregate(torch.full((8,), 50.0), "product") == pytest.approx(50 - math.log(8), abs=1e-9)
    assert aggregate(torch.full((8,), 900.0), "product") == pytest.approx(900 - math.log(8), abs=1e-9)


@given(st.floats(-700, 700), st.sampled_from(AGGREGATIONS))
def test_of_one_the_aggregate_is_the_one(logit: float, how: str) -> None:
    assert aggregate(torch.tensor([logit], dtype=torch.float64), how) == pytest.approx(logit, rel=1e-9, abs=1e-9)


def test_step_logits_by_hand() -> None:
    """Classes with probabilities 0.2, 0.3, 0.5: P(correct) 0.5 has logit 0; with neutral 0.8, whose logit is log 4."""
    three = torch.log(torch.tensor([[0.2, 0.3, 0.5]]))
    assert step_logits(three, neutral_is_correct=False).item() == pytest.approx(0.0, abs=1e-6)
    assert step_logits(three, neutral_is_correct=True).item() == pytest.approx(math.log(4), abs=1e-6)
    two = torch.log(torch.tensor([[0.2, 0.8]]))
    assert step_logits(two, neutral_is_correct=False).item() == pytest.approx(math.log(4), abs=1e-6)


def test_the_score_of_each_kind() -> None:
    """A sequence's score is the head's number; tokens 0 and log 3 (P 1/2, 3/4) have the mean 5/8, of logit log(5/3)."""
    assert score_of(torch.tensor([1.25]), ReadOut()) == 1.25
    tokens = torch.tensor([0.0, math.log(3)])
    assert score_of(tokens, ReadOut("token", "mean")) == pytest.approx(math.log(5 / 3), abs=1e-6)
    steps = ReadOut("step", "min", 2, "<|step|>")
    outputs = torch.log(torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    assert score_of(outputs, steps) == pytest.approx(math.log(2 / 3), abs=1e-6)
    assert step_scores_of([[outputs]], steps)[0][0] == pytest.approx([0.8, 0.4])
    assert torch.equal(correctness_logits(tokens, ReadOut("token", "mean")), tokens.double())


def test_group_outputs_keep_groups_and_completions_apart() -> None:
    """A fake engine: the score of a sequence is its length; at read-outs it gives their positions."""

    class Fake:
        scores = None

        def rows(
            self, sequences: list[tuple[int, ...]], readouts: None, on_progress: object, compute: object
        ) -> torch.Tensor:
            return torch.tensor([float(len(sequence)) for sequence in sequences])

        def outputs(
            self, sequences: object, readouts: list[tuple[int, ...]], on_progress: object
        ) -> list[torch.Tensor]:
            return [torch.tensor(positions).float() for positions in readouts]

    group = PromptGroup("p", ["a", "b"])
    once = [EncodedGroup(group, ((1, 2), (1, 2, 3)), 1), EncodedGroup(PromptGroup("q", ["c"]), ((4,),), 0)]
    found = group_outputs(Fake(), once)  # type: ignore[arg-type]
    assert [[t.tolist() for t in some] for some in found] == [[[2.0], [3.0]], [[1.0]]]
    often = [EncodedGroup(group, ((1, 2), (1, 2, 3)), 1, readouts=((1,), (1, 2)))]
    found = group_outputs(Fake(), often)  # type: ignore[arg-type]
    assert [[t.tolist() for t in some] for some in found] == [[[1.0], [1.0, 2.0]]]


def test_of_several_heads_each_completion_has_a_number_of_each(make_model: Callable[..., PreTrainedModel]) -> None:
    """Against each head alone in the model; also of one group, and of none. No score is made of them by chance."""
    model = make_model("qwen3")
    heads = Heads(torch.randn(3, Heads.of(model).weight.shape[1], generator=torch.Generator().manual_seed(0)))
    engine = Engine(model, "tree")
    groups = [
        EncodedGroup(PromptGroup("p", ["a", "b"]), ((2, 9, 10, 1), (2, 9, 11, 12, 1)), 2),
        EncodedGroup(PromptGroup("q", ["c"]), ((2, 30, 31, 1),), 2),
    ]
    use_heads(model, heads)
    found = group_outputs(engine, groups)
    assert [[tuple(of_one.shape) for of_one in of_group] for of_group in found] == [[(3,), (3,)], [(3,)]]
    assert [tuple(of_one.shape) for of_one in group_outputs(engine, groups[1:])[0]] == [(3,)]
    assert group_outputs(engine, []) == []
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        score_of(found[0][0], ReadOut())
    for number in range(3):
        use_heads(model, heads.only(number))
        for of_group, alone in zip(found, group_outputs(engine, groups), strict=True):
            scores = [score_of(of_one, ReadOut()) for of_one in alone]
            assert [float(of_one[number]) for of_one in of_group] == pytest.approx(scores, abs=1e-5)


def test_scores_of_heads_by_hand() -> None:
    outputs = [[torch.tensor([1.0, 5.0]), torch.tensor([2.0, 6.0])], [torch.tensor([3.0, 8.0])]]
    assert scores_by_head(outputs) == [[[1.0, 2.0], [3.0]], [[5.0, 6.0], [8.0]]]
    assert mean_of_heads(outputs) == [[3.0, 4.0], [5.5]]


def test_what_cannot_be_aggregated_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown aggregation 'median'"):
        aggregate(torch.zeros(2), "median")
    with pytest.raises(ValueError, match="n >= 1"):
        aggregate(torch.zeros(0), "mean")
