"""Judges whole files: each item once in the output, in order, also when the run is killed on the way.

Items are asked about at once, as many as the endpoint is given, and answered out of order. What is finished is appended
to ``OUT.partial``, whose journal says which model, prompt, data and settings it belongs to; a later run of the same
command takes it up. Items without a verdict because the endpoint failed are then asked again. At the end the rows
are put in order and become ``OUT`` at once.

This file knows items, files and a :class:`~rewardlab.judge.judge.Judge`; it knows no prompt and no HTTP.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rewardlab.data.loading import MAX_BAD_FRACTION, Reading, read_groups
from rewardlab.errors import ConfigError, RewardLabError
from rewardlab.files import replace_safely
from rewardlab.judge.chat import Usage
from rewardlab.judge.event_loop import EventLoop, as_finished
from rewardlab.judge.items import MAX_PAIRS, Item, Items, items_of
from rewardlab.judge.judge import Judge
from rewardlab.judge.judged_rows import FAILED, Asked, Judged, row_of, verdict_of
from rewardlab.judge.verdicts import Mode, Verdict, abstention_of
from rewardlab.scoring.bulk import check_files
from rewardlab.scoring.bulk_rows import data_fingerprint
from rewardlab.scoring.partial import Partial, beside
from rewardlab.types import PromptGroup

MAX_ABSTAINED = 0.5
"""Share of items without a verdict above which a run stops: a wrong prompt or a server that is down, not hard items."""

FIRST_LOOK = 20
"""Items after which that share is first looked at."""

_SAFE_EVERY_S = 0.5  # finished items wait that long at most before they are safe on disk


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        done: Items finished, earlier runs' among them.
        total: Items of all.
        resumed: Those that earlier runs had finished.
        abstained: Finished ones without a verdict.
    """

    done: int
    total: int
    resumed: int
    abstained: int


@dataclass(frozen=True, slots=True)
class JudgedFile:
    """What a run of :func:`judge_file` did.

    Attributes:
        output: The finished file.
        asked: Who was asked, and how.
        reading: The groups, and the account of the rows.
        items: What was asked about, and what was not.
        judged: Each item with its verdict.
        resumed: Items that an earlier, interrupted run had judged.
        seconds: Wall-clock time of this run.
    """

    output: Path
    asked: Asked
    reading: Reading
    items: Items
    judged: Judged
    resumed: int
    seconds: float

    @property
    def abstained(self) -> Counter[str]:
        """Items without a verdict, by kind."""
        found = (abstention_of(verdict) for _, verdict in self.judged)
        return Counter(abstention.kind for abstention in found if abstention is not None)

    def to_dict(self) -> dict[str, Any]:
        """The account, as JSON values."""
        return {
            "output": str(self.output),
            "mode": self.asked.mode,
            "model": self.asked.model,
            "prompt_name": self.asked.prompt,
            "num_items": len(self.judged),
            "num_verdicts": len(self.judged) - self.abstained.total(),
            "abstained": dict(self.abstained),
            "left_out": self.items.left_out,
            "resumed_items": self.resumed,
            "seconds": self.seconds,
            "ledger": self.reading.ledger.to_dict(),
        }


