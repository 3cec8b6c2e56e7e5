"""The rows of a refresh: the old run's, found again and proven to be the same, and the new ones beside them.

Nothing that measures is trained on: the old held-out rows stay held out with all other rows of their prompts, and rows
of excluded files (a canary) are left out, whichever file they came from. Each row that is left out is counted. This
file knows files and groups; it trains nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rewardlab.data.fingerprints import groups_fingerprint
from rewardlab.data.keys import comparisons, keyed
from rewardlab.data.ledger import Ledger
from rewardlab.data.loading import Reading
from rewardlab.data.reading import fingerprint, is_hub_id
from rewardlab.data.splits import split_by_prompt
from rewardlab.errors import ConfigError, DataError
from rewardlab.training.held_out import read_held_out
from rewardlab.training.refresh import OldRun
from rewardlab.types import PromptGroup, text_key

Read: TypeAlias = Callable[[list[str], str | None, str, str], Reading]
"""Files, their split, their row format and the name of the quarantine file -> what was read."""

IN_HELD_OUT = "held out: its prompt, or without one a completion, is among the held-out rows"
EXCLUDED = "excluded: a completion of it is in a file that is not to be trained on"
REPEATED = "repeated: an old row says the same"


@dataclass(frozen=True, slots=True)
class RefreshRows:
    """What a refresh trains on and measures on.

    Attributes:
        train: Old rows, then new ones.
        held_out: The old run's held-out rows, or those that were given instead.
        ledger: The account of the training rows.
        sources: Where all of it came from, as :func:`as_sources` has it.
        told: What was found, one line each.
    """

    train: list[PromptGroup]
    held_out: list[PromptGroup]
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
        exclude: Files whose completions are not to be trained on.

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
            added, count, _ = without_repeats(before, added)
            repeated_before += count
        before += added
    kept_out = old_held_out(old)
    if not recorded:
        before, new_files, readings = _told_by_rows(
            old, new_files, kept_out, lambda f: read([f], split, format, "quarantine-old.jsonl")
        )
        recorded = as_sources("train", [file for file in data if file not in new_files], split, format)
    if not new_files:
        raise ConfigError(
            f"all of --data is what {old.folder} was trained on", hint="give the new rows with --data FILE"
        )
    fresh = read(new_files, split, format, "quarantine.jsonl")
    readings.append(fresh)

    measured = list(held_out) if held_out is not None else kept_out
    excluded_files, more = training_files(old, "excluded", exclude, None)
    excluded_sources = [*excluded_files, *as_sources("excluded", more, None, "auto")]
    excluded: list[PromptGroup] = []
    for number, ((_, file_split, file_format), files) in enumerate(_by_reading(excluded_sources).items()):
        excluded += read(files, file_split, file_format, f"quarantine-excluded-{number + 1}.jsonl").groups
    ledger = _joined([reading.ledger for reading in readings])
    parts, told = [], []
    for what, groups in (("old", before), ("new", fresh.groups)):
        groups, of_prompts = without_prompts(groups, [*measured, *kept_out])
        groups, of_excluded = without_completions(groups, excluded)
        for count, reason in ((of_prompts, IN_HELD_OUT), (of_excluded, EXCLUDED)):
            for _ in range(count):
                ledger.drop(reason, was_used=True)
            if count:
                told.append(f"{count:,} {what} rows left out, {reason}")
        parts.append(groups)
    new, repeated, contradictory = without_repeats(*parts)
    for _ in range(repeated_before + repeated):
        ledger.drop(REPEATED, was_used=True)
    if repeated:
        told.append(f"{repeated:,} new rows left out, {REPEATED}")
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
        rows = len(train)
        train, measured = split_by_prompt(train, eval_fraction, seed=0)
        told.append(f"{rows - len(train):,} rows held out")
    elif held_out is None and measured:
        told.append(f"{len(measured):,} held-out rows, those of the old run")
    old_measured = [s for s in old.run.get("sources", []) if s["role"] == "held-out"] if held_out is None else []
    step = 1 + max(source.get("refresh", 0) for source in recorded)
    added_sources = [{**source, "refresh": step} for source in as_sources("train", new_files, split, format)]
    sources = [*recorded, *added_sources, *old_measured, *excluded_sources]
    return RefreshRows(train, measured, ledger, sources, tuple(told))


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


def without_prompts(groups: Sequence[PromptGroup], others: Sequence[PromptGroup]) -> tuple[list[PromptGroup], int]:
    """The groups whose prompts are not among others', and how many are; of those without a prompt, by completion."""
    prompts = {group.prompt_key for group in others if group.prompt}
    completions = _completions(group for group in others if not group.prompt)
    kept = [
        group
        for group in groups
        if (group.prompt_key not in prompts if group.prompt else completions.isdisjoint(_completions([group])))
    ]
    return kept, len(groups) - len(kept)


def without_completions(groups: Sequence[PromptGroup], others: Sequence[PromptGroup]) -> tuple[list[PromptGroup], int]:
    """The groups of which no completion, to the same prompt, is among others', and how many are left out."""
    completions = _completions(others)
    kept = [group for group in groups if not completions or completions.isdisjoint(_completions([group]))]
    return kept, len(groups) - len(kept)


def without_repeats(old: Sequence[PromptGroup], new: Sequence[PromptGroup]) -> tuple[list[PromptGroup], int, int]:
    """The new groups that say something old ones do not.

    Returns:
        These groups; how many are left out, since each of their comparisons is an old one (or, where they compare
        nothing, an old row says exactly the same); and how many of the rest contradict an old one: of the same two
        completions another is preferred, or none.
    """
    verdicts: dict[tuple[str, frozenset[str]], set[str | None]] = {}
    for row, pair, chosen, rejected in comparisons(keyed(old)):
        verdicts.setdefault((row.prompt, frozenset((chosen, rejected))), set()).add(None if pair.tie else chosen)
    said = {groups_fingerprint([group]) for group in old if not group.pairs}
    kept, contradictory = [], 0
    for row in keyed(new):
        if not row.group.pairs:
            if groups_fingerprint([row.group]) not in said:
                kept.append(row.group)
            continue
        known = [
            (verdicts.get((row.prompt, frozenset((chosen, rejected)))), None if pair.tie else chosen)
            for _, pair, chosen, rejected in comparisons([row])
        ]
        if known and all(before is not None and verdict in before for before, verdict in known):
            continue
        contradictory += any(before is not None and verdict not in before for before, verdict in known)
        kept.append(row.group)
    return kept, len(new) - len(kept), contradictory


def _told_by_rows(
    old: OldRun, files: Sequence[str], held_out: Sequence[PromptGroup], read_one: Callable[[str], Reading]
) -> tuple[list[PromptGroup], list[str], list[Reading]]:
    """Of a run that recorded no files: the given one that holds exactly the rows it was trained on."""
    expected = (old.contract.data.get("train") or {}).get("sha256")
    for file in files:
        reading = read_one(file)
        groups, _ = without_prompts(reading.groups, held_out)
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


def _completions(groups: Iterable[PromptGroup]) -> set[tuple[str, str]]:
    return {
        (group.prompt_key, text_key(completion, role="assistant"))
        for group in groups
        for completion in group.completions
    }


def _joined(ledgers: Sequence[Ledger]) -> Ledger:
    """One account of several readings."""
    counts = [field.name for field in dataclasses.fields(Ledger) if field.name != "reasons"]
    reasons = sum((ledger.reasons for ledger in ledgers), Counter[str]())
    return Ledger(**{name: sum(getattr(ledger, name) for ledger in ledgers) for name in counts}, reasons=reasons)
