"""``rewardlab evaluate``: what a reward model's scores are worth on whatever is known of some completions.

This file knows options and where output goes; what is computed is :mod:`rewardlab.evaluation`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rewardlab.cli.options import (
    Aggregate,
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
    NeutralIsCorrect,
    NoVerify,
    Processes,
    RowFormat,
    Scored,
    Split,
    TrustRemoteCode,
    scorer_options,
)
from rewardlab.cli.scoring import on_processes


@on_processes
def evaluate(
    model: Scored,
    data: Annotated[
        list[str],
        typer.Option(metavar="FILE", help="Labelled rows that the model has not seen. Can be given several times."),
    ],
    json_output: JsonOutput = False,
    format: RowFormat = "auto",
    split: Split = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if any row is bad.")] = False,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where bad rows are written, with line and reason.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    aggregation: Aggregate = None,
    neutral_is_correct: NeutralIsCorrect = False,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="P(correct) at or below which a step is taken for an error.")
    ] = 0.5,
    bias: Annotated[
        bool, typer.Option("--bias", help="Probe what else moves the score: length, formatting, flattery, ... (slower)")
    ] = False,
    bias_groups: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most rows that --bias alters; of more, N are drawn.")
    ] = 200,
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
    """Measure a reward model on labelled rows: preferences, rankings, ratings, outcomes, judged steps.

    Of preferences it prints pairwise accuracy (a tie is not a win), log loss, calibration error, mean margin, and the
    accuracy by subset; of rankings and ratings correlations; of outcomes AUC and best-of-K accuracy; of judged steps,
    by a process model, F1 and first-error accuracy. Beside each stand length and majority; all have 95 % intervals, by
    prompt (docs/metrics.md). With --bias it also prints how the score moves when answers change in ways that should not
    make them better (docs/bias.md). Of an ensemble (A,B,C) it also prints each member's accuracy, and the accuracy on
    the pairs on which they agree and disagree (docs/ensembles.md).

    [dim]Examples:[/dim]

        rewardlab evaluate runs/rm --data held_out.jsonl

        rewardlab evaluate runs/rm --data held_out.jsonl --json > result.json

        rewardlab evaluate runs/prm --data steps.jsonl --format steps --threshold 0.3

        rewardlab evaluate runs/dpo:runs/sft --data held_out.jsonl --beta 0.1

        rewardlab evaluate runs/rm --data held_out.jsonl --bias

        rewardlab evaluate runs/rm-1,runs/rm-2,runs/rm-3 --data held_out.jsonl --ensemble mean-std --ensemble-k 0.5
    """
    from rich.console import Console

    from rewardlab.data.loading import read_groups
    from rewardlab.evaluation import Evaluator
    from rewardlab.evaluation.bias import measure_bias, require_probeable
    from rewardlab.evaluation.bias_table import render_bias
    from rewardlab.evaluation.ensembles_table import render_ensemble
    from rewardlab.evaluation.scorers import is_ensemble
    from rewardlab.evaluation.table import render_all
    from rewardlab.metrics.known import require_known

    options = scorer_options(
        device=device,
        dtype=dtype,
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
    reading = read_groups(data, format=format, split=split, strict=strict, quarantine=quarantine)
    if reading.bad_rows:
        typer.echo(reading.left_out(), err=True)

    from rewardlab.evaluation.provenance import warnings_of
    from rewardlab.evaluation.readable import readable
    from rewardlab.scoring.opening import open_scorer

    scorer = open_scorer(model, **options)
    if bias:
        require_probeable(scorer)
    found = readable(scorer.encoder, reading.groups)
    found.account(reading.ledger)
    for _, error in found.left_out:
        typer.echo(f"left out: {error.message}", err=True)
    groups = found.groups
    require_known(groups)
    if is_ensemble(scorer):
        contracts = scorer.contracts.items()
        warnings = [f"{name}: {told}" for name, contract in contracts for told in warnings_of(contract, groups)]
    else:
        warnings = warnings_of(scorer.contract, groups)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    # First the probes, which can still find that they cannot be made: no metrics are lost then.
    probed = measure_bias(scorer, groups, most=bias_groups, progress=True) if bias else None
    evaluator, of_members = Evaluator(scorer, threshold=threshold), None
    if is_ensemble(scorer):
        result, of_members = evaluator.evaluate_ensemble(groups, progress=True)
    else:
        result = evaluator.evaluate_all(groups, progress=True)

    if json_output:
        summary = {**result.to_dict(), "warnings": warnings, "ledger": reading.ledger.to_dict()}
        if of_members:
            summary["ensemble"] = of_members.to_dict()
        if probed:
            summary["bias"] = probed.to_dict()
        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        Console().print(render_all(result))
        if of_members:
            Console().print(render_ensemble(of_members))
        if probed:
            Console().print(render_bias(probed))
