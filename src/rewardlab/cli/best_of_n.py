"""``rewardlab best-of-n``: of several completions of each prompt the best, what to fine-tune on, and pairs.

This file knows options, the table and the summary; the work is :mod:`rewardlab.search.best_of_n_files`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rewardlab.cli.options import (
    Aggregate,
    BatchTokens,
    Beta,
    Device,
    Dtype,
    EngineName,
    Ensemble,
    EnsembleK,
    EnsembleScale,
    EnsembleWeights,
    JsonOutput,
    Launcher,
    LengthNormalised,
    MaxBadFraction,
    MaxLength,
    NeutralIsCorrect,
    NoVerify,
    Processes,
    RowFormat,
    ScaleName,
    Scored,
    Split,
    TrustRemoteCode,
    scorer_options,
)
from rewardlab.cli.scoring import on_processes, opened_scorer, scale_told, scoring_bar
from rewardlab.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rewardlab.search.best_of_n import Selection
    from rewardlab.search.best_of_n_curve import BestOfNSummary, CurvePoint
    from rewardlab.search.best_of_n_files import BestOfNRun

_QUALITIES = {"rating": "rating of the pick", "correct": "P(pick is correct)"}


@on_processes
def best_of_n(
    model: Scored,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help="Rows with a prompt and its completions, in any format. Can be given several times."
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="OUT", help="The file to write: Parquet if named *.parquet, else JSON Lines.")
    ],
    selected: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Completions to fine-tune on (prompt, completion, score).")
    ] = None,
    select: Annotated[
        str | None, typer.Option(metavar="HOW", help="What --selected holds: best (default), top-k or reward-weighted.")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", min=1, help="How many of each prompt; top-k: 2 by default, reward-weighted: 1."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="reward-weighted draws with P ~ exp(score / temperature); 1 by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="reward-weighted: seed of the draws, 0 by default.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The best of each prompt against its worst (prompt, chosen, rejected)."),
    ] = None,
    min_gap: Annotated[
        float | None, typer.Option(min=0.0, metavar="GAP", help="--pairs: smallest difference of the two scores.")
    ] = None,
    json_output: JsonOutput = False,
    format: RowFormat = "auto",
    split: Split = None,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    batch_tokens: BatchTokens = None,
    max_length: MaxLength = None,
    aggregation: Aggregate = None,
    neutral_is_correct: NeutralIsCorrect = False,
    scale: ScaleName = "raw",
    beta: Beta = None,
    length_normalised: LengthNormalised = False,
    ensemble: Ensemble = None,
    ensemble_k: EnsembleK = None,
    ensemble_weights: EnsembleWeights = None,
    ensemble_scale: EnsembleScale = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first row that cannot be read or scored.")
    ] = False,
    max_bad_fraction: MaxBadFraction = 0.05,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an interrupted run left.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files to write if they exist.")] = False,
    trust_remote_code: TrustRemoteCode = False,
    no_verify: NoVerify = False,
    launcher: Launcher = None,
    processes: Processes = None,
) -> None:
    """Pick the best of several completions of each prompt, and make training data of the picks.

    Rows come out in order, each with its id, [bold]best[/bold] (an index), [bold]best_completion[/bold] and
    [bold]best_score[/bold], [bold]ranking[/bold] (indices, best first), [bold]ranks[/bold] (equal scores share one),
    all [bold]scores[/bold], [bold]n[/bold] and [bold]kl[/bold] = log n - (n - 1)/n. An ensemble adds
    [bold]disagreements[/bold]. A row that cannot be scored keeps its place, with the reason in [bold]error[/bold].

    The table says what the best of fewer would have given. Where the rows have ratings or outcomes it says what these
    are of the pick, which its score cannot: the highest of many scores is also the luckiest (docs/best_of_n.md).

    A run that was killed goes on where it was when the same command is given again.

    [dim]Examples:[/dim]

        rewardlab best-of-n runs/rm --data samples.jsonl --output best.jsonl

        rewardlab best-of-n runs/rm --data samples.jsonl --output best.jsonl --pairs dpo.jsonl --min-gap 0.5

        rewardlab best-of-n runs/rm --data samples.jsonl --output best.jsonl --selected sft.jsonl --select top-k --k 2

        rewardlab best-of-n runs/rm-1,runs/rm-2 --data samples.jsonl --output best.parquet --ensemble min
    """
    from rich.console import Console

    from rewardlab.search.best_of_n_files import BestOfNOutputs, best_of_n_file

    console = Console(stderr=True)
    selection = _selection(selected, select, k, temperature, seed)
    if min_gap is not None and pairs is None:
        raise ConfigError("--min-gap is for pairs", hint="name their file, --pairs FILE")
    outputs = BestOfNOutputs(output, selected, pairs)
    outputs.check(data, split=split, overwrite=overwrite)
    options = scorer_options(
        device=device,
        dtype=dtype,
        max_length=max_length,
        batch_tokens=batch_tokens,
        engine=engine,
        trust_remote_code=trust_remote_code,
        no_verify=no_verify,
        aggregation=aggregation,
        neutral_is_correct=neutral_is_correct,
        scale=scale,
        beta=beta,
        length_normalised=length_normalised,
        ensemble=ensemble,
        ensemble_k=ensemble_k,
        ensemble_weights=ensemble_weights,
        ensemble_scale=ensemble_scale,
    )
    scorer, told = opened_scorer(model, options)
    with scoring_bar(console) as update:
        run = best_of_n_file(
            scorer,
            data,
            outputs,
            selection=selection,
            min_gap=min_gap or 0.0,
            format=format,
            split=split,
            strict=strict,
            max_bad_fraction=max_bad_fraction,
            settings={**scorer.settings, "batch_tokens": batch_tokens},
            restart=restart,
            overwrite=overwrite,
            on_progress=update,
        )
    _print_summary(console, run, scale_told(told), min_gap)
    if json_output:
        typer.echo(json.dumps({**run.to_dict(), **told}, indent=2, allow_nan=False))
    else:
        Console().print(_table(run.summary))


def _selection(
    selected: Path | None, select: str | None, k: int | None, temperature: float | None, seed: int | None
) -> Selection:
    """The selection that the options name; options that would do nothing are refused."""
    from rewardlab.search.best_of_n import Selection

    if selected is None:
        given = {"--select": select, "--k": k, "--temperature": temperature, "--seed": seed}
        for name, value in given.items():
            if value is not None:
                raise ConfigError(f"{name} is for selected completions", hint="name their file, --selected FILE")
    if select != "reward-weighted":
        for name, value in {"--temperature": temperature, "--seed": seed}.items():
            if value is not None:
                raise ConfigError(f"{name} is for random draws", hint="--select reward-weighted")
    return Selection(
        how=select or "best",  # type: ignore[arg-type]  # a name that is none is refused there
        k=k,
        temperature=1.0 if temperature is None else temperature,
        seed=seed or 0,
    )


def _table(summary: BestOfNSummary) -> Table:
    """The expected best of n, a row for each n; beside it what is known of the pick, random and the oracle's."""
    from rewardlab.evaluation.table import metric_table

    title = f"expected best of n, {summary.num_scored:,} rows"
    names = [(name, _QUALITIES[name]) for name in summary.known]
    columns = [column for _, words in names for column in (words, "oracle")]
    differ = len({point.num_groups for point in summary.expected}) > 1
    table = metric_table(title, "n", *(["rows"] if differ else []), "KL", "best score", *columns)
    for point in summary.expected:
        cells = [str(point.n), *([f"{point.num_groups:,}"] if differ else []), f"{point.kl:.2f}", _value(point)]
        for name, _ in names:
            known = {of.n: of for of in summary.known[name].points}.get(point.n)
            cells += [_value(known), f"{known.oracle.value:.3f}"] if known and known.oracle else ["–", "–"]
        table.add_row(*cells)
    few = {name: curve.num_groups for name, curve in summary.known.items() if curve.num_groups < summary.num_scored}
    words = [f"in brackets: {100 * summary.confidence:g} % intervals by prompt"]
    words += [f"{name}: known of {count:,} of {summary.num_scored:,} rows" for name, count in few.items()]
    table.caption, table.caption_justify = "; ".join(words), "left"
    return table


