"""``rewardlab monitor``: is a reward model still what it was, on fixed rows, on the policy's, and live?

This file knows options and where output goes; what is measured and tested is :mod:`rewardlab.monitoring`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    LengthNormalised,
    NeutralIsCorrect,
    NoVerify,
    RowFormat,
    Scored,
    Split,
    TrustRemoteCode,
    scorer_options,
)
from rewardlab.errors import ConfigError, RewardLabError

if TYPE_CHECKING:
    from rewardlab.monitoring.history import History
    from rewardlab.monitoring.snapshots import Snapshot

_MODES = "What to look at (one of these)"
_SELECTING = "With --select"


def monitor(
    model: Scored,
    canary: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", rich_help_panel=_MODES, help="A fixed labelled set, the same at every run."),
    ] = None,
    fresh: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", rich_help_panel=_MODES, help="New labelled comparisons of the current policy's."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", rich_help_panel=_MODES, help="Labelled comparisons that --fresh is held against."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", rich_help_panel=_MODES, help="Completions that --live is held against."),
    ] = None,
    live: Annotated[
        str | None,
        typer.Option(metavar="URL", rich_help_panel=_MODES, help="A running `rewardlab serve` of this model."),
    ] = None,
    select: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, rich_help_panel=_MODES, help="Choose the K comparisons most worth a label."),
    ] = None,
    history: Annotated[
        Path | None, typer.Option(metavar="DB", help="The monitor's memory, one SQLite file; made where there is none.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="--fresh, --baseline: an ensemble; the model's gap to it is watched too."),
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="YAML", help="When an alarm is raised; see docs/monitoring.md")
    ] = None,
    prometheus: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the figures for the node exporter, *.prom.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="REWARDLAB_API_KEY", show_envvar=True, help="--live: the server's key."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", rich_help_panel=_SELECTING, help="The pool: prompts with two completions or more."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="OUT", rich_help_panel=_SELECTING, help="The file to label, JSON Lines.")
    ] = None,
    known: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", rich_help_panel=_SELECTING, help="What is labelled already: never asked again."),
    ] = None,
    seed: Annotated[int, typer.Option(rich_help_panel=_SELECTING, help="Decides which completion is called a.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=_SELECTING, help="Replace OUT if it exists.")
    ] = False,
    json_output: JsonOutput = False,
    format: RowFormat = "auto",
    split: Split = None,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
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
) -> None:
    """Learn when a reward model stops being what it was, and what to label next.

    [bold]--canary[/bold]: the same model must score a fixed set exactly as before; a new version is compared with the
    one before. [bold]--fresh[/bold]: accuracy and calibration on what the policy writes now, by a test that may be
    looked at every day. [bold]--live[/bold]: how a server's scores are distributed, without labels. Each run adds one
    snapshot to the history; no text is kept.

    Exit status: 0 no alarm, 1 an alarm, each with its reason on stderr (also: the run failed, with `error:` on stderr
    and nothing on stdout), 2 used wrongly.

    [dim]Examples:[/dim]

        rewardlab monitor runs/rm --canary canary.jsonl --history rm.history

        rewardlab monitor runs/rm --baseline held_out.jsonl --history rm.history

        rewardlab monitor runs/rm --fresh today.jsonl --history rm.history --against runs/rm-1,runs/rm-2,runs/rm-3

        rewardlab monitor runs/rm --reference reference.jsonl --history rm.history

        rewardlab monitor runs/rm --live http://127.0.0.1:8000 --history rm.history --json

        rewardlab monitor runs/rm --select 200 --data pool.jsonl --output to_label.jsonl --history rm.history

    [dim]In a crontab, each night at three; cron mails what is on stderr:[/dim]

        0 3 * * * rewardlab monitor /srv/rm --canary /srv/canary.jsonl --history /srv/rm.history > /dev/null
    """
    modes: dict[str, Any] = {
        "canary": canary,
        "fresh": fresh,
        "baseline": baseline,
        "reference": reference,
        "live": live,
        "select": select,
    }
    mode = _only_mode(modes)
    _require_together(mode, {"against": against, "data": data, "output": output, "known": known}, history)
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
    rows = {"format": format, "split": split}
    if mode == "select":
        assert select is not None
        assert data is not None
        assert output is not None
        _select(model, select, data, output, known or [], history, seed, overwrite, json_output, options, rows)
        return
    assert history is not None

    from rewardlab.monitoring.history import History
    from rewardlab.monitoring.thresholds import load_thresholds

    limits = load_thresholds(thresholds)
    with History(history) as opened:
        if mode == "live":
            from rewardlab.monitoring.live import run_live

            stored = run_live(str(live), model, opened, limits, api_key=api_key)
        elif mode == "reference":
            stored = _run_reference(model, modes[mode], opened, options, rows)
        else:
            from rewardlab.monitoring.running import run_baseline, run_canary, run_fresh

            common: dict[str, Any] = {**rows, "options": options, "progress": True}
            if mode == "canary":
                stored = run_canary(model, modes[mode], opened, thresholds=limits, **common)
            elif mode == "baseline":
                stored = run_baseline(model, modes[mode], opened, against=against, **common)
            else:
                stored = run_fresh(model, modes[mode], opened, thresholds=limits, against=against, **common)
        told = [(one.state, f"{one.watch}: {one.message}") for one in stored.findings]
        for state, line in told:
            if state in ("alarm", "warning"):
                typer.echo(f"{state}: {line}", err=True)
        if prometheus is not None:
            _write_prometheus(prometheus, stored, opened)
    if json_output:
        warnings = [line for state, line in told if state == "warning"]
        summary = {**stored.to_dict(), "history": str(history), "warnings": warnings}
        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from rewardlab.monitoring.table import render_snapshot

        Console().print(render_snapshot(stored))
    if stored.alarms:
        raise typer.Exit(1)


def _only_mode(modes: Mapping[str, Any]) -> str:
    """The one that was asked for.

    Raises:
        ConfigError: None was, or several.
    """
    given = [name for name, value in modes.items() if value]
    names = ", ".join(f"--{name}" for name in modes)
    if len(given) != 1:
        came = " and ".join(f"--{name}" for name in given) or "none"
        raise ConfigError(f"expected exactly one of {names}; got {came}", hint="run the command once for each")
    return given[0]


def _require_together(mode: str, given: Mapping[str, Any], history: Path | None) -> None:
    """Refuse options that another mode needs, and ask for those that this one does.

    Raises:
        ConfigError: Naming the option.
    """
    goes_with = {"against": ("fresh", "baseline"), "data": ("select",), "output": ("select",), "known": ("select",)}
    for name, modes in goes_with.items():
        if given[name] and mode not in modes:
            allowed = " or ".join(f"--{one}" for one in modes)
            raise ConfigError(f"--{name} means nothing to --{mode}: it goes with {allowed}", hint="leave it out")
    if mode == "select":
        for name in ("data", "output"):
            if not given[name]:
                raise ConfigError(f"--select needs --{name}", hint="--select K --data POOL --output OUT")
    elif history is None:
        raise ConfigError(
            f"--{mode} needs --history", hint="name a file, such as rm.history; it is made the first time"
        )


def _run_reference(
    model: str, files: list[str], history: History, options: Mapping[str, Any], rows: Mapping[str, Any]
) -> Snapshot:
    """Score the reference set of the live distributions; every row must be good."""
    from rewardlab.data.loading import read_groups
    from rewardlab.monitoring.live import run_reference
    from rewardlab.scoring.names import short_name
    from rewardlab.scoring.opening import open_scorer

    groups = read_groups(files, strict=True, **rows).groups
    scorer = open_scorer(model, **options)
    names = [Path(file).name for file in files]
    return run_reference(scorer, groups, history, data=names, model=short_name(model), progress=True)


def _write_prometheus(path: Path, stored: Snapshot, history: History) -> None:
    """The model's last snapshots of each kind; where it fails the error says that the snapshot itself is stored."""
    from rewardlab.monitoring.prometheus_file import write_textfile

    try:
        earlier = history.snapshots(pairs=False)
        unstored = [stored] if stored.number is None else []  # a live window that is left to grow was a look too
        write_textfile(path, [one for one in (*earlier, *unstored) if one.model == stored.model])
    except RewardLabError as error:
        number = "" if stored.number is None else f" (the snapshot is stored, number {stored.number})"
        raise type(error)(f"{error.message}{number}", hint=error.hint) from error


