"""Strengths by hand, against scikit-learn and statsmodels, and Davidson's against another of SciPy's methods."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.optimize
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from rewardlab.errors import DataError
from rewardlab.metrics.system_ranking import SystemComparison, _Model, rank_systems


def met(one: str, other: str, wins: int, ties: int = 0, losses: int = 0) -> list[SystemComparison]:
    """Comparisons, a prompt each."""
    outcomes = ["first"] * wins + ["tie"] * ties + ["second"] * losses
    return [SystemComparison(one, other, o, f"{one}{other}{i}") for i, o in enumerate(outcomes)]  # type: ignore[arg-type]


def drawn(size: int, number: int, nu: float, seed: int = 0) -> tuple[np.ndarray, list[SystemComparison]]:
    generator = np.random.default_rng(seed)
    strengths = np.linspace(-1, 1, size)
    found = []
    for index in range(number):
        one, other = generator.choice(size, 2, replace=False)
        half = (strengths[one] - strengths[other]) / 2
        p = np.array([math.exp(half), nu, math.exp(-half)])
        outcome = ("first", "tie", "second")[generator.choice(3, p=p / p.sum())]
        found.append(SystemComparison(f"s{one}", f"s{other}", outcome, f"p{index}"))
    return strengths, found


def strengths_of(ranking) -> dict[str, float]:
    return {system.name: system.strength.value for system in ranking.systems}


def test_two_systems_by_hand() -> None:
    """30 wins, 10 losses: the odds are 3, each strength half of log 3; 400 points are ten times the odds."""
    ranking = rank_systems(met("a", "b", 30, 0, 10), resamples=100)
    best, other = ranking.systems
    assert (best.name, best.rank, other.rank) == ("a", 1, 2)
    assert (best.wins, best.ties, best.losses, other.wins) == (30, 0, 10, 10)
    assert best.strength.value == pytest.approx(math.log(3) / 2, abs=1e-7)
    assert best.elo.value - other.elo.value == pytest.approx(400 * math.log10(3), abs=1e-4)
    assert (best.elo.value + other.elo.value) / 2 == pytest.approx(1000)
    assert (best.rank_low, best.rank_high, ranking.nu.value) == (1, 1, 0.0)
    assert ranking.log_likelihood == pytest.approx(30 * math.log(0.75) + 10 * math.log(0.25))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_davidsons_closed_form_of_two_systems(wins: int, ties: int, losses: int) -> None:
    """Three outcomes, two parameters: the fit meets all shares, so the difference is log(w/l), and nu t/sqrt(wl).

    nu has a maximum where some round trip has more wins than ties: a beats b and b beats a is one.
    """
    ranking = rank_systems(met("a", "b", wins, ties, losses), resamples=1)
    found = strengths_of(ranking)
    assert found["a"] - found["b"] == pytest.approx(math.log(wins / losses), abs=1e-5)
    assert ranking.nu.value == pytest.approx(ties / math.sqrt(wins * losses), rel=1e-4)


def test_ties_as_half_wins() -> None:
    """20 wins, 10 ties, 10 losses are 25 to 15."""
    found = strengths_of(rank_systems(met("a", "b", 20, 10, 10), tie_model="half", resamples=2))
    assert found["a"] - found["b"] == pytest.approx(math.log(25 / 15), abs=1e-7)


def test_equals_scikit_learn_and_statsmodels_without_ties() -> None:
    _, comparisons = drawn(5, 400, 0.0)
    design = np.zeros((400, 5))
    for row, c in zip(design, comparisons, strict=True):
        row[int(c.first[1])], row[int(c.second[1])] = 1, -1
    won = np.array([c.outcome == "first" for c in comparisons], dtype=float)
    learned = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=1000).fit(design, won).coef_[0]
    of_logit = np.append(sm.Logit(won, design[:, :-1]).fit(disp=0, tol=1e-12).params, 0.0)
    for tie_model in ("davidson", "half"):
        found = strengths_of(rank_systems(comparisons, tie_model=tie_model, resamples=2))  # type: ignore[arg-type]
        ours = [found[f"s{i}"] for i in range(5)]
        assert sum(ours) == pytest.approx(0, abs=1e-9)
        assert ours == pytest.approx(learned - learned.mean(), abs=1e-5)
        assert ours == pytest.approx(of_logit - of_logit.mean(), abs=1e-5)


def test_davidson_equals_another_method_on_the_plain_likelihood() -> None:
    _, comparisons = drawn(4, 300, 0.8)

    def loss(at: np.ndarray) -> float:
        strength = np.append(at[:3], -at[:3].sum())
        total = 0.0
        for c in comparisons:
            half = (strength[int(c.first[1])] - strength[int(c.second[1])]) / 2
            logits = {"first": half, "tie": at[3], "second": -half}
            total -= logits[c.outcome] - math.log(sum(map(math.exp, logits.values())))
        return total

    theirs = scipy.optimize.minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-5})
    ranking = rank_systems(comparisons, resamples=2)
    found = strengths_of(ranking)
    assert [found[f"s{i}"] for i in range(3)] == pytest.approx(theirs.x[:3], abs=1e-4)
    assert math.log(ranking.nu.value) == pytest.approx(theirs.x[3], abs=1e-4)
    assert ranking.log_likelihood == pytest.approx(-theirs.fun, abs=1e-6)


@pytest.mark.parametrize("prior", [0.0, 2.0])
def test_gradient_and_hessian_are_those_of_the_loss(prior: float) -> None:
    model = _Model(3, np.array([[0, 1], [0, 2], [1, 2]]), True, prior)
    counts = model.counts(np.array([3.0, 1, 2, 5, 0, 1, 2, 4, 4]))
    at = np.random.default_rng(0).normal(size=3 + (prior > 0))
    assert (
        scipy.optimize.check_grad(lambda x: model._loss(x, counts)[0], lambda x: model._loss(x, counts)[1], at) < 1e-5
    )
    slopes = scipy.optimize.approx_fprime(at, lambda x: model._loss(x, counts)[1], 1e-7)
    assert model._hessian(at, counts) == pytest.approx(slopes, abs=1e-4)


def test_who_never_lost_has_no_finite_strength_and_is_named() -> None:
    """Ford 1957: a and b beat each other, and whoever else they meet."""
    comparisons = met("a", "b", 2, 0, 2) + met("a", "c", 3) + met("b", "d", 1) + met("c", "d", 1, 0, 1)
    with pytest.raises(DataError, match="no finite strengths: a, b never lost to or tied with the others") as caught:
        rank_systems(comparisons)
    assert "prior=1" in caught.value.hint
    with pytest.raises(DataError, match="a, b were never compared with the others"):
        rank_systems(met("a", "b", 2, 0, 2) + met("c", "d", 2, 0, 2))
    ranking = rank_systems(comparisons, prior=1, resamples=50)
    assert [system.rank for system in ranking.systems] == [1, 2, 3, 4]
    assert all(system.strength.low is not None for system in ranking.systems)


def test_ties_alone_do_not_bound_davidsons_nu() -> None:
    """5 wins, 3 ties, no loss: nu and the difference grow together without end, while 6.5 to 1.5 is finite."""
    comparisons = met("a", "b", 5, 3)
    with pytest.raises(DataError, match="too few wins beside the ties"):
        rank_systems(comparisons)
    found = strengths_of(rank_systems(comparisons, tie_model="half", resamples=2))
    assert found["a"] - found["b"] == pytest.approx(math.log(6.5 / 1.5), abs=1e-6)
    assert strengths_of(rank_systems(comparisons, prior=1, resamples=2))["a"] > 0


def test_a_round_of_more_wins_than_ties_bounds_nu() -> None:
    """Over a, b, c and back to a: two wins and a tie bound it, one win and two ties do not."""
    assert rank_systems(met("a", "b", 1) + met("b", "c", 1) + met("c", "a", 0, 1), resamples=1).nu.value > 0
    with pytest.raises(DataError, match="too few wins"):
        rank_systems(met("a", "b", 1) + met("b", "c", 0, 1) + met("c", "a", 0, 1))


def test_all_tied_are_equal_as_half_wins() -> None:
    comparisons = met("a", "b", 0, 4) + met("b", "c", 0, 4)
    ranking = rank_systems(comparisons, tie_model="half", resamples=2)
    assert [system.rank for system in ranking.systems] == [1, 1, 1]
    assert strengths_of(ranking) == pytest.approx({"a": 0, "b": 0, "c": 0}, abs=1e-9)
    with pytest.raises(DataError, match="too few wins"):
        rank_systems(comparisons)


def test_the_prior_is_what_it_says() -> None:
    """5 to 0 with prior 1: by symmetry strengths s and -s, and s maximises 5 log q(2s) + log q(s) + log q(-s)."""

    def loss(s: float) -> float:
        return 5 * math.log1p(math.exp(-2 * s)) + math.log1p(math.exp(-s)) + math.log1p(math.exp(s))

    theirs = scipy.optimize.minimize_scalar(loss, bounds=(0, 10), method="bounded", options={"xatol": 1e-10})
    found = strengths_of(rank_systems(met("a", "b", 5), tie_model="half", prior=1, resamples=2))
    assert found["a"] == pytest.approx(theirs.x, abs=1e-5)


def test_truth_is_in_the_intervals_and_order_of_names_does_not_matter() -> None:
    truth, comparisons = drawn(5, 1500, 0.6, seed=4)
    ranking = rank_systems(comparisons, resamples=200)
    inside = [
        system.strength.low < truth[int(system.name[1])] < system.strength.high
        and system.rank_low <= 5 - int(system.name[1]) <= system.rank_high
        for system in ranking.systems
    ]
    assert sum(inside) >= 4
    assert ranking.nu.low < 0.6 < ranking.nu.high
    turned = {"first": "second", "second": "first", "tie": "tie"}
    other = rank_systems(
        [SystemComparison(c.second, c.first, turned[c.outcome], c.prompt) for c in reversed(comparisons)],  # type: ignore[arg-type]
        resamples=200,
    )
    for one, two in zip(ranking.systems, other.systems, strict=True):
        assert (one.name, one.wins, one.rank_high) == (two.name, two.wins, two.rank_high)
        assert one.strength.low == pytest.approx(two.strength.low, abs=1e-6)


def test_intervals_are_by_prompt() -> None:
    _, comparisons = drawn(3, 150, 0.5)
    thrice = [c for c in comparisons for _ in range(3)]
    once, again = (rank_systems(some, resamples=150) for some in (comparisons, thrice))
    assert again.num_prompts == 150
    for one, two in zip(once.systems, again.systems, strict=True):
        assert two.strength.high - two.strength.low == pytest.approx(one.strength.high - one.strength.low, rel=1e-3)


def test_weights_count() -> None:
    weighted = [SystemComparison("a", "b", "first", "p", 3.0), SystemComparison("a", "b", "second", "q")]
    found = strengths_of(rank_systems(weighted, resamples=1))
    assert found["a"] - found["b"] == pytest.approx(math.log(3), abs=1e-6)


def test_no_interval_where_resamples_have_no_strengths() -> None:
    ranking = rank_systems(met("a", "b", 9, 0, 1), resamples=100)
    assert ranking.systems[0].strength.low is None
    assert (ranking.systems[0].rank_low, ranking.systems[0].elo.low) == (None, None)
    assert "prior=1" in ranking.notes[0]
    out = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))
    assert out["systems"][0]["name"] == "a"
    assert out["bootstrap"]["resamples"] == 100


@pytest.mark.parametrize(
    ("comparisons", "options", "message"),
    [
        ([], {}, "no comparisons"),
        ([SystemComparison("a", "a", "tie", "p")], {}, "'a' is compared with itself"),
        ([SystemComparison("a", "b", "won", "p")], {}, "'won' is not one of first, second, tie"),
        ([SystemComparison("a", "b", "tie", "p", 0.0)], {}, "weight must be finite and > 0"),
        (met("a", "b", 1), {"tie_model": "rao"}, "no tie model is called 'rao'"),
        (met("a", "b", 1), {"prior": -1.0}, "prior must be finite and >= 0"),
    ],
)
def test_what_cannot_be_ranked_is_refused(comparisons, options, message) -> None:
    with pytest.raises(DataError, match=message):
        rank_systems(comparisons, **options)
