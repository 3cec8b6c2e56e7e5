"""The frozen records that every layer speaks in. No torch, no files, no tokenizer.

A :class:`PromptGroup` is *the* record of rewardlab: one prompt, its completions, and what is known of them. A
preference pair is a group of two completions with one :class:`Pair`; a ranked list has a :class:`Ranking`, a checked
solution its label, a judged chain of thought its :class:`Step` s; a row to score is a group of which nothing is known.
Text keeps the form in which it came (a string, or messages), so that nothing is lost; :func:`conversation` gives the
one canonical form that the chat template renders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Message: TypeAlias = Mapping[str, Any]
"""One turn of a conversation, ``{"role": str, "content": str, ...}``; further keys travel to the chat template."""

Text: TypeAlias = str | tuple[Message, ...]
"""A prompt or a completion: plain text, or messages."""


def as_text(value: str | Sequence[Message]) -> Text:
    """The stored form of a prompt or completion: a string as it is, messages as a tuple."""
    return value if isinstance(value, str) else tuple(value)


def messages_of(value: Text, *, role: str) -> tuple[Message, ...]:
    """The value as messages; plain text becomes one message of the given role.

    Args:
        value: Text or messages.
        role: The role plain text is given: ``"user"`` for a prompt, ``"assistant"`` for a completion.
    """
    return ({"role": role, "content": value},) if isinstance(value, str) else value


def conversation(prompt: Text, completion: Text) -> tuple[Message, ...]:
    """The whole conversation, prompt turns then completion turns, as the chat template renders it.

    Plain text and the equal one-message form give the same conversation, hence the same score. An empty text prompt
    has no turn.
    """
    before = () if prompt == "" else messages_of(prompt, role="user")
    return before + messages_of(completion, role="assistant")


def text_of(value: Text) -> str:
    """The characters of a prompt or completion: the text itself, or the messages' contents joined by blank lines.

    Used for lengths and for showing a row; never for scoring, which goes through the chat template.
    """
    if isinstance(value, str):
        return value
    return "\n\n".join(str(message.get("content") or "") for message in value)


def text_key(value: Text, *, role: str) -> str:
    """A string equal for two texts if and only if they render alike: canonical JSON of the messages."""
    return json.dumps(messages_of(value, role=role), sort_keys=True, ensure_ascii=True)


Kind: TypeAlias = Literal["sequence", "token", "step"]
"""What a model's head gives numbers for: the whole sequence, each completion token, or each step."""

Aggregation: TypeAlias = Literal["mean", "min", "product", "last"]
"""How the probabilities of a completion's tokens or steps become one."""

Scale: TypeAlias = Literal["raw", "centered", "z", "percentile", "calibrated"]
"""What a score is given in; the formulas are :mod:`rewardlab.calibration.scale`'s."""


@dataclass(frozen=True, slots=True)
class ReadOut:
    """Where a model's numbers are read in a sequence, and how they become one score.

    Attributes:
        kind: ``"sequence"``: one score at the end; ``"token"``: a logit at each completion token (outcome models);
            ``"step"``: class logits at each step's end (process models).
        aggregation: How tokens or steps become one score; None for ``"sequence"``.
        num_classes: Outputs of the head: 1, or for steps 2 (incorrect, correct) or 3 (incorrect, neutral, correct).
        separator: The token that ends each step; None for the other kinds.
        split_at: Where the text of a completion that came without steps is split into steps; None: it is one step.
        neutral_is_correct: Whether a step's score is P(correct) + P(neutral) instead of P(correct).
    """

    kind: Kind = "sequence"
    aggregation: Aggregation | None = None
    num_classes: int = 1
    separator: str | None = None
    split_at: str | None = None
    neutral_is_correct: bool = False

    def __post_init__(self) -> None:
        """Refuse combinations that no head has."""
        if (self.aggregation is None) != (self.kind == "sequence"):
            raise ValueError(f"a read-out of kind {self.kind!r} cannot have the aggregation {self.aggregation!r}")
        if (self.separator is None) != (self.kind != "step"):
            raise ValueError(f"a read-out of kind {self.kind!r} cannot have the separator {self.separator!r}")
        if self.num_classes not in ((2, 3) if self.kind == "step" else (1,)):
            raise ValueError(f"a read-out of kind {self.kind!r} cannot have {self.num_classes} classes")


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison inside a group: completion ``chosen`` was preferred to ``rejected``, or they tied.

    Attributes:
        chosen: Index of the preferred completion in the group; of a tie, of one of the two.
        rejected: Index of the other one.
        margin: What the loss subtracts from the score difference (column ``margin``); None where the row has none.
        weight: What this pair counts in the loss and in the mean that divides it; must be > 0.
        p_chosen: Probability that ``chosen`` is preferred, in [0, 1], e.g. the share of raters who did; None where the
            row says only which was.
        strength: How much better ``chosen`` is, >= 0, in the row's own units: its column ``strength``, else the
            difference of its two ratings; None where it says neither.
        tie: Whether the two were judged equally good.
        votes: How many raters preferred ``chosen``, preferred ``rejected``, saw no difference; None where the row does
            not say.
    """

    chosen: int = 0
    rejected: int = 1
    margin: float | None = None
    weight: float = 1.0
    p_chosen: float | None = None
    strength: float | None = None
    tie: bool = False
    votes: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that would spoil a whole batch."""
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"a pair's weight must be finite and > 0, got {self.weight}")
        if self.margin is not None and not math.isfinite(self.margin):
            raise ValueError(f"a pair's margin must be finite, got {self.margin}")
        if self.p_chosen is not None and not 0 <= self.p_chosen <= 1:
            raise ValueError(f"a pair's p_chosen must be in [0, 1], got {self.p_chosen}")
        if self.strength is not None and not (math.isfinite(self.strength) and self.strength >= 0):
            raise ValueError(f"a pair's strength must be finite and >= 0, got {self.strength}")
        if self.votes is not None:
            object.__setattr__(self, "votes", tuple(self.votes))
            if len(self.votes) != 3 or not all(math.isfinite(v) and v >= 0 for v in self.votes) or not sum(self.votes):
                raise ValueError(f"a pair's votes must be three counts, for chosen, rejected, neither: {self.votes}")

    @property
    def target(self) -> float:
        """The probability a soft label gives ``chosen``: ``p_chosen``, else 1/2 for a tie and 1 for a preference."""
        if self.p_chosen is not None:
            return self.p_chosen
        return 0.5 if self.tie else 1.0


