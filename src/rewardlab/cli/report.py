"""``rewardlab report``: one page that shows a model, two of them side by side, or what the monitor has seen.

This file knows options and where the page goes; what is on it is :mod:`rewardlab.evaluation.report`'s, or
:mod:`rewardlab.monitoring.trends_page`'s.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rewardlab.cli.options import (
    Device,
    Dtype,
    EngineName,
    Launcher,
    NoVerify,
    Processes,
    TrustRemoteCode,
    one_model,
)
from rewardlab.cli.scoring import on_processes
from rewardlab.errors import ConfigError
from rewardlab.files import write_safely


@partial(on_processes, not_with="history")
def report(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DIR [DIR2]]", help="The reward model: a folder or a hub id; two are compared."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the page goes; by default report.html, comparison.html or trends.html."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Labelled rows to score; by default the stored held-out scores. Can be given several times.",
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="DB", help="Show what `rewardlab monitor` has seen; with DIR, of this model alone."),
    ] = None,
    bias: Annotated[
        bool, typer.Option("--bias/--no-bias", help="Run the bias probes, which load the model (one model only).")
    ] = True,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    trust_remote_code: TrustRemoteCode = False,
    no_verify: NoVerify = False,
    launcher: Launcher = None,
    processes: Processes = None,
) -> None:
    """Show all that is known of a model on one page, compare two, or show the trends of a monitor's history.

    The page is one HTML file that opens offline: the verdict, training curves, margins, reliability before and after
    the temperature, accuracy by subset and by length, bias probes, the pairs it is most confidently wrong about, the
    data ledger and the contract (docs/report.md). It holds texts of the data. With --history it shows alarms, their
    reasons and trends (docs/monitoring.md), and holds no texts.

    [dim]Examples:[/dim]

        rewardlab report runs/rm

        rewardlab report runs/rm --data held_out.jsonl --output rm.html

        rewardlab report runs/old runs/new --data held_out.jsonl

        rewardlab report --history rm.history --output trends.html
    """
    models = models or []
    _require_usage(models, data, history)
    name = "trends.html" if history else "comparison.html" if len(models) == 2 else "report.html"
    path = output or Path(name)
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            f"{path}: not a file that can be written", hint="name a file in an existing folder with --output"
        )
    from rewardlab.scoring.partial import check_written

    check_written([*(data or ()), *([history] if history else [])], {"the page": path})
    if history is not None:
        from rewardlab.monitoring.trends import gather_trends
        from rewardlab.monitoring.trends_page import render_trends

        _write(path, render_trends(gather_trends(history, model=models[0] if models else None)))
        return

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
    _write(path, page)


def _require_usage(models: list[str], data: list[str] | None, history: Path | None) -> None:
    """Refuse what does not go together, before anything is read."""
    if history is not None:
        if len(models) > 1:
            raise ConfigError(f"{len(models)} models are named", hint="with --history name one, or none for all")
        if data:
            raise ConfigError("--history shows what was seen, and scores no --data", hint="leave one of them out")
        return
    if not models:
        raise ConfigError("no model is named", hint="name a folder or a hub id, or give --history DB")
    for model in models:
        one_model(model)
    if len(models) > 2:
        raise ConfigError(f"{len(models)} models are named", hint="one is shown, two are compared")


def _write(path: Path, page: str) -> None:
    write_safely(path, page)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB, opens offline in any browser", err=True)
