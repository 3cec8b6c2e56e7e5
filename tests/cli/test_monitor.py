"""`rewardlab monitor`: exit statuses, what goes to stdout and stderr, options that do not go together."""

from __future__ import annotations

import json
import shlex
import sys
from types import ModuleType, SimpleNamespace

import pytest
import typer
from tests.monitoring.stand_in import StandIn

from rewardlab.cli import main as command_line
from rewardlab.cli.monitor import monitor
from rewardlab.errors import DataError
from rewardlab.monitoring import running
from rewardlab.monitoring.history import History, read_history
from rewardlab.monitoring.snapshots import Finding, Snapshot
from rewardlab.scoring import opening

ROWS = [{"prompt": f"p{i}?", "chosen": f"yes {1.0 if i % 4 else -1.0}", "rejected": "no 0.0"} for i in range(40)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with rows, and every model a stand-in; it is the current one."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    scorers = SimpleNamespace(made=StandIn(), opened=[])

    def open_scorer(path, **options):
        scorers.opened.append((path, options))
        return scorers.made

    monkeypatch.setattr(running, "open_scorer", open_scorer)
    monkeypatch.setattr(opening, "open_scorer", open_scorer)
    return SimpleNamespace(path=tmp_path, scorers=scorers)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command line as a process would: status, stdout, stderr."""
    app = typer.Typer()
    app.command("monitor")(monitor)
    app.callback()(lambda: None)
    monkeypatch.setattr(command_line, "app", app)

    def of(arguments):
        status = command_line.main(["monitor", *shlex.split(arguments)])
        told = capsys.readouterr()
        return SimpleNamespace(status=status, out=told.out, err=told.err)

    return of


def test_a_quiet_canary_is_0_and_json_alone_is_on_stdout(folder, run):
    first = run("rm --canary rows.jsonl --history h")
    assert (first.status, "learning" in first.out) == (0, True)
    second = run("rm --canary rows.jsonl --history h --json --device cpu --dtype float32")
    assert second.status == 0
    found = json.loads(second.out)
    assert (found["kind"], found["number"], found["alarm"], found["history"]) == ("canary", 2, False, "h")
    assert found["findings"][0]["state"] == "ok"
    assert found["warnings"] == []
    assert folder.scorers.opened[1][1]["device"] == "cpu"


def test_an_alarm_is_1_with_its_reason_on_stderr_and_the_whole_answer_on_stdout(folder, run):
    run("rm --canary rows.jsonl --history h")
    folder.scorers.made = StandIn(shift=0.5)
    for form in ("", "--json"):
        found = run(f"rm --canary rows.jsonl --history h {form}")
        assert found.status == 1
        assert "alarm: canary: the stack changed" in found.err
        assert "error:" not in found.err
        assert "alarm" in found.out
    assert json.loads(found.out)["alarm"] is True


def test_a_failure_is_1_with_nothing_on_stdout_and_nothing_stored(folder, run):
    run("rm --canary rows.jsonl --history h")
    (folder.path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    found = run("rm --canary rows.jsonl --history h --json")
    assert (found.status, found.out) == (1, "")
    assert found.err.startswith("error: this is not the canary")
    with read_history("h") as history:
        assert len(history.snapshots()) == 1


def test_warnings_are_on_stderr_and_in_the_json(folder, run):
    run("rm --canary rows.jsonl --history h")
    folder.scorers.made = StandIn(fingerprint="new", shift=0.5)
    found = run("rm --canary rows.jsonl --history h --json")
    assert found.status == 0
    (warning,) = json.loads(found.out)["warnings"]
    assert warning.startswith("canary: a new version, whose contract")
    assert f"warning: {warning}" in found.err


def test_thresholds_come_from_their_file(folder, run):
    run("rm --canary rows.jsonl --history h")
    folder.scorers.made = StandIn(shift=0.5)
    (folder.path / "t.yaml").write_text("canary_tolerance: 1\n")
    assert run("rm --canary rows.jsonl --history h --thresholds t.yaml").status == 0
    (folder.path / "t.yaml").write_text("canary_tolerances: 1\n")
    found = run("rm --canary rows.jsonl --history h --thresholds t.yaml")
    assert (found.status, "did you mean 'canary_tolerance'" in found.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--history h", "expected exactly one of --canary, --fresh,"),
        ("--canary rows.jsonl --fresh rows.jsonl --history h", "got --canary and --fresh"),
        ("--canary rows.jsonl", "--canary needs --history"),
        ("--live http://x", "--live needs --history"),
        ("--canary rows.jsonl --history h --against a,b", "--against means nothing to --canary"),
        ("--fresh rows.jsonl --history h --output o", "--output means nothing to --fresh"),
        ("--select 5 --data rows.jsonl", "--select needs --output"),
        ("--select 5 --output o", "--select needs --data"),
        ("--select 5 --data rows.jsonl --output rows.jsonl", "exists already"),
        ("--select 0 --data rows.jsonl --output o", "greater than or equal to 1"),
    ],
)
def test_wrong_use_is_2_and_loads_nothing(folder, run, arguments, reason):
    found = run(f"rm {arguments}")
    assert (found.status, found.out) == (2, "")
    assert reason in " ".join(found.err.split())
    assert folder.scorers.opened == []


def test_a_history_of_another_program_is_refused(folder, run):
    (folder.path / "h").write_text("their notes\n" * 20)
    found = run("rm --canary rows.jsonl --history h")
    assert (found.status, found.out) == (1, "")
    assert "is no history" in found.err
    assert (folder.path / "h").read_text().startswith("their notes")


def test_baseline_fresh_and_prometheus(folder, run):
    assert run("rm --baseline rows.jsonl --history h --prometheus rm.prom").status == 0
    found = run("rm --fresh rows.jsonl --history h --against a,b --prometheus rm.prom --json")
    assert found.status == 0, found.err
    assert json.loads(found.out)["metrics"]["gap"]["num"] == 80
    text = (folder.path / "rm.prom").read_text()
    assert 'rewardlab_monitor_accuracy{model="rm",kind="baseline"} 0.75' in text
    assert 'rewardlab_monitor_accuracy{model="rm",kind="fresh"} 0.75' in text


def test_a_prometheus_file_that_fails_loses_no_snapshot_and_is_no_success(folder, run):
    found = run("rm --canary rows.jsonl --history h --prometheus nowhere/rm.prom")
    assert (found.status, found.out) == (1, "")
    assert "rm.prom: the Prometheus file cannot be written" in found.err
    assert "(the snapshot is stored, number 1)" in found.err
    with read_history("h") as history:
        assert len(history.snapshots()) == 1


def test_live_is_asked_with_the_key_and_shares_the_prometheus_file(folder, run, monkeypatch):
    module, asked = ModuleType("rewardlab.monitoring.live"), []

    def run_live(url, model, history, thresholds, *, api_key=None):
        asked.append((url, model, api_key, thresholds.psi_alarm))
        finding = Finding("scores", "alarm", "PSI 0.4", 0.4, 0.25)
        live = Snapshot("live", "2026-11-21T09:30:00Z", model, "f", None, (url,), None)
        return history.record(live, lambda *_: [finding])

    module.run_live = run_live
    monkeypatch.setitem(sys.modules, "rewardlab.monitoring.live", module)
    monkeypatch.setenv("REWARDLAB_API_KEY", "secret")
    run("runs/rm --canary rows.jsonl --history h --prometheus rm.prom")
    found = run("runs/rm --live http://x --history h --prometheus rm.prom")
    assert (found.status, asked) == (1, [("http://x", "runs/rm", "secret", 0.25)])
    assert "alarm: scores: PSI 0.4" in found.err
    text = (folder.path / "rm.prom").read_text()
    assert 'rewardlab_monitor_alarm{model="rm",kind="live",watch="scores"} 1.0' in text
    assert 'rewardlab_monitor_accuracy{model="rm",kind="canary"} 0.75' in text


def test_reference_rows_are_scored_and_given_on(folder, run, monkeypatch):
    module = ModuleType("rewardlab.monitoring.live")

    def run_reference(scorer, groups, history, *, data, model, progress):
        assert (len(groups), data, model) == (40, ["rows.jsonl"], "rm")
        reference = Snapshot("reference", "2026-11-21T09:30:00Z", model, "f", None, tuple(data), "x")
        return history.record(reference, lambda *_: [Finding("scores", "learning", "stored")])

    module.run_reference = run_reference
    monkeypatch.setitem(sys.modules, "rewardlab.monitoring.live", module)
    found = run("runs/rm --reference rows.jsonl --history h")
    assert (found.status, "stored" in found.out) == (0, True)


class Selection:
    keys = ("k1", "k2")

    def write(self, path, *, overwrite=False):
        path.write_text("{}\n")

    def to_dict(self):
        return {"num_selected": 2, "wanted": 5, "missing": {"disagreement": "one model"}}


def test_what_is_selected_is_written_and_remembered(folder, run, monkeypatch):
    module, asked = ModuleType("rewardlab.monitoring.selecting"), []

    def select_comparisons(scorer, groups, k, *, known, asked, seed, progress):
        calls.append((len(groups), k, len(known), asked, seed))
        return Selection()

    calls = asked
    module.select_comparisons = select_comparisons
    monkeypatch.setitem(sys.modules, "rewardlab.monitoring.selecting", module)
    found = run("rm --select 5 --data rows.jsonl --known rows.jsonl --output o.jsonl --history h --seed 3")
    assert (found.status, found.out) == (0, "2 comparisons to label (of the 5 wanted; there are no more): o.jsonl\n")
    assert "warning: without disagreement: one model" in found.err
    again = run("rm --select 5 --data rows.jsonl --output o.jsonl --overwrite --history h --json")
    assert json.loads(again.out)["output"] == "o.jsonl"
    assert calls == [(40, 5, 40, set(), 3), (40, 5, 0, {"k1", "k2"}, 0)]
    assert run("rm --select 5 --data rows.jsonl --output other.jsonl").status == 0, "a history is not needed"


def test_a_locked_history_is_a_failure(folder, run, monkeypatch):
    def fail(self, snapshot, test):
        raise DataError("h: the history cannot be used: database is locked")

    monkeypatch.setattr(History, "record", fail)
    found = run("rm --canary rows.jsonl --history h --json")
    assert (found.status, found.out) == (1, "")
    assert "database is locked" in found.err