MOST_IMPLIED_PAIRS = 500_000
"""The most pairs of one ranking that a group lists: those of 1,000 completions. More grow with the square of them."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Completions of a group that were ranked together.

    Attributes:
        completions: Indices of the ranked completions in the group, at least two, each once.
        ranks: Rank of each: 0 is best, equal ranks are a tie. None: not ranked, only known to be worse than all that
            are (a top-k list). At least one is ranked.
        weight: What this ranking counts in the loss and in the mean that divides it; must be > 0.
    """

    completions: tuple[int, ...]
    ranks: tuple[int | None, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what ranks nothing."""
        object.__setattr__(self, "completions", tuple(self.completions))
        object.__setattr__(self, "ranks", tuple(self.ranks))
        if len(self.completions) < 2 or len(set(self.completions)) != len(self.completions):
            raise ValueError(f"a ranking needs two or more different completions, got {self.completions}")
        if len(self.ranks) != len(self.completions):
            raise ValueError(f"{len(self.completions)} completions but {len(self.ranks)} ranks")
        if all(rank is None for rank in self.ranks):
            raise ValueError("a ranking in which no completion has a rank says nothing")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"a ranking's weight must be finite and > 0, got {self.weight}")

    @property
    def dense(self) -> tuple[int | None, ...]:
        """The ranks counted 0, 1, 2, ... without gaps; None where a completion has none."""
        place = {rank: number for number, rank in enumerate(sorted({r for r in self.ranks if r is not None}))}
        return tuple(None if rank is None else place[rank] for rank in self.ranks)

    @property
    def num_pairs(self) -> int:
        """How many pairs :meth:`pairs` would list, known without them."""
        ranked = sum(rank is not None for rank in self.ranks)
        return ranked * (ranked - 1) // 2 + ranked * (len(self.ranks) - ranked)

    @property
    def lists_pairs(self) -> bool:
        """Whether a group lists the pairs that the ranking implies: at most :data:`MOST_IMPLIED_PAIRS`."""
        return self.num_pairs <= MOST_IMPLIED_PAIRS

    def pairs(self, ratings: Sequence[float | None] = ()) -> tuple[Pair, ...]:
        """All comparisons the ranking implies, ties included; the better completion is ``chosen``.

        Args:
            ratings: Ratings of all the group's completions; where both of a pair have one and they agree with the
                ranks, their difference becomes its strength.
        """
        last = len(self.ranks)  # what has no rank is below all that have
        order = sorted(
            (last if rank is None else rank, rank is None, index)
            for index, rank in zip(self.completions, self.dense, strict=True)
        )
        found = []
        for number, (better, _, chosen) in enumerate(order):
            for worse, unranked, rejected in order[number + 1 :]:
                tie = better == worse
                if tie and unranked:
                    continue
                first, second = (ratings[chosen], ratings[rejected]) if ratings else (None, None)
                both = first is not None and second is not None
                strength = first - second if both and first >= second else None  # type: ignore[operator]
                found.append(Pair(chosen, rejected, strength=strength, tie=tie, weight=self.weight))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a solution.

    Attributes:
        text: Its text, without a separator.
        label: +1 correct, 0 neutral, -1 incorrect; None where nobody judged it.
    """

    text: str
    label: int | None = None

    def __post_init__(self) -> None:
        """Refuse labels that mean nothing here."""
        if self.label not in (None, -1, 0, 1) or isinstance(self.label, bool):
            raise ValueError(f"a step's label must be +1, 0, -1 or None, got {self.label!r}")


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """One prompt with K >= 1 completions and what is known of them.

    What is known of single completions (ratings, attributes, labels, steps) stands in tuples of length K, or is empty
    where nothing is known of any.

    Attributes:
        prompt: The prompt, text or messages (``""`` where a row has none).
        completions: K completions, each text or messages.
        pairs: The preferences between them; where there are rankings and no pairs, all those that the rankings imply,
            but none of a ranking with more than :data:`MOST_IMPLIED_PAIRS` (:attr:`num_unlisted_pairs`).
        id: The row's own id, as it came (text or integer); None where it has none.
        subset: The row's subset, for tables per subset.
        source: Where it was read, ``"pairs.jsonl:17"``; None for groups made in memory.
        rankings: Completions that were ranked together.
        ratings: Rating of each completion, higher is better, in the row's own units; None where one has none.
        attributes: Ratings of each completion by attribute (``{"helpfulness": 3.0, ...}``).
        labels: Outcome of each completion: the probability that it is correct (1 or 0 where it was checked), or None.
        steps: The steps of each completion; an empty tuple where one has none.
        systems: What wrote each completion (a model's name); None where the row does not say of one.
    """

    prompt: Text
    completions: tuple[Text, ...]
    pairs: tuple[Pair, ...] = ()
    id: str | int | None = None
    subset: str | None = None
    source: str | None = None
    rankings: tuple[Ranking, ...] = ()
    ratings: tuple[float | None, ...] = ()
    attributes: tuple[Mapping[str, float], ...] = ()
    labels: tuple[float | None, ...] = ()
    steps: tuple[tuple[Step, ...], ...] = ()
    systems: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        """Accept lists where tuples are stored, so that groups can be written by hand."""
        if isinstance(self.completions, str) or not self.completions:
            raise ValueError(f"completions must be a list of at least one, got {self.completions!r}")
        object.__setattr__(self, "prompt", as_text(self.prompt))
        object.__setattr__(self, "completions", tuple(as_text(c) for c in self.completions))
        for name in ("ratings", "attributes", "labels", "steps", "systems"):
            known = tuple(getattr(self, name))
            if known and len(known) != len(self.completions):
                raise ValueError(f"{len(self.completions)} completions but {len(known)} {name}")
            object.__setattr__(self, name, known)
        for value in (*self.ratings, *self.labels):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"ratings and labels must be finite, got {value}")
        if any(label is not None and not 0 <= label <= 1 for label in self.labels):
            raise ValueError(f"labels must be probabilities, in [0, 1], got {self.labels}")
        object.__setattr__(self, "steps", tuple(tuple(steps) for steps in self.steps))
        object.__setattr__(self, "rankings", tuple(self.rankings))
        count = len(self.completions)
        for ranking in self.rankings:
            if not all(0 <= i < count for i in ranking.completions):
                raise ValueError(f"{ranking} names completions beyond the {count}")
        implied = (p for ranking in self.rankings if ranking.lists_pairs for p in ranking.pairs(self.ratings))
        object.__setattr__(self, "pairs", tuple(self.pairs or implied))
        for pair in self.pairs:
            if pair.chosen == pair.rejected or not all(0 <= i < count for i in (pair.chosen, pair.rejected)):
                raise ValueError(f"{pair} does not name two of the {count} completions")

    def weighted_ratings(self, attribute_weights: Mapping[str, float]) -> tuple[float | None, ...]:
        """What each completion's rating is if it is a weighted sum of its attributes.

        Args:
            attribute_weights: Attribute -> weight.

        Returns:
            K ratings; None where a completion lacks one of these attributes.
        """
        given = self.attributes or ({},) * len(self.completions)
        return tuple(
            sum(weight * attributes[name] for name, weight in attribute_weights.items())
            if attribute_weights.keys() <= attributes.keys()
            else None
            for attributes in given
        )

    @property
    def num_unlisted_pairs(self) -> int:
        """How many pairs its rankings imply that are too many to stand in ``pairs``; 0 for all but huge rankings."""
        return sum(ranking.num_pairs for ranking in self.rankings if not ranking.lists_pairs)

    @property
    def prompt_key(self) -> str:
        """Equal for two groups if and only if their prompts render alike; splits and intervals go by it."""
        return text_key(self.prompt, role="user")

    @property
    def completion_keys(self) -> tuple[str, ...]:
        """One of each completion, equal for two if and only if they render alike."""
        return tuple(text_key(completion, role="assistant") for completion in self.completions)

    @property
    def name(self) -> str:
        """How an error names this row: its source, else its id."""
        return self.source or (f"id {self.id!r}" if self.id is not None else "a group made in memory")
