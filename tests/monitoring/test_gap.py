"""rewardlab.monitoring.gap: its standard error by hand, a rise found, and what cannot be compared left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardlab.errors import DataError
from rewardlab.metrics.change_detection import log_limit
from rewardlab.monitoring.gap import gap_figures, gap_finding
from rewardlab.monitoring.snapshots import PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.windows import Part, Window, Windows, windows_of

LIMIT = log_limit(0.05, 200, 3)
TERMS = {"against": "three", "scales": ["z", "z"], "reference": [0.0, 1.0]}


def window(gaps, day: int = 1, terms=TERMS, per_prompt: int = 1) -> Window:
    """One comparison for each gap; None: the snapshot has none."""
    values = [None] * 200 if gaps is None else list(gaps)
    pairs = tuple(
        PairScore(f"{day} {row}", f"{day} {row // per_prompt}", float(row % 2), 0.5, None, gap)
        for row, gap in enumerate(values)
    )
    at = f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}T06:00:00Z"
    metrics = {"gap": None if gaps is None else terms}
    return Window((Part(Snapshot("fresh", at, "m", "f", None, ("f",), at, metrics=metrics, pairs=pairs), pairs),))


def windows(*tested: Window, baseline: Window | None = None) -> Windows:
    return Windows(tested[-1].parts[0].snapshot, baseline, tuple(tested), Window(()), "", None, {}, None)


def drawn(generator, means, **more) -> list[Window]:
    return [window(generator.normal(mean, 0.8, 200).tolist(), day, **more) for day, mean in enumerate(means, start=1)]


def test_figures_by_hand() -> None:
    """Gaps 1, 3 of one prompt, -1 and 1 of two others: mean 1, deviations 0, 2, -2, 0, which are 2, -2, 0 by prompt.

    By prompt sqrt((4 + 4) * 3 / 2) / 4 = sqrt(12) / 4 = 0.87; counting completions sqrt(8 / 4) / sqrt(4) = 0.71.
    """
    found = gap_figures([[1.0, 3.0], [-1.0], [1.0]], ["a", "b", "c"])
    assert found == {
        "num": 4,
        "mean": 1.0,
        "se": pytest.approx(math.sqrt(12) / 4),
        "std": pytest.approx(math.sqrt(2)),
    }
    assert gap_figures([[1.0], [2.0]], ["a", "a"])["se"] is None


@pytest.mark.parametrize("gaps", [[], [[1.0, math.nan]]])
def test_bad_gaps_are_refused(gaps) -> None:
    with pytest.raises(DataError, match="gap"):
        gap_figures(gaps, ["a"] * len(gaps))


def test_a_rise_is_over_optimisation() -> None:
    found = gap_finding(windows(*drawn(np.random.default_rng(0), [0.1] * 10 + [0.5] * 4)), Thresholds(), LIMIT)
    assert found.state == "alarm"
    assert found.since == "2026-01-12T06:00:00Z"
    assert found.message.startswith(
        "over-optimisation: the scores rose over the ensemble's, from +0.08 standard deviations (2,000 comparisons) to "
    )
    assert found.value > found.limit


def test_a_fall_and_a_steady_gap_are_not() -> None:
    generator = np.random.default_rng(1)
    for means in ([0.4] * 10 + [0.0] * 10, [0.3] * 20):
        found = gap_finding(windows(*drawn(generator, means)), Thresholds(), LIMIT)
        assert found.state == "ok"
        assert found.value < found.limit


@pytest.mark.parametrize(("prompts", "per_prompt"), [(5, 6), (15, 4), (30, 2)])
def test_quiet_gaps_of_few_prompts_stay_quiet(prompts, per_prompt) -> None:
    """Through the pooling of windows, each prompt with an effect of its own: 30 runs of 60, of which 0.5 % may alarm.

    One may by chance (1 % of 400 runs of 200 windows did); two do in 1 % of such tests. With a standard error that each
    window estimated for itself, 5 prompts gave 77 % in 200 windows.
    """
    generator = np.random.default_rng(2)
    alarms = 0
    for _ in range(30):
        effects = generator.normal(0, 0.55, (60, prompts, 1)) + generator.normal(0, 0.84, (60, prompts, per_prompt))
        gaps = effects.reshape(60, -1).tolist()
        every = [window(one, day, per_prompt=per_prompt).parts[0].snapshot for day, one in enumerate(gaps)]
        found = windows_of(Chain(every[:-1]), every[-1], Thresholds())  # type: ignore[arg-type]
        assert len(found.tested) == 60 * prompts // 30
        alarms += gap_finding(found, Thresholds(), LIMIT).state == "alarm"
    assert alarms <= 1


class Chain:
    """A history that holds these fresh snapshots."""

    def __init__(self, snapshots: list[Snapshot]) -> None:
        self._snapshots = snapshots

    def snapshots(self, kind: str, **_) -> list[Snapshot]:
        return [] if kind == "baseline" else self._snapshots

    def with_pairs(self, snapshot: Snapshot) -> Snapshot:
        return snapshot


def test_a_baseline_counts_and_other_terms_do_not() -> None:
    generator = np.random.default_rng(3)
    low, high, more = drawn(generator, [0.0, 0.9, 0.9])
    assert gap_finding(windows(high, more, baseline=low), Thresholds(), LIMIT).state == "alarm"
    (other,) = drawn(generator, [0.0], terms={**TERMS, "reference": [0.0, 2.0]})
    assert gap_finding(windows(other, high), Thresholds(), LIMIT).state == "learning"
    assert gap_finding(windows(high, baseline=other), Thresholds(), LIMIT).state == "learning"
    assert gap_finding(windows(window(None)), Thresholds(), LIMIT) is None


def test_an_alarm_stays_when_the_ensemble_changes_or_is_left_out() -> None:
    generator = np.random.default_rng(4)
    every = drawn(generator, [0.0, 0.0, 0.9, 0.9])
    (other,) = drawn(generator, [0.0], terms={**TERMS, "against": "two"})
    for last, words in (
        (other, "as it was against another ensemble"),
        (window(None, 9), "not looked at in this window"),
    ):
        found = gap_finding(windows(*every, last), Thresholds(), LIMIT)
        assert (found.state, found.since) == ("alarm", "2026-01-04T06:00:00Z")
        assert found.message.startswith(words)


def test_an_old_gap_is_not_told_as_todays() -> None:
    every = [*drawn(np.random.default_rng(5), [0.2, 0.2]), window(None, 9)]
    found = gap_finding(windows(*every), Thresholds(), LIMIT)
    assert found.state == "ok"
    assert found.message.startswith("not looked at in this window (no --against), as it was last: the scores are +0.")
    assert "in the window of 2026-01-03" in found.message


def test_equal_models_have_no_gap_and_no_alarm() -> None:
    every = [window([0.0] * 200, day) for day in range(5)]
    assert gap_finding(windows(*every), Thresholds(), LIMIT).state == "ok"
