"""A run's resumable checkpoints on disk: whole or not there, and proved whole before a run goes on from one.

A checkpoint is written into a folder beside, gets a manifest with the size and SHA-256 of each of its files, is made
safe on disk and takes its name last. This file knows folders, names and hashes; it does not know what is in the files.

    checkpoint-12/            a checkpoint, its manifest in MANIFEST
    damaged-checkpoint-12/    one that is not what its manifest says, kept for whoever wants to know why
    .saving/checkpoint-12/    one that is being written
    .removing-checkpoint-8/   one that is being removed
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardlab.errors import CheckpointError
from rewardlab.files import replace_safely, sync_tree, write_safely

MANIFEST = "checkpoint_manifest.json"
SAVING = ".saving"
KEPT_AT_LEAST = 2
"""So many checkpoints stay whatever ``save_total_limit`` says: one, and one before it should it be damaged."""

_PREFIX, _DAMAGED, _REMOVING = "checkpoint-", "damaged-", ".removing-"


@dataclass(frozen=True, slots=True)
class SavedRun:
    """What a manifest says of the run that wrote it.

    Attributes:
        step: Optimiser steps done.
        world_size: Its processes.
        engine: What held its weights: ``"whole"`` (each process all of them: alone, DDP), or what wrote shards.
        versions: Of the libraries that wrote it.
    """

    step: int
    world_size: int = 1
    engine: str = "whole"
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """The checkpoint to go on from.

    Attributes:
        folder: It.
        run: What its manifest says; None of one without a manifest, which older versions of rewardlab wrote.
    """

    folder: Path
    run: SavedRun | None


def step_of(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint is named after; -1 of a name that is no checkpoint's."""
    digits = checkpoint.name.removeprefix(_PREFIX)
    return int(digits) if checkpoint.name.startswith(_PREFIX) and digits.isdecimal() else -1


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first, whether they are whole or not."""
    return sorted((path for path in folder.glob(f"{_PREFIX}*") if step_of(path) >= 0), key=lambda path: -step_of(path))


def saving_folder(folder: Path) -> Path:
    """Where a run's next checkpoint is written before it takes its name."""
    return folder / SAVING


def finish_checkpoint(folder: Path, run: SavedRun) -> Path:
    """Give a checkpoint that lies in :func:`saving_folder` its manifest, make it safe on disk, and then its name.

    Args:
        folder: The run's ``training/``.
        run: What its manifest is to say.

    Returns:
        The checkpoint.

    Raises:
        OSError: It cannot be written; checkpoints that were there before still are.
    """
    made, target = saving_folder(folder) / f"{_PREFIX}{run.step}", folder / f"{_PREFIX}{run.step}"
    write_manifest(made, run)
    sync_tree(made)
    former = _aside(target, _REMOVING) if target.exists() else None  # a rename cannot replace a folder that has files
    replace_safely(made, target)
    if former is not None:
        shutil.rmtree(former, ignore_errors=True)
    shutil.rmtree(saving_folder(folder), ignore_errors=True)
    return target


def write_manifest(checkpoint: Path, run: SavedRun) -> None:
    """Write what is in a checkpoint into it: of each file its size and SHA-256."""
    files = {str(path.relative_to(checkpoint)): _facts_of(path) for path in _files_in(checkpoint)}
    content = {
        "step": run.step,
        "world_size": run.world_size,
        "engine": run.engine,
        "versions": dict(run.versions),
        "files": files,
    }
    write_safely(checkpoint / MANIFEST, _manifest_text(content))


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None where it is what its manifest says.

    One without a manifest is taken as it is where ``trainer_state.json`` can be read, which transformers writes last.
    """
    path = checkpoint / MANIFEST
    if not path.exists():
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "it was not saved to its end: trainer_state.json is missing or cannot be read"
        return None
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)["content"]
        files = content["files"]
        _run_of(content)
        if text != _manifest_text(content):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not what was written"
    there = {str(found.relative_to(checkpoint)) for found in _files_in(checkpoint)}
    for name in sorted(files):
        if name not in there:
            return f"{name} is missing"
        found, expected = _facts_of(checkpoint / name), files[name]
        if found["size"] != expected["size"]:
            return f"{name} has {found['size']:,} bytes, not {expected['size']:,}"
        if found != expected:
            return f"{name} has other content than was written (SHA-256)"
    return None


def last_whole_checkpoint(folder: Path, report: Callable[[str], None]) -> FoundCheckpoint | None:
    """The newest checkpoint that is what its manifest says; damaged ones are renamed aside, and each is told.

    Args:
        folder: The run's ``training/``.
        report: Called with a line for each that is passed over.

    Returns:
        None where the run never saved any.

    Raises:
        CheckpointError: All that it saved are damaged.
    """
    for path in checkpoints_in(folder):
        damage = damage_of(path)
        if damage is None:
            if (path / MANIFEST).exists():
                content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["content"]
                return FoundCheckpoint(path, _run_of(content))
            report(f"{path.name} has no {MANIFEST}, by which it could be checked: an older version saved it")
            return FoundCheckpoint(path, None)
        kept = _aside(path, _DAMAGED)
        report(f"warning: {path.name} is damaged and is passed over: {damage}; it is kept as {kept.name}")
    damaged = sorted(path.name for path in folder.glob(f"{_DAMAGED}{_PREFIX}*"))
    if damaged:
        raise CheckpointError(
            f"{folder} holds no checkpoint that is whole: {', '.join(damaged)}",
            hint=f"restore one from a backup, under its name without {_DAMAGED!r}; or start again, without --resume, "
            "with another --output",
        )
    return None


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill has left of checkpoints that were being written or removed."""
    for path in (saving_folder(folder), *folder.glob(f"{_REMOVING}*")):
        shutil.rmtree(path, ignore_errors=True)


def remove_old(folder: Path, limit: int | None, keep: Iterable[str | Path | None] = ()) -> None:
    """Remove the oldest checkpoints.

    Each is renamed before its files go, so that none of them is ever half a checkpoint.

    Args:
        folder: The run's ``training/``.
        limit: Most checkpoints to keep, :data:`KEPT_AT_LEAST` where it is less; None or 0 for all.
        keep: Checkpoints to keep besides, within the limit, such as the best.
    """
    if not limit or limit < 0:
        return
    names = {Path(path).name for path in keep if path}
    newest, *others = checkpoints_in(folder) or [folder]
    others.sort(key=lambda path: (path.name not in names, -step_of(path)))  # the newest stays, then those to keep
    for path in [newest, *others][max(limit, KEPT_AT_LEAST) :]:
        shutil.rmtree(_aside(path, _REMOVING), ignore_errors=True)


def _aside(path: Path, prefix: str) -> Path:
    """Rename a checkpoint to a free name that is no checkpoint's; returns it."""
    name, number = path.with_name(f"{prefix}{path.name}"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{prefix}{path.name}-{number}")
    os.replace(path, name)
    return name


def _files_in(checkpoint: Path) -> list[Path]:
    """All files but the manifest itself."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / MANIFEST)


def _facts_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _manifest_text(content: Mapping[str, Any]) -> str:
    """The manifest as it is written, with its own hash: a byte that changes in it shows too."""
    own = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({"content": content, "sha256": own}, sort_keys=True, indent=1) + "\n"


def _run_of(content: Mapping[str, Any]) -> SavedRun:
    return SavedRun(content["step"], content["world_size"], content["engine"], content["versions"])
