"""Outcome models: per-token binary cross-entropy, and the mask without which the prompt would be trained on."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import log_loss

from rewardlab.objectives import MASKED, Outcome, TokenTargets, outcome_loss


def test_value_by_hand() -> None:
    """Logits log 3, log 3, log 3, 0 mean P(correct) = 3/4, 3/4, 3/4, 1/2.

    Labels 1, 0, 1/4 cost log(4/3) = 0.2876821, log 4 = 1.3862944, and 0.25 * 0.2876821 + 0.75 * 1.3862944 = 1.1116413;
    the last is masked and costs 0.
    """
    logits = torch.tensor([math.log(3.0)] * 3 + [0.0])
    losses = outcome_loss(logits, torch.tensor([1.0, 0.0, 0.25, MASKED]))
    assert losses.tolist() == pytest.approx([0.2876821, 1.3862944, 1.1116413, 0.0], abs=1e-6)


def test_masked_tokens_count_in_neither_loss_nor_units_nor_gradient() -> None:
    """Dropping the mask would train on the prompt: with -100 as a probability, and divided by 5 tokens and not 2."""
    logits = torch.tensor([5.0, float("nan"), -0.3, 0.8, float("inf")], requires_grad=True)
    targets = TokenTargets(torch.tensor([MASKED, MASKED, 1.0, 0.0, MASKED]))
    loss = Outcome()(logits, targets)
    loss.backward()
    expected = math.log1p(math.exp(0.3)) + math.log1p(math.exp(0.8))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert Outcome.num_units(targets) == 2.0
    assert logits.grad is not None
    sigmoid = [1 / (1 + math.exp(0.3)), 1 / (1 + math.exp(-0.8))]
    assert logits.grad.tolist() == pytest.approx([0.0, 0.0, sigmoid[0] - 1, sigmoid[1], 0.0], abs=1e-6)


def test_a_mask_moved_by_one_token_gives_another_loss() -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.25])
    right = outcome_loss(logits, torch.tensor([MASKED, MASKED, 1.0, 1.0])).sum()
    early = outcome_loss(logits, torch.tensor([MASKED, 1.0, 1.0, 1.0])).sum()
    late = outcome_loss(logits, torch.tensor([MASKED, MASKED, MASKED, 1.0])).sum()
    assert late < right - 0.1 < early - 0.2


def test_hard_labels_agree_with_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(200, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (200,), generator=generator).double()
    probabilities = torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
    expected = log_loss(labels, probabilities, labels=[0.0, 1.0], normalize=False)
    assert float(outcome_loss(logits, labels).sum()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([1000.0, -1000.0, 1000.0], dtype=dtype, requires_grad=True)
    losses = outcome_loss(logits, torch.tensor([0.0, 1.0, 1.0]))
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert losses.tolist() == [1000.0, 1000.0, 0.0]
    assert logits.grad is not None
    assert logits.grad.tolist() == [1.0, -1.0, 0.0]


def test_gradient_in_float64() -> None:
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0.0, 1.0, MASKED, 0.3, 1.0])
    assert torch.autograd.gradcheck(lambda z: outcome_loss(z, labels), (logits,))


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 1\), \(3,\)"):
        outcome_loss(torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize("label", [-1.0, 1.5, float("nan")])
def test_labels_that_are_no_probabilities_are_refused(label: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\] or -100"):
        outcome_loss(torch.zeros(2), torch.tensor([0.0, label]))
