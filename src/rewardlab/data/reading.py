"""Files, folders and hub ids -> raw rows, each with the place it came from.

This file knows containers (JSON Lines, JSON arrays, CSV, gzip, zstd; what opens as Arrow tables, ``batches`` opens) and
what can be broken about them. It does not know what a row means: that is ``formats``. A row that cannot be read is
handed on as a problem with its place, so that the caller can count it; only a source that cannot be opened at all is an
error.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from rewardlab.data.batches import hub_batches, parquet_batches, saved_batches
from rewardlab.documents import require_regular
from rewardlab.errors import DataError

_FORMATS = (".jsonl", ".json", ".ndjson", ".parquet", ".csv")
_COMPRESSIONS = (".gz", ".zst")
KNOWN_NAMES = f"{', '.join(_FORMATS)}, all but .parquet also with {' or '.join(_COMPRESSIONS)}"
"""How a data file's name ends, as hints say it."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SPACE = re.compile(r"[ \t\n\r]*")  # what JSON takes for space
_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 16  # bytes at a time; of gzip, which compresses a thousandfold at most, they become 64 MiB
_ZSTD_PIECE = 1 << 10  # of zstd, where 4 bytes may stand for 128 KiB, these become 32 MiB
_MOST_LINE = 1 << 26
_MOST_ARRAY = 1 << 26
_MOST_RATIO = 100  # an array is held whole, so that a small file must not become a large one


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was found.

    Attributes:
        file: The file, folder or hub id as it was asked for.
        line: 1-based line of a JSON Lines file, 1-based row of any other source (of a JSON array the element; a CSV
            header is not a row).
        row: The columns; None for a row that cannot be read.
        problem: Why the row cannot be read, ``"kind: detail"``; None for a good one.
        text: The broken text, where there is any, so that the row can be repaired.
        offset: The byte at which its line begins in a JSON Lines file that is not compressed; None elsewhere.
    """

    file: str
    line: int
    row: dict[str, Any] | None = None
    problem: str | None = None
    text: str | None = None
    offset: int | None = None

    @property
    def name(self) -> str:
        """How errors name the row: ``"pairs.jsonl:17"``."""
        return f"{Path(self.file).name}:{self.line}"


def iter_rows(
    source: str | Path, *, split: str | None = None, first: int = 1, offset: int | None = None
) -> Iterator[RawRow]:
    """Every row of a source, in order, the unreadable ones included.

    Args:
        source: A ``.jsonl``/``.json``/``.ndjson`` (one object per line; a ``.json`` may be one array of objects, which
            is held in memory whole) or ``.csv`` file, each also as ``.gz`` or ``.zst`` (told by the first bytes); a
            ``.parquet`` file; a folder written by ``datasets.save_to_disk``; or a hub id ``owner/name``.
        split: The split of a hub id, or of a folder that holds several.
        first: The ``line`` to begin with. What is before it is not read in Parquet, nor, with ``offset``, in JSON
            Lines; elsewhere it is read and passed over.
        offset: That row's :attr:`RawRow.offset`, where it is known.

    Returns:
        An iterator of rows. Blank lines are no rows. A compressed file that ends too soon, or is damaged, and an
        array that is no JSON from some element on, give the rows before the damage and then one unreadable row.

    Raises:
        DataError: The source does not exist, is of an unknown kind, or cannot be opened; or ``split`` does not fit it.
    """
    path = Path(source)
    if first > 1 and offset is not None:
        return _json_rows(path, first, offset)
    if first > 1 and not is_hub_id(source) and path.is_file() and _kind(path) == ".parquet":
        return _table_rows(str(source), parquet_batches(path, first - 1), first - 1)
    if first > 1:
        return (raw for raw in iter_rows(source, split=split) if raw.line >= first)
    if is_hub_id(source):
        return _table_rows(str(source), hub_batches(str(source), split))
    if not path.exists():
        raise DataError(f"{source}: no such file or folder", hint="a hub data set is named owner/name, with a split")
    if path.is_dir():
        return _table_rows(str(source), saved_batches(path, split))
    require_regular(path, DataError, hint="write what it gives to a file first")
    if split is not None:
        raise DataError(
            f"{source}: split {split!r} was asked for, but a file has no splits", hint="leave the split out"
        )
    kind = _kind(path)
    if kind == ".parquet":
        return _table_rows(str(source), parquet_batches(path))
    if kind == ".csv":
        return _csv_rows(path)
    if kind == ".json" and _is_array(path):
        return _array_rows(path)
    return _json_rows(path)


def fingerprint(source: str | Path, *, split: str | None = None) -> str:
    """A stable name for the data of a source: a SHA-256, in hex.

    Of a file: of its bytes. Of a folder: of its files' names and bytes. Of a hub id: of its rows as canonical JSON.

    Raises:
        DataError: As :func:`iter_rows`.
    """
    digest = hashlib.sha256()
    path = Path(source)
    if is_hub_id(source):
        for raw in iter_rows(source, split=split):
            digest.update(json.dumps(raw.row or raw.problem, sort_keys=True, default=str).encode())
        return digest.hexdigest()
    if not path.exists():
        raise DataError(f"{source}: no such file or folder")
    if not path.is_dir():
        require_regular(path, DataError, hint="write what it gives to a file first")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + bytes.fromhex(fingerprint(file)))
    return digest.hexdigest()


def is_hub_id(source: str | Path) -> bool:
    """Whether a source is taken as a hub id: ``owner/name``, not a path that exists, not a data file's name."""
    return (
        isinstance(source, str)
        and _HUB_ID.fullmatch(source) is not None
        and not Path(source).exists()
        and not Path(source).parent.exists()
        and not source.lower().endswith(_FORMATS + _COMPRESSIONS)
    )


