"""What is known of a judge: the records of :func:`~rewardlab.judge.quality.measure_quality`.

What each figure means is in ``docs/judge_quality.md``. This file computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from rewardlab.metrics.bootstrap import Bootstrapped, Interval
from rewardlab.metrics.kappa import Agreement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Abstentions:
    """Comparisons without a verdict: how many, which share of all, and how many of each kind."""

    num_pairs: int
    rate: Interval
    by_kind: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class HumanAgreement:
    """The judge and people on the same comparisons.

    Attributes:
        num_pairs: Comparisons with a verdict and a human label, ties among both.
        num_decided: Those on which neither says tie.
        accuracy: Share of the decided on which both prefer the same; None where there are none. Where all are right, or
            none, its interval is exact, of the prompts: resamples of what never varies would claim a point.
        three_way: Agreement on first, second and tie, and Cohen's kappa; None where there are no pairs.
    """

    num_pairs: int
    num_decided: int
    accuracy: Interval | None
    three_way: Agreement | None


@dataclass(frozen=True, slots=True)
class PositionEffect:
    """What the order does. The three shares add up to 1.

    Attributes:
        num_pairs: Comparisons in which both orders were read.
        consistency: Share whose two orders say the same.
        toward_first: Share whose two orders differ, and chose what was shown first more often than what was shown last.
        toward_second: The same for what was shown last.
        advantage: ``toward_first`` minus ``toward_second``.
        direction: The place that is preferred, if the interval of the advantage leaves out zero; else None.
    """

    num_pairs: int
    consistency: Interval
    toward_first: Interval
    toward_second: Interval
    advantage: Interval
    direction: Literal["first", "second"] | None


@dataclass(frozen=True, slots=True)
class LengthEffect:
    """What length does, among comparisons of different lengths that the judge decided.

    Attributes:
        num_pairs: How many these are.
        longer: Share in which the judge chose the longer completion.
        num_with_human: Those which people decided too.
        by_judge: Share of these in which the judge chose the longer.
        by_humans: Share of these in which people did.
        difference: ``by_judge`` minus ``by_humans``; above 0 the judge likes length more than people do.
        coefficient: Of length, beside the human choice, in a logistic fit of the judge's preference; None where there
            is none (see ``docs/judge_quality.md``).
    """

    num_pairs: int
    longer: Interval
    num_with_human: int
    by_judge: Interval | None
    by_humans: Interval | None
    difference: Interval | None
    coefficient: Interval | None


@dataclass(frozen=True, slots=True)
class SelfPreference:
    """What the judge thinks of its own completions, in comparisons with others' that people labelled too.

    Attributes:
        system: Its own name among the systems.
        num_pairs: Comparisons of it with another, judged and labelled.
        by_judge: How often the judge prefers its own, ties as 1/2.
        by_humans: How often people do, in the same comparisons.
        difference: ``by_judge`` minus ``by_humans``; above 0 it prefers itself.
    """

    system: str
    num_pairs: int
    by_judge: Interval
    by_humans: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class StatedProbability:
    """The verdicts' probabilities against the human choice; ties of people are left out."""

    num_pairs: int
    brier: Interval
    ece: Interval


@dataclass(frozen=True, slots=True)
class JudgingCost:
    """What one comparison costs: two questions, one for each order.

    What each comparison took is of those answered in this run: neither the cache's nor those that failed, whose cost is
    among that of the others, as is the probe's.

    Attributes:
        calls: Questions sent; what the cache answered is not among them.
        probe_calls: Of these, questions that found out what the endpoint can do.
        cached: Questions the cache answered.
        answered: Comparisons answered in this run: half of the questions that were sent and answered.
        cost: Of all questions sent; None where no price was given.
        cost_per_comparison: None where no price was given or nothing was answered.
        tokens_per_comparison: Prompt and completion tokens; None where nothing was answered.
        seconds_per_comparison: Of the whole run; None where the time is not known.
        estimated: Whether some tokens were estimated.
    """

    calls: int
    probe_calls: int
    cached: int
    answered: float
    cost: float | None
    cost_per_comparison: float | None
    tokens_per_comparison: float | None
    seconds_per_comparison: float | None
    estimated: bool


@dataclass(frozen=True, slots=True)
class JudgeQuality(Bootstrapped):
    """All that a set of judged pairs says of the judge; a part for which there is nothing is None.

    Attributes:
        num_pairs: Comparisons asked.
        num_prompts: Their prompts.
        num_labelled: Those with a human label.
        abstentions: Those without a verdict.
        judge_ties: Verdicts that are ties, those by disagreement of the two orders among them.
        human_ties: Human labels that are ties.
        agreement: With people.
        consistent: The same where both orders said the same; accuracy is the same, for all else is tied.
        position: What the order does.
        length: What length does.
        self_preference: What the judge thinks of itself.
        probability: How good its probabilities are.
        cost: What it costs.
        subsets: The agreement of each subset.
        notes: Why a part that was asked for is None, and what else a reader should know.
    """

    num_pairs: int
    num_prompts: int
    num_labelled: int
    abstentions: Abstentions
    judge_ties: int
    human_ties: int
    agreement: HumanAgreement
    consistent: HumanAgreement
    position: PositionEffect | None
    length: LengthEffect | None
    self_preference: SelfPreference | None
    probability: StatedProbability | None
    cost: JudgingCost | None
    subsets: Mapping[str, HumanAgreement]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Numbers, text and None only; intervals as ``{"value", "low", "high"}``, each part with its attributes."""
        found = as_json(self)
        return {**{name: one for name, one in found.items() if name not in self.bootstrap}, "bootstrap": self.bootstrap}


def as_json(record: DataclassInstance) -> dict[str, Any]:
    """A record's attributes as JSON values; what has a ``to_dict`` of its own tells itself."""
    return {one.name: _told(getattr(record, one.name)) for one in fields(record)}


def _told(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(value)
    if isinstance(value, Mapping):
        return {name: _told(one) for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
