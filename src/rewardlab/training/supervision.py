"""What each objective learns from: what a row must have, how rows become targets, what a run says of its scores.

An objective (:mod:`rewardlab.objectives`) knows scores and targets; here groups become its targets. A new objective is
a line in ``OBJECTIVES`` and one in :data:`_MAKERS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import DataError
from rewardlab.objectives import (
    MASKED,
    PairTargets,
    RankingTargets,
    RatingTargets,
    StepTargets,
    TokenTargets,
    class_of,
    margin_of,
)
from rewardlab.training.run_metrics import (
    pair_metrics,
    ranking_metrics,
    rating_metrics,
    step_metrics,
    token_metrics,
)
from rewardlab.types import MOST_IMPLIED_PAIRS, Pair, PromptGroup, Ranking

if TYPE_CHECKING:
    from rewardlab.training.arguments import RewardArguments


@dataclass(frozen=True, slots=True)
class Supervision:
    """What one objective, under one run's arguments, learns from.

    Attributes:
        lacks: What a row would need and has not, in words; None for a row that has it.
        useless: Why a row that lacks nothing still teaches nothing (``"kind: detail"``); None for a row that does.
        targets: Some groups -> their targets, as indices into the flat list of their read-outs.
        metrics: Scores, each (read-outs,) or (read-outs, classes), with their targets -> what is logged of them.
        compares_pairs: Whether a pair whose two sides have the same ids says nothing.
        settings: The arguments it goes by, for the contract.
    """

    lacks: Callable[[PromptGroup], str | None]
    useless: Callable[[PromptGroup], str | None]
    targets: Callable[[Sequence[EncodedGroup]], Any]
    metrics: Callable[[Sequence[tuple[Tensor, Any]]], dict[str, float]]
    compares_pairs: bool = False
    settings: tuple[str, ...] = ()

    def require(self, groups: Sequence[PromptGroup]) -> None:
        """Refuse data of another kind: no row has what is learned from.

        Raises:
            DataError: None has.
        """
        if groups and all(self.lacks(group) for group in groups):
            raise DataError(
                f"{groups[0].name}: no {self.lacks(groups[0])}" + (", nor in any other row" if len(groups) > 1 else ""),
                hint="docs/objectives.md says which objective fits which data; docs/data.md which columns are read",
            )


def supervision_of(arguments: RewardArguments) -> Supervision:
    """What the objective of a run learns from."""
    return _MAKERS[arguments.objective](arguments)


def fitted_values(arguments: RewardArguments, examples: Sequence[EncodedGroup]) -> dict[str, float]:
    """What an objective is told of the training data beforehand: for ratings, their mean and standard deviation."""
    if arguments.objective != "regression":
        return {}
    ratings = rating_targets(examples, arguments.attribute_weights).rating.double()
    std = float(ratings.std(correction=0))
    if not std > 0:
        raise DataError(
            f"all {len(ratings)} ratings are {float(ratings[0]):g}", hint="ratings must differ to be learned"
        )
    return {"rating_mean": float(ratings.mean()), "rating_std": std}


# -- pairs -----------------------------------------------------------------------------------------------------------


def pair_targets(
    examples: Sequence[EncodedGroup], margin_from: str = "column", margin_scale: float = 1.0
) -> PairTargets:
    """The pairs of some groups, as indices into the flat list of their completions.

    Args:
        examples: The groups.
        margin_from: As :func:`~rewardlab.objectives.margin_of`.
        margin_scale: Likewise.

    Raises:
        DataError: A pair lacks the strength that its margin is made from.
    """
    columns: dict[str, list[Any]] = {name: [] for name in PairTargets.__dataclass_fields__}
    first = 0
    for index, example in enumerate(examples):
        for pair in example.group.pairs:
            columns["chosen"].append(first + pair.chosen)
            columns["rejected"].append(first + pair.rejected)
            columns["margin"].append(_margin(example.group, pair, margin_from, margin_scale))
            columns["weight"].append(pair.weight)
            columns["group"].append(index)
            columns["p_chosen"].append(pair.target)
            columns["strength"].append(0.0 if pair.tie else math.nan if pair.strength is None else pair.strength)
            columns["tie"].append(pair.tie)
        first += len(example.sequences)
    kinds = {"chosen": torch.long, "rejected": torch.long, "group": torch.long, "tie": torch.bool}
    return PairTargets(**{n: torch.tensor(v, dtype=kinds.get(n, torch.float32)) for n, v in columns.items()})


def _margin(group: PromptGroup, pair: Pair, margin_from: str, margin_scale: float) -> float:
    try:
        return margin_of(pair.margin, pair.strength, pair.tie, margin_from, margin_scale)
    except DataError as error:
        raise DataError(f"{group.name}: {error.message}", hint=error.hint) from error


def _pairs(
    arguments: RewardArguments, *, strict: bool = False, strength: bool = False, settings: tuple[str, ...] = ()
) -> Supervision:
    def lacks(group: PromptGroup) -> str | None:
        if group.num_unlisted_pairs:
            return (
                f"list of its pairs, {group.num_unlisted_pairs:,} between {len(group.completions):,} ranked "
                f"completions, where at most {MOST_IMPLIED_PAIRS:,} are made: train with --objective plackett_luce or "
                "regression, or on fewer of the completions"
            )
        return None if group.pairs else "preference between its completions"

    def useless(group: PromptGroup) -> str | None:
        for pair in group.pairs:  # before the run, not in the middle of it
            _margin(group, pair, arguments.margin_from, arguments.margin_scale)
            if strength and pair.strength is None and not pair.tie:
                raise DataError(
                    f"{group.name}: {arguments.objective} needs to know how much better the chosen one is",
                    hint="give rows a strength, or ratings of both sides, or train with bradley_terry",
                )
        return "only ties: no pair is strict" if strict and all(pair.tie for pair in group.pairs) else None

    return Supervision(
        lacks=lacks,
        useless=useless,
        targets=lambda examples: pair_targets(examples, arguments.margin_from, arguments.margin_scale),
        metrics=pair_metrics,
        compares_pairs=True,
        settings=("margin_from", *(() if arguments.margin_from == "column" else ("margin_scale",)), *settings),
    )


# -- rankings --------------------------------------------------------------------------------------------------------


def rankings_of(group: PromptGroup) -> tuple[Ranking, ...]:
    """The rankings of a group, and its other pairs: the one ranking they amount to, else each as a ranking of two.

    Pairs amount to a ranking if each two completions are compared at most once, all with one weight, and what follows
    from the pairs puts all completions in order (A over B and B over C put A over C). A soft label is taken for what
    it says is more likely.
    """
    implied = Counter(_said(pair) for ranking in group.rankings if ranking.lists_pairs for pair in ranking.pairs())
    others = []
    for pair in group.pairs:
        if implied[_said(pair)]:
            implied[_said(pair)] -= 1
        else:
            others.append(_hard(pair))
    whole = _ranking_of_pairs(others) if others else None
    if whole is not None:
        return (*group.rankings, whole)
    of_two = (Ranking((p.chosen, p.rejected), (0, 0 if p.tie else 1), p.weight) for p in others)
    return (*group.rankings, *of_two)


def _said(pair: Pair) -> tuple[object, ...]:
    """What tells pairs apart; which side of a tie comes first says nothing, and merging may have turned it."""
    first, second = sorted((pair.chosen, pair.rejected)) if pair.tie else (pair.chosen, pair.rejected)
    return first, second, pair.tie, pair.weight, pair.p_chosen


def _hard(pair: Pair) -> Pair:
    """The preference that is more likely by a pair's soft label."""
    if pair.target == 0.5:
        return replace(pair, tie=True)
    if pair.target > 0.5:
        return replace(pair, tie=False)
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, tie=False)


