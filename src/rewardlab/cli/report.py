"""``rewardlab report``: one page that shows a model, or two of them side by side.

This file knows options and where the page goes; what is on it is :mod:`rewardlab.evaluation.report`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rewardlab.cli.options import Device, Dtype, EngineName, NoVerify, TrustRemoteCode, one_model


def report(
    models: Annotated[
        list[str],
        typer.Argument(metavar="DIR [DIR2]", help="The reward model: a folder or a hub id; two are compared."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; by default report.html or comparison.html."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Labelled rows to score; by default the stored held-out scores. Can be given several times.",
        ),
    ] = None,
    bias: Annotated[
        bool, typer.Option("--bias/--no-bias", help="Run the bias probes, which load the model (one model only).")
    ] = True,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    trust_remote_code: TrustRemoteCode = False,
    no_verify: NoVerify = False,
) -> None:
    """Show all that is known of a model on one page, or compare two.

    The page is one HTML file that opens offline: the verdict, training curves, margins, reliability before and after
    the temperature, accuracy by subset and by length, bias probes, the pairs it is most confidently wrong about, the
    data ledger and the contract (docs/report.md). It holds texts of the data.

    [dim]Examples:[/dim]

        rewardlab report runs/rm

        rewardlab report runs/rm --data held_out.jsonl --output rm.html

        rewardlab report runs/old runs/new --data held_out.jsonl
    """
    from rewardlab.errors import ConfigError

    for model in models:
        one_model(model)
    if len(models) > 2:
        raise ConfigError(f"{len(models)} models are named", hint="one is shown, two are compared")
    path = output or Path("comparison.html" if len(models) == 2 else "report.html")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            f"{path}: not a file that can be written", hint="name a file in an existing folder with --output"
        )

    from rewardlab.evaluation.report import gather_comparison, gather_report, render_comparison, render_report

    options = {
        "device": device,
        "dtype": dtype,
        "engine": engine,
        "trust_remote_code": trust_remote_code,
        "verify": not no_verify,
    }
    if len(models) == 2:
        page = render_comparison(gather_comparison(models[0], models[1], data=data or (), options=options))
    else:
        page = render_report(gather_report(models[0], data=data or (), bias=bias, options=options))
    path.write_text(page, encoding="utf-8")
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens offline in any browser", err=True)
