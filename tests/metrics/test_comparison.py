"""rewardlab.metrics.comparison: by hand, against SciPy, and two models that are equally good."""

from __future__ import annotations

import json
from math import comb

import numpy as np
import pytest
import scipy.stats

from rewardlab.errors import DataError
from rewardlab.metrics import compare, evaluate_scores
from rewardlab.metrics.comparison import compare_margins, mcnemar_p
from rewardlab.types import Pair, PromptGroup


def groups_of(number: int, per_prompt: int = 1) -> list[PromptGroup]:
    return [
        PromptGroup(f"p{i // per_prompt}", ("aa", "b"), pairs=(Pair(),), id=i, subset=["easy", "hard"][i % 2])
        for i in range(number)
    ]


def evaluated(margins, groups=None, **more):
    groups = groups or groups_of(len(margins))
    return evaluate_scores(groups, [[float(m), 0.0] for m in margins], **{"resamples": 50, **more})


def test_mcnemar_by_hand_and_by_scipy() -> None:
    """Two-sided exact: twice the lower tail of Binomial(n, 1/2), at most 1."""
    for first, second in [(1, 5), (0, 1), (7, 7), (30, 12), (400, 480)]:
        n, k = first + second, min(first, second)
        tail = sum(comb(n, i) for i in range(k + 1)) / 2**n
        assert mcnemar_p(first, second) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
        assert mcnemar_p(first, second) == mcnemar_p(second, first)
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(30, 12) == scipy.stats.binomtest(30, 42).pvalue


@pytest.mark.parametrize(("first", "second"), [(1, 5), (0, 4), (12, 30), (400, 480)])
def test_mcnemar_equals_statsmodels(first: int, second: int) -> None:
    """The pairs that both have right, or neither, do not enter."""
    from statsmodels.stats.contingency_tables import mcnemar

    assert mcnemar_p(first, second) == pytest.approx(mcnemar([[70, first], [second, 9]], exact=True).pvalue, rel=1e-9)


def test_by_hand() -> None:
    """Right are, first: T T F F F F, second: T F T T T F(tie). Only first 1, only second 3, p = 2 * (1 + 4) / 16."""
    first, second = [1, 2, -1, -1, -2, -1], [3, -1, 1, 2, 1, 0]
    found = compare(evaluated(first), evaluated(second))
    assert (found.num_pairs, found.num_prompts, found.only_first, found.only_second) == (6, 6, 1, 3)
    assert found.mcnemar_p == pytest.approx(10 / 16)
    assert (found.first["accuracy"], found.second["accuracy"]) == pytest.approx((2 / 6, 4 / 6))
    assert found.differences["accuracy"].value == pytest.approx(2 / 6)
    losses = [np.log1p(np.exp(-np.array(m))).mean() for m in (first, second)]
    assert found.differences["log_loss"].value == pytest.approx(losses[1] - losses[0])
    assert found.calibrated == {}
    easy = found.subsets["easy"]  # pairs 0, 2, 4
    assert (easy.num_pairs, easy.first, easy.second) == (3, pytest.approx(1 / 3), 1.0)
    assert easy.difference.value == pytest.approx(2 / 3)


def test_values_are_the_differences_of_the_two_evaluations() -> None:
    generator = np.random.default_rng(0)
    margins = generator.normal(0.7, 1.5, (2, 300))
    first, second = (
        evaluated(m, temperature=t, resamples=100, seed=3, confidence=0.9)
        for m, t in zip(margins, (1.5, 0.8), strict=True)
    )
    found = compare(first, second)
    for name in ("accuracy", "log_loss", "brier", "ece", "ece_equal_mass"):
        expected = getattr(second, name).value - getattr(first, name).value
        assert found.differences[name].value == pytest.approx(expected, abs=1e-12)
        assert found.differences[name].low < found.differences[name].high
    for name in ("log_loss", "brier", "ece", "ece_equal_mass"):
        expected = second.calibrated[name].value - first.calibrated[name].value
        assert found.calibrated[name].value == pytest.approx(expected, abs=1e-12)
    swapped = compare(second, first)
    assert swapped.differences["accuracy"].low == pytest.approx(-found.differences["accuracy"].high)
    out = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert out["mcnemar"] == {"only_first": found.only_first, "only_second": found.only_second, "p": found.mcnemar_p}
    assert out["bootstrap"] == {"unit": "prompt", "confidence": 0.9, "resamples": 100, "seed": 3}
    assert set(out["subsets"]["hard"]) == {"num_pairs", "first", "second", "difference"}