def _ranking_of_pairs(pairs: Sequence[Pair]) -> Ranking | None:
    compared = {frozenset((pair.chosen, pair.rejected)) for pair in pairs}
    if len(compared) != len(pairs) or len({pair.weight for pair in pairs}) != 1:
        return None
    items = sorted({index for pair in compared for index in pair})
    tied = {item: {item} for item in items}  # each item's class, one set shared by its members
    for pair in pairs:
        if pair.tie and tied[pair.chosen] is not tied[pair.rejected]:
            joined = tied[pair.chosen] | tied[pair.rejected]
            tied.update(dict.fromkeys(joined, joined))
    below: dict[int, set[int]] = {item: set() for item in items}
    for pair in pairs:
        if not pair.tie:
            for better in tied[pair.chosen]:
                below[better] |= tied[pair.rejected]
    for middle in items:  # Warshall's closure
        for better in items:
            if middle in below[better]:
                below[better] |= below[middle]
    if any(item in below[item] for item in items):
        return None  # they contradict one another
    if any(len(below[a]) == len(below[b]) and tied[a] is not tied[b] for a in items for b in items):
        return None  # they leave an order open
    order = sorted({len(below[item]) for item in items}, reverse=True)
    return Ranking(tuple(items), tuple(order.index(len(below[item])) for item in items), pairs[0].weight)


def ranking_targets(examples: Sequence[EncodedGroup]) -> RankingTargets:
    """The rankings of some groups, as indices into the flat list of their completions."""
    rows: list[tuple[int, int, Ranking]] = []  # group, its first completion, ranking
    first = 0
    for number, example in enumerate(examples):
        rows += [(number, first, ranking) for ranking in rankings_of(example.group)]
        first += len(example.sequences)
    width = max(len(ranking.completions) for _, _, ranking in rows)
    index = torch.full((len(rows), width), -1)
    ranks = torch.full((len(rows), width), -1)
    for row, (_, start, ranking) in enumerate(rows):
        count = len(ranking.completions)
        index[row, :count] = torch.tensor([start + i for i in ranking.completions])
        ranks[row, :count] = torch.tensor([-1 if rank is None else rank for rank in ranking.dense])
    return RankingTargets(
        index=index,
        ranks=ranks,
        weight=torch.tensor([ranking.weight for _, _, ranking in rows], dtype=torch.float32),
        group=torch.tensor([number for number, _, _ in rows]),
    )


