"""``rewardlab benchmark``: a published benchmark's figures for a reward model.

This file knows options and where output goes; what is computed is :mod:`rewardlab.evaluation.benchmarks`'.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

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
    MaxLength,
    NeutralIsCorrect,
    NoVerify,
    Processes,
    Scored,
    TrustRemoteCode,
    scorer_options,
)
from rewardlab.cli.scoring import on_processes
from rewardlab.files import write_safely


@on_processes
def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="rewardbench, rewardbench-2, rm-bench, processbench, judgebench or llmbar."
        ),
    ],
    model: Scored,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="The benchmark's published file or folder, by default the hub's. Can be given several times.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split, of the hub or a saved dataset; by default the published one.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="ITEMS", help="Write id, scores and correctness of each item here, as JSON Lines."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace ITEMS if it exists.")] = False,
    json_output: JsonOutput = False,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    batch_tokens: BatchTokens = None,
    max_length: MaxLength = None,
    aggregation: Aggregate = None,
    neutral_is_correct: NeutralIsCorrect = False,
    beta: Beta = None,
    length_normalised: LengthNormalised = False,
    ensemble: Ensemble = None,
    ensemble_k: EnsembleK = None,
    ensemble_weights: EnsembleWeights = None,
    ensemble_scale: EnsembleScale = None,
    trust_remote_code: TrustRemoteCode = False,
    no_verify: NoVerify = False,
    launcher: Launcher = None,
    processes: Processes = None,
) -> None:
    """Run a published benchmark on a reward model.

    [bold]rewardbench[/bold]: accuracy on pairs, four sections. [bold]rewardbench-2[/bold]: best of four in five
    domains, and Ties. [bold]rm-bench[/bold]: accuracy across styles, easy to hard. [bold]processbench[/bold]: the first
    wrong step of solutions, for process models. [bold]judgebench[/bold]: pairs of hard questions.
    [bold]llmbar[/bold]: pairs on following instructions.

    Figures are put together by the published formulas, with 95 % intervals over resampled items. Nothing of a benchmark
    comes with rewardlab: give its files, or have a network (docs/benchmarks.md). An item that does not fit the model is
    left out and told.

    [dim]Examples:[/dim]

        rewardlab benchmark rewardbench runs/rm --data filtered.parquet

        rewardlab benchmark rewardbench-2 runs/rm --output items.jsonl --json

        rewardlab benchmark rm-bench runs/rm --data RM-Bench/data

        rewardlab benchmark processbench runs/prm --data ProcessBench/

        rewardlab benchmark llmbar runs/dpo:runs/sft --data Dataset/LLMBar

        rewardlab benchmark rewardbench runs/rm-1,runs/rm-2,runs/rm-3 --data filtered.parquet --ensemble median
    """
    from rich.console import Console

    from rewardlab.errors import ConfigError
    from rewardlab.evaluation.benchmarks import benchmark_named
    from rewardlab.evaluation.benchmarks.running import load_benchmark, run_benchmark, summary_of
    from rewardlab.evaluation.benchmarks.table import render
    from rewardlab.evaluation.ensembles_table import ensemble_sentence
    from rewardlab.evaluation.scorers import is_ensemble

    chosen = benchmark_named(name)
    if output is not None and output.exists() and not overwrite:
        raise ConfigError(f"{output} exists", hint="give another name, or --overwrite")
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
        beta=beta,
        length_normalised=length_normalised,
        ensemble=ensemble,
        ensemble_k=ensemble_k,
        ensemble_weights=ensemble_weights,
        ensemble_scale=ensemble_scale,
    )
    groups = load_benchmark(chosen, data or (), split)

    from rewardlab.scoring.opening import open_scorer

    scorer = open_scorer(model, **options)
    result = run_benchmark(chosen, scorer, groups, progress=True)
    members = scorer.to_dict() if is_ensemble(scorer) else None
    if members:
        result = replace(result, notes=(*result.notes, f"the model is {ensemble_sentence(members)}"))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(item, allow_nan=False) + "\n" for item in result.items)
        write_safely(output, "".join(lines))
        typer.echo(f"wrote {len(result.items):,} items to {output}", err=True)
    if json_output:
        summary = {**summary_of(chosen, result), **({"ensemble": members} if members else {})}
        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        Console().print(render(chosen, result))