def _value(point: CurvePoint | None) -> str:
    """A mean and its interval."""
    from rewardlab.evaluation.table import area, bounds_text

    if point is None:
        return "–"
    bounds = bounds_text(point.value, area)
    return f"{point.value.value:.3f}" + (f" ({bounds})" if bounds != "–" else "")


def _print_summary(console: Console, run: BestOfNRun, scale: str, min_gap: float | None) -> None:
    """What was done, and what one should look at, a line each."""

    def tell(line: str, style: str | None = None) -> None:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    files, summary = run.outputs, run.summary
    resumed = f" ({run.resumed_rows:,} of them scored by an interrupted run)" if run.resumed_rows else ""
    fewest, middle, most = summary.n
    sizes = f"{most}" if fewest == most else f"{fewest} to {most}, median {middle:g}"
    rows = f"{summary.num_groups:,} rows{resumed}, n = {sizes}"
    tell(f"best of n of {rows}, in {run.seconds:.1f} s{scale}: {files.output}")
    if files.selected is not None:
        tell(f"{run.num_selected:,} selected completions: {files.selected}")
    if files.pairs is not None:
        without = dict(run.without_pair)
        words = {
            "tie": "tied",
            "below min_gap": f"with a gap below {min_gap or 0:g}",
            "one completion": "with one completion",
            "unscored": "without a score",
        }
        none = ", ".join(f"{without[reason]:,} {text}" for reason, text in words.items() if reason in without)
        tell(f"{run.num_pairs:,} pairs: {files.pairs}" + (f"; rows without one: {none}" if none else ""))
    unreadable = run.ledger["rows"]["quarantined"] - run.unscored_rows
    if unreadable:
        tell(f"warning: {unreadable:,} rows cannot be read; see {files.quarantine}", "yellow")
    if run.unscored_rows:
        tell(f"warning: {run.unscored_rows:,} rows have no score; see their column error", "yellow")
    if run.ledger["rows"]["truncated"]:
        tell(f"the prompts of {run.ledger['rows']['truncated']:,} rows were cut to fit the maximum length")
    for note in run.notes:
        tell(f"note: {note}")
