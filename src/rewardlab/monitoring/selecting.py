"""What to label next: the comparisons of a pool whose labels would teach the model most.

    selection = select_comparisons(scorer, load_groups("pool.jsonl"), 500, known=load_groups("train.jsonl"))
    selection.write("to_label.jsonl")

Each comparison is measured (:func:`measure`), what was measured becomes one value, and of the valuable ones such as
differ are chosen (:func:`choose`). The file that is written becomes training data once its labels are filled in. This
file knows scorers and groups; it does not know what was asked for in earlier runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

from rewardlab.data.fingerprints import CompletionSketch
from rewardlab.data.records import text_as_json
from rewardlab.errors import CheckpointError, ConfigError, DataError, RewardLabError
from rewardlab.evaluation.scorers import pair_temperature
from rewardlab.files import replace_safely
from rewardlab.monitoring.candidates import REASONS, Candidate, candidates_of, keys_of
from rewardlab.monitoring.diversity import by_turns, farthest_first
from rewardlab.monitoring.novelty import KnownTexts
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.partial import beside
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup

WEIGHTS: Mapping[str, float] = {"disagreement": 1.0, "uncertainty": 0.5, "novelty": 0.5}
"""What each measure counts in the value of a comparison: ranks of 0 to 1, weighted.

Disagreement counts most: it is what the members do not know yet. A margin near zero is that, or what no rater knows
either, and such labels are mostly noise. Novelty knows new kinds of texts from old ones, and odd ones from neither.
"""

SHORTLIST = 4
"""Of so many times the number wanted, the most valuable, such as differ are chosen."""

KNOWN_SAMPLE = 4096  # groups: mean and covariance of their features need no more


@dataclass(frozen=True, slots=True)
class Measured:
    """The candidates of a pool and what the model says of each.

    Attributes:
        groups: The pool.
        candidates: In the order of their keys.
        margins: Score of the first completion minus that of the second, shape (n,).
        temperature: What margins are divided by to give logits.
        measures: ``"disagreement"``, ``"uncertainty"``, ``"novelty"``, those that there are: shape (n,), higher is more
            worth a label.
        missing: Why the others are not there; ``"diversity"`` too.
        directions: Difference of the two completions' features, shape (n, hidden); None without features.
        left_out: Comparisons of the pool that are no candidates, by reason.
    """

    groups: Sequence[PromptGroup]
    candidates: list[Candidate]
    margins: NDArray[np.float64]
    temperature: float
    measures: dict[str, NDArray[np.float64]]
    missing: dict[str, str]
    directions: NDArray[np.float32] | None
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """Comparisons to label, the first chosen first.

    Attributes:
        rows: As they are written: ``id, prompt, a, b, subset, why, label``; which completion is ``a`` was drawn.
        wanted: How many were wanted.
        candidates: How many there were to choose from.
        left_out: How many comparisons of the pool were not considered, by reason.
        weights: The measures that counted, and how much.
        diverse: Whether such as differ were chosen among the valuable ones.
        missing: Measures that could not be had, and why.
    """

    rows: tuple[dict[str, Any], ...]
    wanted: int
    candidates: int
    left_out: dict[str, int]
    weights: dict[str, float]
    diverse: bool
    missing: dict[str, str]

    @property
    def keys(self) -> list[str]:
        """Which comparisons they are (:func:`~rewardlab.monitoring.keys.unlabelled_key`)."""
        return [row["id"] for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: everything but the rows, of which only the number is told."""
        return {
            "num_selected": len(self.rows),
            "wanted": self.wanted,
            "candidates": self.candidates,
            "left_out": dict(self.left_out),
            "weights": dict(self.weights),
            "diverse": self.diverse,
            "missing": dict(self.missing),
        }

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the labelling file, JSON Lines, whole or not at all.

        Args:
            path: Where to.
            overwrite: Replace a file that is there; it may hold labels.

        Raises:
            ConfigError: There is a file already, or its folder is missing.
            RewardLabError: It cannot be written.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise ConfigError(
                f"the output {path} exists already, and may hold labels", hint="give another output, or --overwrite"
            )
        if not path.parent.is_dir():
            raise ConfigError(f"there is no folder {path.parent}", hint="make it, or give another output")
        new = beside(path)
        try:
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in self.rows)
            new.write_text("".join(lines), encoding="utf-8")
            replace_safely(new, path)
        except OSError as error:
            raise RewardLabError(f"{path} cannot be written: {error}", hint="mend that, then repeat the run") from error