def _select(
    model: str,
    wanted: int,
    pool: list[str],
    output: Path,
    known: list[str],
    history: Path | None,
    seed: int,
    overwrite: bool,
    json_output: bool,
    options: Mapping[str, Any],
    rows: Mapping[str, Any],
) -> None:
    """Choose comparisons and write them; with a history none that was asked before, and these are remembered."""
    from contextlib import nullcontext

    from rewardlab.data.loading import read_groups
    from rewardlab.monitoring.history import History
    from rewardlab.monitoring.selecting import select_comparisons
    from rewardlab.scoring.opening import open_scorer

    if output.exists() and not overwrite:  # said before the model is loaded
        raise ConfigError(f"the output {output} exists already, and may hold labels", hint="another, or --overwrite")
    with History(history) if history is not None else nullcontext() as opened:
        groups = []
        for files in (pool, known):
            reading = read_groups(files, **rows) if files else None
            if reading is not None and reading.bad_rows:
                typer.echo(f"warning: {reading.left_out()}", err=True)
            groups.append(reading.groups if reading is not None else [])
        selection = select_comparisons(
            open_scorer(model, **options),
            groups[0],
            wanted,
            known=groups[1],
            asked=frozenset() if opened is None else opened.asked(),
            seed=seed,
            progress=True,
        )
        selection.write(output, overwrite=overwrite)
        if opened is not None:
            opened.add_asked(selection.keys)
    found = selection.to_dict()
    for measure, reason in found["missing"].items():
        typer.echo(f"warning: without {measure}: {reason}", err=True)
    if json_output:
        told = {**found, "output": str(output), "history": None if history is None else str(history)}
        typer.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        few = "" if found["num_selected"] == wanted else f" (of the {wanted:,} wanted; there are no more)"
        typer.echo(f"{found['num_selected']:,} comparisons to label{few}: {output}")
