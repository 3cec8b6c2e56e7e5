"""Splits that keep all groups of one prompt on one side.

Preference sets often hold few prompts with many pairs each; a split by rows would put the same prompt on both sides and
measure memory. This file knows prompts only by :attr:`rewardlab.types.PromptGroup.prompt_key`. A split depends on the
seed and on the prompts, not on the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from rewardlab.errors import ConfigError, DataError
from rewardlab.types import PromptGroup


def split_by_prompt(
    groups: Sequence[PromptGroup], fraction: float, seed: int
) -> tuple[list[PromptGroup], list[PromptGroup]]:
    """Train and held-out groups, no prompt in both, each in the order given.

    Args:
        groups: The groups.
        fraction: Share of the groups to hold out, in (0, 1); met as closely as whole prompts allow.
        seed: Another seed holds out other prompts.

    Raises:
        ConfigError: ``fraction`` is not between 0 and 1.
        DataError: There are fewer than two prompts.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the held-out fraction must be between 0 and 1, got {fraction}")
    keys = [group.prompt_key for group in groups]
    sizes = Counter(keys)
    _require_prompts(sizes, 2)
    order = _shuffled(sizes, seed)
    target, held, size = fraction * len(groups), set[str](), 0
    for key in order:
        # A prompt is held out if that brings the share closer; one at least stays for training.
        if abs(size + sizes[key] - target) < abs(size - target) and len(held) < len(order) - 1:
            held.add(key)
            size += sizes[key]
    if not held:  # even the smallest prompt is more than twice the share
        held.add(min(order, key=lambda key: sizes[key]))
    return _parted(groups, [key in held for key in keys])


def folds_by_prompt(
    groups: Sequence[PromptGroup], k: int, seed: int
) -> list[tuple[list[PromptGroup], list[PromptGroup]]]:
    """K pairs of (train, held out): each group is held out once, in one fold with all others of its prompt.

    Args:
        groups: The groups.
        k: Number of folds, at least 2. They are of equal size as far as whole prompts allow.
        seed: Another seed makes other folds.

    Raises:
        ConfigError: ``k`` is below 2.
        DataError: There are fewer than ``k`` prompts.
    """
    if k < 2:
        raise ConfigError(f"there must be at least 2 folds, got {k}")
    keys = [group.prompt_key for group in groups]
    sizes = Counter(keys)
    _require_prompts(sizes, k)
    filled = [0] * k
    fold_of: dict[str, int] = {}
    # Largest prompts first, each into the emptiest fold; the sort is stable, so that equal sizes stay shuffled.
    for key in sorted(_shuffled(sizes, seed), key=lambda key: -sizes[key]):
        fold = filled.index(min(filled))
        fold_of[key] = fold
        filled[fold] += sizes[key]
    return [_parted(groups, [fold_of[key] == fold for key in keys]) for fold in range(k)]


def _shuffled(keys: Counter[str], seed: int) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())


def _parted(groups: Sequence[PromptGroup], held: Sequence[bool]) -> tuple[list[PromptGroup], list[PromptGroup]]:
    return (
        [group for group, out in zip(groups, held, strict=True) if not out],
        [group for group, out in zip(groups, held, strict=True) if out],
    )


def _require_prompts(sizes: Counter[str], needed: int) -> None:
    if len(sizes) < needed:
        raise DataError(
            f"{sizes.total()} groups have {len(sizes)} different prompts; {needed} parts need as many at least",
            hint="give more prompts, or a separate evaluation file; rows without a prompt all count as one",
        )
