"""rewardlab.monitoring.fresh: windows of simulated comparisons through a real history."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rewardlab.monitoring import fresh
from rewardlab.monitoring.gap import gap_figures
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds

LIMITS = Thresholds()


class Stream:
    """Windows into one history, a day each."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.generator = np.random.default_rng(0)
        self.day = 0
        self.count = 0

    def pairs(self, count: int, scale: float = 1.0, lost: float = 0.0) -> list[PairScore]:
        margins = np.abs(self.generator.normal(0, 2, count))
        right = (self.generator.random(count) < 1 / (1 + np.exp(-margins))) & (self.generator.random(count) >= lost)
        found = []
        for margin, is_right in zip(scale * margins, right, strict=True):
            self.count += 1
            chosen, rejected = (margin, 0.0) if is_right else (0.0, margin)
            found.append(PairScore(f"pair {self.count}", f"prompt {self.count}", chosen, rejected))
        return found

    def add(
        self, kind: str, pairs, *, gap=None, temperature: float = 1.0, fingerprint: str = "m"
    ) -> dict[str, Finding]:
        self.day += 1
        snapshot = Snapshot(
            kind=kind,  # type: ignore[arg-type]
            at=f"2026-{1 + self.day // 28:02d}-{1 + self.day % 28:02d}T06:00:00Z",
            model="m",
            fingerprint=fingerprint,
            contract_sha256=None,
            data=("f.jsonl",),
            data_sha256=str(hash(tuple(sorted(pair.key for pair in pairs)))),
            metrics={"temperature": temperature, "gap": gap},
            pairs=tuple(pairs),
        )

        def test(history: History, one: Snapshot) -> list[Finding]:
            return fresh.test_fresh(history, one, LIMITS) if kind == "fresh" else []

        return {finding.watch: finding for finding in self.history.record(snapshot, test).findings}


@pytest.fixture
def stream(tmp_path):
    with History(tmp_path / "h.db") as history:
        yield Stream(history)


def test_the_first_window_is_learned_from(stream) -> None:
    found = stream.add("fresh", stream.pairs(200))
    assert {watch: finding.state for watch, finding in found.items()} == {"accuracy": "learning", "ece": "learning"}
    assert "nothing before it" in found["accuracy"].message
    found = stream.add("fresh", stream.pairs(200))
    assert {finding.state for finding in found.values()} == {"ok"}
    assert "before (200 comparisons)" in found["accuracy"].message
    assert found["accuracy"].limit == pytest.approx(np.log(200 * 2 / 0.05))


def test_a_drop_is_found_stays_and_ends_with_a_new_baseline(stream) -> None:
    stream.add("baseline", stream.pairs(3000))
    for _ in range(4):
        assert stream.add("fresh", stream.pairs(200))["accuracy"].state == "ok"
    began = stream.day + 1
    for _ in range(8):
        found = stream.add("fresh", stream.pairs(200, lost=0.15))
    alarm = found["accuracy"]
    assert alarm.state == "alarm"
    assert abs(int(alarm.since[8:10]) - (1 + began)) <= 2
    assert "accuracy fell from 7" in alarm.message
    assert alarm.value > alarm.limit
    for _ in range(3):
        found = stream.add("fresh", stream.pairs(200))
    assert (found["accuracy"].state, found["accuracy"].since) == ("alarm", alarm.since)
    stream.add("baseline", stream.pairs(1000))
    assert stream.add("fresh", stream.pairs(200))["accuracy"].state == "ok"


def test_an_alarm_is_of_its_model(stream) -> None:
    stream.add("baseline", stream.pairs(4000))
    assert stream.add("fresh", stream.pairs(1000, lost=0.4))["accuracy"].state == "alarm"
    assert stream.add("fresh", stream.pairs(1000, lost=0.4), fingerprint="new")["accuracy"].state == "learning"


def test_scaled_margins_alarm_calibration_alone(stream) -> None:
    stream.add("baseline", stream.pairs(2000))
    for _ in range(6):
        found = stream.add("fresh", stream.pairs(200, scale=2.5))
    assert found["accuracy"].state == "ok"
    assert found["ece"].state == "alarm"
    assert found["ece"].message.startswith("calibration became worse: error 0.1")


def test_the_temperature_in_use_is_that_of_the_newest_window(stream) -> None:
    """Calibrated again at T = 2.5, the same scores are calibrated from the first window on."""
    stream.add("baseline", stream.pairs(2000, scale=2.5))
    found = stream.add("fresh", stream.pairs(400, scale=2.5), temperature=2.5)
    assert found["ece"].state == "ok"
    assert float(found["ece"].message.split("calibration error ")[1].split(" ")[0]) < 0.08


def test_becoming_calibrated_is_no_alarm(stream) -> None:
    stream.add("baseline", stream.pairs(4000, scale=3.0))
    for _ in range(5):
        found = stream.add("fresh", stream.pairs(200))
    assert found["ece"].state == "warning"
    assert "changed, not for the worse" in found["ece"].message


def test_the_same_window_again_is_no_evidence(stream) -> None:
    stream.add("baseline", stream.pairs(2000))
    bad = stream.pairs(200, lost=0.1)
    first = stream.add("fresh", bad)
    for _ in range(8):
        found = stream.add("fresh", bad)
    assert found["window"].state == "warning"
    assert found["accuracy"].value == pytest.approx(first["accuracy"].value)
    assert found["accuracy"].message.startswith("not tested: 0 new comparisons")
    assert found["accuracy"].state == "ok"


def test_too_few_are_told_not_tested(stream) -> None:
    found = stream.add("fresh", stream.pairs(10))
    assert {finding.state for finding in found.values()} == {"learning"}
    assert found["accuracy"].message == (
        "not tested: 10 new comparisons are fewer than 30 (fewest_pairs); no window has been tested yet"
    )


def test_the_gap_is_a_third_watch(stream) -> None:
    def gap(mean: float):
        return gap_figures(stream.generator.normal(mean, 1, 400), np.zeros(400), [str(row) for row in range(400)])

    for mean in (0.0, 0.0, 0.0, 1.0):
        found = stream.add("fresh", stream.pairs(200), gap=gap(mean))
    assert found["gap"].state == "alarm"
    assert found["accuracy"].limit == pytest.approx(np.log(200 * 3 / 0.05))
    assert found["accuracy"].state == "ok"


def test_a_thousand_windows_are_quick(stream) -> None:
    """The sums over all starts are computed again at each run: seconds would be too slow for the lock that is held."""
    moments_of = fresh.window_moments
    windows = np.stack(
        [moments_of(np.arange(200) < 140 + number % 3, [str(row) for row in range(200)]) for number in range(1000)]
    )
    start = time.process_time()
    fresh.detect([fresh.Bets(fresh.recursive_residuals(windows), (-0.02, -0.05, -0.1))], 9.0)
    assert time.process_time() - start < 3