def select_comparisons(
    scorer: Scorer,
    groups: Sequence[PromptGroup],
    k: int,
    *,
    known: Sequence[PromptGroup] = (),
    canary: Set[str] = frozenset(),
    labelled: Set[str] = frozenset(),
    asked: Set[str] = frozenset(),
    seed: int = 0,
    progress: bool = False,
) -> Selection:
    """The k comparisons of a pool that are most worth a label.

    Args:
        scorer: The model; an ensemble also tells where its members disagree.
        groups: The pool: groups with pairs are asked about these (whatever their labels say), others about each two of
            their completions.
        k: How many to choose.
        known: What is labelled already: left out of the choice, and what novelty is measured from.
        canary: Keys of the comparisons of a canary, which stays out of training.
        labelled: Keys of comparisons that a history has labels of.
        asked: Keys of comparisons for which a label was asked before.
        seed: Decides which completion is called ``a``, and which of very many known groups novelty is measured from.
        progress: Show progress bars on stderr.

    Returns:
        ``min(k, candidates)`` comparisons.

    Raises:
        ConfigError: ``k`` is below 1.
        DataError: There is no comparison to choose.
    """
    if k < 1:
        raise ConfigError(f"{k} comparisons cannot be selected", hint="ask for 1 or more")
    without: dict[str, Any] = {"known": known, "canary": canary, "labelled": labelled, "asked": asked}
    return choose(measure(scorer, groups, **without, seed=seed, progress=progress), k, seed=seed)


