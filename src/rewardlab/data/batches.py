"""Parquet files, folders of ``datasets`` and hub data sets -> Arrow tables, 1024 rows at a time.

This file knows how each is opened, and why it may not be. What a row is and which rows are broken, it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from rewardlab.documents import require_regular_files
from rewardlab.errors import DataError

_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk writes beside the data
_REACH_SECONDS = 10.0


def parquet_batches(path: Path, skip: int = 0) -> Iterator[Any]:
    """The record batches of a Parquet file.

    Args:
        path: The file.
        skip: Rows to leave out at its beginning; row groups that hold no others are not read.

    Raises:
        DataError: It is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # a column's name may be no text
        raise DataError(f"{path}: not a readable Parquet file ({error})", hint="write or download it again") from error
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    starts = [0, *accumulate(sizes)]
    groups = [index for index in range(len(sizes)) if starts[index + 1] > skip]
    if not skip or not groups:
        return iter(file.iter_batches(batch_size=1024, row_groups=groups))
    return _without_first(file.iter_batches(batch_size=1024, row_groups=groups), skip - starts[groups[0]])


def _without_first(batches: Iterator[Any], skip: int) -> Iterator[Any]:
    for batch in batches:
        if skip < batch.num_rows:
            yield batch.slice(skip)
        skip = max(skip - batch.num_rows, 0)


def is_saved_dataset(path: Path) -> bool:
    """Whether a path is a folder that ``datasets.save_to_disk`` wrote."""
    return any((path / name).exists() for name in _SAVED)


def saved_batches(path: Path, split: str | None) -> Iterator[Any]:
    """The tables of a folder that ``datasets.save_to_disk`` wrote.

    Raises:
        DataError: It is none, or ``split`` does not fit it.
    """
    if not is_saved_dataset(path):
        raise DataError(
            f"{path}: a folder, but not one written by datasets.save_to_disk", hint="name the data file inside it"
        )
    import datasets

    require_regular_files(path, ("**/*.json", "**/*.arrow"), DataError)
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets and pyarrow build what the files' values say, and raise a dozen kinds
        raise DataError(
            f"{path}: not a whole data set: {type(error).__name__}: {str(error)[:300]}",
            hint="write or copy the folder again",
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        names = list(loaded)
        if split not in names and (split is not None or len(names) > 1):
            raise DataError(f"{path}: asked for split {split!r}, has {', '.join(names)}", hint="name one of these")
        loaded = loaded[split or names[0]]
    elif split is not None:
        raise DataError(f"{path}: split {split!r} was asked for, but the folder has no splits", hint="leave it out")
    return iter(loaded.with_format("arrow").iter(batch_size=1024))


def hub_batches(name: str, split: str | None) -> Iterator[Any]:
    """The tables of a split of a hub data set; of the cache, where the hub cannot be reached.

    Raises:
        DataError: There is no ``split``, or it cannot be had.
    """
    if split is None:
        raise DataError(f"{name}: no such path, and a hub data set needs its split", hint="state the split, e.g. train")
    import datasets

    offline = datasets.config.HF_HUB_OFFLINE
    unreachable = None if offline else _unreachable(name)
    datasets.config.HF_HUB_OFFLINE = offline or unreachable is not None  # then its cache alone is looked into
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # datasets, huggingface_hub and the network raise a dozen kinds; the user needs one
        cause = unreachable or error
        raise DataError(
            f"{name}: cannot be loaded from the hub ({type(cause).__name__}: {cause})",
            hint="check the id, the split, the login, and that this machine is online; or, if a file or folder is "
            "meant, its path",
        ) from cause
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    return iter(loaded.with_format("arrow").iter(batch_size=1024))


def _unreachable(name: str) -> Exception | None:
    """Why the hub cannot be reached, asked once: ``datasets`` by itself asks six times within 23 seconds."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=_REACH_SECONDS)
    except HfHubHTTPError:
        return None  # an answer, if not the wished one
    except Exception as error:  # no connection or a timeout, of one of two HTTP libraries by the hub client's version
        return error
    return None
