"""rewardlab.monitoring.history: what comes back, several processes at once, a killed one, foreign files."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from rewardlab.errors import DataError
from rewardlab.monitoring.history import SCHEMA_VERSION, History, read_history
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot

TINY, THIRD = 5e-324, 0.1 + 0.2  # a denormal, and a number whose last bit a short decimal loses


def snapshot(kind="canary", fingerprint="f", pairs=2, **more):
    return Snapshot(
        kind=kind,
        at="2026-11-21T09:30:00Z",
        model="rm",
        fingerprint=fingerprint,
        contract_sha256=None,
        data=("canary.jsonl",),
        data_sha256="abc",
        settings={"dtype": "float32", "models": [1, None]},
        metrics={"accuracy": {"value": THIRD, "low": None}},
        pairs=tuple(PairScore(f"k{i}", f"p{i}", THIRD * i, -TINY, None if i else "é") for i in range(pairs)),
        **more,
    )


def quiet(history, new):
    return [Finding("accuracy", "alarm", "fell", value=THIRD, limit=None, since="2026-11-20T09:30:00Z")]


def in_processes(code, path, count=2):
    return [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(count)]


PREAMBLE = """
import sys
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, PairScore, Snapshot
path, who = sys.argv[1:]
def of(number, pairs=3):
    scores = tuple(PairScore(f"k{i}", "p", i / 3, -i / 7) for i in range(pairs))
    return Snapshot("fresh", "2026-11-21T09:30:00Z", who, "f", None, ("a",), str(number), pairs=scores)
