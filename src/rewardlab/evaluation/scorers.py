"""What evaluation asks of a scorer: anything that can score groups, in raw scores, and steps where it has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from rewardlab.errors import ConfigError
from rewardlab.modeling.contract import Contract
from rewardlab.types import PromptGroup

Scores = Sequence[Sequence[float]]
"""Per group, one score per completion."""

StepScores = Sequence[Sequence[Sequence[float]]]
"""Per group and completion, P(correct) of each step."""

MemberScores = Sequence[Sequence[Sequence[float]]]
"""Per group and completion, one score per member of an ensemble."""


class GroupScorer(Protocol):
    """Anything that gives each completion of each group a score."""

    def score_groups(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> Scores:
        """One list of K scores per group, in order."""
        ...


@runtime_checkable
class StepScorer(Protocol):
    """A scorer that can score steps too, in the same pass."""

    @property
    def has_steps(self) -> bool:
        """Whether it is a process model."""
        ...

    def score_groups_steps(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> tuple[Scores, StepScores]:
        """Scores as ``score_groups``, and per group and completion one probability per step."""
        ...


class EnsembleLike(GroupScorer, Protocol):
    """A scorer that combines several members and tells what each gives, in the same pass: :func:`is_ensemble`."""

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contracts of its checkpoints, by folder."""
        ...

    def score_groups_members(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[Scores, MemberScores]:
        """Scores as ``score_groups``, and per group and completion one score per member."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """``"members"``, their names, and how they are combined."""
        ...


def is_ensemble(scorer: object) -> TypeGuard[EnsembleLike]:
    """Whether a scorer says of itself that it is an ensemble; the one test for it."""
    return bool(getattr(scorer, "is_ensemble", False))


def scores_steps(scorer: GroupScorer) -> bool:
    """Whether a scorer gives step scores."""
    return isinstance(scorer, StepScorer) and scorer.has_steps


def scores_and_steps(
    scorer: GroupScorer, groups: Sequence[PromptGroup], progress: bool = False
) -> tuple[Scores, StepScores | None]:
    """Scores of the groups, and step scores where the scorer has them, in one pass."""
    if isinstance(scorer, StepScorer) and scorer.has_steps:
        return scorer.score_groups_steps(groups, progress=progress)
    return scorer.score_groups(groups, progress=progress), None


def require_raw(scorer: object, what: str) -> None:
    """Refuse a scorer on another scale: a temperature divided by twice would pass for skill.

    Args:
        scorer: A scorer; one without a ``scale`` gives raw scores.
        what: What is made of raw scores, for the error.

    Raises:
        ConfigError: It gives other than raw scores.
    """
    scale = getattr(scorer, "scale", "raw")
    if scale != "raw":
        raise ConfigError(
            f"{what} raw scores, and this scorer gives them on the scale {scale!r}",
            hint='take a scorer made without a scale (scale="raw")',
        )


def pair_temperature(scorer: Any) -> float | None:
    """What differences of a scorer's raw scores are divided by to be logits of preferences; None where unknown.

    Args:
        scorer: A scorer with a ``reference_scale``, or an ensemble. Where an ensemble's members were all put on the
            calibrated scale of preferences first, its scores are logits already, and this is 1.
    """
    if is_ensemble(scorer):
        of_pairs = all(contract.temperature_of("pair") is not None for contract in scorer.contracts.values())
        return 1.0 if getattr(scorer, "on", None) == "calibrated" and of_pairs else None
    scale = scorer.reference_scale
    return scale.temperature if scale.unit == "pair" else None
