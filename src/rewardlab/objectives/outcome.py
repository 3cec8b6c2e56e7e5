"""Outcome reward models: a logit at each token -> how far it is from what became of the completion.

Pure functions of logits. This file knows no tokens: which of them belong to the prompt, the labels say.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from rewardlab.objectives.reduction import Objective, in_float32
from rewardlab.objectives.targets import MASKED, TokenTargets
from rewardlab.types import Kind


def outcome_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each token's logit with the outcome of its completion.

    ``-y log sigmoid(z) - (1 - y) log sigmoid(-z)``

    Args:
        logits: Logits z of P(correct), any shape. What stands at masked tokens is not looked at.
        labels: Outcomes y in [0, 1], same shape: 1 correct, 0 incorrect, between them a probability; ``MASKED`` (-100)
            for tokens that do not count, such as the prompt's.

    Returns:
        Loss per token, same shape, float32 (float64 for float64 logits), in nats; 0 where masked.

    Raises:
        ValueError: Shapes differ, or a label is no probability.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"expected a label for each logit, got shapes {tuple(logits.shape)}, {tuple(labels.shape)}")
    masked = labels == MASKED
    if not bool((masked | ((labels >= 0) & (labels <= 1))).all()):
        raise ValueError(f"outcomes must be in [0, 1] or {MASKED} (masked), got {labels[~masked].tolist()[:8]}")
    logits = in_float32(logits).masked_fill(masked, 0.0)
    wanted = labels.to(logits.dtype).masked_fill(masked, 0.0)
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return losses.masked_fill(masked, 0.0)


class Outcome(Objective):
    """The outcome of each completion, learned at all its tokens; the unit of the loss is the token that counts.

    References:
        Cobbe et al. 2021 (arXiv:2110.14168), whose verifier predicts the outcome after each token of a solution.
    """

    kind: ClassVar[Kind] = "token"

    def forward(self, scores: Tensor, targets: TokenTargets) -> Tensor:
        """Sum of the token losses.

        Args:
            scores: Logits of all tokens that are read, shape (n,).
            targets: Their labels.

        Returns:
            Scalar, float32 (float64 for float64 logits); divide by the step's total of :meth:`num_units`.
        """
        return outcome_loss(scores, targets.label).sum()

    @staticmethod
    def num_units(targets: TokenTargets) -> float:
        """What the batch counts in the step's denominator: the number of its tokens that are not masked."""
        return float((targets.label != MASKED).sum())
