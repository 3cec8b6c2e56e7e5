"""The ledger's law, and the quarantine file as something that can be repaired and read again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.ledger import BadRow, Ledger, Quarantine, reason_kind
from rewardlab.errors import DataError

events = st.lists(st.sampled_from(["use", "quarantine", "drop", "quarantine used", "drop used"]), max_size=60)


@given(events)
def test_every_row_is_in_exactly_one_account(history):
    """An independent count: each row's last state, kept in a list."""
    ledger, states = Ledger(), []
    for event in history:
        action, _, used = event.partition(" ")
        if used and "use" not in states:
            continue
        if used:
            states[states.index("use")] = action
        else:
            states.append(action)
        if action == "use":
            ledger.use()
        else:
            getattr(ledger, action)(f"why: {len(states)}", was_used=bool(used))
    rows = ledger.to_dict()["rows"]
    assert rows["read"] == len(states)
    assert (rows["used"], rows["quarantined"], rows["dropped"]) == tuple(
        states.count(action) for action in ("use", "quarantine", "drop")
    )
    assert rows["read"] == rows["used"] + rows["quarantined"] + rows["dropped"]
    assert sum(ledger.to_dict()["reasons"].values()) == rows["quarantined"] + rows["dropped"]


def test_the_ledger_as_json():
    ledger = Ledger()
    ledger.use()
    ledger.use()
    ledger.truncated += 1
    ledger.quarantine("broken JSON: line 3")
    ledger.quarantine("broken JSON: line 9")
    ledger.drop("identical after truncation", was_used=True)
    assert ledger.to_dict() == {
        "rows": {"read": 4, "used": 1, "quarantined": 2, "dropped": 1, "truncated": 1},
        "reasons": {"broken JSON": 2, "identical after truncation": 1},
    }


@pytest.mark.parametrize("wrong", [{"read": 2}, {"used": 2}, {"dropped": 1}, {"truncated": 2}])
def test_a_ledger_that_does_not_balance_is_refused(wrong):
    ledger = Ledger(**{"read": 1, "used": 1} | wrong)
    with pytest.raises(AssertionError, match="does not balance"):
        ledger.to_dict()


def test_a_reason_is_counted_by_what_stands_before_its_detail():
    assert reason_kind("broken JSON: Expecting value: column 3") == "broken JSON"
    assert reason_kind("chosen is empty") == "chosen is empty"


def test_the_quarantine_file_keeps_what_no_encoding_could(tmp_path):
    path = tmp_path / "new" / "bad.jsonl"
    rows = [
        BadRow("a.jsonl", 3, "lone surrogate: in 'x'", {"x": "\ud800 é"}, "a.jsonl:3"),
        BadRow("a.jsonl", 4, "broken JSON: no", '{"x', "a.jsonl:4"),
        BadRow("a.jsonl.gz", 5, "truncated gzip", None, "a.jsonl.gz:5"),
    ]
    with Quarantine(path) as quarantine:
        for row in rows:
            quarantine.add(row)
    assert path.read_bytes().isascii()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"file": row.file, "line": row.line, "reason": row.reason, "row": row.row} for row in rows
    ]
    assert quarantine.rows == rows


def test_without_bad_rows_there_is_no_file_not_even_an_old_one(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("of an earlier run")
    with Quarantine(path):
        pass
    assert not path.exists()


def test_a_quarantine_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), Quarantine(tmp_path / "file" / "bad.jsonl") as quarantine:
        quarantine.add(BadRow("a", 1, "why", None, "a:1"))
