"""``rewardlab data check``: what a set holds and what is wrong with it, before anything is trained on it.

This file knows options, progress and how the report is laid out (80 columns are enough); what is counted is
:mod:`rewardlab.data.check`'s. Texts are never printed, only counts and places.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from rewardlab.data.check import DataReport
    from rewardlab.data.encoding import EncodedGroup
    from rewardlab.data.loading import Reading
    from rewardlab.errors import DataError
    from rewardlab.types import PromptGroup

_DEFAULT_MAX_LENGTH = 2048  # as the decoder presets of training
_MOST_SUBSETS = 12
_MOST_REASONS = 8
_MOST_FILES = 4
_MOST_SIZES = 4

app = typer.Typer(no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at data before training on it."""


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Data files, saved dataset folders or hub ids.", show_default=False),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Another set, e.g. for evaluation, that should share no prompt."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="M", help="Count tokens, and what truncation cuts, with this model's tokenizer."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Longest sequence in tokens; by default the contract's, else 2048 or the model's own limit."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="What the rows are; by default told by their columns.")] = "auto",
    split: Annotated[str | None, typer.Option(help="The split, of a hub id or a saved dataset.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any row is bad.")] = False,
    max_bad_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fail if a larger share of the rows is bad.")
    ] = 0.05,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Where bad rows are written, with file, line and reason.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Account for every row of a set, and look for what spoils training.

    Counts good and bad rows with the reasons, what is known of the completions, lengths, duplicates, pairs preferred
    both ways, prompts shared with another set, how often the longer completion is the chosen one and, with
    [bold]--model[/bold], what truncation cuts. Exit status 1 if too many rows are bad.

    [dim]Examples:[/dim]

        rewardlab data check pairs.jsonl.gz

        rewardlab data check train.parquet --against eval.parquet --model Qwen/Qwen3-0.6B

        rewardlab data check pairs.jsonl --quarantine bad.jsonl --strict
    """
    from rich.console import Console

    from rewardlab.data.check import check_groups
    from rewardlab.data.loading import read_groups

    talk = Console(stderr=True, highlight=False)

    def read(sources: Sequence[str], what: str, kept: Path | None) -> Reading:
        with _progress(talk, what, None) as advance:
            # The report is printed however much is bad; only then is the share held to its limit.
            return read_groups(
                sources, format=format, split=split, max_bad_fraction=None, quarantine=kept, on_progress=advance
            )

    reading = read(files, "reading", quarantine)
    other = read(against, "reading the other set", None) if against else None
    encoded = None
    if model is not None:
        encoded, max_length = _encode(talk, reading.groups, model, max_length)
        reading.ledger.truncated = sum(getattr(item, "truncated", 0) > 0 for item in encoded)
    report = check_groups(reading.groups, other.groups if other else None, encoded=encoded, max_length=max_length)

    if json_output:
        typer.echo(json.dumps({**reading.ledger.to_dict(), **report.to_dict()}, indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(*_layout(report, reading, files), sep="\n")
    if other is not None and other.bad_rows:
        typer.echo(f"{len(other.bad_rows):,} of {other.ledger.read:,} rows of the other set are bad:", err=True)
        typer.echo(other.told(), err=True)
    reading.require(max_bad_fraction=max_bad_fraction, strict=strict)


def _encode(
    talk: Console, groups: Sequence[PromptGroup], model: str, max_length: int | None
) -> tuple[list[EncodedGroup | DataError], int]:
    """The groups as ids, and the maximum length they were fitted to."""
    from rewardlab.data.encoding import Encoder
    from rewardlab.data.template import seal_chat_template
    from rewardlab.modeling.contract import load_contract
    from rewardlab.modeling.loading import load_config, load_tokenizer, position_limit, resolve_folder

    folder = resolve_folder(model)
    tokenizer = load_tokenizer(folder)
    seal_chat_template(tokenizer)
    contract = load_contract(folder)
    known = (
        position_limit(load_config(folder), tokenizer)
        if (folder / "config.json").exists()
        else tokenizer.model_max_length
    )
    by_default = contract.max_length if contract else min(_DEFAULT_MAX_LENGTH, known or _DEFAULT_MAX_LENGTH)
    limit = max_length or by_default
    with _progress(talk, "encoding", len(groups)) as advance:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            advance(done)

        return Encoder(tokenizer, limit).encode_many(groups, on_progress=count), limit


@contextmanager
def _progress(talk: Console, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that is gone when the work is done; gives the function that is told how far it is."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def advance(done: int) -> None:
            if done % 256 == 0 or done == total:  # rich's update is dearer than reading a row
                bar.update(task, completed=done)

        yield advance


# -- layout ----------------------------------------------------------------------------------------------------------


def _layout(report: DataReport, reading: Reading, files: Sequence[str]) -> list[RenderableType]:
    from rich.text import Text

    parts: list[RenderableType] = [_rows(reading, files)]
    if reading.bad_rows:
        parts.append(_reasons(reading))
    if report.groups:
        parts += [_contents(report), _lengths(report)]
    if report.subsets:
        parts.append(_subsets(report))
    if report.warnings:
        parts += [Text("what to look at", style="bold"), _warnings(report)]
    elif report.groups:
        parts.append(Text("nothing to warn about", style="green"))
    return parts


def _table(title: str, *headers: str) -> Table:
    """A table whose first column is a name and whose others are numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(headers[0], overflow="fold")
    for header in headers[1:]:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _rows(reading: Reading, files: Sequence[str]) -> Table:
    counts = reading.ledger.to_dict()["rows"]
    table = _table(f"rows of {', '.join(files) if len(files) <= _MOST_FILES else f'{len(files)} sources'}", *counts)
    table.columns[0].justify = "right"
    table.add_row(*(f"{count:,}" for count in counts.values()))
    return table


