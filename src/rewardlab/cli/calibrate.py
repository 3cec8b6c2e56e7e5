"""``rewardlab calibrate``: gives a reward model its temperature and its reference scale.

This file knows options and how the result is laid out; what is fitted is :mod:`rewardlab.evaluation.calibrating`'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rewardlab.cli.options import (
    Device,
    Dtype,
    EngineName,
    JsonOutput,
    Launcher,
    Model,
    NoVerify,
    Processes,
    RowFormat,
    Split,
    TrustRemoteCode,
    one_model,
    scorer_options,
)
from rewardlab.cli.scoring import on_processes

if TYPE_CHECKING:
    from rewardlab.scoring.scorer import Scorer
    from rewardlab.types import PromptGroup


@on_processes
def calibrate(
    model: Model,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help="Labelled rows that the model was not trained on. Can be given several times."
        ),
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="The reference set: the same for every version of a model. Labels are not read."
        ),
    ] = None,
    previous: Annotated[
        str | None, typer.Option(metavar="DIR", help="The version before: report how the scores have shifted since.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fit on rows that the model was trained on, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    json_output: JsonOutput = False,
    format: RowFormat = "auto",
    split: Split = None,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    trust_remote_code: TrustRemoteCode = False,
    no_verify: NoVerify = False,
    launcher: Launcher = None,
    processes: Processes = None,
) -> None:
    """Fit the temperature of a reward model, and store it with the spread of its scores over a reference set.

    After it, sigmoid(score difference / T) is the probability that one completion is preferred, and
    [bold]rewardlab score --scale[/bold] gives scores centred, as z-scores, percentiles or calibrated. The order of
    scores does not change. Log loss and calibration error "with T" are cross-fitted: each pair is judged by a
    temperature fitted on other prompts. `train` does this on its held-out rows; use this command with more, or other,
    rows. Of a checkpoint with several heads each head gets its own scale, beside their mean.

    [dim]Examples:[/dim]

        rewardlab calibrate runs/rm --data held_out.jsonl

        rewardlab calibrate runs/rm-2 --data held_out.jsonl --reference reference.jsonl --previous runs/rm-1

        rewardlab calibrate runs/rm --data held_out.jsonl --dry-run --json
    """
    from rich.console import Console

    from rewardlab.data.loading import read_groups
    from rewardlab.errors import ConfigError

    folder = Path(model)
    if not dry_run and not folder.is_dir():
        raise ConfigError(
            f"{model} is not a local folder, so nothing can be stored in it", hint="download it, or --dry-run"
        )

    def read(files: list[str], format: str) -> list[PromptGroup]:
        reading = read_groups(files, format=format, split=split)
        if reading.bad_rows:
            typer.echo(reading.left_out(), err=True)
        return reading.groups

    groups = read(data, format)
    of_reference = read(reference, "auto") if reference else None

    from rewardlab.evaluation.calibrating import calibrate_model
    from rewardlab.evaluation.calibration_table import render_calibrated
    from rewardlab.modeling.checkpoint import write_contract
    from rewardlab.scoring.opening import open_scorer

    def opened(path: str) -> Scorer:
        options = scorer_options(
            device=device, dtype=dtype, engine=engine, trust_remote_code=trust_remote_code, no_verify=no_verify
        )
        return open_scorer(one_model(path), **options)

    result = calibrate_model(
        opened(model),
        groups,
        reference=of_reference,
        reference_name=", ".join(Path(file).name for file in reference or ()),
        previous=opened(previous) if previous else None,
        force=force,
        progress=True,
    )
    if not dry_run:
        write_contract(folder, result.contract)
    if json_output:
        typer.echo(json.dumps(result.to_dict(), indent=2, allow_nan=False))
    else:
        Console().print(render_calibrated(result))
    talk = Console(stderr=True, highlight=False, soft_wrap=True)
    for warning in result.warnings:
        talk.print(f"warning: {warning}", style="yellow", markup=False)
    stored = "nothing is stored (--dry-run)" if dry_run else f"stored in {folder / 'reward_contract.json'}"
    talk.print(stored, markup=False)
