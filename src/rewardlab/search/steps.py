"""Step by step to a solution: a proposer of next steps, a process model that judges them, and a beam.

    scorer = Scorer.from_pretrained("my-process-model")
    result = beam_search("What is 12 * 13?", proposer, scorer, beam_width=4, proposals_per_beam=4, max_steps=20)
    result.best.steps

At each depth every beam is continued in several ways, all continuations are scored in one call (so that the engine
computes what they share once), those below a threshold are pruned, and the best go on. Each path is scored anew as a
whole: an encoder's earlier step scores change with what follows them, a decoder's do not.

This file knows neither models nor tokens: what proposes and what scores are protocols, and a score is a probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias

from rewardlab.errors import ConfigError, DataError
from rewardlab.types import PromptGroup, Step, Text


@dataclass(frozen=True, slots=True)
class Proposal:
    """One way to go on.

    Attributes:
        text: The next step, in the form in which the process model was trained to see steps; not blank.
        is_final: Whether the solution ends with it.
    """

    text: str
    is_final: bool = False


class StepProposer(Protocol):
    """Anything that proposes next steps, e.g. a language model that samples up to the end of a line."""

    def __call__(self, prompt: Text, steps: Sequence[str], n: int) -> Sequence[Proposal]:
        """At most ``n`` next steps after ``steps``; none where there is no way to go on."""
        ...


class StepScorer(Protocol):
    """Anything that gives steps their P(correct): a process model's :class:`~rewardlab.scoring.scorer.Scorer`."""

    def step_scores(self, groups: Sequence[PromptGroup]) -> Sequence[Sequence[Sequence[float]]]:
        """Per group and completion, one probability for each of its ``steps``."""
        ...


