"""Process models: cross-entropy over the judged steps, the classes of labels, and the mask."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import log_loss

from rewardlab.objectives import MASKED, Process, StepTargets, class_of, process_loss


def test_value_by_hand() -> None:
    """Logits log 1, log 2, log 5 mean P = 1/8, 2/8, 5/8 for incorrect, neutral, correct.

    A correct step costs log(8/5) = 0.4700036, an incorrect one log 8 = 2.0794415, an unjudged one 0.
    """
    logits = torch.tensor([[1.0, 2.0, 5.0]] * 3).log()
    labels = torch.tensor([class_of(1, 3), class_of(-1, 3), MASKED])
    assert process_loss(logits, labels).tolist() == pytest.approx([0.4700036, 2.0794415, 0.0], abs=1e-6)


def test_unjudged_steps_count_in_neither_loss_nor_units_nor_gradient() -> None:
    """ProcessBench's steps after the first error are unlabelled: counted, they would halve the loss."""
    logits = torch.tensor([[0.0, 0.0], [7.0, float("nan")], [0.0, float("inf")], [0.0, 0.0]], requires_grad=True)
    targets = StepTargets(torch.tensor([1, MASKED, MASKED, 0]))
    loss = Process(step_classes=2)(logits, targets)
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert Process.num_units(targets) == 2.0
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.5, -0.5], [0.0, 0.0], [0.0, 0.0], [-0.5, 0.5]]


def test_labels_moved_by_one_step_give_another_loss() -> None:
    logits = torch.tensor([[0.0, 3.0], [0.0, 3.0], [3.0, 0.0]])
    right = process_loss(logits, torch.tensor([1, 1, 0])).sum()
    moved = process_loss(logits, torch.tensor([MASKED, 1, 1])).sum()
    assert right < 0.2 < 3.0 < moved


def test_agrees_with_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(200, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (200,), generator=generator)
    expected = log_loss(labels, torch.softmax(logits, dim=1), labels=[0, 1, 2], normalize=False)
    assert float(process_loss(logits, labels).sum()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_at_large_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1000.0, 0.0, -1000.0]], dtype=dtype, requires_grad=True)
    losses = process_loss(logits, torch.tensor([2]))
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert losses.tolist() == [2000.0]
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, 0.0, -1.0]]


def test_gradient_in_float64() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, MASKED, 0, 1])
    assert torch.autograd.gradcheck(lambda z: process_loss(z, labels), (logits,))


def test_classes_of_labels() -> None:
    """With two classes neutral is not wrong."""
    assert [class_of(label, 3) for label in (-1, 0, 1)] == [0, 1, 2]
    assert [class_of(label, 2) for label in (-1, 0, 1)] == [0, 1, 1]


@pytest.mark.parametrize(("label", "classes", "match"), [(2, 3, r"-1, 0 or \+1, got 2"), (1, 4, "2 or 3, got 4")])
def test_other_labels_and_classes_are_refused(label: int, classes: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        class_of(label, classes)


def test_a_head_of_other_classes_is_refused() -> None:
    """Three classes read from a head of two would leave class 2 without a logit; of one, without a choice."""
    with pytest.raises(ValueError, match=r"\(n, 3\), got \(4, 2\)"):
        Process(step_classes=3)(torch.zeros(4, 2), StepTargets(torch.zeros(4).long()))
    with pytest.raises(ValueError, match=r"\(n, 2\), got \(4,\)"):
        Process(step_classes=2)(torch.zeros(4), StepTargets(torch.zeros(4).long()))
    with pytest.raises(ValueError, match="step_classes"):
        Process(step_classes=1)


def test_other_shapes_and_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\), \(3, 1\)"):
        process_loss(torch.zeros(3, 2), torch.zeros(3, 1).long())
    with pytest.raises(ValueError, match=r"0 to 1 or -100 .masked., got \[0, 2\]"):
        process_loss(torch.zeros(3, 2), torch.tensor([0, 2, MASKED]))
