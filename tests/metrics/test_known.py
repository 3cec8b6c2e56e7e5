"""rewardlab.metrics.known: each part where the data ask for it, as that part alone, and nothing unseen."""

from __future__ import annotations

import json
import re

import pytest

from rewardlab.errors import DataError
from rewardlab.metrics import (
    evaluate_known,
    evaluate_outcomes,
    evaluate_rankings,
    evaluate_ratings,
    evaluate_scores,
    evaluate_steps,
    require_known,
)
from rewardlab.metrics.steps import with_outcomes
from rewardlab.types import Pair, PromptGroup, Ranking, Step

OPTIONS = {"resamples": 50, "seed": 1, "confidence": 0.9}
PAIR = PromptGroup("pair", ("aa", "b"), pairs=(Pair(0, 1),))
TIE = PromptGroup("tie", ("aa", "b"), pairs=(Pair(0, 1, tie=True),))
RANKING = PromptGroup("ranking", ("a", "bb", "ccc"), rankings=(Ranking((0, 1, 2), (0, 1, 1)),))
RATED = PromptGroup("rated", ("a", "bb"), ratings=(1.0, 2.0), attributes=({"help": 3.0}, {"help": 1.0}))
LABELLED = PromptGroup("labelled", ("a", "bb"), labels=(1, 0))
STEPPED = PromptGroup("stepped", ("a", "bb"), steps=((Step("s", 1), Step("t", -1)), (Step("u", 1),)))
BARE = PromptGroup("bare", ("a",), source="rows.jsonl:9")
SCORES = {"pair": [1.0, 0.0], "tie": [0.1, 0.0], "ranking": [3.0, 2.0, 1.0], "rated": [0.0, 1.0]}
SCORES |= {"labelled": [2.0, -1.0], "stepped": [-1.0, 1.0], "bare": [0.0]}


def scores_of(groups) -> list[list[float]]:
    return [SCORES[group.prompt] for group in groups]


def test_every_part_is_what_it_is_alone() -> None:
    groups = [LABELLED, PAIR, STEPPED, RATED, TIE, BARE, RANKING]
    step_scores = [[], [], [[0.9, 0.2], [0.7]], [], [], [], []]
    found = evaluate_known(groups, scores_of(groups), step_scores, aggregation="min", threshold=0.3, **OPTIONS)
    compared = [PAIR, TIE, RANKING]
    alone = evaluate_scores(compared, scores_of(compared), **OPTIONS)
    assert found.pairs.to_dict() == alone.to_dict()
    assert found.pairs.tied_labels == 2  # of the tie, and of the ranking's second places
    assert found.rankings == evaluate_rankings([RANKING], scores_of([RANKING]), **OPTIONS)
    assert found.ratings == evaluate_ratings([RATED], scores_of([RATED]), **OPTIONS)
    assert found.outcomes == evaluate_outcomes([LABELLED], scores_of([LABELLED]), aggregation="min", **OPTIONS)
    solved = with_outcomes([STEPPED])
    assert found.solutions == evaluate_outcomes(solved, scores_of(solved), aggregation="min", **OPTIONS)
    assert found.steps == evaluate_steps([STEPPED], [[[0.9, 0.2], [0.7]]], threshold=0.3, **OPTIONS)
    assert list(found.attributes) == ["help"]
    assert found.attributes["help"].within_prompt.value == pytest.approx(-1.0)
    assert (found.num_groups, found.num_unknown) == (7, 1)


def test_the_temperature_is_the_pairs() -> None:
    found = evaluate_known([PAIR, LABELLED], scores_of([PAIR, LABELLED]), temperature=2.0, **OPTIONS)
    assert found.pairs == evaluate_scores([PAIR], scores_of([PAIR]), temperature=2.0, **OPTIONS)
    assert found.to_dict()["temperature"] == 2.0
    assert found.outcomes == evaluate_outcomes([LABELLED], scores_of([LABELLED]), **OPTIONS)