"""


def test_a_snapshot_comes_back_bit_for_bit(tmp_path):
    with History(tmp_path / "h") as history:
        stored = history.record(snapshot(), quiet)
        assert (stored.number, stored.alarms[0].value) == (1, THIRD)
        assert history.snapshots() == [stored]
        assert [pair.rejected.hex() for pair in history.snapshots()[0].pairs] == [(-TINY).hex()] * 2
    with read_history(tmp_path / "h") as again:
        assert again.snapshots() == [stored]


def test_what_is_asked_for_is_what_comes(tmp_path):
    with History(tmp_path / "h") as history:
        for kind, fingerprint in (("canary", "a"), ("fresh", "a"), ("fresh", "b"), ("fresh", "a")):
            history.record(snapshot(kind, fingerprint), lambda *_: [])
        numbers = [one.number for one in history.snapshots("fresh", fingerprint="a")]
        light = history.snapshots("fresh", pairs=False)
        assert (numbers, [one.number for one in light]) == ([2, 4], [2, 3, 4])
        assert all(one.pairs == () for one in light)
        assert history.with_pairs(light[0]) == history.snapshots("fresh")[0]


def test_a_snapshot_without_comparisons(tmp_path):
    with History(tmp_path / "h") as history:
        stored = history.record(snapshot("live", pairs=0), lambda *_: [])
        assert history.snapshots() == [stored]


def test_what_was_asked_is_remembered_once(tmp_path):
    with History(tmp_path / "h") as history:
        history.add_asked(["a", "b"])
        history.add_asked(["b", "c"])
    with History(tmp_path / "h") as history:
        assert history.asked() == {"a", "b", "c"}


def test_the_test_sees_the_history_without_the_snapshot_and_its_error_stores_nothing(tmp_path):
    def broken(history, new):
        assert (len(history.snapshots()), new.number) == (1, None)
        raise KeyError("a bug")

    with History(tmp_path / "h") as history:
        history.record(snapshot(), quiet)
        with pytest.raises(KeyError, match="a bug"):  # a bug of ours stays one
            history.record(snapshot(), broken)
        assert history.record(snapshot(), quiet).number == 2


def test_two_processes_at_once_lose_nothing_and_each_sees_the_other(tmp_path):
    """Each of 40 records stores how many snapshots it saw: were two not serial, one number would come twice."""
    code = PREAMBLE + (
        "for n in range(20):\n"
        "    with History(path) as history:\n"
        "        saw = lambda h, s: [Finding('saw', 'ok', str(len(h.snapshots(pairs=False))))]\n"
        "        history.record(of(n), saw)\n"
    )
    running = in_processes(code, tmp_path / "h")
    assert [one.wait(60) for one in running] == [0, 0]
    with read_history(tmp_path / "h") as history:
        found = history.snapshots()
    assert [one.number for one in found] == list(range(1, 41))
    assert [int(one.findings[0].message) for one in found] == list(range(40))
    assert sorted((one.model, one.data_sha256) for one in found) == sorted((w, str(n)) for w in "01" for n in range(20))
    assert all(len(one.pairs) == 3 for one in found)


@pytest.mark.parametrize("place", ["before the insert", "before the commit"])
def test_a_process_killed_in_the_middle_leaves_whole_snapshots(tmp_path, place):
    """It is killed inside its transaction, with the lock held; the next run is not stopped by that."""
    waiting = "open(path + '.here', 'w').close(); import time; time.sleep(60)"
    middle = {
        "before the insert": f"def test(h, s):\n    {waiting}\nhistory.record(of(2, 5000), test)",
        "before the commit": (
            "import rewardlab.monitoring.history as module\npacked = module._packed\n"
            f"def slow(pairs):\n    {waiting}\nmodule._packed = slow\nhistory.record(of(2, 5000), lambda h, s: [])"
        ),
    }[place]
    code = PREAMBLE + "history = History(path)\nhistory.record(of(1), lambda h, s: [])\n" + middle
    (running,) = in_processes(code, tmp_path / "h", count=1)
    until = time.monotonic() + 30
    while not (tmp_path / "h.here").exists():
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait(10)
    with History(tmp_path / "h") as history:
        assert [one.data_sha256 for one in history.snapshots()] == ["1"]
        assert history.record(snapshot(), quiet).number == 2
        assert history._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_thousand_snapshots_are_read_without_their_comparisons(tmp_path, monkeypatch):
    with History(tmp_path / "h") as history:
        one = snapshot(pairs=5000)
        history.record(one, quiet)
        history._connection.executescript(
            "BEGIN; WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
            "INSERT INTO snapshots SELECT i, kind, fingerprint, record FROM n JOIN snapshots ON number = 1;"
            "INSERT INTO pairs SELECT s.number, packed FROM snapshots s JOIN pairs p ON p.number = 1 "
            "WHERE s.number > 1; COMMIT;"
        )
        with monkeypatch.context() as patched:
            patched.setattr("rewardlab.monitoring.history._unpacked", None)  # five million rows, were it called
            listed = history.snapshots("canary", pairs=False)
        assert len(listed) == 1000
        assert len(history.with_pairs(listed[-1]).pairs) == 5000


def test_files_that_are_no_history_are_refused_and_not_touched(tmp_path):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()  # stays open, so that its content is in the write-ahead log
    (tmp_path / "text").write_text("no database\n" * 20)
    (tmp_path / "short").write_bytes(b"SQLite format 3\0")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, reason in (("other.db", "another program's"), ("text", "not an SQLite"), ("short", "not an SQLite")):
        for opener in (History, read_history):
            with pytest.raises(DataError, match=reason) as caught:
                opener(tmp_path / name)
            assert name in caught.value.message
            assert caught.value.hint
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    other.close()


def test_a_newer_version_is_refused(tmp_path):
    with History(tmp_path / "h") as history:
        history._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for opener in (History, read_history):
        with pytest.raises(DataError, match="of version 2, and this rewardlab reads version 1"):
            opener(tmp_path / "h")


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        History(tmp_path / "nowhere" / "h")
    with pytest.raises(DataError, match="is a folder"):
        History(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_history(tmp_path / "h")
    assert not (tmp_path / "h").exists()


def test_an_empty_file_becomes_a_history(tmp_path):
    (tmp_path / "h").touch()
    with History(tmp_path / "h") as history:
        assert history.snapshots() == []


def test_a_history_to_read_is_not_written(tmp_path):
    History(tmp_path / "h").close()
    with read_history(tmp_path / "h") as history, pytest.raises(DataError, match="readonly"):
        history.record(snapshot(), quiet)


def test_ten_processes_at_once_make_one_history(tmp_path):
    """They meet at its making too: ten openings of a file that is not there yet."""
    code = PREAMBLE + "with History(path) as history:\n    history.record(of(0, 300), lambda h, s: [])\n"
    assert [one.wait(60) for one in in_processes(code, tmp_path / "h", 10)] == [0] * 10
    with read_history(tmp_path / "h") as history:
        assert sorted(one.model for one in history.snapshots(pairs=False)) == sorted(str(n) for n in range(10))
        assert history._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_history_in_a_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    """Without laying anything beside it; root may write everywhere, so the folder only says that it cannot."""
    with History(tmp_path / "h") as history:
        history.record(snapshot(), quiet)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with read_history(tmp_path / "h") as history:
        assert [one.number for one in history.snapshots()] == [1]
        assert [path.name for path in tmp_path.iterdir()] == ["h"]
    with History(tmp_path / "h") as writing:  # what is in the log counts too
        writing.record(snapshot(), quiet)
        with read_history(tmp_path / "h") as history:
            assert [one.number for one in history.snapshots()] == [1, 2]


def test_the_labels_that_it_holds_by_kind(tmp_path):
    with History(tmp_path / "h") as history:
        for kind, key in (("canary", "c<"), ("fresh", "f>"), ("fresh", "g<"), ("baseline", "b<")):
            pairs = (PairScore(key, "p", 1.0, 0.0),)
            history.record(dataclasses.replace(snapshot(kind), pairs=pairs, data_sha256=key), lambda *_: [])
        assert history.labelled_keys("canary") == {"c"}
        assert history.labelled_keys("fresh", "baseline") == {"f", "g", "b"}


def test_a_file_that_may_not_grow_is_told_and_stores_nothing(tmp_path):
    """As a full disk, from outside SQLite: the operating system refuses to write beyond some size."""
    code = PREAMBLE + (
        "import resource, signal, sys\n"
        "from rewardlab.errors import DataError\n"
        "with History(path) as history:\n"
        "    history.record(of(1), lambda h, s: [])\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "    try:\n"
        "        history.record(of(2, 20_000), lambda h, s: [])\n"
        "    except DataError as error:\n"
        "        sys.exit(7 if 'cannot be used' in str(error) and len(history.snapshots()) == 1 else 8)\n"
    )
    assert [one.wait(60) for one in in_processes(code, tmp_path / "h", 1)] == [7]
    with History(tmp_path / "h") as history:
        assert [one.data_sha256 for one in history.snapshots()] == ["1"]
        assert history.record(snapshot(), quiet).number == 2


def test_a_full_disk_is_told_and_stores_nothing(tmp_path):
    with History(tmp_path / "h") as history:
        history.record(snapshot(), quiet)
        history._connection.execute("PRAGMA max_page_count = 12")
        with pytest.raises(DataError, match="full") as caught:
            history.record(snapshot(pairs=20000), quiet)
        assert "free some space" in caught.value.hint
        assert len(history.snapshots()) == 1
        assert history.record(snapshot(), quiet).number == 2


def test_damage_is_told(tmp_path):
    with History(tmp_path / "h") as history:
        history.record(snapshot(), quiet)
        history._connection.execute("UPDATE pairs SET packed = x'00'")
        with pytest.raises(DataError, match="damaged"):
            history.snapshots()
        history._connection.execute("UPDATE snapshots SET record = '{'")
        with pytest.raises(DataError, match="damaged"):
            history.snapshots(pairs=False)


def test_a_score_that_is_not_finite_is_never_stored(tmp_path):
    bad = dataclasses.replace(snapshot(), pairs=(PairScore("k", "p", float("nan"), 0.0),))
    with History(tmp_path / "h") as history:
        with pytest.raises(ValueError, match="not JSON compliant"):
            history.record(bad, quiet)
        assert history.snapshots() == []
