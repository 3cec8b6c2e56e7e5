"""Whether a trainer that asks for rewards is training or evaluating.

This file knows how TRL calls a reward function (1.16), by duck typing: it imports no trainer.
"""

from __future__ import annotations

from typing import Any


def is_evaluating(log_metric: Any) -> bool:
    """Whether a reward function is called in evaluation, where running statistics are used and not updated.

    TRL does not say which it is. The ``log_metric`` that it hands to reward functions is a method of the trainer, whose
    model's mode is what TRL itself asks.

    Args:
        log_metric: What the reward function was called with; None or any other function counts as training.
    """
    trainer = getattr(log_metric, "__self__", None)
    return getattr(getattr(trainer, "model", None), "training", True) is False