def test_json_has_the_pairs_at_the_top_and_the_others_by_name() -> None:
    """A set of pairs gives the keys it always gave, and the two counts."""
    pairs = evaluate_known([PAIR], [[1.0, 0.0]], **OPTIONS).to_dict()
    alone = evaluate_scores([PAIR], [[1.0, 0.0]], **OPTIONS).to_dict()
    assert pairs == {**alone, "num_groups": 1, "num_unknown": 0}
    groups = [RANKING, RATED, LABELLED, STEPPED]
    out = evaluate_known(groups, scores_of(groups), [[], [], [], [[0.9, 0.2], [0.7]]], **OPTIONS).to_dict()
    out = json.loads(json.dumps(out, allow_nan=False))
    assert {"rankings", "ratings", "attributes", "outcomes", "solutions", "steps", "bootstrap", "accuracy"} <= set(out)
    only = evaluate_known([LABELLED], [[2.0, -1.0]], **OPTIONS).to_dict()
    assert set(only) == {"outcomes", "num_groups", "num_unknown", "bootstrap"}


def test_steps_without_step_scores_are_evaluated_as_solutions() -> None:
    found = evaluate_known([STEPPED], [[-1.0, 1.0]], **OPTIONS)
    assert found.steps is None
    assert found.solutions.auc.value == 1.0
    assert found.solutions.best_of.accuracy.value == 1.0


def test_nothing_known_is_counted_here_and_refused_before_scoring() -> None:
    found = evaluate_known([BARE, TIE], scores_of([BARE, TIE]))
    assert found.pairs is None
    assert found.num_unknown == 1
    with pytest.raises(DataError, match=re.escape("1 of 2 rows say nothing that a score could be compared with: rows")):
        require_known([PAIR, BARE])
    with pytest.raises(DataError, match="all pairs are ties"):
        require_known([TIE, TIE])
    with pytest.raises(DataError, match="there are no rows"):
        require_known([])
    require_known([TIE, PAIR, RANKING, RATED, LABELLED, STEPPED])


def test_scores_are_checked() -> None:
    with pytest.raises(DataError, match="2 completions but 1 scores"):
        evaluate_known([LABELLED], [[1.0]])
    with pytest.raises(DataError, match="1 groups but 0 lists of step scores"):
        evaluate_known([STEPPED], [[1.0, 0.0]], [])


def test_a_temperature_is_used_on_what_it_was_fitted_on() -> None:
    """One fitted on outcomes says nothing of preferences, and the other way round."""
    groups = [
        PromptGroup("p", ["a", "b"], pairs=[Pair(0, 1)], labels=(1.0, 0.0)),
        PromptGroup("q", ["a", "b"], pairs=[Pair(1, 0)], labels=(1.0, 0.0)),
        STEPPED,
    ]
    scores = [[1.0, 0.5], [0.2, 0.1], [0.3, 0.4]]
    for unit, expected in (("pair", (2.0, None, None)), ("completion", (None, 2.0, 2.0))):
        found = evaluate_known(groups, scores, temperature=2.0, temperature_of=unit, resamples=20)
        parts = (found.pairs, found.outcomes, found.solutions)
        assert tuple(part.temperature for part in parts) == expected
        assert tuple("after" in part.reliability for part in parts) == tuple(t is not None for t in expected)


def test_even_soft_labels_are_ties_to_every_part() -> None:
    even = PromptGroup("p", ["a", "b"], pairs=[Pair(0, 1, p_chosen=0.5)])
    found = evaluate_known([even, even], [[1.0, 0.0]] * 2)
    assert (found.pairs, found.num_unknown) == (None, 0)
    with pytest.raises(DataError, match="all pairs are ties"):
        require_known([even])
    assert evaluate_known([even, PAIR], [[1.0, 0.0]] * 2).pairs.tied_labels == 1


def test_the_pairs_of_a_huge_ranking_are_not_made_and_it_is_said() -> None:
    """The ranking as a whole is still measured, also where it has a hundred thousand completions."""
    size = 100_000
    huge = PromptGroup("huge", ["x"] * size, rankings=(Ranking(range(size), range(size)),))
    scores = [*scores_of([PAIR]), [-float(i) for i in range(size)]]
    found = evaluate_known([PAIR, huge], scores, **OPTIONS)
    assert found.pairs is not None
    assert (found.pairs.num_pairs, found.num_unlisted, found.num_unknown) == (1, 1, 0)
    assert found.rankings is not None
    assert found.rankings.kendall_tau.value == 1.0
    assert found.to_dict()["num_unlisted"] == 1
    assert "num_unlisted" not in evaluate_known([PAIR], scores[:1], **OPTIONS).to_dict()
