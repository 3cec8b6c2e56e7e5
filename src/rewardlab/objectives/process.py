"""Process reward models: class logits at the end of each step -> how far they are from the step's judgement.

Pure functions of logits. This file knows no text: where a step ends is the encoder's.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from rewardlab.objectives.reduction import Objective, in_float32
from rewardlab.objectives.targets import MASKED, StepTargets
from rewardlab.types import Kind

_CLASSES = {3: {-1: 0, 0: 1, 1: 2}, 2: {-1: 0, 0: 1, 1: 1}}


def class_of(step_label: int, step_classes: int) -> int:
    """The class of a judged step.

    With 3 classes: incorrect 0, neutral 1, correct 2. With 2: incorrect 0, correct 1, and neutral counts as correct,
    as not being wrong.

    Args:
        step_label: -1 incorrect, 0 neutral, +1 correct.
        step_classes: 3 or 2.

    Raises:
        ValueError: The label or the number of classes is none of these.

    References:
        Lightman et al. 2023 (arXiv:2305.20050): labels positive, neutral, negative, where a neutral step may be taken
        as either.
    """
    if step_classes not in _CLASSES:
        raise ValueError(f"step_classes must be 2 or 3, got {step_classes}")
    if step_label not in _CLASSES[step_classes]:
        raise ValueError(f"a step's label must be -1, 0 or +1, got {step_label}")
    return _CLASSES[step_classes][step_label]


def process_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each step's class logits with its class.

    Args:
        logits: Class logits, shape (n, classes). What stands at masked steps is not looked at.
        labels: Class of each, shape (n,), int64; ``MASKED`` (-100) for steps that nobody judged.

    Returns:
        Loss per step, shape (n,), float32 (float64 for float64 logits), in nats; 0 where masked.

    Raises:
        ValueError: Shapes do not fit, or a label is no class.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (n, classes) and labels (n,), got {tuple(logits.shape)}, {tuple(labels.shape)}"
        )
    masked = labels == MASKED
    if not bool((masked | ((labels >= 0) & (labels < logits.shape[1]))).all()):
        classes = sorted(set(labels[~masked].tolist()))
        raise ValueError(f"expected classes 0 to {logits.shape[1] - 1} or {MASKED} (masked), got {classes}")
    logits = in_float32(logits).masked_fill(masked[:, None], 0.0)
    return functional.cross_entropy(logits, labels, ignore_index=MASKED, reduction="none")


class Process(Objective):
    """The judgement of each step, learned at its end; the unit of the loss is the step that was judged.

    Args:
        step_classes: 3 (incorrect, neutral, correct) or 2 (incorrect, correct).

    References:
        Lightman et al. 2023 (arXiv:2305.20050); with two classes Uesato et al. 2022 (arXiv:2211.14275).
    """

    kind: ClassVar[Kind] = "step"

    def __init__(self, step_classes: int = 3) -> None:
        super().__init__()
        if step_classes not in _CLASSES:
            raise ValueError(f"step_classes must be 2 or 3, got {step_classes}")
        self.step_classes = step_classes

    def forward(self, scores: Tensor, targets: StepTargets) -> Tensor:
        """Sum of the step losses.

        Args:
            scores: Class logits of all steps that are read, shape (n, step_classes).
            targets: Their classes.

        Returns:
            Scalar, float32 (float64 for float64 logits); divide by the step's total of :meth:`num_units`.

        Raises:
            ValueError: The head has another number of classes.
        """
        if scores.ndim != 2 or scores.shape[1] != self.step_classes:
            raise ValueError(f"expected logits of shape (n, {self.step_classes}), got {tuple(scores.shape)}")
        return process_loss(scores, targets.label).sum()

    @staticmethod
    def num_units(targets: StepTargets) -> float:
        """What the batch counts in the step's denominator: the number of its steps that were judged."""
        return float((targets.label != MASKED).sum())
