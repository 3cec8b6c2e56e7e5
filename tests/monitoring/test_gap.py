"""rewardlab.monitoring.gap: its standard error by hand, a rise found, and what cannot be compared left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardlab.errors import DataError
from rewardlab.metrics.change_detection import log_limit
from rewardlab.monitoring.gap import gap_figures, gap_finding, gap_runs
from rewardlab.monitoring.snapshots import PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.windows import Window, Windows

LIMIT = log_limit(0.05, 200, 3)


def window(gap, day: int = 1) -> Window:
    pairs = (PairScore("a", "a", 1.0, 0.0),) * 200
    at = f"2026-11-{day:02d}T06:00:00Z"
    return Window(Snapshot("fresh", at, "m", "f", None, ("f",), "d", metrics={"gap": gap}, pairs=pairs), pairs)


def windows(gaps, baseline=None) -> Windows:
    tested = tuple(window(gap, day) for day, gap in enumerate(gaps, start=1))
    return Windows(None if baseline is None else window(baseline), tested, tested[-1], True, None)


def drawn(generator, mean: float, **more):
    gaps = generator.normal(mean, 0.8, 400)
    prompts = np.repeat([f"prompt {number}" for number in range(200)], 2).tolist()
    return {**gap_figures(gaps, np.zeros(400), prompts), "scales": ["z", "z"], **more}


def test_figures_by_hand() -> None:
    """Gaps 1, 3 of one prompt, -1 and 1 of two others: mean 1, deviations 0, 2, -2, 0, which are 2, -2, 0 by prompt.

    By prompt sqrt((4 + 4) * 3 / 2) / 4 = sqrt(12) / 4 = 0.87; counting completions sqrt(8 / 4) / sqrt(4) = 0.71.
    """
    found = gap_figures([1.0, 3.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], ["a", "a", "b", "c"])
    assert found == {
        "num": 4,
        "mean": 1.0,
        "se": pytest.approx(math.sqrt(12) / 4),
        "std": pytest.approx(math.sqrt(2)),
    }


def test_one_prompt_says_nothing_of_others() -> None:
    assert gap_figures([1.0, 2.0], [0.0, 0.0], ["a", "a"])["se"] is None
    assert not gap_runs(windows([gap_figures([1.0, 2.0], [0.0, 0.0], ["a", "a"])]))
    assert not gap_runs(windows([None]))


@pytest.mark.parametrize(("proxy", "against"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [0.0])])
def test_bad_scores_are_refused(proxy, against) -> None:
    with pytest.raises(DataError, match="gap"):
        gap_figures(proxy, against, ["a"] * len(proxy))


def test_a_rise_is_over_optimisation() -> None:
    generator = np.random.default_rng(0)
    means = [0.1] * 10 + [0.4] * 4
    found = gap_finding(windows([drawn(generator, mean) for mean in means]), Thresholds(), LIMIT)
    assert found.state == "alarm"
    assert found.since == "2026-11-11T06:00:00Z"
    assert found.message.startswith(
        "over-optimisation: the scores rose over the ensemble's, from +0.09 standard deviations to +0.42"
    )
    assert found.value > found.limit


def test_a_fall_and_a_steady_gap_are_not() -> None:
    generator = np.random.default_rng(1)
    for means in ([0.4] * 10 + [0.0] * 10, [0.3] * 20):
        found = gap_finding(windows([drawn(generator, mean) for mean in means]), Thresholds(), LIMIT)
        assert found.state == "ok"
        assert found.value < found.limit


def test_a_baseline_counts_and_other_terms_do_not() -> None:
    generator = np.random.default_rng(2)
    high, low = drawn(generator, 0.9), drawn(generator, 0.0)
    assert gap_finding(windows([high, high], baseline=low), Thresholds(), LIMIT).state == "alarm"
    other = {**low, "scales": ["raw", "z"]}
    assert gap_finding(windows([other, high]), Thresholds(), LIMIT).state == "learning"
    assert gap_finding(windows([None, high], baseline=other), Thresholds(), LIMIT).state == "learning"


def test_equal_models_have_no_gap_and_no_alarm() -> None:
    same = {"num": 4, "mean": 0.0, "se": 0.0, "std": 0.0}
    assert gap_finding(windows([same] * 5), Thresholds(), LIMIT).state == "ok"
