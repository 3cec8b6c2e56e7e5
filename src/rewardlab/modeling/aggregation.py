"""From the logits of a completion's tokens or steps to its one score.

A score is a logit whatever the model's kind: for outcome and process models sigmoid(score) is the aggregated
probability of being correct. So a product over five hundred tokens does not underflow, scores are compared and
calibrated like those of any reward model, and an aggregate over one token is that token's own logit.

All is computed in float64 and in log space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor
from torch.nn import functional

from rewardlab.errors import ConfigError
from rewardlab.modeling.ensemble_heads import head_scores
from rewardlab.types import Aggregation, ReadOut

if TYPE_CHECKING:
    from rewardlab.data.encoding import EncodedGroup
    from rewardlab.modeling.engine import Engine

AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)


def aggregate(logits: Tensor, how: str) -> float:
    """The logit of the mean, minimum, product or last of some probabilities given as logits.

    ``product <= min <= mean <= max`` holds for the probabilities, and, the logit being monotone, for the results.

    Args:
        logits: Logits of P(correct), shape (n,), n >= 1.
        how: One of :data:`AGGREGATIONS`.

    Returns:
        A logit, float64; its sigmoid is the aggregated probability.

    Raises:
        ConfigError: ``how`` is none of these.
        ValueError: There are no logits.

    References:
        Mean and product over tokens or steps: Cobbe et al. 2021 (arXiv:2110.14168), Lightman et al. 2023
        (arXiv:2305.20050, product); minimum: Wang et al. 2023 (Math-Shepherd, arXiv:2312.08935).
    """
    if how not in AGGREGATIONS:
        raise ConfigError(f"unknown aggregation {how!r}", hint=f"one of {', '.join(AGGREGATIONS)}")
    if logits.ndim != 1 or not len(logits):
        raise ValueError(f"expected the logits of one completion, shape (n,) with n >= 1, got {tuple(logits.shape)}")
    values = logits.double()
    if how == "last":
        return float(values[-1])
    if how == "min":
        return float(values.min())
    right, wrong = functional.logsigmoid(values), functional.logsigmoid(-values)
    if how == "mean":
        return float(torch.logsumexp(right, 0) - torch.logsumexp(wrong, 0))
    product = float(right.sum())
    if product == 0.0:  # every factor rounds to 1: 1 - product is then the sum of the 1 - p_i
        return -float(torch.logsumexp(wrong, 0))
    # logit(p) = log p - log(1 - p), with log(1 - exp(x)) in the form that does not cancel (Maechler 2012).
    return product - (math.log(-math.expm1(product)) if product > -math.log(2) else math.log1p(-math.exp(product)))


def step_logits(logits: Tensor, *, neutral_is_correct: bool) -> Tensor:
    """The logit of each step's P(correct).

    Args:
        logits: Class logits, shape (steps, 2) in the order incorrect, correct, or (steps, 3) with neutral between.
        neutral_is_correct: Take P(correct) + P(neutral) instead.

    Returns:
        Shape (steps,), float64.
    """
    values = logits.double()
    if values.shape[-1] == 2:
        return values[:, 1] - values[:, 0]
    if neutral_is_correct:
        return torch.logsumexp(values[:, 1:], dim=1) - values[:, 0]
    return values[:, 2] - torch.logsumexp(values[:, :2], dim=1)


def correctness_logits(outputs: Tensor, read_out: ReadOut) -> Tensor:
    """The logit of P(correct) at each read-out of one completion.

    Args:
        outputs: What the head gives at each, shape (n,) or (n, classes).
        read_out: The model's read-out.

    Returns:
        Shape (n,), float64.
    """
    if read_out.kind == "step":
        return step_logits(outputs, neutral_is_correct=read_out.neutral_is_correct)
    return outputs.double()


def score_of(outputs: Tensor, read_out: ReadOut) -> float:
    """The one score of a completion.

    Args:
        outputs: What the head gives at each of its read-outs, shape (n,) or (n, classes); shape (1,) of a model that is
            read once.
        read_out: The model's read-out.

    Raises:
        ValueError: The scores of several heads, of which none is the one.
    """
    if read_out.aggregation is None:
        if outputs.shape != (1,):
            raise ValueError(f"expected the score of one completion, shape (1,), got {tuple(outputs.shape)}")
        return float(outputs)
    return aggregate(correctness_logits(outputs, read_out), read_out.aggregation)


def group_outputs(
    engine: Engine,
    encoded: Sequence[EncodedGroup],
    on_progress: Callable[[int], None] | None = None,
) -> list[list[Tensor]]:
    """What the head gives at the read-outs of every completion of some groups.

    Args:
        engine: Runs the model.
        encoded: Groups from the model's own encoder.
        on_progress: Called with the number of completions just computed.

    Returns:
        Per group and completion a tensor of shape (read-outs,) or (read-outs, classes), float32, on the CPU; of a model
        that is read once, shape (1,), and of one with H heads (H,).
    """
    sequences = [sequence for item in encoded for sequence in item.sequences]
    if encoded and encoded[0].readouts:
        readouts = [positions for item in encoded for positions in item.readouts]
        found = iter(engine.outputs(sequences, readouts, on_progress))
    else:
        found = iter(head_scores(engine, sequences, on_progress).unbind())
    return [[next(found) for _ in item.sequences] for item in encoded]


def scores_by_head(outputs: Sequence[Sequence[Tensor]]) -> list[list[list[float]]]:
    """Each head's scores, from :func:`group_outputs` of a model with several heads: per head, group and completion."""
    of_groups = [torch.stack(list(of_group)).T.tolist() for of_group in outputs]
    return [list(of_head) for of_head in zip(*of_groups, strict=True)]


def mean_of_heads(outputs: Sequence[Sequence[Tensor]]) -> list[list[float]]:
    """The heads' mean score of each completion, which is the score of the checkpoint, from the same."""
    return [[float(of_one.double().mean()) for of_one in of_group] for of_group in outputs]


def step_scores_of(outputs: Sequence[Sequence[Tensor]], read_out: ReadOut) -> list[list[list[float]]]:
    """P(correct) of each step, from :func:`group_outputs` of a process model: per group, completion and step."""
    return [
        [torch.sigmoid(correctness_logits(of_one, read_out)).tolist() for of_one in of_group] for of_group in outputs
    ]
