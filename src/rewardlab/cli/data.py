"""``rewardlab data check``: what a set holds and what is wrong with it, before anything is trained on it.

This file knows options and progress; what is counted is :mod:`rewardlab.data.check`'s, how it is laid out
:mod:`rewardlab.data.table`'s, and which labels are suspected :mod:`rewardlab.training.cross_fitting`'s. Texts are never
printed, only counts and places.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rewardlab.cli.options import JsonOutput, RowFormat, Split, TrustRemoteCode
from rewardlab.files import write_safely

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rewardlab.data.encoding import EncodedGroup
    from rewardlab.data.loading import Reading
    from rewardlab.errors import DataError
    from rewardlab.training.cross_fitting import Suspects
    from rewardlab.types import PromptGroup

_DEFAULT_MAX_LENGTH = 2048  # as the decoder presets of training
_MOST_SUSPECTS = 10

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
        typer.Option(
            metavar="M",
            help="Count tokens, and what truncation cuts, with this model's tokenizer; the base of --cross-fit.",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Longest sequence in tokens; by default the contract's, else 2048 or the model's own limit."
        ),
    ] = None,
    format: RowFormat = "auto",
    split: Split = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any row is bad.")] = False,
    max_bad_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fail if a larger share of the rows is bad.")
    ] = 0.05,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Where bad rows are written, with file, line and reason.")
    ] = None,
    cross_fit: Annotated[
        int | None,
        typer.Option(
            min=2, metavar="FOLDS", help="List likely mislabelled pairs: train --model on the other folds, and score."
        ),
    ] = None,
    suspects: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="With --cross-fit: where all pairs are listed, the most suspicious first."),
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="With --cross-fit: train adapters and the head.")] = False,
    head_only: Annotated[bool, typer.Option("--head-only", help="With --cross-fit: train the head alone.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --cross-fit: set any key of a training recipe."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    json_output: JsonOutput = False,
) -> None:
    """Account for every row of a set, and look for what spoils training.

    Counts good and bad rows with the reasons, what is known of the completions, lengths, duplicates, near-duplicates,
    pairs preferred both ways and in circles, agreement of raters, prompts shared with another set, how often the longer
    completion is the chosen one and, with [bold]--model[/bold], what truncation cuts. [bold]--cross-fit[/bold] lists
    pairs whose label is contradicted by models that did not see it. Exit status 1 if too many rows are bad.

    [dim]Examples:[/dim]

        rewardlab data check pairs.jsonl.gz

        rewardlab data check train.parquet --against eval.parquet --model Qwen/Qwen3-0.6B

        rewardlab data check pairs.jsonl --quarantine bad.jsonl --strict

        rewardlab data check pairs.jsonl --cross-fit 5 --model Qwen/Qwen3-0.6B --suspects suspects.jsonl
    """
    from rich.console import Console

    from rewardlab.data.check import check_groups
    from rewardlab.data.loading import read_groups
    from rewardlab.data.table import lay_out
    from rewardlab.errors import ConfigError

    if cross_fit is None and (suspects or set_ or lora or head_only):
        raise ConfigError(
            "--suspects, --set, --lora and --head-only need --cross-fit", hint="add --cross-fit 5 --model M"
        )
    if cross_fit is not None and model is None:
        raise ConfigError("--cross-fit needs a base model to train", hint="add --model M")
    if lora and head_only:
        raise ConfigError("--lora and --head-only exclude each other", hint="choose one")
    talk = Console(stderr=True, highlight=False)

    def read(sources: Sequence[str], what: str, kept: Path | None) -> Reading:
        with _progress(talk, what, None) as advance:
            # The report is printed however much is bad; only then is the share held to its limit.
            return read_groups(
                sources, format=format, split=split, max_bad_fraction=None, quarantine=kept, on_progress=advance
            )

    reading = read(files, "reading", quarantine)
    other = read(against, "reading the other set", None) if against else None
    encoded, max_length_given = None, max_length
    if model is not None:
        encoded, max_length = _encode(talk, reading.groups, model, max_length)
        reading.ledger.truncated = sum(getattr(item, "truncated", 0) > 0 for item in encoded)
    report = check_groups(reading.groups, other.groups if other else None, encoded=encoded, max_length=max_length)

    found = None
    if cross_fit is not None and model is not None:
        reading.require(max_bad_fraction=max_bad_fraction, strict=strict)  # before hours of training, not after
        recipe = {"mode": "lora" if lora else "head_only" if head_only else None, "max_length": max_length_given}
        found = _suspects(talk, reading.groups, model, cross_fit, recipe, set_ or [], trust_remote_code)
        report = replace(report, warnings=(*found.warnings, *report.warnings))
    listed = found.rows() if found else []
    if suspects is not None:
        write_safely(suspects, "".join(json.dumps(row) + "\n" for row in listed))

    if json_output:
        summary = {"suspects": found.to_dict() if found else None}
        typer.echo(json.dumps({**reading.ledger.to_dict(), **report.to_dict(), **summary}, indent=2, allow_nan=False))
    else:
        shown = lay_out(report, reading, files) + ([_suspects_table(found, listed, suspects)] if found else [])
        Console(highlight=False).print(*shown, sep="\n")
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


def _suspects(
    talk: Console,
    groups: Sequence[PromptGroup],
    model: str,
    folds: int,
    options: Mapping[str, Any],
    overrides: Sequence[str],
    trust_remote_code: bool,
) -> Suspects:
    """Cross-fit with a recipe as ``rewardlab train`` reads it, as far as it says how to train."""
    from rewardlab.config import build
    from rewardlab.training.cross_fitting import Suspects, cross_fit
    from rewardlab.training.recipe import TrainRecipe, overrides_of

    explicit = {"model": model, "data": [], "output": "", **options}
    recipe: Any = build(TrainRecipe, overrides=list(overrides), explicit=explicit)
    fit = cross_fit(
        recipe.model,
        groups,
        folds=folds,
        mode=recipe.mode,
        lora=recipe.lora,
        dtype=recipe.dtype,
        overrides=overrides_of(recipe),
        trust_remote_code=trust_remote_code,
        report=talk.print,
    )
    return Suspects.of(groups, fit)


def _suspects_table(found: Suspects, listed: Sequence[Mapping[str, Any]], kept: Path | None) -> Table:
    from rich.text import Text

    from rewardlab.data.table import table

    errors, accuracy, unscored = found.errors, found.accuracy, found.fit.num_unscored
    bounds = "" if accuracy.low is None else f" [{accuracy.low:.1%}, {accuracy.high:.1%}]"
    shown = table(
        f"likely mislabelled: {errors.suspected.sum():,} of {len(listed):,} pairs suspected, "
        f"{errors.estimated_errors:,} estimated wrong, which runs high; models that did not see them are right on "
        f"{accuracy.value:.1%}{bounds}" + (f"; {unscored:,} pairs could not be scored" if unscored else ""),
        f"worst first ({f'all in {kept}' if kept else '--suspects OUT has all'})",
        "margin",
        "P(label)",
    )
    for row in listed[:_MOST_SUSPECTS]:
        shown.add_row(Text(row["source"]), f"{row['margin']:.2f}", f"{row['probability']:.3f}")
    return shown
