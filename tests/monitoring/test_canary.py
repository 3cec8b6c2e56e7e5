"""rewardlab.monitoring.canary: same rows, same scores, and new versions compared. Every verdict by hand or by scipy."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from tests.monitoring.stand_in import StandIn, group

from rewardlab.calibration.reference import reference_statistics
from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import ContractError, DataError
from rewardlab.monitoring import canary
from rewardlab.monitoring.figures import snapshot_of
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.types import Pair, PromptGroup

GROUPS = [group(i, 1.0 + i / 100, 0.0) for i in range(40)]


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "h") as opened:
        yield opened


def run(history, groups=GROUPS, scorer=None, tolerance=1e-5, thresholds=None, **settings):
    snapshot = snapshot_of("canary", scorer or StandIn(), groups, data=["canary.jsonl"])
    snapshot = replace(snapshot, settings={**snapshot.settings, **settings})
    limits = thresholds or Thresholds()
    return history.record(snapshot, lambda before, new: canary.test_canary(before, new, limits, tolerance))


class Relabelled(StandIn):
    """Scores by a table of margins, of a version of its own."""

    def __init__(self, margins, fingerprint="two" * 8, **more):
        super().__init__(fingerprint=fingerprint, **more)
        self.margins = margins

    def score_groups(self, groups, *, progress=False):
        return [[float(self.margins[int(one.prompt[1:].split("?")[0])]), 0.0] for one in groups]


def test_the_first_begins_it_and_equal_scores_are_bit_equal(history):
    assert [(one.watch, one.state) for one in run(history).findings] == [("canary", "ok")]
    (finding,) = run(history, GROUPS[::-1]).findings  # the order of the rows means nothing
    assert (finding.state, finding.value) == ("ok", 0.0)
    assert "bit for bit" in finding.message


def test_rounding_is_told_and_more_is_an_alarm_that_says_what_differs(history):
    run(history, torch="2.13.0", threads=2)
    (within,) = run(
        history, scorer=StandIn(shift=2**-20), torch="2.13.0", threads=2
    ).findings  # about 1e-6, exact in these scores' precision
    assert (within.state, within.value) == ("ok", pytest.approx(2**-20, rel=1e-6))
    (beyond,) = run(history, scorer=StandIn(shift=0.25), torch="2.14.0", threads=2).findings
    assert (beyond.state, beyond.value, beyond.limit) == ("alarm", 0.25, 1e-5)
    assert "40 of 40 comparisons" in beyond.message
    assert "torch: 2.13.0, then 2.14.0" in beyond.message
    assert "threads" not in beyond.message
    assert run(history, scorer=StandIn(shift=0.25)).alarms, "held against the first, so an alarm stays one"


def test_other_settings_are_a_warning_even_where_the_scores_are_equal(history):
    run(history, dtype="float32", device="cpu", torch="1")
    (other,) = run(history, dtype="bfloat16", device="cpu", torch="2").findings
    assert other.state == "warning"
    assert other.message.endswith("bit for bit; but it was scored with other settings: dtype: float32, then bfloat16")
    (environment,) = run(history, dtype="float32", device="cpu", torch="2").findings
    assert environment.state == "ok", "a library that changes nothing is none"


def test_ties_are_refused_and_other_subsets_told(history):
    tie = replace(GROUPS[5], pairs=(Pair(0, 1, tie=True),))
    with pytest.raises(DataError, match=r"1 canary rows prefer neither completion; the first: rows.jsonl:6"):
        canary.require_same_rows(history, [*GROUPS[:5], tie])
    run(history)
    (same, renamed) = run(history, [replace(GROUPS[0], subset="math"), *GROUPS[1:]]).findings
    assert (same.state, renamed.watch, renamed.state) == ("ok", "data", "warning")
    assert renamed.message.startswith("1 comparisons are of another subset than in snapshot 1 ")


def test_slow_drift_is_held_against_the_first(history):
    """Each step is within the tolerance; the third is beyond it from where it began."""
    states = [run(history, scorer=StandIn(shift=step * 0.75e-5)).findings[0].state for step in range(3)]
    assert states == ["ok", "ok", "alarm"]


def changed_rows():
    turned = replace(GROUPS[3], pairs=(Pair(1, 0),))
    reworded = replace(GROUPS[3], completions=("other words 1", GROUPS[3].completions[1]))
    return {
        "missing": (GROUPS[:-2], "2 of its 40 comparisons are missing or changed\n"),
        "new": ([*GROUPS, group(99, 1.0, 0.0)], r"1 are new or changed \(the first: rows.jsonl:100\)\n"),
        "reworded": (
            [*GROUPS[:3], reworded, *GROUPS[4:]],
            r"1 of its 40 .* are missing or changed, 1 are new or changed \(the first: rows.jsonl:4\)",
        ),
        "turned": ([*GROUPS[:3], turned, *GROUPS[4:]], "1 canary rows now prefer the other .* first: rows.jsonl:4"),
    }


@pytest.mark.parametrize("change", ["missing", "new", "reworded", "turned"])
def test_other_rows_are_refused_before_and_in_the_test_and_nothing_is_stored(history, change):
    groups, reason = changed_rows()[change]
    canary.require_same_rows(history, groups)  # a history without a canary takes any
    run(history)
    canary.require_same_rows(history, GROUPS)
    with pytest.raises(DataError, match=reason) as caught:
        canary.require_same_rows(history, groups)
    assert caught.value.hint
    with pytest.raises(DataError, match="is not the canary"):
        run(history, groups)
    with pytest.raises(DataError, match="is not the canary"):
        run(history, groups, Relabelled([1.0] * 100))
    assert len(history.snapshots()) == 1


def test_a_worse_version_is_an_alarm_once_and_a_warning_after(history):
    """The old one is right on all 40, the new one wrong on 8: McNemar's p is 2 / 2**8."""
    run(history)
    margins = [-1.0] * 8 + [1.0] * 32
    findings = {one.watch: one for one in run(history, scorer=Relabelled(margins)).findings}
    assert findings["accuracy"].state == "alarm"
    assert findings["accuracy"].value == pytest.approx(scipy.stats.binomtest(8, 8).pvalue) == 2 / 2**8
    assert findings["accuracy"].message.startswith("accuracy fell to 80.0 % from 100.0 % of rm oneoneon (snapshot 1)")
    assert "right on 8 comparisons only before, on 0 only now" in findings["accuracy"].message
    assert (findings["canary"].state, "does not say" in findings["canary"].message) == ("warning", True)
    later = run(history, scorer=Relabelled(margins)).findings
    assert [(one.watch, one.state) for one in later] == [
        ("canary", "ok"),
        *((name, "warning") for name in ("accuracy", "ece") if findings[name].state == "alarm"),
    ]
    assert "as found when this version was new (snapshot 2)" in later[1].message
    assert run(history).findings[0].message.endswith("bit for bit"), "the old version again, held against its own"


