"""``rewardlab score``: scores for every row of some files, in a file of their own.

This file knows options, the progress bar and the summary; the work is :mod:`rewardlab.scoring.bulk`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

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

    from rewardlab.scoring.bulk import BulkResult


@on_processes
def score(
    model: Scored,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help="Rows to score: a file, a saved dataset or a hub id. Can be given several times."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            metavar="OUT",
            help="The file to write: Parquet if named *.parquet, else JSON Lines. A folder (OUT/, or one that exists) "
            "for Parquet files of some thousand rows each, with an index.",
        ),
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
    launcher: Launcher = None,
    processes: Processes = None,
    backend: Annotated[
        str, typer.Option("--backend", help="Who scores: local (this machine), or ray (actors on a Ray cluster).")
    ] = "local",
    actors: Annotated[
        int | None,
        typer.Option(
            "--actors", metavar="N", min=1, help="ray: how many, each with a GPU if there are any; by default all."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="ray: of a cluster that runs, such as auto; by default one is started here."),
    ] = None,
    part_rows: Annotated[
        int | None,
        typer.Option(
            "--part-rows", metavar="N", min=1, help="ray, or into a folder: rows of a part, about; 8192 by default."
        ),
    ] = None,
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

    A run that was killed goes on where it was when the same command is given again. Several processes of this machine
    share the work with [bold]--launcher ddp[/bold], a cluster with [bold]--backend ray[/bold]; see docs/scaling.md.

    [dim]Examples:[/dim]

        rewardlab score runs/rm --data completions.jsonl --output scores.jsonl

        rewardlab score runs/rm --data a.jsonl.gz --data b.parquet --output scores.parquet --dtype bfloat16

        rewardlab score runs/rm --data completions.jsonl --output scores.jsonl --scale percentile

        rewardlab score runs/prm --data solutions.jsonl --output scores.jsonl --aggregation product

        rewardlab score runs/dpo:runs/sft --data completions.jsonl --output scores.jsonl --beta 0.1

        rewardlab score runs/rm-1,runs/rm-2,runs/rm-3 --data completions.jsonl --output scores.jsonl --ensemble min

        rewardlab score runs/rm --data a.parquet --data b.parquet --output scores/ --backend ray --address auto
    """
    from rich.console import Console

    from rewardlab.scoring.bulk import check_files, score_file
    from rewardlab.scoring.parts import LocalWorkers, check_parts, is_folder, score_parts
    from rewardlab.scoring.survey import PART_ROWS

    console = Console(stderr=True)
    in_parts = backend == "ray" or is_folder(output)
    _check_backend(backend, device, {"--launcher": launcher, "--processes": processes}, actors, address)
    if part_rows is not None and not in_parts:
        raise ConfigError("--part-rows means nothing to one file written here", hint="leave it out, or name a folder")
    (check_parts if in_parts else check_files)(data, output, split=split, overwrite=overwrite)
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
    shared: dict[str, Any] = {
        "format": format,
        "split": split,
        "strict": strict,
        "max_bad_fraction": max_bad_fraction,
        "restart": restart,
        "overwrite": overwrite,
    }
    in_part: dict[str, Any] = {"part_rows": part_rows or PART_ROWS}
    if backend == "ray":
        from rewardlab.adapters.ray_data import RayWorkers
        from rewardlab.scoring.opening import open_scorer

        opener = partial(open_scorer, model, **options)
        with RayWorkers(opener, actors=actors, address=address, use_gpus=False if device == "cpu" else None) as workers:
            told = workers.told
            if "ensemble" in told:
                from rewardlab.evaluation.ensembles_table import ensemble_sentence

                typer.echo(f"scoring with {ensemble_sentence(told['ensemble'])}", err=True)
            settings = {**workers.settings, "batch_tokens": batch_tokens}
            with scoring_bar(console) as update:
                result = score_parts(workers, data, output, settings=settings, on_progress=update, **shared, **in_part)
    else:
        scorer, told = opened_scorer(model, options)
        settings = {**scorer.settings, "batch_tokens": batch_tokens}
        with scoring_bar(console) as update:
            if in_parts:
                here = LocalWorkers(scorer)
                result = score_parts(here, data, output, settings=settings, on_progress=update, **shared, **in_part)
            else:
                result = score_file(scorer, data, output, settings=settings, on_progress=update, **shared)
    _print_summary(console, result, scale_told(told))
    if json_output:
        typer.echo(json.dumps({**result.to_dict(), **told}, indent=2))


def _check_backend(
    backend: str, device: str | None, launching: Mapping[str, Any], actors: int | None, address: str | None
) -> None:
    """Refuse options that do not go together."""
    if backend not in ("local", "ray"):
        raise ConfigError(f"no backend is called {backend!r}", hint="one of: local, ray")
    if backend == "local":
        for name, value in (("--actors", actors), ("--address", address)):
            if value is not None:
                raise ConfigError(f"{name} means nothing to the backend local", hint="leave it out, or --backend ray")
        return
    for name, value in launching.items():
        if value is not None:
            raise ConfigError(f"{name} means nothing to the backend ray", hint="state how many actors, --actors")
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device}: Ray gives each actor its GPU", hint="leave it out, or --device cpu")


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