def measure(
    scorer: Scorer,
    groups: Sequence[PromptGroup],
    *,
    known: Sequence[PromptGroup] = (),
    canary: Set[str] = frozenset(),
    labelled: Set[str] = frozenset(),
    asked: Set[str] = frozenset(),
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Candidates of a pool, scored and measured; the arguments are those of :func:`select_comparisons`.

    - ``disagreement``: standard deviation (ddof 0) of the margin over an ensemble's members, on their common scale. Of
      the margin, since a member's zero means nothing: query by committee (Seung et al. 1992); for reward models Gleave
      & Irving 2022 (arXiv:2203.07472).
    - ``uncertainty``: entropy of P(a preferred), nats (Lewis & Gale 1994). It cannot tell what the model does not know
      yet from what nobody can know: raters who disagree.
    - ``novelty``: how far the two completions lie from known ones (:class:`~rewardlab.monitoring.novelty.KnownTexts`),
      the mean of both; without known rows, from the pool.

    Raises:
        DataError: There is no candidate.
    """
    encoded = scorer.encoder.encode_many(groups)
    candidates, left_out = candidates_of(
        groups,
        known=keys_of(known),
        canary=canary,
        labelled=labelled,
        asked=asked,
        sketches=_sketches_of(scorer),
        unreadable={number for number, item in enumerate(encoded) if isinstance(item, DataError)},
    )
    if not candidates:
        told = "; ".join(f"{number} because {REASONS[reason]}" for reason, number in left_out.items() if number)
        raise DataError(
            f"there is no comparison to choose: {told or 'no group has two completions'}",
            hint="give more rows of prompt and completions, two or more of each prompt",
        )
    used = sorted({candidate.group for candidate in candidates})
    at = {number: place for place, number in enumerate(used)}
    sides = [(at[c.group], c.first, c.second) for c in candidates]
    measures: dict[str, NDArray[np.float64]] = {}
    missing: dict[str, str] = {}
    pool = [groups[number] for number in used]
    if isinstance(scorer, EnsembleScorer):
        scores, members = scorer.score_groups_members(pool, progress=progress)
        by_member = np.array([np.subtract(members[g][i], members[g][j]) for g, i, j in sides])
        measures["disagreement"] = by_member.std(axis=1)
    else:
        scores = scorer.score_groups(pool, progress=progress)
        missing["disagreement"] = "one model has nobody to disagree with: name several, or one with several heads"
    margins = np.array([scores[g][i] - scores[g][j] for g, i, j in sides])
    temperature = pair_temperature(scorer) or 1.0
    measures["uncertainty"] = _entropy(margins / temperature)
    directions = None
    try:
        features = scorer.features(pool, progress=progress)
        base = scorer.features(_sample(known, seed), progress=progress) if known else features
    except CheckpointError as error:
        missing |= dict.fromkeys(("novelty", "diversity"), error.message)
    else:
        texts = np.concatenate(features)
        starts = np.cumsum([0, *map(len, features)])
        one, other = (np.array([starts[side[0]] + side[place] for side in sides]) for place in (1, 2))
        directions = texts[one] - texts[other]
        distances = KnownTexts(np.concatenate(base)).distances(texts)
        measures["novelty"] = (distances[one] + distances[other]) / 2
    return Measured(groups, candidates, margins, temperature, measures, missing, directions, left_out)


def choose(
    measured: Measured, k: int, *, weights: Mapping[str, float] = WEIGHTS, diverse: bool = True, seed: int = 0
) -> Selection:
    """The k most valuable candidates that differ.

    The value is the weighted mean of the ranks of the measures. A prompt has a second comparison only where fewer than
    k prompts have one; of the :data:`SHORTLIST` times k most valuable that are left, k are chosen farthest first.

    Args:
        measured: Of :func:`measure`.
        k: How many.
        weights: What each measure counts; those that are missing or 0 do not.
        diverse: Whether to choose farthest first; else the most valuable.
        seed: Decides which completion is called ``a``.
    """
    counted = {name: weights[name] for name in measured.measures if weights.get(name)}
    n = len(measured.candidates)
    values = np.zeros(n)
    for name, weight in counted.items():
        values += weight * rankdata(measured.measures[name]) / n
    values /= sum(counted.values())
    stay = by_turns(values, [candidate.prompt for candidate in measured.candidates], k)
    if measured.directions is not None and diverse:
        shortlist = stay[: SHORTLIST * k]
        chosen = shortlist[farthest_first(values[shortlist], measured.directions[shortlist], k)]
    else:
        diverse, chosen = False, stay[:k]
    rows = tuple(_row(measured, int(index), rank, seed) for rank, index in enumerate(chosen, start=1))
    return Selection(rows, k, n, measured.left_out, counted, diverse, measured.missing)


def _row(measured: Measured, index: int, rank: int, seed: int) -> dict[str, Any]:
    """One line of the labelling file."""
    candidate = measured.candidates[index]
    group = measured.groups[candidate.group]
    a, b = candidate.first, candidate.second
    # Drawn for each comparison alone, from texts in an order of their own: not from how the pool has them.
    one, other = sorted((a, b), key=lambda side: json.dumps(text_as_json(group.completions[side])))
    a, b = (one, other) if _coin(seed, candidate.key) else (other, one)
    margin = float(measured.margins[index]) * (1 if a == candidate.first else -1)
    why: dict[str, Any] = {"margin": margin, "p_a": float(expit(margin / measured.temperature))}
    for name in ("disagreement", "novelty"):
        why[name] = float(measured.measures[name][index]) if name in measured.measures else None
    return {
        "id": candidate.key,
        "prompt": text_as_json(group.prompt),
        "a": text_as_json(group.completions[a]),
        "b": text_as_json(group.completions[b]),
        "subset": group.subset,
        "why": {**why, "rank": rank},
        "label": None,
    }


def _coin(seed: int, key: str) -> bool:
    return bool(hashlib.sha256(f"{seed} {key}".encode()).digest()[0] & 1)


def _entropy(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in nats of a coin with these log-odds; it keeps its order where the probability rounds to 1."""
    sizes = np.abs(logits)
    entropy: NDArray[np.float64] = np.log1p(np.exp(-sizes)) + sizes * expit(-sizes)
    return entropy


def _sample(groups: Sequence[PromptGroup], seed: int) -> Sequence[PromptGroup]:
    return groups if len(groups) <= KNOWN_SAMPLE else Random(seed).sample(list(groups), KNOWN_SAMPLE)


def _sketches_of(scorer: Scorer) -> list[CompletionSketch]:
    """Sketches of what the scorer's models were trained on, each once."""
    contracts: Iterable[Any] = scorer.contracts.values() if isinstance(scorer, EnsembleScorer) else [scorer.contract]
    records = [(contract.data.get("train") or {}).get("sketch") for contract in contracts if contract is not None]
    return [CompletionSketch.from_dict(record) for record in records if record]