def test_a_little_worse_and_better_are_none(history):
    run(history, scorer=Relabelled([1.0] * 20 + [-1.0] * 20, "one" * 8))
    for version, margins in (("2", [-1.0] * 3 + [1.0] * 17 + [-1.0] * 20), ("3", [1.0] * 40)):
        found = {one.watch: one.state for one in run(history, scorer=Relabelled(margins, version)).findings}
        assert found["accuracy"] == "ok"


def test_a_new_version_is_held_against_the_last_good_one(history):
    for version in ("a", "b"):
        run(history, scorer=Relabelled([1.0 if version == "a" else 1.2] * 40, version))
    told = run(history, scorer=Relabelled([1.1] * 40, "c")).findings[0].message
    assert "(b, snapshot 2 of " in told


def test_a_rejected_or_unverified_version_is_no_yardstick(history):
    """v2 loses 10 of 40: an alarm. v3 is like v2, and is held against v1 all the same; so is v5 after v4."""
    run(history, scorer=Relabelled([1.0] * 40, "v1"))
    worse = [-1.0] * 10 + [1.0] * 30
    for version in ("v2", "v3"):
        found = {one.watch: one for one in run(history, scorer=Relabelled(worse, version)).findings}
        assert found["accuracy"].state == "alarm"
        assert "of rm v1 (snapshot 1)" in found["accuracy"].message

    def unverified(before, new):
        return [Finding("accuracy", "ok", "")]

    four = snapshot_of("canary", Relabelled([1.0] * 40, "v4"), GROUPS, data=["canary.jsonl"])
    history.record(replace(four, metrics={**four.metrics, "verified": False}), unverified)
    found = {one.watch: one for one in run(history, scorer=Relabelled([0.9] * 40, "v5")).findings}
    assert "of rm v1 (snapshot 1)" in found["accuracy"].message


def test_small_losses_do_not_add_up_unseen(history):
    """Each version loses 3 of 40 more (McNemar's p is 0.25 against the last); against the best they are soon found."""
    states = []
    for version in range(6):
        margins = [-1.0] * (3 * version) + [1.0] * (40 - 3 * version)
        found = {one.watch: one for one in run(history, scorer=Relabelled(margins, f"v{version}")).findings}
        states.append(found["accuracy"].state if version else "first")
        if version == 2:
            assert "of rm v1 (snapshot 2)" in found["accuracy"].message
            assert "of rm v0 (snapshot 1)" in found["accuracy"].message
            level = 0.05 / 2
            assert found["accuracy"].limit == pytest.approx(level)
    # 2 / 2**6 = 0.031 is above 0.025, 2 / 2**9 is not above 0.025 / 2; a version with an alarm is no yardstick.
    assert states == ["first", "ok", "ok", "alarm", "alarm", "alarm"]


