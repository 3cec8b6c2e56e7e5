"""rewardlab.evaluation.evaluator: scores once, with what it was told, and not before the rows are worth it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluation import Evaluator
from rewardlab.metrics import EvaluationResult, evaluate_scores
from rewardlab.types import Pair, PromptGroup, ReadOut, Step


class Scripted:
    """A scorer that gives the scores it was made with, and remembers how it was called."""

    def __init__(self, scores) -> None:
        self.scores = scores
        self.calls: list[tuple[int, bool]] = []

    def score_groups(self, groups, progress: bool = False):
        self.calls.append((len(groups), progress))
        return self.scores


def pair_group(prompt: str) -> PromptGroup:
    return PromptGroup(prompt, ("aa", "b"), pairs=(Pair(0, 1),))


def test_evaluator_scores_once_and_passes_its_settings_on() -> None:
    groups = [pair_group(f"p{index}") for index in range(400)]
    scores = [[float(index % 7), 3.0] for index in range(400)]
    scorer = Scripted(scores)
    result = Evaluator(scorer, resamples=70, seed=5, confidence=0.8).evaluate(groups, progress=True)
    assert scorer.calls == [(400, True)]
    assert isinstance(result, EvaluationResult)
    assert result == evaluate_scores(groups, scores, resamples=70, seed=5, confidence=0.8)


def test_groups_without_pairs_are_named_before_anything_is_scored() -> None:
    rows = [PromptGroup("p", ("a",), source=f"rows.jsonl:{line}") for line in range(1, 8)]
    scorer = Scripted([[0.0]] * 8)
    with pytest.raises(DataError, match=re.escape("7 of 8 rows say no preference: rows.jsonl:1, ")) as caught:
        Evaluator(scorer).evaluate([*rows, pair_group("p")])
    assert caught.value.message.endswith("rows.jsonl:5 and 2 more")
    assert caught.value.hint
    assert scorer.calls == []


class Stepwise(Scripted):
    """Can give every step one probability in the same pass; what came without steps is two for it."""

    def __init__(self, scores, read_out: ReadOut) -> None:
        super().__init__(scores)
        self.read_out = read_out

    @property
    def has_steps(self) -> bool:
        return self.read_out.kind == "step"

    def score_groups_steps(self, groups, *, progress: bool = False):
        steps = [[[0.4] * len(s) for s in g.steps] or [[0.4, 0.4]] * len(g.completions) for g in groups]
        return self.score_groups(groups, progress), steps


STEPPED = PromptGroup("q", ("a", "b"), steps=((Step("s", 1),), (Step("t", -1), Step("u"))))
UNJUDGED = PromptGroup("s", ("a", "b"), labels=(1, 0), steps=((Step("s"),), (Step("t"), Step("u"))))


def test_evaluate_all_scores_once_and_finds_every_part() -> None:
    scorer = Stepwise([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]], ReadOut("step", "min", 2, "<|step|>"))
    evaluator = Evaluator(scorer, resamples=20, seed=3, threshold=0.3)
    found = evaluator.evaluate_all([pair_group("p"), STEPPED, UNJUDGED], progress=True)
    assert scorer.calls == [(3, True)]
    assert found.pairs.accuracy.value == 1.0
    assert (found.steps.num_steps, found.steps.threshold, found.steps.accuracy.value) == (2, 0.3, 0.5)
    assert (found.solutions.aggregation, found.outcomes.aggregation) == ("min", "min")
    assert (found.rankings, found.ratings) == (None, None)
    assert (found.resamples, found.seed) == (20, 3)


@pytest.mark.parametrize("scorer", [Stepwise([[1.0, 0.0]], ReadOut()), Scripted([[1.0, 0.0]])])
def test_without_step_scores_judged_steps_say_what_the_solutions_are(scorer) -> None:
    found = Evaluator(scorer).evaluate_all([STEPPED])
    assert found.steps is None
    assert found.solutions.auc.value == 1.0


def test_evaluate_all_names_groups_of_which_nothing_is_known_before_scoring() -> None:
    scorer = Scripted([[0.0]])
    with pytest.raises(DataError, match=r"1 of 1 rows say nothing that a score could be compared with: rows\.jsonl:1"):
        Evaluator(scorer).evaluate_all([PromptGroup("p", ("a",), source="rows.jsonl:1")])
    assert scorer.calls == []


def with_temperature(scorer: Scripted, temperature: float | None) -> Scripted:
    scorer.reference_scale = ScoreScale(None, temperature)
    return scorer


@pytest.mark.parametrize("temperature", [None, 1.7])
def test_the_temperature_is_passed_on(temperature: float | None) -> None:
    groups, scores = [pair_group("p"), pair_group("q")], [[1.0, 0.0], [0.0, 2.0]]
    evaluator = Evaluator(with_temperature(Scripted(scores), temperature), resamples=20)
    expected = evaluate_scores(groups, scores, temperature=temperature, resamples=20)
    assert evaluator.evaluate(groups) == expected
    assert evaluator.evaluate_all(groups).pairs == expected
    assert expected.temperature == temperature


@pytest.mark.parametrize("method", ["evaluate", "evaluate_all"])
def test_other_than_raw_scores_are_refused_before_scoring(method: str) -> None:
    scorer = Scripted([[1.0, 0.0]])
    scorer.scale = "calibrated"
    with pytest.raises(ConfigError, match="scale 'calibrated'") as caught:
        getattr(Evaluator(scorer), method)([pair_group("p")])
    assert caught.value.hint
    assert scorer.calls == []
    scorer.scale = "raw"
    assert getattr(Evaluator(scorer), method)([pair_group("p")])


def test_a_temperature_of_outcomes_is_not_used_on_pairs() -> None:
    """The scale knows what its temperature was fitted on; both methods ask it."""
    groups = [PromptGroup(f"p{i}", ("aa", "b"), pairs=(Pair(0, 1),), labels=(1.0, 0.0)) for i in range(4)]
    scorer = Scripted([[1.0, 0.0], [0.0, 1.0], [2.0, 0.5], [0.3, 0.1]])
    scorer.reference_scale = ScoreScale(None, 2.0, "completion")
    assert Evaluator(scorer).evaluate(groups).temperature is None
    found = Evaluator(scorer).evaluate_all(groups)
    assert (found.pairs.temperature, found.outcomes.temperature) == (None, 2.0)
    scorer.reference_scale = ScoreScale(None, 2.0, "pair")
    found = Evaluator(scorer).evaluate_all(groups)
    assert (found.pairs.temperature, found.outcomes.temperature) == (2.0, None)


def test_attributes_are_rated_by_the_weights_the_model_was_trained_on() -> None:
    """The score is the weighted sum itself: its correlation with that rating is 1, and with either attribute not."""
    attributes = [({"a": float(i % 3), "b": float(i % 5)}, {"a": float(i % 2), "b": float(i % 7)}) for i in range(20)]
    groups = [PromptGroup(f"p{i}", ("x", "y"), attributes=found) for i, found in enumerate(attributes)]
    scorer = Scripted([[2 * one["a"] - one["b"] for one in found] for found in attributes])
    scorer.contract = SimpleNamespace(objective={"attribute_weights": {"a": 2.0, "b": -1.0}}, calibration={})
    found = Evaluator(scorer).evaluate_all(groups)
    assert found.ratings.pearson.value == pytest.approx(1.0)
    assert found.attributes["a"].pearson.value < 0.99
    del scorer.contract
    assert Evaluator(scorer).evaluate_all(groups).ratings is None


class Members(Scripted):
    """Combines two members by their mean; both in one pass."""

    is_ensemble = True

    def score_groups_members(self, groups, *, progress: bool = False):
        scores = self.score_groups(groups, progress)
        return scores, [[(score - 1, score + 1) for score in of_group] for of_group in scores]

    def to_dict(self):
        return {"members": ["a", "b"]}


def test_an_ensemble_is_scored_once_for_both_results() -> None:
    groups = [pair_group(f"p{index}") for index in range(40)]
    scores = [[float(index % 7), 3.0] for index in range(40)]
    scorer = Members(scores)
    evaluator = Evaluator(scorer, resamples=70, seed=5, confidence=0.8)
    result, members = evaluator.evaluate_ensemble(groups, progress=True)
    assert scorer.calls == [(40, True)]
    assert result == Evaluator(Scripted(scores), resamples=70, seed=5, confidence=0.8).evaluate_all(groups)
    assert (members.disagreement.value, members.resamples, members.seed, members.confidence) == (1.0, 70, 5, 0.8)
    assert members.pairs is not None
    assert members.pairs.member_accuracy["a"] == result.pairs.accuracy
    with pytest.raises(ConfigError, match="has no members"):
        Evaluator(Scripted(scores)).evaluate_ensemble(groups)
