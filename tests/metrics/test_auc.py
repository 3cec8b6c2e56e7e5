"""rewardlab.metrics.auc: against scikit-learn, by weights against repeated rows, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rewardlab.metrics import bootstrap_weights, roc_auc
from rewardlab.metrics.auc import auc_statistic

# Few different values, so that ties are common.
ROWS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({kind for _, kind in rows}) == 2
)


@given(ROWS)
def test_equals_scikit_learn(rows) -> None:
    values, kinds = zip(*rows, strict=True)
    assert roc_auc(values, kinds) == pytest.approx(roc_auc_score(kinds, values), abs=1e-12)


@given(ROWS, st.randoms(use_true_random=False))
def test_order_of_rows_scale_and_sign(rows, random) -> None:
    """Any increasing function leaves it; turning the values, or the kinds, round gives 1 minus it."""
    values, kinds = (np.array(column) for column in zip(*rows, strict=True))
    area = roc_auc(values, kinds)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert roc_auc(values[order], kinds[order]) == pytest.approx(area)
    assert roc_auc(np.exp(values / 2), kinds) == pytest.approx(area)
    assert roc_auc(-values, kinds) == pytest.approx(1 - area)
    assert roc_auc(values, ~kinds) == pytest.approx(1 - area)


@given(ROWS, st.data())
def test_weights_are_repetitions(rows, data) -> None:
    values, kinds = (np.array(column) for column in zip(*rows, strict=True))
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    found = auc_statistic(values, kinds)(counts[np.newaxis].astype(float))[0]
    repeated = np.repeat(kinds, counts)
    if len(set(repeated)) == 2:
        assert found == pytest.approx(roc_auc_score(repeated, np.repeat(values, counts)), abs=1e-12)
    else:
        assert math.isnan(found)


def test_by_hand() -> None:
    """Positives 3 and 1 against negatives 1 and 0: wins 3 > 1, 3 > 0, 1 > 0, a tie at 1: (3 + 1/2) / 4."""
    assert roc_auc([3, 1, 1, 0], [1, 1, 0, 0]) == 3.5 / 4
    assert roc_auc([7.0] * 4, [1, 0, 0, 1]) == 0.5


@pytest.mark.parametrize(
    ("values", "kinds", "said"),
    [
        ([1.0, 2.0], [1, 1], "only one kind"),
        ([1.0, 2.0], [1], "must both have the shape"),
        ([], [], "must both have the shape"),
        ([1.0, math.nan], [1, 0], "value 1 is not finite"),
    ],
)
def test_bad_input(values, kinds, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        roc_auc(values, kinds)


def test_bootstrap_draws_whole_clusters() -> None:
    """Two prompts, one perfectly ordered and one the wrong way round: resamples have AUC 1, 0, or that of both.

    Values 1 > 0 and 0 < 1 pooled: positives 1 and 0, negatives 0 and 1: one win, two ties, one loss, 1/2.
    """
    interval = bootstrap_weights(["a", "a", "b", "b"], {"auc": auc_statistic([1, 0, 0, 1], [1, 0, 1, 0])})["auc"]
    assert (interval.low, interval.value, interval.high) == (0.0, 0.5, 1.0)


def test_bootstrap_agrees_with_recomputing_on_drawn_clusters() -> None:
    generator = np.random.default_rng(0)
    values, kinds, prompts = generator.normal(size=120).round(1), generator.random(120) < 0.4, np.arange(120) // 3
    ours = bootstrap_weights(
        [f"{p:03d}" for p in prompts], {"auc": auc_statistic(values, kinds)}, resamples=200, seed=4
    )
    draws = np.random.default_rng(4).integers(0, 40, size=(200, 40))
    rows = [np.concatenate([np.flatnonzero(prompts == p) for p in draw]) for draw in draws]
    slow = [roc_auc_score(kinds[chosen], values[chosen]) for chosen in rows]
    assert [ours["auc"].low, ours["auc"].high] == pytest.approx(np.quantile(slow, [0.025, 0.975]))


def test_no_interval_where_most_resamples_may_be_undefined() -> None:
    """One positive prompt in ten: 35 % of resamples lack it. Ten in twenty: one in a million does."""
    statistic = auc_statistic(range(10), [True] + [False] * 9)
    interval = bootstrap_weights([str(i) for i in range(10)], {"auc": statistic})["auc"]
    assert (interval.value, interval.low, interval.high) == (0.0, None, None)
    statistic = auc_statistic(range(20), [True, False] * 10)
    assert bootstrap_weights([f"{i:02d}" for i in range(20)], {"auc": statistic})["auc"].low is not None
