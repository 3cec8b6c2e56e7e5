"""Small files read whole: what is no regular file, too large, no UTF-8 or no JSON is told, with the error asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.mutations import nested

from rewardlab.documents import (
    MOST_DEPTH,
    parse_json,
    read_bytes,
    read_json,
    read_json_object,
    read_text,
    require_regular,
    require_regular_files,
)
from rewardlab.errors import CheckpointError, ConfigError, DataError


def test_a_file_comes_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a\r\n\xc3\xa9")
    assert read_bytes(path, DataError) == b"a\r\n\xc3\xa9"
    assert read_text(path, DataError) == "a\r\né"
    path.write_text('{"a": [1, null]}', encoding="utf-8")
    assert read_json_object(path, DataError) == read_json(path, DataError) == {"a": [1, None]}
    require_regular(path, DataError)


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe.json", "folder", "zero", "broken", "loop", "absent", "x" * 5000, "nul\0"):
        for read in (read_bytes, require_regular):
            with pytest.raises(CheckpointError, match="cannot be read"):
                read(tmp_path / name, CheckpointError)
    with pytest.raises(DataError, match="pipe"):
        require_regular_files(tmp_path, ["*.json"], DataError)
    assert stat.S_ISFIFO((tmp_path / "pipe.json").stat().st_mode)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(ConfigError, match=r"1,099,511,627,776 bytes, expected at most 1,000"):
        read_bytes(path, ConfigError, most_bytes=1000)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff", "not UTF-8 text .byte 0 is 0xff"),
        (b"", "Expecting value"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"9" * 5000, "digits"),
        (nested(MOST_DEPTH + 1), "nested deeper"),
        (nested(100_000, 1), "nested deeper"),
    ],
)
def test_what_is_no_json_is_told(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_json(path, DataError, hint="mend it")
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.hint == "mend it"


def test_an_object_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="expected a JSON object, got a list"):
        read_json_object(tmp_path / "f", DataError)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e999", '{"a": 1, "a": 2}', '"\\ud800"', '{"\\udc00": 1}'])
def test_strict_json_has_one_meaning(text: str) -> None:
    parse_json(text)
    with pytest.raises(ValueError, match=r"number|float|twice|surrogates"):
        parse_json(text, strict=True)
    assert parse_json('["\\ud83d\\ude00", 1.5]', strict=True) == ["😀", 1.5]
    assert parse_json(nested(MOST_DEPTH).decode(), strict=True)