def judge_file(
    judge: Judge,
    sources: Sequence[str | Path],
    output: Path,
    *,
    loop: EventLoop,
    mode: Mode = "pairwise",
    max_pairs: int = MAX_PAIRS,
    max_items: int | None = None,
    concurrency: int = 8,
    max_abstained: float = MAX_ABSTAINED,
    format: str = "auto",
    split: str | None = None,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> JudgedFile:
    """Judge every row of some files into one file, going on where an interrupted run of the same call stopped.

    Args:
        judge: Who judges.
        sources: Files, folders or hub ids.
        output: The JSON Lines file to write; a row is :func:`~rewardlab.judge.judged_rows.row_of`'s.
        loop: Where the judge's client lives.
        mode: What is asked.
        max_pairs: As :func:`~rewardlab.judge.items.items_of`.
        max_items: Likewise.
        concurrency: Items that are being asked about at once.
        max_abstained: Largest share of this run's items without a verdict, looked at from :data:`FIRST_LOOK` on; what a
            limit of cost or calls left unasked does not count.
        format: ``"auto"``, or a key of :data:`rewardlab.data.formats.FORMATS`.
        split: The split, for hub ids and folders of several splits.
        settings: Whatever else decides the verdicts, such as the endpoint: a run is only taken up under the same.
        restart: Whether to throw away what an interrupted run left.
        overwrite: Whether an existing output may be replaced.
        on_progress: Called at the start and as items are finished.

    Raises:
        ConfigError: The output exists or cannot be written as what it is named; or an interrupted run with other
            settings is in the way.
        DataError: The rows cannot be read, or there is nothing to judge.
        JudgeEndpointError: The endpoint can answer nothing; what was judged before is kept.
        RewardLabError: Too many items have no verdict, or a file cannot be written.
    """
    start = time.monotonic()
    check_output(sources, output, split=split, overwrite=overwrite)
    prompt = judge.prompt_for(mode)
    quarantine = output.with_name(output.name + ".quarantine.jsonl")
    reading = read_groups(sources, format=format, split=split, max_bad_fraction=MAX_BAD_FRACTION, quarantine=quarantine)
    items = items_of(reading.groups, mode, max_pairs=max_pairs, max_items=max_items, seed=judge.seed)
    asked = Asked(mode, judge.client.name, prompt.name)
    header = {
        "command": "judge",
        "model": asked.model,
        "mode": mode,
        "prompt": prompt.name,
        "prompt_sha256": prompt.sha256,
        "data": data_fingerprint(reading.groups),
        "labels": _digest([[asdict(p) for p in g.pairs], g.ratings, _labels(g)] for g in reading.groups),
        "systems": _digest(group.systems for group in reading.groups),
        "subsets": _digest(group.subset for group in reading.groups),
        "format": format,
        "split": split,
        "seed": judge.seed,
        "max_tokens": judge.max_tokens,
        "schema": judge.schema,
        "logprobs": judge.logprobs,
        "max_pairs": max_pairs,
        "max_items": max_items,
        **(settings or {}),
    }
    try:
        with Partial(output).opened(header, restart=restart) as partial:
            run = _Run(judge, reading.groups, items, asked, partial, max_abstained, on_progress)
            resumed = run.num_done
            loop.run(run.finish(concurrency))
            partial.place([output], overwrite=overwrite)
            run.write_in_order(beside(output))
            replace_safely(beside(output), output)
            # The journal first: rows without one beside an output are done with.
            partial.journal_path.unlink()
            partial.rows_path.unlink()
    except OSError as error:
        raise RewardLabError(
            f"{output} cannot be written: {error}",
            hint="mend that, then repeat the command: it goes on where it stopped",
        ) from error
    judged = tuple(zip(items.items, read_verdicts(output), strict=True))
    return JudgedFile(output, asked, reading, items, judged, resumed, time.monotonic() - start)


def check_output(
    sources: Sequence[str | Path], output: Path, *, split: str | None = None, overwrite: bool = False
) -> None:
    """Refuse at once what cannot be read or must not be written; as :func:`~rewardlab.scoring.bulk.check_files`."""
    check_files(sources, output, split=split, overwrite=overwrite)
    if output.suffix.lower() == ".parquet":
        raise ConfigError(f"the output {output}: verdicts are not written as Parquet", hint="name it *.jsonl")


def used_between(before: Usage, after: Usage) -> Usage:
    """What a client used between two looks at it."""
    told: dict[str, Any] = {}
    for one in fields(Usage):
        old, new = getattr(before, one.name), getattr(after, one.name)
        if isinstance(new, Mapping):
            told[one.name] = dict(Counter(new) - Counter(old))
        elif isinstance(new, bool) or new is None:
            told[one.name] = new
        else:
            told[one.name] = new - old
    return Usage(**told)


def read_verdicts(path: Path) -> Iterator[Verdict]:
    """The verdicts of a finished file, in order."""
    with open(path, encoding="utf-8") as lines:
        yield from (verdict_of(json.loads(line)) for line in lines)


def _digest(values: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(values), default=str).encode()).hexdigest()


def _labels(group: PromptGroup) -> list[list[int | None]]:
    return [[step.label for step in steps] for steps in group.steps]


