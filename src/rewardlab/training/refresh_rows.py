"""The rows of a refresh: the old run's, found again and proven to be the same, and the new ones beside them.

Nothing that measures is trained on: the old held-out rows stay held out with all other rows of their prompts, and so do
the rows of excluded files (a canary) and what earlier models held out, whichever file they came from. Each row that is
left out is counted. This file knows files and groups; it trains nothing. When two rows are the same,
:mod:`rewardlab.training.kept_out` says.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rewardlab.data.fingerprints import groups_fingerprint
from rewardlab.data.ledger import Ledger
from rewardlab.data.loading import Reading
from rewardlab.data.reading import fingerprint, is_hub_id
from rewardlab.data.splits import split_by_prompt
from rewardlab.errors import ConfigError, DataError
from rewardlab.training.held_out import read_held_out
from rewardlab.training.kept_out import read_kept_out, replaced_rows, without_prompts, without_repeats
from rewardlab.training.refresh import OldRun
from rewardlab.types import PromptGroup

Read: TypeAlias = Callable[[list[str], str | None, str, str], Reading]
"""Files, their split, their row format and the name of the quarantine file -> what was read."""

IN_HELD_OUT = "held out: its prompt, or without one a completion, is among the held-out rows"
EXCLUDED = "excluded: its prompt, or without one a completion, is in a file that is not to be trained on"
KEPT_OUT = "kept out: its prompt, or without one a completion, is among the rows that an earlier model held out"
REPEATED = "repeated: an old row says the same"


@dataclass(frozen=True, slots=True)
class RefreshRows:
    """What a refresh trains on and measures on.

    Attributes:
        train: Old rows, then new ones.
        held_out: The old run's held-out rows, or those that were given instead.
        kept_out: Rows that earlier models held out and this one does not; no later refresh may train on them either.
        ledger: The account of the training rows.
        sources: Where all of it came from, as :func:`as_sources` has it.
        told: What was found, one line each.
    """

    train: list[PromptGroup]
    held_out: list[PromptGroup]
    kept_out: list[PromptGroup]
    ledger: Ledger
    sources: list[dict[str, Any]]
    told: tuple[str, ...]


def as_sources(role: str, files: Sequence[str], split: str | None, format: str) -> list[dict[str, Any]]:
    """Files as ``training/run.json`` records them, so that a refresh finds them again.

    Args:
        role: ``"train"``, ``"held-out"`` or ``"excluded"``.
        files: Files, folders or hub ids.
        split: Their split.
        format: Their row format.
    """
    return [
        {
            "role": role,
            "file": Path(file).name,
            "sha256": fingerprint(file, split=split),
            "path": file if is_hub_id(file) else str(Path(file).resolve()),
            "split": split,
            "format": format,
        }
        for file in files
    ]


def refresh_rows(
    old: OldRun,
    data: Sequence[str],
    read: Read,
    *,
    split: str | None = None,
    format: str = "auto",
    held_out: Sequence[PromptGroup] | None = None,
    eval_fraction: float = 0.0,
    exclude: Sequence[str] = (),
) -> RefreshRows:
    """Read old and new rows and put them together.

    Args:
        old: The run to refresh.
        data: New files; among them, told by their SHA-256, the old ones that have moved.
        read: Reads files, and accounts for bad rows.
        split: Split of the new files.
        format: Row format of the new files.
        held_out: Rows to hold out instead of the old run's.
        eval_fraction: Where the old run held nothing out: share of all rows to hold out, by prompt.
        exclude: Files whose prompts are not to be trained on.

    Raises:
        ConfigError: There is no new file, one is given twice, or ``eval_fraction`` has no meaning.
        DataError: An old file is not where it was, or not what it was; the old held-out rows are not there.
    """
    recorded, new_files = training_files(old, "train", data, split)
    readings: list[Reading] = []
    before: list[PromptGroup] = []
    repeated_before = 0
    for number, ((step, file_split, file_format), files) in enumerate(_by_reading(recorded).items()):
        name = "quarantine-old.jsonl" if number == 0 else f"quarantine-old-{number + 1}.jsonl"
        readings.append(read(files, file_split, file_format, name))
        added = readings[-1].groups
        if step:  # these files came with an earlier refresh, which left their repeats out as well
            kept, _ = without_repeats(before, added)
            added, repeated_before = kept.groups, repeated_before + kept.same + kept.formatted
        before += added
    held_out_before = old_held_out(old)
    if not recorded:
        before, new_files, readings = _told_by_rows(
            old, new_files, held_out_before, lambda f: read([f], split, format, "quarantine-old.jsonl")
        )
        recorded = as_sources("train", [file for file in data if file not in new_files], split, format)
    if not new_files:
        raise ConfigError(
            f"all of --data is what {old.folder} was trained on", hint="give the new rows with --data FILE"
        )
    fresh = read(new_files, split, format, "quarantine.jsonl")
    readings.append(fresh)

    measured = list(held_out) if held_out is not None else held_out_before
    kept_out = replaced_rows([*read_kept_out(old), *held_out_before], measured)
    excluded_files, more = training_files(old, "excluded", exclude, None)
    excluded_sources = [*excluded_files, *as_sources("excluded", more, None, "auto")]
    excluded: list[PromptGroup] = []
    for number, ((_, file_split, file_format), files) in enumerate(_by_reading(excluded_sources).items()):
        excluded += read(files, file_split, file_format, f"quarantine-excluded-{number + 1}.jsonl").groups
    ledger = _joined([reading.ledger for reading in readings])
    parts: list[list[PromptGroup]] = []
    told: list[str] = []
    for what, groups in (("old ", before), ("new ", fresh.groups)):
        for others, reason in ((measured, IN_HELD_OUT), (kept_out, KEPT_OUT), (excluded, EXCLUDED)):
            kept = without_prompts(groups, others)
            told += kept.account(ledger, reason, what)
            groups = kept.groups
        parts.append(groups)
    for _ in range(repeated_before):
        ledger.drop(REPEATED, was_used=True)
    kept, contradictory = without_repeats(*parts)
    told += kept.account(ledger, REPEATED, "new ")
    new = kept.groups
    if contradictory:
        told.append(f"{contradictory:,} new rows contradict old ones about the same completions; both are trained on")
    if not new:
        raise DataError("no new row is left to train on", hint="; ".join(told))
    told.insert(0, f"{len(parts[0]):,} old rows and {len(new):,} new ones")
    train = [*parts[0], *new]
    if eval_fraction:
        if measured:
            raise ConfigError(
                "eval_fraction: the held-out rows of the old run are held out again, so that both versions are "
                "measured on the same",
                hint="leave it out, or give other rows with --eval-data",
            )
        train, measured = split_by_prompt(train, eval_fraction, seed=0)
        told.append(f"{len(measured):,} rows held out")
        kept = without_prompts(train, measured)
        told += kept.account(ledger, IN_HELD_OUT, "")
        train = kept.groups
    elif held_out is None and measured:
        told.append(f"{len(measured):,} held-out rows, those of the old run")
    old_measured = [s for s in old.run.get("sources", []) if s["role"] == "held-out"] if held_out is None else []
    step = 1 + max(source.get("refresh", 0) for source in recorded)
    added_sources = [{**source, "refresh": step} for source in as_sources("train", new_files, split, format)]
    sources = [*recorded, *added_sources, *old_measured, *excluded_sources]
    return RefreshRows(train, measured, kept_out, ledger, sources, tuple(told))


def training_files(
    old: OldRun, role: str, given: Sequence[str], split: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Which files hold the old run's rows, as they were then, and which of those given are new.

    Args:
        old: The old run.
        role: ``"train"`` or ``"excluded"``.
        given: Files that the user names now.
        split: Their split.

    Returns:
        Of each old file its source, at its present place; and the given ones that are none of them.

    Raises:
        ConfigError: One is given twice.
        DataError: An old file is neither given nor where it was, or is not what it was.
    """
    known = {fingerprint(file, split=split): file for file in given}
    if len(known) < len(given):
        raise ConfigError(f"{', '.join(given)}: two of these files are the same", hint="give each once")
    records = old.run.get("sources")
    if records is None:  # older runs left names and hashes alone, in the contract
        records = old.contract.data.get("files") or []
    found = []
    for record in records:
        if record["role"] != role:
            continue
        name, expected = record["file"], record["sha256"]
        option = "--data" if role == "train" else "--exclude"
        again = f"give it at its new place with {option}: it is recognised by its SHA-256"
        source = {"path": None, "split": split, "format": "auto", **record}
        if expected in known:
            file = known[expected]
            source["path"] = file if is_hub_id(file) else str(Path(file).resolve())
        elif source["path"] is None:
            raise DataError(f"where {name} is, that {old.folder} was made with, is not recorded", hint=again)
        elif not is_hub_id(source["path"]) and not Path(source["path"]).exists():
            raise DataError(f"{source['path']}, that {old.folder} was made with, is not there any more", hint=again)
        elif (now := fingerprint(source["path"], split=source["split"])) != expected:
            raise DataError(
                f"{source['path']} is not what {old.folder} was made with: its SHA-256 is {now}, expected {expected}",
                hint=f"{again}; where only rows were added, give the old file and the added rows",
            )
        found.append(source)
    old_hashes = {source["sha256"] for source in found}
    return found, [file for sha256, file in known.items() if sha256 not in old_hashes]


