"""Sources -> groups: nothing is lost, and too much that is bad stops the work with the places."""

from __future__ import annotations

import gzip
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.loading import load_groups, read_groups
from rewardlab.errors import ConfigError, DataError

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
EMPTY = GOOD | {"chosen": ""}


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@given(st.lists(st.sampled_from([GOOD, EMPTY, {"x": 1}, "{broken", "[1]", {"prompt": "p", "completion": "c"}])))
def test_every_row_is_used_or_set_aside_with_its_line(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("law") / "x.jsonl", rows)
    if not rows:
        with pytest.raises(DataError, match="no rows"):
            read_groups(path)
        return
    reading = read_groups(path, max_bad_fraction=None)
    places = [group.source for group in reading.groups] + [row.name for row in reading.bad_rows]
    assert sorted(places) == sorted(f"x.jsonl:{line}" for line in range(1, len(rows) + 1))
    counts = reading.ledger.to_dict()["rows"]
    assert counts == {
        "read": len(rows),
        "used": len(reading.groups),
        "quarantined": len(reading.bad_rows),
        "dropped": 0,
        "truncated": 0,
    }
    assert len(reading.groups) == sum(row == GOOD or (isinstance(row, dict) and "completion" in row) for row in rows)


def test_one_bad_row_in_a_hundred_is_set_aside_and_the_rest_is_used(tmp_path):
    path = write(tmp_path / "x.jsonl", [GOOD] * 50 + [EMPTY] + [GOOD] * 49)
    quarantine = tmp_path / "bad.jsonl"
    seen = []
    reading = read_groups(path, quarantine=quarantine, on_progress=seen.append)
    assert len(reading.groups) == 99
    assert seen == list(range(1, 101))
    assert reading.quarantine == quarantine
    assert json.loads(quarantine.read_text()) == {
        "file": str(path),
        "line": 51,
        "reason": "chosen is empty",
        "row": EMPTY,
    }


def test_more_than_the_stated_fraction_stops_the_work(tmp_path):
    path = write(tmp_path / "x.jsonl", [GOOD] * 90 + [EMPTY] * 7 + ["{"] * 3)
    assert len(read_groups(path, max_bad_fraction=0.1).groups) == 90  # exactly the fraction is allowed
    quarantine = tmp_path / "bad.jsonl"
    with pytest.raises(DataError) as error:
        read_groups(path, quarantine=quarantine)
    assert "10 of 100 rows are bad (10.0%); at most 5% may be" in error.value.message
    assert "7 × chosen is empty (first: x.jsonl:91)" in error.value.message
    assert "3 × broken JSON (first: x.jsonl:98, " in error.value.message
    assert str(quarantine) in error.value.hint
    assert len(quarantine.read_text().splitlines()) == 10


def test_strict_allows_none(tmp_path):
    path = write(tmp_path / "x.jsonl", [GOOD] * 999 + [EMPTY])
    with pytest.raises(DataError, match=r"1 of 1,000 rows are bad \(0.1%\); none may be"):
        read_groups(path, strict=True)
    assert len(read_groups(write(path, [GOOD]), strict=True).groups) == 1


def test_no_good_row_is_an_error_however_much_is_allowed(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match="none of 1 rows can be used"):
        read_groups(path, max_bad_fraction=1.0)


def test_a_truncated_gzip_is_one_bad_row_and_its_rows_are_used(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    data = gzip.compress("".join(json.dumps(GOOD | {"id": n}) + "\n" for n in range(3000)).encode())
    path.write_bytes(data[:-12])
    reading = read_groups(path)
    assert len(reading.bad_rows) == 1
    assert reading.ledger.reasons == {"truncated gzip": 1}
    assert [group.id for group in reading.groups] == list(range(len(reading.groups)))
    assert len(reading.groups) > 2000


def test_several_sources_are_read_in_order_and_told_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = write(tmp_path / "a" / "x.jsonl", [GOOD]), write(tmp_path / "b" / "x.jsonl", [EMPTY, GOOD])
    other = write(tmp_path / "y.jsonl", [GOOD])
    reading = read_groups([one, two, str(other)], max_bad_fraction=0.5)
    assert [group.source for group in reading.groups] == [f"{one}:1", f"{two}:2", "y.jsonl:1"]
    assert [row.name for row in reading.bad_rows] == [f"{two}:1"]


def test_options_that_cannot_be_meant(tmp_path):
    path = write(tmp_path / "x.jsonl", [GOOD])
    with pytest.raises(ConfigError, match="one of the sources"):
        read_groups(path, quarantine=path)
    assert path.read_text(), "the source is still there"
    with pytest.raises(ConfigError, match="no row format"):
        read_groups(path, format="pears")


def test_load_groups_gives_the_groups_and_warns_of_the_rest(tmp_path, caplog):
    path = write(tmp_path / "x.jsonl", [GOOD] * 30 + [EMPTY])
    with caplog.at_level(logging.WARNING):
        assert len(load_groups(path)) == 30
    assert "1 of 31 rows left out" in caplog.text
    assert "x.jsonl:31" in caplog.text
    caplog.clear()
    load_groups(write(path, [GOOD]))
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "read", "reasons"),
    [
        ("hh_harmless_test/uniform", 1390, {"chosen is empty": 3}),
        ("tulu_human/uniform", 377, {"identical sides": 1}),
        ("tarm_webgpt/uniform", 254, {"rejected is empty": 12, "chosen is empty": 1}),
        ("pandalm_test/uniform", 475, {"rejected is empty": 29}),
        ("cruxeval/uniform", 800, {}),
        ("prmbench/uniform", 3782, {"completions is empty": 2}),
    ],
)
def test_the_known_bad_rows_of_real_sets_are_found_and_no_others(data_root, name, read, reasons):
    """Empty answers, equal sides and empty steps are the traps that the sets' own notes list."""
    reading = read_groups(data_root / f"{name}.jsonl.gz", max_bad_fraction=1.0)
    assert reading.ledger.to_dict()["reasons"] == reasons
    assert reading.ledger.read == read
