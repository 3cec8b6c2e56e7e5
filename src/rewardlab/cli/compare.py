"""``rewardlab compare``: may a new version of a reward model replace the old one?

This file knows options and where output goes; what is decided is :mod:`rewardlab.evaluation.replacement`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rewardlab.cli.options import (
    Device,
    Dtype,
    EngineName,
    JsonOutput,
    Launcher,
    NoVerify,
    Processes,
    RowFormat,
    Split,
    TrustRemoteCode,
    scorer_options,
)
from rewardlab.cli.scoring import on_processes

_THEN = """then:
  point the server to it: POST /reload with {{"path": "{new}"}}
  and with the same history, which watches the new version from here on:
  rewardlab monitor {new} --canary canary.jsonl --history rm.history
  rewardlab monitor {new} --baseline FILE --history rm.history    (labelled rows that it has not seen)
  rewardlab monitor {new} --reference FILE --history rm.history   (where live scores are watched)"""


@on_processes
def compare(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="The model in use: a folder, a hub id, or A,B,C for an ensemble.")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The model that may take its place, likewise.")],
    data: Annotated[
        list[str],
        typer.Option(metavar="FILE", help="Labelled rows that neither has seen. Can be given several times."),
    ],
    json_output: JsonOutput = False,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Loss of accuracy that is tolerated; 0.01 is one point.")
    ] = 0.01,
    tolerated_ece: Annotated[
        float, typer.Option("--tolerated-ece", min=0.0, max=0.5, help="Rise of the calibration error that is.")
    ] = 0.02,
    format: RowFormat = "auto",
    split: Split = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if any row is bad.")] = False,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where bad rows are written, with line and reason.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    trust_remote_code: TrustRemoteCode = False,
    no_verify: NoVerify = False,
    launcher: Launcher = None,
    processes: Processes = None,
) -> None:
    """Decide with paired tests whether NEW may replace OLD: exit status 0 if so, 1 if not or undecided.

    Both score the same preferences. NEW may replace OLD if it is shown to lose at most the tolerated accuracy and
    calibration, and is shown to be worse in no subset; with too few rows the answer is "undecided", and how many would
    do (docs/refresh.md). An error exits with 1 as well, with `error:` on stderr and nothing on stdout; bad usage with
    2. `rewardlab report OLD NEW` shows two models side by side on a page.

    [dim]Examples:[/dim]

        rewardlab compare runs/rm-1 runs/rm-2 --data fresh.jsonl

        rewardlab compare runs/rm-1 runs/rm-2 --data fresh.jsonl --tolerance 0.02 --json > decision.json

        rewardlab compare runs/a,runs/b,runs/c runs/rm-2 --data fresh.jsonl --data today.jsonl
    """
    from dataclasses import replace

    from rich.console import Console

    from rewardlab.data.loading import read_groups
    from rewardlab.evaluation.readable import readable
    from rewardlab.evaluation.replacement import compare_scorers
    from rewardlab.evaluation.replacement_table import render_replacement
    from rewardlab.metrics.pairs import require_pairs
    from rewardlab.scoring.names import require_models
    from rewardlab.scoring.opening import open_scorer

    for model in (old, new):
        require_models(model)
    options = scorer_options(
        device=device, dtype=dtype, engine=engine, trust_remote_code=trust_remote_code, no_verify=no_verify
    )
    reading = read_groups(data, format=format, split=split, strict=strict, quarantine=quarantine)
    if reading.bad_rows:
        typer.echo(reading.left_out(), err=True)
    groups = [group for group in reading.groups if group.pairs]
    if without := len(reading.groups) - len(groups):
        huge = sum(group.num_unlisted_pairs > 0 for group in reading.groups if not group.pairs)
        of_them = f", {huge:,} of them rankings of too many completions for a list of pairs" if huge else ""
        typer.echo(f"left out: {without:,} rows that say no preference{of_them}", err=True)
        for _ in range(without):
            reading.ledger.drop("no preference: nothing to compare the models on", was_used=True)
    require_pairs(groups)
    scorers = (open_scorer(old, **options), open_scorer(new, **options))
    for scorer in scorers:
        found = readable(scorer.encoder, groups)
        for _, error in found.left_out:
            typer.echo(f"left out for both: {error.message}", err=True)
        replace(found, truncated=0).account(reading.ledger)
        groups = found.groups
    reading.ledger.truncated = max(readable(scorer.encoder, groups).truncated for scorer in scorers)
    result = compare_scorers(
        *scorers, groups, tolerance=tolerance, tolerated_ece=tolerated_ece, progress=not json_output
    )
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if json_output:
        told = {"old": old, "new": new, **result.to_dict(), "ledger": reading.ledger.to_dict()}
        typer.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        Console().print(render_replacement(result))
    if not result.may_replace:
        raise typer.Exit(1)
    if not json_output:
        typer.echo(_THEN.format(new=new), err=True)
