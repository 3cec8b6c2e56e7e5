"""rewardlab.monitoring.fresh: windows of simulated comparisons through a real history."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from rewardlab.monitoring import fresh, windows
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.windows import Part

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
        def test(history: History, one: Snapshot) -> list[Finding]:
            return fresh.test_fresh(history, one, LIMITS) if kind == "fresh" else []

        made = self.snapshot(kind, pairs, gap, temperature, fingerprint)
        return {finding.watch: finding for finding in self.history.record(made, test).findings}

    def snapshot(self, kind: str, pairs, gap=None, temperature: float = 1.0, fingerprint: str = "m") -> Snapshot:
        self.day += 1
        return Snapshot(
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
    assert "before (1 window, 200 comparisons)" in found["accuracy"].message
    assert found["accuracy"].limit == pytest.approx(np.log(200 * 3 / 0.05))


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
    assert alarm.message.startswith("accuracy fell to 6")
    assert "(the baseline and" in alarm.message
    assert "; the baseline itself 7" in alarm.message
    assert alarm.value > alarm.limit
    for _ in range(3):
        found = stream.add("fresh", stream.pairs(200))
    assert (found["accuracy"].state, found["accuracy"].since) == ("alarm", alarm.since)
    stream.add("baseline", stream.pairs(1000))
    assert stream.add("fresh", stream.pairs(200))["accuracy"].state == "ok"


def test_an_alarm_is_of_its_model(stream) -> None:
    stream.add("baseline", stream.pairs(4000))
    assert stream.add("fresh", stream.pairs(1000, lost=0.4))["accuracy"].state == "alarm"
    found = stream.add("fresh", stream.pairs(1000, lost=0.4), fingerprint="new")
    assert found["accuracy"].state == "learning"
    assert found["baseline"].state == "warning"
    assert "The model before had an alarm: accuracy since" in found["baseline"].message


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


def test_becoming_calibrated_is_no_alarm_and_blinds_nobody(stream) -> None:
    """An improvement is told once and is what later windows are held against."""
    stream.add("baseline", stream.pairs(4000, scale=3.0))
    states = []
    for _ in range(5):
        found = stream.add("fresh", stream.pairs(200))
        states.append(found["ece"].state)
        if states[-1] == "warning" and "changed" in found["ece"].message:
            assert "calibration changed, not for the worse: error 0." in found["ece"].message
    assert "alarm" not in states
    assert states[-1] == "ok"
    assert "it is not what it was, and not worse: it is held against that" in found["ece"].message
    began = stream.day + 1
    for _ in range(6):
        found = stream.add("fresh", stream.pairs(200, scale=3.0))
    assert found["ece"].state == "alarm"
    assert found["ece"].message.startswith("calibration became worse: error 0.1")
    assert abs(int(found["ece"].since[8:10]) - (1 + began)) <= 1
    for _ in range(3):
        found = stream.add("fresh", stream.pairs(200))
    assert found["ece"].state == "alarm"  # it stays, and the sentence says what is now
    assert "in all windows after those; evidence" in found["ece"].message


def test_the_same_window_again_is_no_evidence(stream) -> None:
    stream.add("baseline", stream.pairs(2000))
    bad = stream.pairs(200, lost=0.1)
    first = stream.add("fresh", bad)
    for _ in range(8):
        found = stream.add("fresh", bad)
    assert found["window"].state == "warning"
    assert found["accuracy"].value == pytest.approx(first["accuracy"].value)
    assert found["accuracy"].message.startswith("not tested: no new comparisons; accuracy ")
    assert found["accuracy"].state == "ok"


def test_labels_put_right_take_back_an_alarm(stream) -> None:
    """Half of a window was labelled the wrong way round; the corrected file is sent again."""
    stream.add("baseline", stream.pairs(2000))
    good = stream.pairs(200)
    swapped = [
        PairScore(f"{pair.key}>", pair.prompt, pair.rejected, pair.chosen) if number % 2 else pair
        for number, pair in enumerate(good)
    ]
    assert stream.add("fresh", swapped)["accuracy"].state == "alarm"
    found = stream.add("fresh", good)
    assert found["accuracy"].state == "ok"
    assert (found["labels"].state, found["labels"].value) == ("warning", 100)
    assert "labels" not in stream.add("fresh", stream.pairs(200))


def test_too_few_are_told_and_add_up(stream) -> None:
    found = stream.add("fresh", stream.pairs(10))
    assert {finding.state for finding in found.values()} == {"learning"}
    assert found["accuracy"].message == (
        "not tested yet: 10 new comparisons wait for 30 (fewest_pairs); no window has been tested yet"
    )
    stream.add("baseline", stream.pairs(2000))
    states = [stream.add("fresh", stream.pairs(29, lost=0.5))["accuracy"].state for _ in range(12)]
    assert states[0] == "learning"
    assert states[-1] == "alarm"


def test_the_subset_that_fell_most_is_named(stream) -> None:
    def window(lost: float) -> list[PairScore]:
        parts = (("math", lost), ("chat", 0.0))
        return [dataclasses.replace(pair, subset=name) for name, one in parts for pair in stream.pairs(100, lost=one)]

    for lost in (0.0,) * 6 + (0.6,) * 4:
        found = stream.add("fresh", window(lost))
    assert found["accuracy"].state == "alarm"
    assert "; fell most: subset math: 7" in found["accuracy"].message


def test_the_gap_is_a_third_watch(stream) -> None:
    for mean in (0.0, 0.0, 0.0, 1.0):
        gaps = stream.generator.normal(mean, 1, 200).tolist()
        pairs = [dataclasses.replace(pair, gap=gap) for pair, gap in zip(stream.pairs(200), gaps, strict=True)]
        found = stream.add("fresh", pairs, gap={"against": "three", "scales": ["z", "z"], "reference": None})
    assert found["gap"].state == "alarm"
    assert found["gap"].limit == found["accuracy"].limit
    assert found["accuracy"].state == "ok"


def test_nearly_always_right_stays_quiet(stream) -> None:
    """Accuracy 99.5 %, 30 comparisons a window: tested each alone, 17 % of runs had a false alarm."""
    generator = np.random.default_rng(1)
    parts = [
        Part(Snapshot("fresh", "2026-01-01", "m", "m", None, (), None), pairs)
        for pairs in (
            [PairScore(f"{number} {row}", f"{row}", float(generator.random() < 0.995), 0.5) for row in range(30)]
            for number in range(600)
        )
    ]
    tested, _, wanting = windows._tested(None, parts, LIMITS)
    assert 60 < len(tested) < 200
    assert wanting == "" or "expected to be wrong" in wanting
    evidence = fresh.detect(
        [fresh.Bets(fresh.recursive_residuals(fresh._right([one.pairs for one in tested])), (-0.02,))], 9
    )
    assert evidence.alarm is None


def test_hundreds_of_windows_are_quick(stream) -> None:
    """It runs within the history's write lock: some 0.5 s on a free core; quadratic in the windows it were minutes."""
    for _ in range(299):
        stream.history.record(stream.snapshot("fresh", stream.pairs(200)), lambda _, __: [])
    newest = stream.snapshot("fresh", stream.pairs(200))
    start = time.process_time()
    found = fresh.test_fresh(stream.history, newest, LIMITS)
    assert time.process_time() - start < 20
    assert found[0].state == "ok"
