"""The partial file and its journal: torn tails are cut, strangers refused, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from rewardlab.errors import ConfigError, RewardLabError
from rewardlab.scoring.partial import INTERNAL, Partial, beside, check_written, require_apart

HEADER = {"model": "a", "rows": 4}
COUNTS = {"reasons": {}}


def write_two_chunks(output: Path) -> None:
    with Partial(output).opened(HEADER, restart=False) as partial:
        partial.append([{"id": 0}, {"id": 1}], COUNTS)
        partial.append([{"id": 2}], COUNTS)


@pytest.mark.parametrize("lost", range(1, 12))
def test_a_torn_tail_is_cut_off_and_written_again(tmp_path: Path, lost: int) -> None:
    output = tmp_path / "out.jsonl"
    write_two_chunks(output)
    path = tmp_path / "out.jsonl.partial"
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    with Partial(output).opened(HEADER, restart=False) as partial:
        assert partial.total("rows") == (2 if lost <= len('{"id": 2}\n') else 0)
        for row in range(partial.total("rows"), 3):
            partial.append([{"id": row}], COUNTS)
    assert path.read_bytes() == whole


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    write_two_chunks(output)
    path = tmp_path / "out.jsonl.partial"
    path.write_bytes(path.read_bytes().replace(b"1", b"7", 1))
    with Partial(output).opened(HEADER, restart=False) as partial:
        assert partial.chunks == []


def test_the_partial_of_another_command_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    write_two_chunks(output)
    refused = pytest.raises(ConfigError, match="model was 'a', is now 'b'")
    with refused, Partial(output).opened({**HEADER, "model": "b"}, restart=False):
        pass
    with Partial(output).opened({**HEADER, "model": "b"}, restart=True) as partial:
        assert partial.chunks == []


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with Partial(output).opened(HEADER, restart=False):
        second = pytest.raises(ConfigError, match="another process is writing")
        with second, Partial(output).opened(HEADER, restart=False):
            pass


def test_only_files_that_the_run_has_noted_are_its_own(tmp_path: Path) -> None:
    """Whatever else is there somebody else wrote, also where this run has left its rows."""
    output, own, other = (tmp_path / name for name in ("out.jsonl", "own.jsonl", "other.jsonl"))
    with Partial(output).opened(HEADER, restart=False) as partial:
        partial.append([{"id": 0}], COUNTS)
        partial.place([own, output])
    for path in (output, own, other):
        Partial(output).require_free(path)
        path.write_text("")
    for _ in range(2):
        Partial(output).require_free(own)
        Partial(output).require_free(other, overwrite=True)
        with pytest.raises(ConfigError, match=r"other.jsonl exists already"):
            Partial(output).require_free(other)
        with Partial(output).opened(HEADER, restart=False) as partial:  # what is its own stays so
            assert partial.total("rows") == 1
            with pytest.raises(ConfigError, match=r"other.jsonl exists already"):
                partial.place([other, output])
            partial.place([own, output])


def test_files_of_rows_that_were_thrown_away_may_be_replaced(tmp_path: Path) -> None:
    """By the run that threw them away, by the one that goes on with it, and to the last moment."""
    output, own, other = (tmp_path / name for name in ("out.jsonl", "own.jsonl", "other.jsonl"))
    with Partial(output).opened(HEADER, restart=False) as partial:
        partial.append([{"id": 0}], COUNTS)
        partial.place([own, output])
    for path in (own, output, other):
        path.write_text("")
    for restart in (True, True, False):
        with Partial(output).opened({**HEADER, "model": "b"}, restart=restart) as partial:
            assert partial.total("rows") == 0
            partial.require_free(own)
            with pytest.raises(ConfigError, match=r"other.jsonl exists already"):
                partial.require_free(other)
    with Partial(output).opened({**HEADER, "model": "b"}, restart=False) as partial:
        partial.append([{"id": 1}], COUNTS)
        partial.place([own, output])
    with Partial(output).opened({**HEADER, "model": "b"}, restart=False) as partial:
        assert partial.total("rows") == 1
        partial.require_free(own)


def test_files_in_their_places_stay_the_runs_own_where_its_rows_are_torn(tmp_path: Path) -> None:
    """A restart that was killed when it had emptied the rows, and not yet the journal."""
    output = tmp_path / "out.jsonl"
    with Partial(output).opened(HEADER, restart=False) as partial:
        partial.append([{"id": 0}], COUNTS)
        partial.place([output])
    output.write_text("old")
    partial.rows_path.write_bytes(b"")
    with Partial(output).opened(HEADER, restart=False) as partial:
        assert partial.total("rows") == 0
        partial.require_free(output)
    partial.rows_path.unlink()  # the output is not made of this journal's rows: all of them are still to do
    with Partial(output).opened(HEADER, restart=False) as partial:
        assert partial.rows_path.exists()


def test_a_damaged_journal_is_refused_and_thrown_away(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    write_two_chunks(output)
    partial = Partial(output)
    for content in (b"", b"not json\n", b"\xff\n"):
        partial.journal_path.write_bytes(content)
        for path in (partial.rows_path, output):
            path.touch()
            with pytest.raises(ConfigError, match="damaged"), Partial(output).opened(HEADER, restart=False):
                pass
        assert partial.rows_path.stat().st_size
        with pytest.raises(ConfigError, match=r"out.jsonl exists already"):
            partial.require_free(output)
        assert partial.rows_path.exists()
        output.unlink()
    with Partial(output).opened(HEADER, restart=True) as restarted:
        assert restarted.chunks == []


def test_rows_of_a_finished_run_are_in_nobodys_way(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    write_two_chunks(output)
    Partial(output).journal_path.unlink()
    with pytest.raises(ConfigError, match="without its journal"), Partial(output).opened(HEADER, restart=False):
        pass
    rows = Partial(output).rows_path
    before = rows.read_bytes()
    other = tmp_path / "other.jsonl"
    other.write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        Partial(output).require_free(other)
    assert rows.read_bytes() == before  # no output: they may be all there is
    output.write_text("")  # it was killed between the journal and the rows
    with Partial(output).opened(HEADER, restart=False) as partial:
        assert partial.chunks == []
        with pytest.raises(ConfigError, match="exists already"):
            Partial(output).require_free(output)
        assert rows.exists()  # somebody is writing them
    partial.journal_path.unlink()
    with open(rows, "wb") as file:
        file.write(before)
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="exists already"):
            Partial(output).require_free(output)
        assert rows.exists()
    with pytest.raises(ConfigError, match="exists already"):
        Partial(output).require_free(output)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["other.jsonl", "out.jsonl"]


def test_files_named_like_what_a_run_keeps_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    require_apart([output, tmp_path / "out", tmp_path / "other" / "out.jsonl.partial"], [output])
    for ending in INTERNAL:
        with pytest.raises(ConfigError, match=r"keeps beside its output .*out.jsonl\n"):
            require_apart([tmp_path / "." / f"out.jsonl{ending}"], [output])
    assert beside(output).name in {f"out.jsonl{ending}" for ending in INTERNAL}


@pytest.mark.parametrize("already", [False, True])
def test_a_journal_that_cannot_be_written_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, already: bool
) -> None:
    """A full disk; what was safe before still is."""
    output = tmp_path / "out.jsonl"
    if already:
        write_two_chunks(output)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr("rewardlab.scoring.partial.replace_safely", full)
    with pytest.raises(OSError, match="No space"), Partial(output).opened(HEADER, restart=False):
        pass
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == {"out.jsonl.partial": b"", **before}


def test_a_place_that_cannot_be_written_in_is_no_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's fault, exit status 1; a file where a folder would have to be is the command's, 2."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        check_written([], {"the output": tmp_path / "file" / "out.jsonl"})
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(RewardLabError, match="cannot be written in") as caught:
        check_written([], {"the output": tmp_path / "out.jsonl"})
    assert not isinstance(caught.value, ConfigError)

    def refused(path: Path, *modes: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(RewardLabError, match="Permission denied") as caught:
        check_written([], {"the output": tmp_path / "new" / "out.jsonl"})
    assert not isinstance(caught.value, ConfigError)
