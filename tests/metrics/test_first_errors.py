"""rewardlab.metrics.first_errors: ProcessBench's metric by hand, its baselines, and solutions that do not say."""

from __future__ import annotations

import numpy as np
import pytest

from rewardlab.metrics import first_error, predicted_first_error
from rewardlab.metrics.first_errors import Solution, evaluate_first_errors
from rewardlab.types import Step


@pytest.mark.parametrize(
    ("labels", "first"),
    [
        ((1, 1), -1),
        ((1, 0, 1), -1),  # neutral is no error
        ((1, -1, 1, -1), 1),
        ((-1, None, None), 0),  # as ProcessBench: nothing is known after the first error
        ((1, None, -1), None),  # the unlabelled step may be the first error
        ((1, None), None),
    ],
)
def test_first_error(labels, first) -> None:
    assert first_error([Step("s", label) for label in labels]) == first


def test_predicted_first_error() -> None:
    assert predicted_first_error([0.9, 0.3, 0.1]) == 1
    assert predicted_first_error([0.9, 0.5]) == 1  # at the threshold is an error
    assert predicted_first_error([0.9, 0.51]) == -1
    assert predicted_first_error([0.9, 0.3], threshold=0.2) == -1


def test_by_hand() -> None:
    """Erroneous at 0, 1, 1 of which 0 and one 1 are found: 2/3. Correct: one of two is passed: 1/2.

    F1 = 2 x 2/3 x 1/2 / (2/3 + 1/2) = 4/7. Accuracy 3/5; "no error" 2/5, the first step 1/5; the commonest answers are
    -1 and 1, twice each: -1. Best guess: s = 2/3: 2 s / (1 + sqrt(s))^2.
    """
    solutions = [
        Solution("a", 0, (0.1, 0.1)),
        Solution("b", 1, (0.9, 0.2)),
        Solution("c", 1, (0.3, 0.2)),
        Solution("d", -1, (0.9, 0.9)),
        Solution("e", -1, (0.9, 0.2)),
        Solution("f", None, (0.9, 0.2)),
    ]
    result = evaluate_first_errors(solutions)
    assert (result.num_solutions, result.num_erroneous, result.num_undetermined) == (5, 3, 1)
    assert result.accuracy_on_erroneous.value == pytest.approx(2 / 3)
    assert result.accuracy_on_correct.value == 1 / 2
    assert result.f1.value == pytest.approx(4 / 7)
    assert result.accuracy.value == pytest.approx(3 / 5)
    assert (result.no_error.value, result.first_step.value) == (pytest.approx(2 / 5), pytest.approx(1 / 5))
    assert (result.majority_index, result.majority.value) == (-1, pytest.approx(2 / 5))
    assert result.guess_f1.value == pytest.approx(4 / 3 / (1 + np.sqrt(2 / 3)) ** 2)


def test_no_guess_is_better_than_the_best_guess() -> None:
    """Guessing -1 with probability q, else the commonest first error, over all q; and it is attained."""
    solutions = [Solution(str(i), error, (0.5,) * 4) for i, error in enumerate([0] * 5 + [1] * 9 + [3] * 6 + [-1] * 30)]
    guess = evaluate_first_errors(solutions).guess_f1.value
    q = np.linspace(0, 1, 10_001)[1:-1]
    f1 = 2 * (1 - q) * 0.45 * q / ((1 - q) * 0.45 + q)
    assert guess == pytest.approx(f1.max(), abs=1e-6)


def test_the_interval_is_by_prompt_and_the_f1_that_of_the_drawn_solutions() -> None:
    generator = np.random.default_rng(0)
    solutions = []
    for prompt in range(80):
        for _ in range(2):
            error = int(generator.integers(-1, 3))
            scores = np.full(3, 0.9)
            if generator.random() < 0.6 and error >= 0:
                scores[error] = 0.1
            solutions.append(Solution(f"{prompt:02d}", error, tuple(scores)))
    interval = evaluate_first_errors(solutions, resamples=300, seed=2).f1
    values = []
    for draw in np.random.default_rng(2).integers(0, 80, size=(300, 80)):
        drawn = [solutions[2 * prompt + k] for prompt in draw for k in (0, 1)]
        right = np.array([predicted_first_error(s.scores) == s.error for s in drawn])
        wrong = np.array([s.error >= 0 for s in drawn])
        first, second = right[wrong].mean(), right[~wrong].mean()
        values.append(2 * first * second / (first + second))
    assert [interval.low, interval.high] == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_a_perfect_model_and_constants() -> None:
    errors = [0, 1, 1, -1, -1] * 20
    perfect = [Solution(str(i), e, tuple(0.1 if p == e else 0.9 for p in range(2))) for i, e in enumerate(errors)]
    result = evaluate_first_errors(perfect)
    assert result.f1.value == result.accuracy.value == 1.0
    assert result.above_guess is result.above_majority is True
    for value in (0.9, 0.1):  # always no error, always the first step
        constant = evaluate_first_errors([Solution(s.prompt, s.error, (value, value)) for s in perfect])
        assert constant.f1.value == 0.0
        assert constant.above_guess is constant.above_majority is False
        assert constant.accuracy.value == (constant.no_error if value > 0.5 else constant.first_step).value
