"""A history as its trends: versions, episodes of alarms, what is in force, what has gone silent."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest
from tests.monitoring.simulated_history import FIRST, SECOND, START, labelled, told, write_history

from rewardlab.errors import DataError
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, Snapshot
from rewardlab.monitoring.trends import duration_words, gather_trends


def record(history, day, *findings, kind="fresh", fingerprint=FIRST, model="rm"):
    """A snapshot that found this, each ``(watch, state)``."""
    found = [Finding(watch, state, f"{watch} is told") for watch, state in findings]
    one = Snapshot(kind, told(day), model, fingerprint, None, (), None, {}, {}, (), ())
    return history.record(one, lambda _, __: found)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rm.history"


def gathered(path, day=100.0, **more):
    return gather_trends(path, now=START + timedelta(days=day), **more)


def test_looks_that_find_the_same_without_a_break_are_one_episode(path):
    with History(path) as history:
        for day, state in enumerate(("ok", "alarm", "alarm", "ok", "alarm")):
            record(history, day, ("accuracy", state))
    trends = gathered(path)
    first, second = trends.episodes
    assert (first.first.number, first.last.number, first.count, first.ended) == (2, 3, 2, True)
    assert (second.first.number, second.count, second.ended) == (5, 1, False)
    assert trends.in_force("alarm") == [second]
    assert second.since == told(4)


def test_several_warnings_of_one_watch_are_kept_apart(path):
    with History(path) as history:
        record(history, 0, ("data", "warning"), ("data", "warning"))
        record(history, 1, ("data", "warning"))
    ended = sorted((one.count, one.ended) for one in gathered(path).episodes)
    assert ended == [(1, True), (2, False)]


def test_another_kind_of_look_ends_nothing(path):
    with History(path) as history:
        record(history, 0, ("accuracy", "alarm"))
        record(history, 1, ("accuracy", "ok"), kind="canary")
    assert [one.kind for one in gathered(path).in_force("alarm")] == ["fresh"]


def test_an_alarm_of_a_version_that_was_replaced_is_not_in_force_but_told(path):
    with History(path) as history:
        record(history, 0, ("accuracy", "alarm"))
        assert len(gathered(path).in_force("alarm")) == 1
        record(history, 1, ("canary", "ok"), kind="canary", fingerprint=SECOND)
    trends = gathered(path)
    assert trends.in_force("alarm") == []
    assert len(trends.episodes) == 1
    assert trends.is_replaced(FIRST)
    assert not trends.is_replaced(SECOND)


def test_two_models_looked_at_in_turn_are_both_in_force(path):
    with History(path) as history:
        for day in range(6):
            for fingerprint in (FIRST, SECOND):
                record(history, day, ("accuracy", "alarm"), fingerprint=fingerprint)
    assert {one.fingerprint for one in gathered(path).in_force("alarm")} == {FIRST, SECOND}


def test_a_new_version_that_was_turned_down_is_set_aside_after_three_looks_of_the_old(path):
    with History(path) as history:
        record(history, 0, ("canary", "ok"), kind="canary")
        record(history, 1, ("accuracy", "alarm"), kind="canary", fingerprint=SECOND)
        for day in (2, 3):
            record(history, day, ("canary", "ok"), kind="canary")
        assert len(gathered(path).in_force("alarm")) == 1
        record(history, 4, ("canary", "ok"), kind="canary")
    assert gathered(path).in_force("alarm") == []


def test_silence_is_measured_by_the_usual_rhythm(path):
    with History(path) as history:
        for day in range(5):
            record(history, day)
        record(history, 4, kind="canary")  # one look has no rhythm
    assert gathered(path, 6.9).silences() == []
    (silence,) = gathered(path, 7.5).silences()
    assert silence.startswith("the last fresh look is 3.5 days old, and usually there is one every 24 hours")


def test_only_looks_at_the_model_that_is_named(path):
    with History(path) as history:
        record(history, 0, model="rm")
        record(history, 1, model="runs/rm", kind="live")  # live looks keep the path
        record(history, 2, model="other", fingerprint=SECOND)
    assert len(gathered(path).snapshots) == 3
    assert [one.number for one in gathered(path, model="elsewhere/rm").snapshots] == [1, 2]
    with pytest.raises(DataError, match="nothing in it is of third, only of rm, other"):
        gathered(path, model="third")


def test_an_empty_a_missing_and_another_file_are_told(path, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        gather_trends(path)
    assert not path.exists()
    History(path).close()
    with pytest.raises(DataError, match="nothing has been looked at yet"):
        gather_trends(path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(DataError, match="another program"):
        gather_trends(other)


def test_the_history_is_not_written(path):
    write_history(path, windows=3, looks_live=2)
    before = path.read_bytes()
    trends = gathered(path)
    assert path.read_bytes() == before
    assert [version.fingerprint for version in trends.versions] == [FIRST, SECOND]
    assert trends.versions[0].looks["baseline"] == 1
    assert all(not snapshot.pairs for snapshot in trends.snapshots)


def test_an_odd_name_in_the_history_is_shown_as_it_is(path):
    with History(path) as history:
        record(history, 0, model="a,,b")
    assert gathered(path).versions[0].label == f"a,,b {FIRST[:8]}"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 minutes"), (1800, "30 minutes"), (7200, "2 hours"), (86_400, "24 hours"), (4e6, "46 days")],
)
def test_durations_are_words(seconds, words):
    assert duration_words(seconds) == words


def test_a_version_says_when_it_was_seen(path):
    import numpy as np

    with History(path) as history:
        for day in (0, 1):
            history.record(labelled("fresh", day, np.random.default_rng(0), count=4), lambda _, __: [])
    (version,) = gathered(path).versions
    assert (version.first.number, version.last.number, version.looks) == (1, 2, {"fresh": 2})
    assert version.contracts == (FIRST[::-1],)
