"""Any bytes in a data file are rows, bad rows or a DataError; never another exception, a wait or unbounded memory."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mutations import changed_value, damaged, json_text, nested

from rewardlab.data.loading import read_groups
from rewardlab.errors import DataError

ROWS = [
    {"prompt": "p", "chosen": "good", "rejected": "bad", "id": "a", "margin": 1.0, "weight": 2},
    {"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b", "p_chosen": 0.7},
    {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [1, 2, 2]},
    {"prompt": "p", "completion": "x", "label": True},
    {"prompt": "p", "steps": ["a", "b"], "labels": [1, -1]},
]


def json_lines(draw: random.Random) -> bytes:
    chosen = draw.choices(ROWS, k=3)
    if draw.random() < 0.4:
        return damaged(b"\n".join(json.dumps(row).encode() for row in chosen), draw)
    lines = [json_text(changed_value(row, draw), draw).replace(b"\n", b" ") for row in chosen]
    return b"\n".join([*lines, nested(50_000, draw.randrange(3))] if draw.random() < 0.1 else lines)


def compressed(draw: random.Random) -> bytes:
    pack = draw.choice((gzip.compress, zstandard.ZstdCompressor().compress))
    return damaged(pack(json_lines(draw)), draw)


def array(draw: random.Random) -> bytes:
    return damaged(json_text(changed_value(ROWS, draw), draw), draw)


def cells(draw: random.Random) -> bytes:
    lines = [b"prompt,chosen,rejected,margin", b'p,"a\n""b""",c,1', b"p,a,b,", b"p,a,b,c,d", b'"open']
    return damaged(b"\n".join(draw.choices(lines[1:], k=3) if draw.random() < 0.2 else lines[:3]), draw)


def parquet(draw: random.Random) -> bytes:
    sink = pa.BufferOutputStream()
    odd = [
        pa.nulls(3),
        pa.array(["x", None, "y"]).dictionary_encode(),
        pa.array([b"\xff"] * 3),
        pa.array([[1], [], [2]]),
    ]
    columns = {"prompt": ["p", "q", "r"], "chosen": ["a", "b", "c"], "rejected": draw.choice(odd)}
    pq.write_table(pa.table(columns), sink, compression=draw.choice(("none", "snappy", "zstd")))
    return damaged(sink.getvalue().to_pybytes(), draw)


WRITERS: dict[str, Callable[[random.Random], bytes]] = {
    "f.jsonl": json_lines,
    "f.jsonl.gz": compressed,
    "f.json": array,
    "f.csv": cells,
    "f.parquet": parquet,
}


def accounted_for(path: Path, seed: int) -> None:
    """Every row that was read is used or has its reason."""
    path.write_bytes(WRITERS[path.name](random.Random(seed)))
    with suppress(DataError):
        reading = read_groups(path, max_bad_fraction=None)
        assert reading.ledger.read == len(reading.groups) + len(reading.bad_rows)
        assert all(row.reason for row in reading.bad_rows)


@pytest.mark.parametrize("name", WRITERS)
def test_a_broken_file_is_accounted_for(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("fuzz")

    @settings(max_examples=40)
    @given(st.integers(0, 10**9))
    def check(seed: int) -> None:
        accounted_for(folder / name, seed)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_many_broken_files_are_accounted_for(tmp_path: Path, name: str) -> None:
    for seed in range(300):
        accounted_for(tmp_path / name, 10**9 + seed)


@pytest.mark.parametrize("name", ["f.jsonl", "f.json", "f.csv", "f.parquet"])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(DataError, match="it is a pipe, expected a regular file"):
        read_groups(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is a device"):
        read_groups(path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises((DataError, OSError)):
        read_groups(path)


@pytest.mark.slow
def test_an_arrow_file_with_offsets_of_other_memory_is_refused(tmp_path: Path) -> None:
    """Read without having been validated, such offsets end the process."""
    import datasets

    datasets.disable_progress_bars()
    rows = {"prompt": ["p" * 40] * 4, "chosen": ["a"] * 4, "rejected": ["b"] * 4}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "set"))
    (file,) = (tmp_path / "set").glob("*.arrow")
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 40, 80, 120, 160))
    content = file.read_bytes()
    assert content.count(offsets) == 1
    file.write_bytes(content.replace(offsets, offsets[:4] + (2**31 - 64).to_bytes(4, "little") + offsets[8:]))
    code = "import sys; from rewardlab.data.loading import read_groups; read_groups(sys.argv[1])"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "set")], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 1, ran.stderr  # a segmentation fault is -11
    assert "damaged file" in ran.stderr


BOMB = """
import resource, sys
from rewardlab.data.loading import read_groups
from rewardlab.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_groups(sys.argv[1])
except DataError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error.message)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["f.jsonl.gz", "f.json.gz", "f.csv.gz", "f.jsonl.zst", "f.json.zst"])
def test_a_bomb_takes_bounded_memory(tmp_path: Path, name: str) -> None:
    path, mebibyte = tmp_path / name, (b'["' if ".json." in name else b"xx") + b" " * ((1 << 20) - 2)
    pack = gzip.compress if name.endswith(".gz") else zstandard.ZstdCompressor().compress
    path.write_bytes(pack(mebibyte) * 1500)  # files joined are one file; to compress it whole would take half a minute
    ran = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, timeout=300, check=True
    )
    grown, message = int(ran.stdout.split()[0]), ran.stdout
    assert grown < 500, message
    assert "too long" in message or "too large" in message or "rows are bad" in message or "none of" in message