def is_data_file(path: Path) -> bool:
    """Whether a path is a file that is named like data (:data:`KNOWN_NAMES`)."""
    return path.is_file() and _format(path) is not None


def _format(path: Path) -> str | None:
    """The format by the file's name, without a compression's suffix."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _FORMATS else None


def _kind(path: Path) -> str:
    found = _format(path)
    if found is None:
        raise DataError(f"{path}: cannot tell the format from the name", hint=f"known: {KNOWN_NAMES}")
    return found


# -- text files ------------------------------------------------------------------------------------------------------


class _DamagedError(Exception):
    """A compressed file ends too soon or does not decompress; what came before it is good."""


def _blocks(stream: BufferedReader) -> Iterator[bytes]:
    """The decompressed bytes of an open file, whatever its compression.

    Own loop rather than ``gzip.open``: gzip and zstd share it, and python-zstandard's stream reader takes a truncated
    file for a whole one.
    """
    magic = stream.peek(4)
    new: Callable[[], Any]
    broken: type[Exception]
    if magic.startswith(_GZIP):
        name, broken, new = "gzip", zlib.error, lambda: zlib.decompressobj(wbits=31)
    elif magic.startswith(_ZSTD):
        import zstandard

        name, broken, new = "zstd", zstandard.ZstdError, lambda: zstandard.ZstdDecompressor().decompressobj()
    else:
        yield from iter(lambda: stream.read(_BLOCK), b"")
        return
    part, fresh = new(), True
    while block := stream.read(_BLOCK):
        while block:
            piece, block = (block, b"") if name == "gzip" else (block[:_ZSTD_PIECE], block[_ZSTD_PIECE:])
            try:
                data = part.decompress(piece)
            except broken as error:
                raise _DamagedError(f"damaged {name}: {error}") from error
            yield data
            fresh = part.eof
            if fresh:
                block = part.unused_data + block
                part = new()  # files joined with `cat` are read through
    if not fresh:
        raise _DamagedError(f"truncated {name}: the file ends in the middle")


def _lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    r"""Lines without their ``\n``. Only that byte ends one: U+2028 and the like may stand inside a JSON string."""
    rest, length = list[bytes](), 0
    with path.open("rb") as stream:
        stream.seek(offset)
        for block in _blocks(stream) if not offset else iter(lambda: stream.read(_BLOCK), b""):
            first, *others = block.split(b"\n")
            rest.append(first)
            length += len(first)
            if length > _MOST_LINE:
                raise _DamagedError(f"line too long: more than {_MOST_LINE:,} bytes; from here on nothing can be read")
            if others:
                yield b"".join(rest)
                yield from others[:-1]
                rest = [others[-1]]
                length = len(others[-1])
    if any(rest):
        yield b"".join(rest)


def _json_rows(path: Path, first: int = 1, offset: int = 0) -> Iterator[RawRow]:
    with path.open("rb") as stream:
        compressed = not offset and stream.read(4).startswith((_GZIP, _ZSTD))
    number = first - 1
    try:
        for number, line in enumerate(_lines(path, offset), start=first):
            start, offset = offset, offset + len(line) + 1
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.strip():
                yield _json_row(str(path), number, line, None if compressed else start)
    except _DamagedError as error:
        yield RawRow(str(path), number + 1, problem=str(error))


def _json_row(file: str, number: int, line: bytes, offset: int | None = None) -> RawRow:
    text = line.decode("utf-8", errors="backslashreplace")
    try:
        row = json.loads(line.decode("utf-8"))
        # Valid UTF-8 has no lone surrogates, so that only an escape such as \ud800 can have brought one.
        surrogate = _surrogate_column(row) if "\\u" in text and isinstance(row, dict) else None
    except UnicodeDecodeError as error:
        return RawRow(file, number, problem=f"invalid UTF-8: byte {error.start + 1} of the row", text=text)
    except json.JSONDecodeError as error:
        return RawRow(file, number, problem=f"broken JSON: {error.msg}, column {error.colno}", text=text)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; brackets nested thousands deep
        return RawRow(file, number, problem=f"broken JSON: {error}", text=text)
    if not isinstance(row, dict):
        return RawRow(file, number, problem=f"not an object: {type(row).__name__}", text=text)
    if surrogate is not None:
        return RawRow(file, number, problem=f"lone surrogate: in {surrogate!r}", text=text)
    return RawRow(file, number, row=row, offset=offset)


def _surrogate_column(row: dict[str, Any]) -> str | None:
    """The first column with a string, at any depth, that cannot be written as UTF-8."""
    for column, value in row.items():
        try:
            json.dumps([column, value], ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return column.encode("ascii", errors="backslashreplace").decode()
    return None


def _is_array(path: Path) -> bool:
    """Whether a ``.json`` file is one array; else it has one object per line."""
    with path.open("rb") as stream:
        try:
            blocks = (block.removeprefix(_BOM).strip() for block in _blocks(stream))
            return next((block[:1] for block in blocks if block), b"") == b"["
        except _DamagedError:
            return False  # told by the reading itself


def _array_rows(path: Path) -> Iterator[RawRow]:
    """The elements of one array. Each is found by its syntax, then read as a line is."""
    number, blocks, problem = 0, list[bytes](), ""
    with path.open("rb") as stream:
        try:
            most = max(_MOST_ARRAY, _MOST_RATIO * path.stat().st_size)
            for block in _blocks(stream):
                blocks.append(block)
                most -= len(block)
                if most < 0:
                    raise _DamagedError(f"too large: it inflates more than {_MOST_RATIO} times, as no text does")
        except _DamagedError as error:
            problem = str(error)
    # Bytes that are not UTF-8 become lone surrogates here, and what they were where the element is read.
    text = b"".join(blocks).removeprefix(_BOM).decode("utf-8", errors="surrogateescape")
    decode = json.JSONDecoder().raw_decode
    try:
        end = _after_space(text, text.index("[") + 1)
        more = text[end : end + 1] != "]"
        while more:
            start, (_, end) = end, decode(text, end)
            number += 1
            yield _json_row(str(path), number, text[start:end].encode("utf-8", errors="surrogateescape"))
            end = _after_space(text, end)
            if text[end : end + 1] not in {",", "]"}:
                raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
            more = text[end] == ","
            end = _after_space(text, end + more)
        end = _after_space(text, end + 1)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except (ValueError, RecursionError) as error:
        problem = problem or f"broken JSON: {error}; from here on nothing can be read"
    if problem:
        yield RawRow(str(path), number + 1, problem=problem)


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _csv_rows(path: Path) -> Iterator[RawRow]:
    """Rows of a CSV file with a header; every value is text, an empty cell is None."""
    number, damage = 0, list[str]()

    def decoded() -> Iterator[str]:
        try:
            for index, line in enumerate(_lines(path)):
                # Not-UTF-8 bytes become lone surrogates here, which the check below finds.
                text = line.decode("utf-8", errors="surrogateescape")
                yield (text.removeprefix("\ufeff") if index == 0 else text) + "\n"
        except _DamagedError as error:
            damage.append(str(error))

    csv.field_size_limit(1 << 30)  # the default, 128 KiB, is shorter than some conversations
    reader = csv.DictReader(decoded(), strict=True)
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield RawRow(str(path), number, problem=f"broken CSV: {error}")
            continue
        row = {column: value or None for column, value in cells.items()}
        if None in cells or any(value is None for value in cells.values()):
            width = len(reader.fieldnames or ())
            yield RawRow(str(path), number, problem=f"broken CSV: not {width} cells as in the header", text=str(row))
        elif (column := _surrogate_column(row)) is not None:
            yield RawRow(str(path), number, problem=f"invalid UTF-8: in {column!r}", text=str(row))
        else:
            yield RawRow(str(path), number, row=row)
    if damage:
        yield RawRow(str(path), number, problem=damage[0])


# -- tables ----------------------------------------------------------------------------------------------------------


def _table_rows(file: str, batches: Iterator[Any], number: int = 0) -> Iterator[RawRow]:
    """Rows of Arrow tables or record batches, one after the other, counted from ``number``."""
    from pyarrow import ArrowException

    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (OSError, ArrowException) as error:  # of broken pages some are the one, some the other
            yield RawRow(file, number + 1, problem=f"damaged file: {error}")
            return
        for row in _rows_of(batch):
            number += 1
            if isinstance(row, dict):
                yield RawRow(file, number, row=row)
            else:
                utf8 = isinstance(row, UnicodeDecodeError) or "UTF8" in str(row)
                yield RawRow(file, number, problem=f"{'invalid UTF-8' if utf8 else 'damaged file'}: {row}")


def _rows_of(batch: Any) -> list[dict[str, Any] | Exception]:
    """The rows of one batch; those that are damaged, or whose text is not UTF-8, as the error.

    Arrow takes offsets and lengths as a file has them: read without having been validated, they may be of any memory.
    """
    from pyarrow import ArrowException

    try:
        batch.validate(full=True)
        return list(batch.to_pylist())
    except (ArrowException, ValueError, OverflowError) as error:  # bytes that are no text; a date that Python has not
        if batch.num_rows <= 1:
            return [error] * batch.num_rows
    return [row for index in range(batch.num_rows) for row in _rows_of(batch.slice(index, 1))]