@dataclass(frozen=True, slots=True)
class Solution:
    """A path of the search.

    Attributes:
        steps: Its steps.
        step_scores: P(correct) of each.
        score: Their aggregate, in [0, 1].
        is_final: Whether it is whole; if not, no next step was proposed or ``max_steps`` was reached.
    """

    steps: tuple[str, ...]
    step_scores: tuple[float, ...]
    score: float
    is_final: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, and what it cost.

    Attributes:
        solutions: Best first: the final ones, then those that could not go on. Pruned paths are never among them, so
            there are none where every branch fell below the threshold.
        num_proposed: Steps that were proposed.
        num_scored: Paths that were scored: the proposals that differ.
        num_pruned: Paths below the threshold.
    """

    solutions: tuple[Solution, ...]
    num_proposed: int
    num_scored: int
    num_pruned: int

    @property
    def best(self) -> Solution | None:
        """The best solution; None where every branch was pruned, or nothing was proposed."""
        return self.solutions[0] if self.solutions else None


def best_of_n_steps(
    prompt: Text,
    proposer: StepProposer,
    scorer: StepScorer,
    *,
    n: int,
    max_steps: int,
    aggregation: str = "min",
    prune_below: float | None = None,
) -> SearchResult:
    """Of ``n`` proposed next steps take the best, until the best one is final: beam search with one beam.

    Args:
        prompt: The problem.
        proposer: Proposes next steps.
        scorer: Scores steps.
        n: Proposals at each step.
        max_steps: As :func:`beam_search`.
        aggregation: As :func:`beam_search`.
        prune_below: As :func:`beam_search`.

    Raises:
        ConfigError: As :func:`beam_search`.
        DataError: As :func:`beam_search`.
    """
    return beam_search(
        prompt,
        proposer,
        scorer,
        beam_width=1,
        proposals_per_beam=n,
        max_steps=max_steps,
        aggregation=aggregation,
        prune_below=prune_below,
    )


def beam_search(
    prompt: Text,
    proposer: StepProposer,
    scorer: StepScorer,
    *,
    beam_width: int,
    proposals_per_beam: int,
    max_steps: int,
    aggregation: str = "min",
    prune_below: float | None = None,
) -> SearchResult:
    """Search for the solution whose steps a process model believes most.

    Of all continuations of a depth the best ``beam_width`` stay, whole solutions and partial ones alike; the partial
    ones of them go on. Whole solutions are kept aside, also those that are not among the best of their depth. Of equal
    scores the one that was proposed first is the better. A search whose beams are wide enough to hold every
    continuation is exhaustive.

    Args:
        prompt: The problem.
        proposer: Proposes next steps; called once per beam and depth.
        scorer: Scores steps; called once per depth, with all paths as completions of one group.
        beam_width: Paths that stay at each depth.
        proposals_per_beam: Next steps asked for, for each path.
        max_steps: Longest path.
        aggregation: How the probabilities of a path's steps become its score: ``"min"``, ``"product"``, ``"last"`` or
            ``"mean"``.
        prune_below: Paths with a lower score are given up, whole ones too; None keeps all. With ``"min"``,
            ``"product"`` and a decoder nothing that is pruned could have recovered.

    Raises:
        ConfigError: A number or the aggregation cannot be used.
        DataError: The proposer gives more steps than asked for, a blank one, or no :class:`Proposal`; the scorer does
            not give each step of each path a probability, or refuses a path.

    References:
        Search by steps against a process model: Snell et al. 2024 (arXiv:2408.03314), section 5; the aggregations:
        Lightman et al. 2023 (arXiv:2305.20050, product), Wang et al. 2023 (arXiv:2312.08935, minimum).
    """
    _require_usable(beam_width, proposals_per_beam, max_steps, aggregation, prune_below)
    beams = [Solution((), (), 1.0, False)]
    final: list[Solution] = []
    stuck: list[Solution] = []
    num_proposed = num_scored = num_pruned = 0
    for _ in range(max_steps):
        paths: dict[tuple[str, ...], bool] = {}
        for beam in beams:
            proposals = proposer(prompt, beam.steps, proposals_per_beam)
            _require_proposals(proposals, proposals_per_beam)
            num_proposed += len(proposals)
            if not proposals and beam.steps:
                stuck.append(beam)
            for proposal in proposals:
                paths.setdefault((*beam.steps, proposal.text), proposal.is_final)
        if not paths:
            beams = []
            break
        scored = _scored(prompt, paths, scorer, aggregation)
        staying = [path for path in scored if prune_below is None or path.score >= prune_below]
        num_scored += len(scored)
        num_pruned += len(scored) - len(staying)
        final += [path for path in staying if path.is_final]
        beams = [path for path in _best_first(staying)[:beam_width] if not path.is_final]
        if not beams:
            break
    partial = [path for path in (*stuck, *beams) if path.steps]
    return SearchResult((*_best_first(final), *_best_first(partial)), num_proposed, num_scored, num_pruned)


def _best_first(paths: Sequence[Solution]) -> list[Solution]:
    """By score; equal ones stay in their order."""
    return sorted(paths, key=lambda path: -path.score)


def _scored(
    prompt: Text, paths: Mapping[tuple[str, ...], bool], scorer: StepScorer, aggregation: str
) -> list[Solution]:
    """Paths with their scores, in their order, from one call of the scorer."""
    group = PromptGroup(
        prompt,
        tuple("\n".join(steps) for steps in paths),
        source="a search",
        steps=tuple(tuple(map(Step, steps)) for steps in paths),
    )
    given = [tuple(map(float, scores)) for of_group in scorer.step_scores([group]) for scores in of_group]
    if len(given) != len(paths):
        raise DataError(f"the scorer gave {len(given)} lists of step scores for {len(paths)} paths")
    for steps, scores in zip(paths, given, strict=True):
        if len(scores) != len(steps) or not all(0 <= score <= 1 for score in scores):
            raise DataError(
                f"the scorer gave {list(scores)} for {len(steps)} steps, expected a probability for each",
                hint="step_scores gives P(correct), not logits",
            )
    aggregate = AGGREGATES[aggregation]
    return [
        Solution(steps, scores, aggregate(scores), is_final)
        for (steps, is_final), scores in zip(paths.items(), given, strict=True)
    ]


# -- aggregates ------------------------------------------------------------------------------------------------------


def _mean(probabilities: Sequence[float]) -> float:
    return math.fsum(probabilities) / len(probabilities)


def _last(probabilities: Sequence[float]) -> float:
    return probabilities[-1]


Aggregate: TypeAlias = Callable[[Sequence[float]], float]

AGGREGATES: Mapping[str, Aggregate] = MappingProxyType({"min": min, "product": math.prod, "last": _last, "mean": _mean})
"""How the probabilities of a path's steps become its score, by name; the names are a process model's own."""


# -- what cannot be used ---------------------------------------------------------------------------------------------


def _require_usable(
    beam_width: int, proposals_per_beam: int, max_steps: int, aggregation: str, prune_below: float | None
) -> None:
    counts = {"beam_width": beam_width, "proposals_per_beam": proposals_per_beam, "max_steps": max_steps}
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if aggregation not in AGGREGATES:
        raise ConfigError(f"unknown aggregation {aggregation!r}", hint=f"one of {', '.join(AGGREGATES)}")
    if prune_below is not None and not 0 <= prune_below <= 1:
        raise ConfigError(f"prune_below is a probability, in [0, 1], got {prune_below}")


def _require_proposals(proposals: Sequence[Proposal], asked: int) -> None:
    if len(proposals) > asked:
        raise DataError(f"the proposer gave {len(proposals)} steps, {asked} were asked for")
    for proposal in proposals:
        if not isinstance(proposal, Proposal):
            raise DataError(
                f"the proposer gave {proposal!r}, expected a Proposal", hint="wrap it: Proposal(text, is_final=...)"
            )
        if not proposal.text.strip():
            raise DataError("the proposer gave a blank step", hint="leave it out: fewer than asked for will do")