def _reasons(reading: Reading) -> Table:
    from rich.text import Text

    from rewardlab.data.ledger import reason_kind

    first: dict[str, str] = {}
    for row in reading.bad_rows:
        first.setdefault(reason_kind(row.reason), row.name)
    kept = f"in {reading.quarantine}" if reading.quarantine else "--quarantine OUT keeps them"
    table = _table(f"bad rows ({kept})", "reason", "rows", "first")
    for reason, count in reading.ledger.reasons.most_common(_MOST_REASONS):
        table.add_row(Text(reason), f"{count:,}", Text(first.get(reason, "")))
    if (more := len(reading.ledger.reasons) - _MOST_REASONS) > 0:
        table.add_row(f"... {more} more reasons", "", "")
    return table


def _contents(report: DataReport) -> Table:
    from rich.text import Text

    table = _table("contents", "what", "count", "")
    table.columns[0].no_wrap = True
    table.columns[2].justify, table.columns[2].no_wrap, table.columns[2].overflow = "left", False, "fold"
    table.show_header = False

    def add(name: str, count: int | None, note: str = "") -> None:
        if count is not None:
            table.add_row(name, f"{count:,}", Text(note))

    add("pairs", report.pairs)
    for name, count, note in _known(report):
        add(name, count, note)
    add("completions", report.completions)
    most = report.largest_prompts[0] if report.largest_prompts else None
    add("different prompts", report.prompts, f"at most {most[1]:,} rows of one prompt, first {most[0]}" if most else "")
    add("exact duplicates", report.duplicates)
    places = report.contradictory_places
    add("preferred both ways", report.contradictory, f"first {places[0][0]}, {places[0][1]}" if places else "")
    rows = f"in {report.shared_groups:,} rows" if report.shared_groups else ""
    add("prompts in the other set", report.shared_prompts, rows)
    if (wins := report.longer_wins) is not None:
        for name, share in (("longer", wins.longer), ("shorter", wins.shorter)):
            table.add_row(f"chosen is the {name}", f"{share:.1%}", "of pairs, by characters")
        table.add_row("equally long", f"{wins.equal:.1%}", "")
    if (cut := report.truncation) is not None:
        add("prompts cut", cut.truncated, f"of {cut.sequences:,} sequences, at {cut.max_length:,} tokens")
        add("completions too long", cut.too_long, "rows")
        add("refused by the template", cut.refused or None, "rows")
        add("identical when cut", cut.identical, "pairs")
    return table


def _known(report: DataReport) -> Iterator[tuple[str, int, str]]:
    """What is known besides preferences, where there is any: what, how many, and more about it."""
    found = report.contents
    rankings = sum(found.rankings.values())
    steps = sum(found.steps.values())
    sizes = ", ".join(f"{count:,} of {size}" for size, count in list(found.rankings.items())[:_MOST_SIZES])
    more = f" and {len(found.rankings) - _MOST_SIZES} more sizes" if len(found.rankings) > _MOST_SIZES else ""
    lines = (
        ("ties", found.ties, ""),
        ("soft labels", found.soft, "pairs and ties with a probability"),
        ("strengths", found.strengths, "pairs that say how much better"),
        ("rankings", rankings, f"{sizes}{more} completions"),
        ("ratings", found.ratings, "completions"),
        *((f"  {name}", count, "completions") for name, count in found.attributes.items()),
        ("outcomes", found.outcomes, f"completions, {found.outcomes_correct or 0:.1%} correct"),
        ("solutions with steps", found.solutions, ""),
        ("steps", steps, ", ".join(f"{n / steps:.1%} {name}" for name, n in found.steps.items() if n)),
    )
    return (line for line in lines if line[1])


def _lengths(report: DataReport) -> Table:
    table = _table("lengths", "of", "10 %", "median", "90 %", "99 %", "max", "")
    table.columns[-1].justify = "left"
    rows = {name: lengths for name, lengths in report.characters.items() if name != "completion" or not report.pairs}
    for name, lengths in rows.items():
        table.add_row(name, *(f"{n:,}" for n in lengths.values()), "characters")
    if report.tokens is not None:
        table.add_row("whole sequence", *(f"{n:,}" for n in report.tokens.values()), "tokens, after cutting")
    return table


def _subsets(report: DataReport) -> Table:
    from rich.text import Text

    table = _table("subsets", "subset", "rows")
    for name, count in list(report.subsets.items())[:_MOST_SUBSETS]:
        table.add_row(Text(name), f"{count:,}")
    if (more := len(report.subsets) - _MOST_SUBSETS) > 0:
        rest = sum(list(report.subsets.values())[_MOST_SUBSETS:])
        table.add_row(f"... {more} more", f"{rest:,}")
    return table


def _warnings(report: DataReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for warning in report.warnings:
        grid.add_row(Text("!", style="bold yellow"), Text(warning, style="yellow"))
    return grid
