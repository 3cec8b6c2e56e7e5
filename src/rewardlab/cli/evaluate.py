"""``rewardlab evaluate``: a reward model's accuracy and calibration on preference pairs, beside the length baselines.

This file knows options and where output goes; what is computed is :mod:`rewardlab.evaluation`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rewardlab.cli.options import CheckContract, Device, Dtype, EngineName, Model, TrustRemoteCode


def evaluate(
    model: Model,
    data: Annotated[
        list[str],
        typer.Option(metavar="FILE", help="Preference pairs that the model has not seen. Can be given several times."),
    ],
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    format: Annotated[str, typer.Option(help="What the rows are; by default told by their columns.")] = "auto",
    split: Annotated[str | None, typer.Option(help="The split, of a hub id or a saved dataset.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if any row is bad.")] = False,
    quarantine: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where bad rows are written, with line and reason.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    trust_remote_code: TrustRemoteCode = False,
    check_contract: CheckContract = True,
) -> None:
    """Measure a reward model on preference pairs.

    Prints pairwise accuracy (a tie is not a win) beside that of always choosing the longer or the shorter completion;
    log loss, calibration error and mean margin; and the accuracy by subset. All have 95 % intervals, by prompt.

    [dim]Examples:[/dim]

        rewardlab evaluate runs/rm --data held_out.jsonl

        rewardlab evaluate runs/rm --data held_out.jsonl --json > result.json
    """
    from rich.console import Console

    from rewardlab.data.loading import read_groups
    from rewardlab.evaluation import Evaluator
    from rewardlab.evaluation.table import render

    reading = read_groups(data, format=format, split=split, strict=strict, quarantine=quarantine)
    if reading.bad_rows:
        left_out = f"{len(reading.bad_rows):,} of {reading.ledger.read:,} rows are bad and left out"
        typer.echo(f"{left_out}{f', see {quarantine}' if quarantine else ''}:\n{reading.told()}", err=True)

    from rewardlab.data.encoding import reason_of
    from rewardlab.errors import DataError
    from rewardlab.scoring.scorer import Scorer

    scorer = Scorer.from_pretrained(
        model,
        device=device,
        dtype=dtype,
        engine=engine,
        trust_remote_code=trust_remote_code,
        verify=check_contract,
    )
    groups = []
    for group, encoded in zip(reading.groups, scorer.encoder.encode_many(reading.groups), strict=True):
        if isinstance(encoded, DataError):
            reading.ledger.quarantine(reason_of(encoded), was_used=True)
            typer.echo(f"left out: {encoded.message}", err=True)
        else:
            groups.append(group)
            reading.ledger.truncated += bool(encoded.truncated)
    result = Evaluator(scorer).evaluate(groups, progress=True)

    if json_output:
        summary = {**result.to_dict(), "ledger": reading.ledger.to_dict()}
        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        Console().print(render(result))