def old_held_out(old: OldRun) -> list[PromptGroup]:
    """The rows that the old run held out; none where it held none out.

    Raises:
        DataError: They are not there, or not what they were.
    """
    record = old.contract.data.get("held_out")
    stored = read_held_out(old.folder)
    if not record:
        return []
    expected = record["sha256"]
    found = groups_fingerprint(stored[0]) if stored else None
    if stored is None or found != expected:
        came = "is not there" if stored is None else f"has the fingerprint {found}, expected {expected}"
        raise DataError(
            f"{old.folder}: training/held_out.jsonl {came}, so what it held out is not known and could be trained on",
            hint="restore the folder training/ from a copy",
        )
    return stored[0]


def _told_by_rows(
    old: OldRun, files: Sequence[str], held_out: Sequence[PromptGroup], read_one: Callable[[str], Reading]
) -> tuple[list[PromptGroup], list[str], list[Reading]]:
    """Of a run that recorded no files: the given one that holds exactly the rows it was trained on."""
    expected = (old.contract.data.get("train") or {}).get("sha256")
    prompts = {group.prompt_key for group in held_out}
    for file in files:
        reading = read_one(file)
        groups = [group for group in reading.groups if group.prompt_key not in prompts]  # as a split by prompt leaves
        if expected in (groups_fingerprint(groups), groups_fingerprint(reading.groups)):
            return reading.groups, [other for other in files if other != file], [reading]
    raise DataError(
        f"{old.folder} does not record which files it was trained on, and none of --data holds exactly its rows",
        hint="give the file it was trained on with --data too: it is recognised by what it holds",
    )


def _by_reading(sources: Sequence[dict[str, Any]]) -> dict[tuple[int, str | None, str], list[str]]:
    """The files that are read together: by the refresh that added them (0: none did), split and format."""
    found: dict[tuple[int, str | None, str], list[str]] = {}
    for source in sorted(sources, key=lambda source: source.get("refresh", 0)):
        found.setdefault((source.get("refresh", 0), source["split"], source["format"]), []).append(source["path"])
    return found


def _joined(ledgers: Sequence[Ledger]) -> Ledger:
    """One account of several readings."""
    counts = [field.name for field in dataclasses.fields(Ledger) if field.name != "reasons"]
    reasons = sum((ledger.reasons for ledger in ledgers), Counter[str]())
    return Ledger(**{name: sum(getattr(ledger, name) for ledger in ledgers) for name in counts}, reasons=reasons)
