"""rewardlab.monitoring.windows: every comparison counts once, for one checkpoint, since its newest baseline."""

from __future__ import annotations

import pytest

from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.windows import repeat_finding, span_words, untested_words, windows_of

FEW = Thresholds(fewest_pairs=3)


def snapshot(kind: str, names: str, day: int = 1, fingerprint: str = "model") -> Snapshot:
    """One comparison for each letter."""
    return Snapshot(
        kind=kind,  # type: ignore[arg-type]
        at=f"2026-11-{day:02d}T06:00:00Z",
        model="m",
        fingerprint=fingerprint,
        contract_sha256=None,
        data=("f.jsonl",),
        data_sha256=names,
        pairs=tuple(PairScore(name, name, 1.0, 0.0) for name in names),
    )


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "h.db") as opened:
        yield opened


def add(history: History, *snapshots: Snapshot) -> None:
    for one in snapshots:
        history.record(one, lambda _, __: [])


def keys(windows) -> list[str]:
    return ["".join(pair.key for pair in window.pairs) for window in windows]


def test_only_what_is_new_counts(history) -> None:
    add(history, snapshot("baseline", "abc"), snapshot("fresh", "cdef"), snapshot("fresh", "fghi"))
    found = windows_of(history, snapshot("fresh", "aijkl"), FEW)
    assert keys([found.baseline]) == ["abc"]
    assert keys(found.tested) == ["def", "ghi", "jkl"]
    assert found.is_tested
    assert untested_words(found, FEW) == ""
    finding = repeat_finding(found)
    assert finding.state == "ok"
    assert finding.message.startswith("2 of 5 comparisons were in the baseline or an earlier window")


def test_the_same_file_counts_once(history) -> None:
    add(history, snapshot("fresh", "abcd", day=3))
    found = windows_of(history, snapshot("fresh", "abcd", day=4), FEW)
    assert keys(found.tested) == ["abcd"]
    assert not found.is_tested
    finding = repeat_finding(found)
    assert (finding.state, finding.since) == ("warning", "2026-11-03T06:00:00Z")
    assert "not tested: 0 new comparisons are fewer than 3" in untested_words(found, FEW)


def test_a_growing_file_counts_when_it_has_grown(history) -> None:
    """What was in a window too small to test is not lost to a later one."""
    add(history, snapshot("fresh", "a"), snapshot("fresh", "ab"))
    found = windows_of(history, snapshot("fresh", "abc"), FEW)
    assert keys(found.tested) == ["abc"]
    assert repeat_finding(found) is None


def test_other_models_and_older_baselines_do_not_count(history) -> None:
    add(history, snapshot("fresh", "abc"), snapshot("baseline", "def"), snapshot("fresh", "ghi", fingerprint="other"))
    add(history, snapshot("canary", "jkl"), snapshot("baseline", "mno"), snapshot("fresh", "pqr"))
    found = windows_of(history, snapshot("fresh", "abc"), FEW)
    assert keys([found.baseline]) == ["mno"]
    assert keys(found.tested) == ["pqr", "abc"]


def test_span_words(history) -> None:
    add(history, snapshot("fresh", "abc", day=1), snapshot("fresh", "def", day=2))
    tested = windows_of(history, snapshot("fresh", "ghi", day=3), FEW).tested
    assert span_words(tested, 1) == "the 2 windows since 2026-11-02, 6 comparisons"
    assert span_words(tested, 2) == "the window of 2026-11-03, 3 comparisons"