def test_miscalibration_alone_is_found_by_the_calibration_error(history):
    """Margins of logit 0.8 that win 80 % are calibrated; the same ones 8 times as large are not, and win as often."""
    outcomes = np.where(np.arange(400) % 5 == 0, -1.0, 1.0)
    groups = [PromptGroup(f"p{i}?", ("a", "b"), (Pair(0, 1),)) for i in range(400)]
    calibrated = np.log(4) * outcomes
    run(history, groups, Relabelled(calibrated, "old"))
    found = {one.watch: one for one in run(history, groups, Relabelled(8 * calibrated, "new")).findings}
    assert (found["accuracy"].state, found["ece"].state) == ("ok", "alarm")
    assert found["ece"].value > 0
    assert found["log_loss"].state == "warning"
    at_its_temperature = Relabelled(8 * calibrated, "newer", temperature=8.0)
    found = {one.watch: one.state for one in run(history, groups, at_its_temperature).findings}
    assert (found["ece"], found["log_loss"]) == ("ok", "ok")


def test_pairs_of_one_prompt_are_judged_by_prompt(history):
    """8 losses, all of one prompt of 5: McNemar's p is 2 / 2**8, but a resample may well lack that prompt."""
    groups = [
        PromptGroup(f"p{i // 8}?", (f"{i} a", f"{i} b"), (Pair(0, 1),), source=f"rows.jsonl:{i}") for i in range(40)
    ]
    run(history, groups, Relabelled([1.0] * 5, "old"))
    found = {one.watch: one for one in run(history, groups, Relabelled([-1.0] + [1.0] * 4, "new")).findings}
    assert found["accuracy"].state == "ok"
    assert "which decides" in found["accuracy"].message


def test_lineage_and_equal_scores_of_a_new_version(history):
    run(history)
    (equal, *_) = run(history, scorer=StandIn(fingerprint="x")).findings
    assert (equal.state, "the old one's, bit for bit" in equal.message) == ("ok", True)

    class WithLineage(Relabelled):
        @property
        def checkpoints(self):
            return (SimpleNamespace(contract=None, folder="runs/rm"),)

    contract = SimpleNamespace(lineage=[{"fingerprint": "one"}])
    assert run(history, scorer=WithLineage([1.0] * 40, "y", contract=contract)).findings[0].state == "ok"


def contract_of(tolerances, probes=(0.5,), reference=None, temperature=None):
    def tolerance(dtype):
        if dtype not in tolerances:
            raise ContractError(f"the contract states no tolerance for dtype {dtype}")
        return tolerances[dtype]

    scale = ScoreScale(reference_statistics(reference, "held-out") if reference else None, temperature)
    return SimpleNamespace(tolerance=tolerance, probes=[SimpleNamespace(score=p) for p in probes], scale=scale)


def scorer_of(*contracts, dtype="float32", **settings):
    models = tuple(SimpleNamespace(contract=contract, dtype=dtype) for contract in contracts)
    return SimpleNamespace(settings=settings, checkpoints=models)


def test_tolerances_by_hand():
    """Largest canary score 4. Probes up to 2 gave 2e-5, so 4 gives 4e-5.

    As z, with a standard deviation of 0.5, it is a raw score of 2: 2e-5 raw, 4e-5 as z.
    """
    snapshot = SimpleNamespace(pairs=[SimpleNamespace(chosen=1.0, rejected=-4.0)])

    def found(scorer, **limits):
        return canary.tolerance_of(scorer, snapshot, Thresholds(**limits))

    measured = contract_of({"float32": 2e-5}, probes=(2.0, -1.0), reference=(0.0, 1.0))
    assert found(scorer_of(measured)) == pytest.approx(4e-5)
    assert found(scorer_of(measured, on="z")) == pytest.approx(4e-5)
    assert found(scorer_of(contract_of({"float32": 1e-5}, temperature=0.1), on="calibrated")) == pytest.approx(1e-4)
    assert found(scorer_of(None)) == pytest.approx(4e-5)
    assert found(scorer_of(measured, None, contract_of({"float32": 1e-3}))) == pytest.approx(4e-3)
    assert found(scorer_of(measured), canary_tolerance=0.5) == 0.5
    for broken in (scorer_of(measured, dtype="float16"), scorer_of(None, dtype="bfloat16")):
        with pytest.raises(DataError) as caught:
            found(broken)
        assert "canary_tolerance" in caught.value.hint
