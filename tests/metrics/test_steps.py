"""rewardlab.metrics.steps: by hand, against scikit-learn, the threshold, solutions, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from rewardlab.errors import DataError
from rewardlab.metrics import best_threshold, evaluate_steps
from rewardlab.metrics.steps import has_error, with_outcomes
from rewardlab.types import PromptGroup, Step


def judged(*labels, prompt: str = "p") -> PromptGroup:
    """A group with one solution per list of labels."""
    steps = [tuple(Step(f"s{i}", label) for i, label in enumerate(of_one)) for of_one in labels]
    return PromptGroup(prompt, ["text"] * len(labels), steps=steps)


def simulated(prompts: int = 150, noise: float = 1.0) -> tuple[list[PromptGroup], list[list[list[float]]]]:
    """One solution each of 1 to 6 steps; all steps from the first error on are wrong and score lower."""
    generator = np.random.default_rng(0)
    groups, scores = [], []
    for index in range(prompts):
        length = int(generator.integers(1, 7))
        first = int(generator.integers(0, 2 * length))
        labels = [-1 if place >= first else 1 for place in range(length)]
        groups.append(judged(labels, prompt=f"p{index}"))
        scores.append([(1 / (1 + np.exp(-generator.normal(labels, noise) - 1))).tolist()])
    return groups, scores


def flat(groups, scores) -> tuple[np.ndarray, np.ndarray]:
    labels = np.array([step.label for group in groups for steps in group.steps for step in steps])
    return labels >= 0, np.array([value for of_group in scores for of_one in of_group for value in of_one])


def test_by_hand() -> None:
    """Labels + 0 -, + - with P 0.9 0.4 0.6, 0.5 0.2: the neutral one and the 0.5 are taken for errors.

    Of three that are no error one is taken for it, of two errors one: accuracy 2/5. F1 of errors: hits 1, others taken
    2, missed 1: 2 / 5. F1 of the others: hits 1, others taken 1, missed 2: 2 / 5. Always "no error": accuracy 3/5, its
    F1 2 x 3 / (3 + 5) = 3/4, macro 3/8. AUC: 0.9 beats both, 0.4 and 0.5 beat 0.2 only: 4 / 6.
    """
    result = evaluate_steps([judged([1, 0, -1], [1, -1])], [[[0.9, 0.4, 0.6], [0.5, 0.2]]])
    assert result.accuracy.value == pytest.approx(2 / 5)
    assert result.f1_incorrect.value == result.f1_correct.value == result.macro_f1.value == pytest.approx(2 / 5)
    assert result.share_correct.value == result.majority.value == pytest.approx(3 / 5)
    assert result.majority_macro_f1 == pytest.approx(3 / 8)
    assert result.auc.value == pytest.approx(4 / 6)
    assert result.earlier_auc.value == pytest.approx(5.5 / 6)  # places 0, 1, 0 before 2 and 1: five wins, one tie
    assert (result.num_steps, result.num_prompts, result.accuracy.low) == (5, 1, None)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_equals_scikit_learn(threshold: float) -> None:
    groups, scores = simulated()
    result = evaluate_steps(groups, scores, threshold=threshold)
    correct, values = flat(groups, scores)
    taken = values > threshold
    assert result.accuracy.value == pytest.approx(accuracy_score(correct, taken))
    assert result.f1_correct.value == pytest.approx(f1_score(correct, taken))
    assert result.f1_incorrect.value == pytest.approx(f1_score(~correct, ~taken))
    assert result.macro_f1.value == pytest.approx(f1_score(correct, taken, average="macro"))
    assert result.auc.value == pytest.approx(roc_auc_score(correct, values))
    commoner = np.full(len(correct), correct.mean() >= 0.5)
    assert result.majority.value == pytest.approx(accuracy_score(correct, commoner))
    assert result.majority_macro_f1 == pytest.approx(f1_score(correct, commoner, average="macro", zero_division=0))
    assert result.macro_f1.low < result.macro_f1.value < result.macro_f1.high
    assert result.above_majority is True


def test_the_commoner_class_is_not_above_itself() -> None:
    groups, scores = simulated()
    constant = [[[0.9] * len(of_one) for of_one in of_group] for of_group in scores]
    result = evaluate_steps(groups, constant)
    assert result.macro_f1.value == pytest.approx(result.majority_macro_f1)
    assert result.auc.value == 0.5
    assert result.above_majority is False
    assert result.first_error.f1.value == 0.0


def test_steps_without_a_label_are_left_out_and_counted() -> None:
    """And so are completions and groups without steps, whatever the model has split them into."""
    mixed = PromptGroup("q", ("a", "b"), steps=((), (Step("s", -1), Step("t"))))
    other = PromptGroup("r", ("a",))
    result = evaluate_steps([judged([1, 1]), mixed, other], [[[0.9, 0.9]], [[0.1], [0.1, 0.9]], [[0.3, 0.3]]])
    assert (result.num_steps, result.num_unlabelled, result.accuracy.value) == (3, 1, 1.0)
    assert result.first_error.num_solutions == 2


def test_one_class_has_no_f1() -> None:
    result = evaluate_steps([judged([1, 1], prompt=f"p{i}") for i in range(4)], [[[0.9, 0.4]]] * 4)
    out = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert out["f1_incorrect"] is out["macro_f1"] is out["auc"] is out["majority_macro_f1"] is None
    assert out["accuracy"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert out["first_error"]["f1"] is out["first_error"]["accuracy_on_erroneous"] is None
    assert out["first_error"]["accuracy_on_correct"]["value"] == 0.0


def test_solutions_and_their_errors() -> None:
    """An error counts however little is labelled; "no error" needs all labels."""
    cases = {(1, 0, 1): False, (1, -1, None): True, (None, -1): True, (1, None): None, (): None}
    assert {labels: has_error([Step("s", x) for x in labels]) for labels in cases} == cases
    assert with_outcomes([judged([1, 0], [1, -1], [1, None])])[0].labels == (1.0, 0.0, None)


def test_best_threshold_is_the_best_of_all() -> None:
    """Against trying every threshold; and it gives the F1 that was sought, which 0.5 does not."""
    groups, scores = simulated()
    chosen = best_threshold(groups, scores)
    tried = [
        evaluate_steps(groups, scores, threshold=t, resamples=1).first_error.f1.value for t in np.linspace(0, 1, 201)
    ]
    found = evaluate_steps(groups, scores, threshold=chosen, resamples=1).first_error.f1.value
    assert found >= max(tried)
    assert found > tried[100]
    assert 0 < chosen < 1


def test_best_threshold_by_hand() -> None:
    """The error scores 0.2, all else at least 0.3: any of [0.2, 0.3) is perfect, the middle is taken."""
    groups, scores = [judged([1, -1], [1, 1])], [[[0.8, 0.2], [0.3, 0.9]]]
    assert best_threshold(groups, scores) == pytest.approx(0.25)
    with pytest.raises(DataError, match="needs solutions with an error and solutions without"):
        best_threshold([judged([1, -1])], [[[0.8, 0.2]]])


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[[0.5]]], "completion 0 has 2 steps but 1 step scores"),
        ([[[0.5, 1.5]]], "step 1 of completion 0 has the score 1.5, expected P"),
        ([[[0.5, float("nan")]]], "step 1 of completion 0 has the score nan"),
        ([[]], "1 completions with steps but 0 lists"),
        ([], "1 groups but 0 lists of step scores"),
    ],
)
def test_scores_that_cannot_be_trusted_are_refused(scores, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        evaluate_steps([judged([1, -1])], scores)
    assert caught.value.hint


def test_other_bad_input() -> None:
    with pytest.raises(DataError, match="no step has a label"):
        evaluate_steps([judged([None])], [[[0.5]]])
    with pytest.raises(ValueError, match="threshold must be a probability"):
        evaluate_steps([judged([1])], [[[0.5]]], threshold=2.0)
