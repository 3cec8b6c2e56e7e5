"""One prompt, N completions, their scores: which is best, what to train on, and which pairs to make of them.

    judged = JudgedGroup(group, scores=(0.3, 1.7, -0.4))
    judged.best, judged.ranking, judged.kl             # 1, (1, 0, 2), 0.43
    judged.pair(min_gap=0.5)                           # the best against the worst
    Selection("top-k", k=2).rows(judged, number=0)     # what to fine-tune on

This file knows records and numbers; where scores come from, and files, it does not know.

References:
    Rejection sampling: Llama 2 (arXiv:2307.09288, section 3.2.3), RAFT (arXiv:2304.06767). KL of best-of-N:
    Stiennon et al. 2020 (arXiv:2009.01325).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rewardlab.data.records import text_as_json
from rewardlab.errors import ConfigError
from rewardlab.rewards.best_of_n import kl_of_best_of_n, reward_weighted_indices, top_k
from rewardlab.rewards.preference_pairs import preference_pairs
from rewardlab.scoring.row_ids import row_id
from rewardlab.types import PromptGroup, Text, messages_of

SelectionName = Literal["best", "top-k", "reward-weighted"]

_DEFAULT_K = {"best": 1, "top-k": 2, "reward-weighted": 1}


@dataclass(frozen=True, slots=True)
class JudgedGroup:
    """A prompt with its completions and what a reward model says of each.

    Attributes:
        group: The prompt and its N completions.
        scores: One per completion, higher is better; empty where the group could not be scored.
        disagreements: Of an ensemble, the standard deviation of its members' scores; empty for a single model.
        truncated: Whether the prompt was cut to fit.
        error: Why there are no scores.
    """

    group: PromptGroup
    scores: tuple[float, ...] = ()
    disagreements: tuple[float, ...] = ()
    truncated: bool = False
    error: str | None = None

    @property
    def id(self) -> str | int | None:
        """The row's own id, else where it was read."""
        return row_id(self.group)

    @property
    def n(self) -> int:
        """How many completions there are."""
        return len(self.group.completions)

    @property
    def kl(self) -> float:
        """KL of picking the best of N from drawing one (:func:`~rewardlab.rewards.best_of_n.kl_of_best_of_n`), nats."""
        return kl_of_best_of_n(self.n)

    @property
    def ranking(self) -> tuple[int, ...]:
        """Indices of the completions, best first; of equal scores the earlier one first."""
        return tuple(top_k(self.scores, self.n).tolist())

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank of each completion: 0 is best, equal scores share one, and none is left out between."""
        places = {score: place for place, score in enumerate(sorted(set(self.scores), reverse=True))}
        return tuple(places[score] for score in self.scores)

    @property
    def best(self) -> int:
        """Index of the best completion."""
        return self.ranking[0]

    def row(self) -> dict[str, Any]:
        """The group's row of the output, JSON values; null where there is no score."""
        found: dict[str, Any] = {"id": self.id, "n": self.n, "kl": self.kl}
        if self.scores:
            found |= {
                "best": self.best,
                "best_completion": text_as_json(self.group.completions[self.best]),
                "best_score": self.scores[self.best],
                "ranking": list(self.ranking),
                "ranks": list(self.ranks),
                "scores": list(self.scores),
            }
        else:
            names = ("best", "best_completion", "best_score", "ranking", "ranks", "scores")
            found |= {**dict.fromkeys(names), "error": self.error}
        if self.disagreements:
            found["disagreements"] = list(self.disagreements)
        if self.truncated:
            found["truncated"] = True
        return found

    def pair(self, min_gap: float = 0.0) -> dict[str, Any] | str:
        """The best completion against the worst, as a row of preference pairs.

        Args:
            min_gap: Smallest difference of their scores.

        Returns:
            The row (``id, prompt, chosen, rejected, chosen_score, rejected_score, strength``, which is the difference
            of the scores); or why there is none: ``"unscored"``, ``"one completion"``, ``"tie"`` (equal scores, or
            equal texts) or ``"below min_gap"``.
        """
        if not self.scores:
            return "unscored"
        if self.n == 1:
            return "one completion"
        made = preference_pairs([self.group], [self.scores], min_gap=min_gap)
        if made.ties:
            return "tie"
        if made.below_gap:
            return "below min_gap"
        ((better, worse),) = (group.completions for group in made.groups)
        prompt, chosen, rejected = _alike(self.group.prompt, better, worse)
        return {
            "id": self.id,
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "chosen_score": max(self.scores),
            "rejected_score": min(self.scores),
            "strength": max(self.scores) - min(self.scores),
        }


@dataclass(frozen=True, slots=True)
class Selection:
    """Which completions of each prompt to fine-tune on.

    Attributes:
        how: ``"best"``: the one of the highest score. ``"top-k"``: the ``k`` of the highest scores.
            ``"reward-weighted"``: ``k`` different ones, drawn with P ~ exp(score / temperature).
        k: How many, or all of a group that has fewer; by default 2 for ``"top-k"`` and 1 for ``"reward-weighted"``.
        temperature: Of ``"reward-weighted"``, > 0, in units of the score; towards 0 it takes the best.
        seed: Of ``"reward-weighted"``; each group has draws of its own.

    Raises:
        ConfigError: The name is unknown, or a number is out of range.
    """

    how: SelectionName = "best"
    k: int | None = None
    temperature: float = 1.0
    seed: int = 0
    count: int = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what selects nothing."""
        if self.how not in get_args(SelectionName):
            raise ConfigError(f"unknown selection {self.how!r}", hint=f"one of {', '.join(get_args(SelectionName))}")
        if self.how == "best" and self.k not in (None, 1):
            raise ConfigError(f"k = {self.k}: best is one completion", hint="select top-k")
        if self.k is not None and not (isinstance(self.k, int) and self.k >= 1):
            raise ConfigError(f"k must be a whole number of at least 1, got {self.k}")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"the temperature must be finite and > 0, got {self.temperature}")
        object.__setattr__(self, "count", self.k or _DEFAULT_K[self.how])

    def indices(self, judged: JudgedGroup, number: int) -> list[int]:
        """Indices of the selected completions; none where the group has no scores.

        Args:
            judged: The group.
            number: Its place among all groups, from 0: groups draw independently.
        """
        if not judged.scores:
            return []
        count = min(self.count, judged.n)
        if self.how == "reward-weighted":
            seed = int.from_bytes(hashlib.sha256(f"{self.seed} {number}".encode()).digest()[:4])
            drawn = reward_weighted_indices(judged.scores, count, temperature=self.temperature, seed=seed)
            return drawn.tolist()
        return top_k(judged.scores, count).tolist()

    def rows(self, judged: JudgedGroup, number: int) -> list[dict[str, Any]]:
        """The selected completions as rows ``id, prompt, completion, score, index``, as SFT trainers read them.

        Args:
            judged: The group.
            number: As for :meth:`indices`.
        """
        rows = []
        for index in self.indices(judged, number):
            prompt, completion = _alike(judged.group.prompt, judged.group.completions[index])
            score = judged.scores[index]
            rows.append({"id": judged.id, "prompt": prompt, "completion": completion, "score": score, "index": index})
        return rows


def _alike(prompt: Text, *completions: Text) -> list[Any]:
    """JSON values that are all text, or all messages where any is: trainers take no mixture."""
    if all(isinstance(text, str) for text in (prompt, *completions)):
        return [prompt, *completions]
    before = () if prompt == "" else messages_of(prompt, role="user")
    return [text_as_json(before), *(text_as_json(messages_of(text, role="assistant")) for text in completions)]
