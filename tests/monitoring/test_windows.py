"""rewardlab.monitoring.windows: every comparison counts once, for one model, since its newest baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rewardlab.monitoring import windows as subject
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.windows import findings_of, windows_of

FEW = Thresholds(fewest_pairs=3)


def snapshot(kind: str, names: str, day: int = 1, fingerprint: str = "model", **metrics) -> Snapshot:
    """One comparison for each letter; a capital one is the same comparison, labelled the other way."""
    return Snapshot(
        kind=kind,  # type: ignore[arg-type]
        at=f"2026-11-{day:02d}T06:00:00Z",
        model="m",
        fingerprint=fingerprint,
        contract_sha256=None,
        data=("f.jsonl",),
        data_sha256=names,
        metrics=metrics,
        pairs=tuple(
            PairScore(f"{name}<", name, 1.0, 0.0) if name.islower() else PairScore(f"{name.lower()}>", name, 0.0, 1.0)
            for name in names
        ),
    )


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "h.db") as opened:
        yield opened


@pytest.fixture
def any_outcome(monkeypatch):
    """Windows of three comparisons, whatever is expected of them."""
    monkeypatch.setattr(subject, "FEWEST_OUTCOMES", 0)


def add(history: History, *snapshots: Snapshot) -> None:
    for one in snapshots:
        history.record(one, lambda _, __: [])


def keys(windows) -> list[str]:
    return ["".join(pair.comparison for pair in window.pairs) for window in windows]


@pytest.mark.usefixtures("any_outcome")
def test_only_what_is_new_counts(history) -> None:
    add(history, snapshot("baseline", "abc"), snapshot("fresh", "cdef"), snapshot("fresh", "fghi"))
    found = windows_of(history, snapshot("fresh", "aijkl"), FEW)
    assert keys([found.baseline]) == ["abc"]
    assert keys(found.tested) == ["def", "ghi", "jkl"]
    assert (found.is_tested, found.new, found.wanting) == (True, 3, "")
    (finding,) = findings_of(found)
    assert finding.state == "ok"
    assert finding.message.startswith("2 of 5 comparisons were in the baseline or an earlier window")


@pytest.mark.usefixtures("any_outcome")
def test_the_same_file_counts_once(history) -> None:
    add(history, snapshot("fresh", "abcd", day=3))
    found = windows_of(history, snapshot("fresh", "abcd", day=4), FEW)
    assert keys(found.tested) == ["abcd"]
    assert (found.is_tested, found.new) == (False, 0)
    (finding,) = findings_of(found)
    assert (finding.state, finding.since) == ("warning", "2026-11-03T06:00:00Z")


@pytest.mark.usefixtures("any_outcome")
def test_small_snapshots_are_tested_together(history) -> None:
    add(history, snapshot("fresh", "a", day=1), snapshot("fresh", "abc", day=2), snapshot("fresh", "cd", day=3))
    found = windows_of(history, snapshot("fresh", "de", day=4), FEW)
    assert keys(found.tested) == ["abc"]
    assert found.tested[0].day == "2026-11-01"
    assert keys([found.waiting]) == ["de"]
    assert (found.is_tested, found.new) == (False, 1)
    assert found.wanting == "2 new comparisons wait for 3 (fewest_pairs)"
    found = windows_of(history, snapshot("fresh", "efg", day=4), FEW)
    assert keys(found.tested) == ["abc", "defg"]
    assert (found.is_tested, found.new) == (True, 3)


def test_few_prompts_wait_for_more(history) -> None:
    pairs = tuple(PairScore(f"{row}", f"{row % 2}", float(row % 3), 0.5) for row in range(40))
    one = Snapshot("fresh", "2026-11-01T06:00:00Z", "m", "f", None, ("f",), "d", pairs=pairs)
    found = windows_of(history, one, Thresholds())
    assert not found.tested
    assert found.wanting == "40 new comparisons of 2 prompts wait for 30 prompts"


def test_a_wrong_one_must_be_expected(history) -> None:
    """8 right of 8 count as 1/10 wrong: one wrong is expected of 10. How those that wait turned out decides nothing."""
    add(history, snapshot("baseline", "abcdefgh"))
    found = windows_of(history, snapshot("fresh", "IJKLMNOPQ"), FEW)
    assert not found.tested
    assert found.wanting == "9 new comparisons wait for 10, of which 1 is expected to be wrong"
    add(history, snapshot("baseline", "abcdEFGH"))
    assert windows_of(history, snapshot("fresh", "ijk"), FEW).is_tested


@pytest.mark.usefixtures("any_outcome")
def test_other_models_and_older_baselines_do_not_count(history) -> None:
    add(history, snapshot("fresh", "abc"), snapshot("baseline", "def"), snapshot("fresh", "ghi", fingerprint="other"))
    add(history, snapshot("canary", "jkl"), snapshot("baseline", "mno"), snapshot("fresh", "pqr"))
    found = windows_of(history, snapshot("fresh", "stu"), FEW)
    assert keys([found.baseline]) == ["mno"]
    assert keys(found.tested) == ["pqr", "stu"]
    assert findings_of(found) == []


@pytest.mark.usefixtures("any_outcome")
def test_what_was_tested_before_a_baseline_is_no_evidence_after_it(history) -> None:
    """A file that grows is read again after the baseline: only its new rows are a window."""
    add(history, snapshot("fresh", "abc"), snapshot("baseline", "mno"))
    found = windows_of(history, snapshot("fresh", "abcdef"), FEW)
    assert keys(found.tested) == ["def"]
    assert "3 of 6 comparisons" in findings_of(found)[0].message


@pytest.mark.usefixtures("any_outcome")
def test_a_comparison_that_is_a_tie_now_is_taken_out(history) -> None:
    add(history, snapshot("baseline", "mno"), snapshot("fresh", "abc"))
    tied = [pair.comparison for pair in snapshot("fresh", "b").pairs]
    corrected = snapshot("fresh", "adefg")
    found = windows_of(history, replace(corrected, metrics={**corrected.metrics, "tied": tied}), FEW)
    assert keys(found.tested) == ["acdefg"]
    assert found.relabelled == {2: 1}


@pytest.mark.usefixtures("any_outcome")
def test_a_relabelled_comparison_keeps_the_gap_of_its_place(history) -> None:
    """The gap is against the ensemble of the snapshot that had it first; the correction may be against another."""
    first, second = snapshot("fresh", "abc"), snapshot("fresh", "ABC")
    add(history, replace(first, pairs=tuple(replace(pair, gap=0.25) for pair in first.pairs)))
    found = windows_of(history, replace(second, pairs=tuple(replace(pair, gap=9.0) for pair in second.pairs)), FEW)
    assert {pair.gap for window in found.tested for pair in window.pairs} == {0.25}
    assert found.relabelled == {1: 3}


@pytest.mark.usefixtures("any_outcome")
def test_a_model_that_is_calibrated_again_is_the_same(history) -> None:
    add(history, snapshot("baseline", "abc", weights="w"), snapshot("fresh", "def", weights="w"))
    found = windows_of(history, snapshot("fresh", "ghi", fingerprint="calibrated", weights="w"), FEW)
    assert keys([found.baseline]) == ["abc"]
    assert keys(found.tested) == ["def", "ghi"]
    assert found.other is None


@pytest.mark.usefixtures("any_outcome")
def test_a_new_model_without_baseline_is_told(history) -> None:
    alarm = Finding("accuracy", "alarm", "fell", since="2026-11-02T06:00:00Z")
    history.record(snapshot("fresh", "abc", day=4), lambda _, __: [alarm])
    new = snapshot("fresh", "def", day=5, fingerprint="newmodel9")
    (finding,) = findings_of(windows_of(history, new, FEW))
    assert (finding.watch, finding.state, finding.since) == ("baseline", "warning", alarm.since)
    assert finding.message.startswith("m (newmodel) is another model than m (model, last seen 2026-11-04)")
    assert "`rewardlab monitor DIR --baseline FILE --history DB`" in finding.message
    assert finding.message.endswith("The model before had an alarm: accuracy since 2026-11-02")
    add(history, snapshot("baseline", "ghi", fingerprint="newmodel9"))
    assert findings_of(windows_of(history, new, FEW)) == []


@pytest.mark.usefixtures("any_outcome")
def test_the_newest_label_counts_in_the_old_place(history) -> None:
    add(history, snapshot("baseline", "abc"), snapshot("fresh", "dEF"))
    found = windows_of(history, snapshot("fresh", "defA"), FEW)
    assert [pair.key for pair in found.tested[0].pairs] == ["d<", "e<", "f<"]
    assert [pair.key for pair in found.baseline.pairs] == ["a>", "b<", "c<"]
    assert (found.new, found.relabelled) == (0, {1: 1, 2: 2})
    told = {finding.watch: finding for finding in findings_of(found)}
    assert (told["labels"].state, told["labels"].value) == ("warning", 3)
    assert "(2 in snapshot 2, 1 in snapshot 1)" in told["labels"].message
    add(history, snapshot("fresh", "defA"))
    assert windows_of(history, snapshot("fresh", "ghi"), FEW).relabelled == {}  # told once
