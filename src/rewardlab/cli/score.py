"""``rewardlab score``: scores for every row of some files, in a file of their own.

This file knows options, the progress bar and the summary; the work is :mod:`rewardlab.scoring.bulk`'s.
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
    LengthNormalised,
    MaxBadFraction,
    MaxLength,
    NeutralIsCorrect,
    NoVerify,
    RowFormat,
    ScaleName,
    Scored,
    Split,
    TrustRemoteCode,
    scorer_options,
)
from rewardlab.cli.scoring import opened_scorer, scale_told, scoring_bar

if TYPE_CHECKING:
    from rich.console import Console

    from rewardlab.scoring.bulk import BulkResult


def score(
    model: Scored,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help="Rows to score: a file, a saved dataset or a hub id. Can be given several times."
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="OUT", help="The file to write: Parquet if named *.parquet, else JSON Lines.")
    ],
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    trust_remote_code: TrustRemoteCode = False,
    no_verify: NoVerify = False,
    json_output: JsonOutput = False,
) -> None:
    """Score every row of a file: completions, pairs, or groups of completions.

    Rows come out in order, each with its id (else where it was read, such as pairs.jsonl:17) and [bold]score[/bold];
    pairs with [bold]chosen_score[/bold] and [bold]rejected_score[/bold]; groups of completions with the list
    [bold]scores[/bold]. A process model adds [bold]step_scores[/bold], P(correct) of each step, an ensemble
    (A,B,C) [bold]disagreement[/bold], how far its members' scores are apart. A row that cannot be scored keeps its
    place, with the reason in [bold]error[/bold]; one that cannot be read is in OUT.quarantine.jsonl.

    A raw score is no quality: only differences within a prompt mean something. [bold]--scale[/bold] gives it against
    the model's reference set instead.

    A run that was killed goes on where it was when the same command is given again.

    [dim]Examples:[/dim]

        rewardlab score runs/rm --data completions.jsonl --output scores.jsonl

        rewardlab score runs/rm --data a.jsonl.gz --data b.parquet --output scores.parquet --dtype bfloat16

        rewardlab score runs/rm --data completions.jsonl --output scores.jsonl --scale percentile

        rewardlab score runs/prm --data solutions.jsonl --output scores.jsonl --aggregation product

        rewardlab score runs/dpo:runs/sft --data completions.jsonl --output scores.jsonl --beta 0.1

        rewardlab score runs/rm-1,runs/rm-2,runs/rm-3 --data completions.jsonl --output scores.jsonl --ensemble min
    """
    from rich.console import Console

    from rewardlab.scoring.bulk import check_files, score_file

    console = Console(stderr=True)
    check_files(data, output, split=split, overwrite=overwrite)
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
        result = score_file(
            scorer,
            data,
            output,
            format=format,
            split=split,
            strict=strict,
            max_bad_fraction=max_bad_fraction,
            settings={**scorer.settings, "batch_tokens": batch_tokens},
            restart=restart,
            overwrite=overwrite,
            on_progress=update,
        )
    _print_summary(console, result, scale_told(told))
    if json_output:
        typer.echo(json.dumps({**result.to_dict(), **told}, indent=2))


def _print_summary(console: Console, result: BulkResult, scale: str) -> None:
    """What was done, and what one should look at, a line each."""

    def tell(line: str, style: str | None = None) -> None:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    resumed = f" ({result.resumed_rows:,} of them by an interrupted run)" if result.resumed_rows else ""
    tell(f"scored {result.rows:,} rows{resumed} in {result.seconds:.1f} s{scale}: {result.output}")
    unreadable = result.ledger["rows"]["quarantined"] - result.quarantined_rows
    if unreadable:
        tell(f"warning: {unreadable:,} rows cannot be read; see {result.output}.quarantine.jsonl", "yellow")
    if result.quarantined_rows:
        tell(f"warning: {result.quarantined_rows:,} rows have no score; see their column error", "yellow")
    for reason, count in result.ledger["reasons"].items():
        tell(f"  {count:,} × {reason}")
    if result.truncated_sequences:
        tell(f"{result.truncated_sequences:,} prompts were cut to fit the maximum length")
    for note in result.notes:
        tell(f"note: {note}")