def _rankings(arguments: RewardArguments) -> Supervision:
    return Supervision(
        lacks=lambda group: (
            None if group.rankings or group.pairs else "ranking of, nor preference between, completions"
        ),
        useless=lambda group: None,
        targets=ranking_targets,
        metrics=ranking_metrics,
    )


# -- ratings ---------------------------------------------------------------------------------------------------------


def ratings_of(group: PromptGroup, attribute_weights: dict[str, float] | None) -> Sequence[float | None]:
    """The rating of each completion: its own, or the weighted sum of its attributes; None where it has none.

    Args:
        group: The group.
        attribute_weights: Attribute -> weight; None to take the ratings as they came.

    Raises:
        DataError: The row rates attributes, and none is weighted.
    """
    if attribute_weights is not None:
        return group.weighted_ratings(attribute_weights)
    if any(group.attributes) and not group.ratings:
        named = ", ".join(sorted({name for attributes in group.attributes for name in attributes}))
        raise DataError(
            f"{group.name}: rates attributes ({named}), and attribute_weights says of none what it counts",
            hint="for example --set 'attribute_weights={helpfulness: 1.0}'",
        )
    return group.ratings or (None,) * len(group.completions)


def rating_targets(examples: Sequence[EncodedGroup], attribute_weights: dict[str, float] | None) -> RatingTargets:
    """The ratings of some groups, as indices into the flat list of their completions."""
    index: list[int] = []
    values: list[float] = []
    group: list[int] = []
    first = 0
    for number, example in enumerate(examples):
        for place, rating in enumerate(ratings_of(example.group, attribute_weights)):
            if rating is not None:
                index.append(first + place)
                values.append(rating)
                group.append(number)
        first += len(example.sequences)
    return RatingTargets(
        index=torch.tensor(index, dtype=torch.long),
        rating=torch.tensor(values, dtype=torch.float32),
        weight=torch.ones(len(index)),
        group=torch.tensor(group, dtype=torch.long),
    )


def _ratings(arguments: RewardArguments) -> Supervision:
    weights = arguments.attribute_weights

    def lacks(group: PromptGroup) -> str | None:
        if any(rating is not None for rating in ratings_of(group, weights)):
            return None
        if weights is None:
            return "rating (column scores, rating or score)"
        rated = {name for attributes in group.attributes for name in attributes}
        return f"rating of {', '.join(sorted(weights.keys() - rated) or weights)}"

    return Supervision(
        lacks=lacks,
        useless=lambda group: None,
        targets=lambda examples: rating_targets(examples, weights),
        metrics=rating_metrics,
        settings=() if weights is None else ("attribute_weights",),
    )


# -- outcomes and steps ----------------------------------------------------------------------------------------------


def token_targets(examples: Sequence[EncodedGroup]) -> TokenTargets:
    """The outcome of each completion, copied onto each of its tokens; :data:`MASKED` where it has none."""
    labels: list[float] = []
    for example in examples:
        for place, positions in enumerate(example.readouts):
            label = example.group.labels[place]
            labels += [MASKED if label is None else label] * len(positions)
    return TokenTargets(label=torch.tensor(labels, dtype=torch.float32))


def step_targets(examples: Sequence[EncodedGroup], step_classes: int) -> StepTargets:
    """The class of each step; :data:`MASKED` where nobody judged it."""
    labels: list[int] = []
    for example in examples:
        for place, positions in enumerate(example.readouts):
            steps = example.group.steps[place]
            if len(steps) != len(positions):
                raise DataError(f"{example.group.name}: {len(steps)} step labels for {len(positions)} step boundaries")
            labels += [MASKED if step.label is None else class_of(step.label, step_classes) for step in steps]
    return StepTargets(label=torch.tensor(labels, dtype=torch.long))


def _outcomes(arguments: RewardArguments) -> Supervision:
    return Supervision(
        lacks=lambda group: None if group.labels else "outcome (column label or labels)",
        useless=lambda group: "no outcome: all labels are null" if not _known(group.labels) else None,
        targets=token_targets,
        metrics=token_metrics,
    )


def _steps(arguments: RewardArguments) -> Supervision:
    def useless(group: PromptGroup) -> str | None:
        labels = [step.label for steps in group.steps for step in steps]
        return "no step label: all are null" if not _known(labels) else None

    return Supervision(
        lacks=lambda group: None if group.steps and all(group.steps) else "steps with labels",
        useless=useless,
        targets=lambda examples: step_targets(examples, arguments.step_classes),
        metrics=step_metrics,
    )


def _known(labels: Sequence[float | None]) -> bool:
    return any(label is not None for label in labels)


_MAKERS: dict[str, Callable[[RewardArguments], Supervision]] = {
    "bradley_terry": _pairs,
    "grouped_pairs": lambda arguments: _pairs(arguments, strict=True),
    "scaled_bradley_terry": lambda arguments: _pairs(arguments, strength=True),
    "davidson": lambda arguments: _pairs(arguments, settings=("objective_learning_rate",)),
    "plackett_luce": _rankings,
    "regression": _ratings,
    "outcome": _outcomes,
    "process": _steps,
}
