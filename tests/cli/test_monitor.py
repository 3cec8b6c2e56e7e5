"""`rewardlab monitor`: exit statuses, what goes to stdout and stderr, options that do not go together."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
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
from rewardlab.scoring.names import short_name

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
    assert (first.status, "stored: 40 comparisons" in " ".join(first.out.split())) == (0, True)
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
        assert re.search(r"^alarm: rm, snapshot \d of h: the stack changed", found.err, re.MULTILINE)
        (step,) = re.findall(r"^next: (.*)$", found.err, re.MULTILINE)
        assert "rewardlab verify" in step
        assert "error:" not in found.err
        assert "alarm" in found.out
    assert json.loads(found.out)["alarm"] is True
    assert json.loads(found.out)["next"] == [step]


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
    assert warning.startswith("a new version, whose contract")
    assert f"warning: rm, snapshot 2 of h: {warning}" in found.err


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
        ("--baseline rows.jsonl --history h --thresholds t", "--thresholds means nothing to --baseline"),
        ("--canary rows.jsonl --history h --seed 0", "--seed means nothing to --canary: it goes with --select"),
        ("--fresh rows.jsonl --history h --overwrite", "--overwrite means nothing to --fresh"),
        ("--fresh rows.jsonl --history h --api-key k", "--api-key means nothing to --fresh: it goes with --live"),
        ("--live http://x --history h --device cpu", "--device means nothing to --live"),
        (
            "--live http://x --history h --launcher ddp --processes 2",
            "--live scores nothing that processes could share",
        ),
        ("--live http://x --history h --ensemble-k 2", "--ensemble-k means nothing to --live"),
        ("--select 5 --data rows.jsonl --output o --prometheus p", "--prometheus means nothing to --select"),
        ("--select 5 --data rows.jsonl", "--select needs --output"),
        ("--select 5 --output o", "--select needs --data"),
        ("--select 5 --data rows.jsonl --output rows.jsonl --overwrite", "is also what is read"),
        ("--fresh rows.jsonl --history h --prometheus h", "is also what is read"),
        ("--select 0 --data rows.jsonl --output o", "greater than or equal to 1"),
    ],
)
def test_wrong_use_is_2_and_loads_nothing(folder, run, arguments, reason):
    found = run(f"rm {arguments}")
    assert (found.status, found.out) == (2, "")
    assert reason in " ".join(found.err.split())
    assert folder.scorers.opened == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("rm --canary nope.jsonl --history h", "nope.jsonl: no such file"),
        ("rm --select 5 --data rows.jsonl --known nope.jsonl --output o", "nope.jsonl: no such file"),
        ("./nowhere --canary rows.jsonl --history h", "no such folder: ./nowhere"),
        ("rm --fresh rows.jsonl --history h --against ./a,./b", "no such folder: ./a"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_made_or_loaded(folder, run, arguments, reason):
    found = run(arguments)
    assert (found.status, found.out) == (1, "")
    assert reason in found.err
    assert not (folder.path / "h").exists()


def test_what_is_missing_is_told_without_torch(tmp_path):
    code = (
        "import sys; from rewardlab.cli.main import main; "
        "status = main(['monitor', 'rm', '--fresh', 'nope.jsonl', '--history', 'h']); "
        "sys.exit(9 if 'torch' in sys.modules else status)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 1


def test_help_begins_with_the_modes(run):
    text = run("--help").out
    panels = ["What to look at", "What is kept and told", "With --select", "How to score"]
    assert sorted(panels, key=text.index) == panels
    assert "--device" in text
    assert "--beta" not in text


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


def test_a_prometheus_file_that_fails_hides_nothing_and_is_no_success(folder, run, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    found = run("rm --canary rows.jsonl --history h --prometheus rm.prom --json")
    assert (found.status, json.loads(found.out)["number"]) == (1, 1)
    assert "rm.prom: the Prometheus file cannot be written" in found.err
    assert "(the snapshot is stored, number 1)" in found.err
    with read_history("h") as history:
        assert len(history.snapshots()) == 1


def test_live_is_asked_with_the_key_and_shares_the_prometheus_file(folder, run, monkeypatch):
    module, asked = ModuleType("rewardlab.monitoring.live"), []

    def run_live(url, model, history, thresholds, *, api_key=None):
        asked.append((url, model, api_key, thresholds.psi_alarm))
        finding = Finding("scores", "alarm", "PSI 0.4", 0.4, 0.25)
        live = Snapshot("live", "2026-11-21T09:30:00Z", short_name(model), "f", None, (url,), None)
        return history.record(live, lambda *_: [finding])

    module.run_live = run_live
    monkeypatch.setitem(sys.modules, "rewardlab.monitoring.live", module)
    monkeypatch.setenv("REWARDLAB_API_KEY", "secret")
    run("runs/rm --canary rows.jsonl --history h --prometheus rm.prom")
    found = run("runs/rm --live http://x --history h --prometheus rm.prom")
    assert (found.status, asked) == (1, [("http://x", "runs/rm", "secret", 0.25)])
    assert "alarm: rm, snapshot 2 of h: PSI 0.4" in found.err
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
        return {
            "num_selected": 2,
            "wanted": 5,
            "left_out": {"asked": 3, "known": 0},
            "missing": {"disagreement": "one model"},
        }


def test_what_is_selected_is_written_and_remembered(folder, run, monkeypatch):
    module, asked = ModuleType("rewardlab.monitoring.selecting"), []

    def select_comparisons(scorer, groups, k, *, known, seed, progress, **seen):
        calls.append((len(groups), k, len(known), {name: len(keys) for name, keys in seen.items()}, seed))
        return Selection()

    calls = asked
    module.select_comparisons = select_comparisons
    monkeypatch.setitem(sys.modules, "rewardlab.monitoring.selecting", module)
    found = run("rm --select 5 --data rows.jsonl --known rows.jsonl --output o.jsonl --history h --seed 3")
    assert (found.status, found.err) == (0, "")
    assert found.out == (
        "2 comparisons to label (of the 5 wanted; there are no more): o.jsonl\n"
        "  left out 3: a label was asked for before\n"
        "  without disagreement: one model\n"
    )
    run("rm --canary rows.jsonl --history h")
    (folder.path / "fresh.jsonl").write_text(json.dumps({"prompt": "f", "chosen": "a 1", "rejected": "b 0"}))
    run("rm --fresh fresh.jsonl --history h")
    again = run("rm --select 5 --data rows.jsonl --output o.jsonl --overwrite --history h --json")
    assert json.loads(again.out)["output"] == "o.jsonl"
    first, second = ({"canary": canary, "labelled": new, "asked": two} for canary, new, two in ((0, 0, 0), (80, 1, 2)))
    assert calls == [(40, 5, 40, first, 3), (40, 5, 0, second, 0)]
    assert run("rm --select 5 --data rows.jsonl --output other.jsonl").status == 0, "a history is not needed"


def test_a_locked_history_is_a_failure(folder, run, monkeypatch):
    def fail(self, snapshot, test):
        raise DataError("h: the history cannot be used: database is locked")

    monkeypatch.setattr(History, "record", fail)
    found = run("rm --canary rows.jsonl --history h --json")
    assert (found.status, found.out) == (1, "")
    assert "database is locked" in found.err