def test_pairing_is_what_makes_it_sharp() -> None:
    """Second is first, but right on 12 pairs more: their own intervals overlap, the paired one leaves out zero."""
    generator = np.random.default_rng(1)
    first = np.where(generator.random(400) < 0.7, 1.0, -1.0)
    second = first.copy()
    second[np.flatnonzero(first < 0)[:12]] = 1.0
    one, other = evaluated(first, resamples=2000), evaluated(second, resamples=2000)
    found = compare(one, other)
    assert one.accuracy.high > other.accuracy.low
    assert 0 < found.differences["accuracy"].low < 12 / 400 < found.differences["accuracy"].high
    assert found.mcnemar_p == pytest.approx(2 / 2**12)


def test_a_model_and_itself() -> None:
    one = evaluated([1.0, -1.0, 0.5, 0.2], temperature=2.0)
    found = compare(one, one)
    assert found.mcnemar_p == 1.0
    assert {(i.value, i.low, i.high) for i in (*found.differences.values(), *found.calibrated.values())} == {
        (0.0, 0.0, 0.0)
    }


def test_notes_say_what_the_test_and_the_subsets_hide() -> None:
    groups = groups_of(40, per_prompt=4)
    found = compare(evaluated(np.ones(40), groups), evaluated(-np.ones(40), groups))
    assert "40 pairs are of 10 prompts" in found.notes[0]
    assert "Of 2 subsets compared at 95 %, 0.1 would leave out zero by chance alone" in found.notes[1]
    bare = [PromptGroup(f"p{i}", ("a", "b"), pairs=(Pair(),)) for i in range(9)]
    assert compare(evaluated(np.ones(9), bare), evaluated(np.ones(9), bare)).notes == ()


def test_other_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="of 4 and 3 pairs") as caught:
        compare(evaluated(np.ones(4)), evaluated(np.ones(3)))
    assert caught.value.hint
    groups = groups_of(4)
    with pytest.raises(DataError, match="pair 0 is id 0 and id 3"):
        compare(evaluated(np.ones(4), groups), evaluated(np.ones(4), groups[::-1]))
    longer = [*groups[:3], PromptGroup("p3", ("aaa", "b"), pairs=(Pair(),), id=3, subset="hard")]
    with pytest.raises(DataError, match="pair 3 is id 3, not of the same text"):
        compare(evaluated(np.ones(4), groups), evaluated(np.ones(4), longer))


@pytest.mark.parametrize("other", [{"resamples": 51}, {"seed": 1}, {"confidence": 0.9}])
def test_evaluations_that_resample_otherwise_are_refused(other) -> None:
    """A difference between the one's interval and the other's would be told with neither's settings."""
    with pytest.raises(DataError, match="do not resample alike") as caught:
        compare(evaluated(np.ones(4)), evaluated(np.ones(4), **other))
    assert "same resamples, seed and confidence" in caught.value.hint


def test_margins_alone_give_what_two_evaluations_give() -> None:
    """The same pairs, prompts and resamples: every difference, with its interval, is `compare`'s."""
    generator = np.random.default_rng(1)
    margins = generator.normal(0.5, 1.5, (2, 120))
    groups = groups_of(120, per_prompt=3)
    first, second = (evaluated(of_one, groups) for of_one in margins)
    whole, found = (
        compare(first, second),
        compare_margins(*margins, [pair.prompt for pair in first.pairs], resamples=50),
    )
    assert found.differences == whole.differences
    assert (found.first, found.second) == (pytest.approx(whole.first), pytest.approx(whole.second))
    assert (found.only_first, found.only_second, found.mcnemar_p, found.num_prompts) == (
        whole.only_first,
        whole.only_second,
        whole.mcnemar_p,
        40,
    )


def test_margins_at_their_own_temperatures() -> None:
    """A model whose margins are 3 times another's is that other one at T = 3."""
    margins = np.random.default_rng(2).normal(0.5, 1.5, 100)
    prompts = [str(i) for i in range(100)]
    found = compare_margins(margins, 3 * margins, prompts, temperatures=(1.0, 3.0), resamples=50)
    assert {name: found.differences[name].value for name in found.differences} == pytest.approx(
        dict.fromkeys(found.differences, 0.0), abs=1e-12
    )
    assert compare_margins(margins, 3 * margins, prompts, resamples=50).differences["log_loss"].value > 0.01


def test_mcnemar_by_statsmodels() -> None:
    statsmodels = pytest.importorskip("statsmodels.stats.contingency_tables")
    margins = np.random.default_rng(3).normal(0.4, 1, (2, 200))
    right = margins > 0
    table = [[int(((right[0] == a) & (right[1] == b)).sum()) for b in (True, False)] for a in (True, False)]
    found = compare_margins(*margins, [str(i) for i in range(200)], resamples=50)
    assert found.mcnemar_p == pytest.approx(statsmodels.mcnemar(table, exact=True).pvalue, rel=1e-12)


def test_margins_that_do_not_fit_are_refused() -> None:
    for first, second, prompts in (([1.0], [1.0, 2.0], ["a"]), ([1.0], [1.0], ["a", "b"]), ([], [], [])):
        with pytest.raises(ValueError, match="shape"):
            compare_margins(first, second, prompts)
