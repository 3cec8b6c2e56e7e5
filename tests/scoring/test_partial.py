"""The partial file and its journal: torn tails are cut, strangers refused, one writer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.errors import ConfigError
from rewardlab.scoring.partial import Partial

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


def test_complete_when_all_rows_are_there(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert not Partial(output).is_complete()
    write_two_chunks(output)
    assert not Partial(output).is_complete()
    with Partial(output).opened(HEADER, restart=False) as partial:
        partial.append([{"id": 3}], COUNTS)
    assert Partial(output).is_complete()