class _Run:
    """The items of one run: which are finished, and the rest of them being asked about."""

    def __init__(
        self,
        judge: Judge,
        groups: Sequence[PromptGroup],
        items: Items,
        asked: Asked,
        partial: Partial,
        max_abstained: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.judge = judge
        self.groups = groups
        self.items = items.items
        self.asked = asked
        self.partial = partial
        self.max_abstained = max_abstained
        self.on_progress = on_progress
        self._lines: dict[int, int] = {}  # an item's number to where its line begins in the partial file
        self._end = 0
        self._waiting: list[dict[str, Any]] = []
        self._reasons: Counter[str] = Counter()  # of this run's items without a verdict
        self._example = ""
        self._asked_here = 0
        self.num_abstained = 0
        self._take_up()
        self._resumed = self.num_done

    @property
    def num_done(self) -> int:
        """Items that need not be asked about any more."""
        return len(self._lines) + len(self._waiting)

    async def finish(self, concurrency: int) -> None:
        """Ask about all items that are not finished; whatever ends it, what is finished is kept."""
        rest = (item for item in self.items if item.number not in self._lines)
        self._tell()
        safe = time.monotonic()
        try:
            async with aclosing(as_finished(self._judged, rest, concurrency)) as batches:
                async for batch in batches:
                    for item, verdict in batch:
                        self._keep(item, verdict)
                    self._tell()
                    if time.monotonic() - safe > _SAFE_EVERY_S:
                        self._make_safe()
                        safe = time.monotonic()
                    self._require_verdicts()
        finally:
            self._make_safe()

    def write_in_order(self, path: Path) -> None:
        """The finished rows in the order of the items."""
        with open(self.partial.rows_path, "rb") as rows, open(path, "wb") as output:
            for number in range(len(self.items)):
                rows.seek(self._lines[number])
                row = json.loads(rows.readline())
                del row["item"]
                output.write((json.dumps(row, allow_nan=False) + "\n").encode())

    async def _judged(self, item: Item) -> Verdict:
        group, indices = self.groups[item.group], item.completions
        texts = [group.completions[index] for index in indices]
        match self.asked.mode:
            case "pairwise":
                return await self.judge.compare(group.prompt, texts[0], texts[1])
            case "listwise":
                return await self.judge.rank(group.prompt, texts)
            case "rating":
                return await self.judge.rate(group.prompt, texts[0])
            case "steps":
                return await self.judge.critique(group.prompt, [step.text for step in group.steps[indices[0]]])

    def _keep(self, item: Item, verdict: Verdict) -> None:
        self._waiting.append({"item": item.number, **row_of(self.groups[item.group], item, verdict, self.asked)})
        self._asked_here += 1
        if (abstention := abstention_of(verdict)) is not None:
            self.num_abstained += 1
            self._reasons[abstention.kind] += 1
            self._example = abstention.message if abstention.kind != "budget" else self._example

    def _make_safe(self) -> None:
        if not self._waiting:
            return
        self.partial.append(self._waiting, {})
        self._place(self._waiting)
        self._waiting = []

    def _place(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Note where rows stand that have just been appended; the last of an item counts."""
        with open(self.partial.rows_path, "rb") as lines:
            lines.seek(self._end)
            for row in rows:
                self._lines[row["item"]] = self._end
                lines.readline()
                self._end = lines.tell()

    def _take_up(self) -> None:
        """What earlier runs have judged; what failed at the endpoint will be asked again."""
        with open(self.partial.rows_path, "rb") as lines:
            for line in lines:
                row = json.loads(line)
                abstention = abstention_of(verdict_of(row))
                if abstention is None or abstention.kind not in FAILED:
                    self._lines[row["item"]] = self._end
                    self.num_abstained += abstention is not None
                self._end += len(line)

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(self.num_done, len(self.items), self._resumed, self.num_abstained))

    def _require_verdicts(self) -> None:
        """Stop where most of what is asked has no verdict: the rest would only cost."""
        asked = self._asked_here - self._reasons["budget"]
        abstained = self._reasons.total() - self._reasons["budget"]
        if asked < FIRST_LOOK or abstained <= self.max_abstained * asked:
            return
        told = ", ".join(f"{count:,} {kind}" for kind, count in self._reasons.most_common())
        raise RewardLabError(
            f"{abstained:,} of the first {asked:,} items have no verdict ({told}), more than {self.max_abstained:.0%}; "
            f"the last one: {self._example}",
            hint="mend that and repeat the command (--restart asks all again), or allow more with --max-abstained",
        )
