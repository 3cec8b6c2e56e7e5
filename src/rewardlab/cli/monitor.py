"""``rewardlab monitor``: is a reward model still what it was, on fixed rows, on the policy's, and live?

This file knows options and where output goes; what is measured and tested is :mod:`rewardlab.monitoring`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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
from rewardlab.errors import ConfigError, DataError, RewardLabError

if TYPE_CHECKING:
    from rewardlab.monitoring.history import History
    from rewardlab.monitoring.snapshots import Snapshot

_MODES = "What to look at (one of these)"
_OUTPUT = "What is kept and told"
_SELECTING = "With --select"
_ROWS = "The rows"
_SCORING = "How to score"


def _placed(option: Any, panel: str | None) -> Any:
    """A shared option in a panel of this command; without a panel it is taken and not shown."""
    of, given = get_args(option)
    placed = copy(given)
    placed.rich_help_panel, placed.hidden = panel, panel is None
    return Annotated[of, placed]


if not TYPE_CHECKING:
    JsonOutput = _placed(JsonOutput, _OUTPUT)
    RowFormat, Split = (_placed(option, _ROWS) for option in (RowFormat, Split))
    Device, Dtype, EngineName, Launcher, Processes, Ensemble, EnsembleK, EnsembleWeights, EnsembleScale = (
        _placed(option, _SCORING)
        for option in (
            *(Device, Dtype, EngineName, Launcher, Processes),
            *(Ensemble, EnsembleK, EnsembleWeights, EnsembleScale),
        )
    )
    Aggregate, NeutralIsCorrect, Beta, LengthNormalised, TrustRemoteCode, NoVerify = (
        _placed(option, None)
        for option in (Aggregate, NeutralIsCorrect, Beta, LengthNormalised, TrustRemoteCode, NoVerify)
    )

_LABELLED, _SCORED = ("canary", "fresh", "baseline"), ("canary", "fresh", "baseline", "reference", "select")

_GOES_WITH: Mapping[str, Sequence[str]] = {
    "against": ("fresh", "baseline"),
    "thresholds": ("canary", "fresh", "live"),
    "prometheus": (*_LABELLED, "reference", "live"),
    "api_key": ("live",),
    **dict.fromkeys(("data", "output", "known", "seed", "overwrite"), ("select",)),
    **dict.fromkeys(("format", "split", "device", "dtype", "engine", "trust_remote_code", "no_verify"), _SCORED),
    **dict.fromkeys(("aggregation", "neutral_is_correct", "beta", "length_normalised"), _SCORED),
    **dict.fromkeys(("ensemble", "ensemble_k", "ensemble_weights", "ensemble_scale"), _SCORED),
}
"""Which modes make something of an option; the others refuse it, for whoever gave it expects something of it."""


@partial(on_processes, not_with="live")
def monitor(
    context: typer.Context,
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
        Path | None,
        typer.Option(
            metavar="DB",
            rich_help_panel=_OUTPUT,
            help="The monitor's memory, one SQLite file; made where there is none.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            rich_help_panel=_OUTPUT,
            help="--fresh, --baseline: an ensemble; the model's gap to it is watched too.",
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            metavar="YAML",
            rich_help_panel=_OUTPUT,
            help="--canary, --fresh, --live: when an alarm is raised; see docs/monitoring.md",
        ),
    ] = None,
    prometheus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=_OUTPUT, help="Also write the figures for the node exporter, *.prom."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            rich_help_panel=_OUTPUT,
            envvar="REWARDLAB_API_KEY",
            show_envvar=True,
            help="--live: the server's key.",
        ),
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
    launcher: Launcher = None,
    processes: Processes = None,
) -> None:
    """Learn when a reward model stops being what it was, and what to label next.

    [bold]--canary[/bold]: the same model must score a fixed set exactly as before; a new version is compared with the
    last good one and the best. [bold]--fresh[/bold]: accuracy and calibration on what the policy writes now, by a test
    that may be looked at every day. [bold]--live[/bold]: how a server's scores are distributed, without labels. Each
    run adds one snapshot to the history; no text is kept.

    Exit status: 0 no alarm, 1 an alarm, with its reason and what to do next on stderr (also: the run failed, with
    `error:` on stderr and nothing on stdout), 2 used wrongly. What else `rewardlab score` takes to score is taken too.

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
    sources = {name: context.get_parameter_source(name) for name in _GOES_WITH}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    _require_together(mode, given, history)
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
    if mode != "live":
        _require_there([*(modes[mode] if mode != "select" else data or ()), *(known or ())], model, against)
    from rewardlab.scoring.partial import check_written

    read = [*(modes[mode] if mode not in ("live", "select") else data or ()), *(known or ()), thresholds, history]
    written = {"the Prometheus file": prometheus, "the output": output}
    check_written(
        [file for file in read if file is not None],
        {name: path for name, path in written.items() if path is not None},
    )
    if mode == "select":
        assert select is not None
        assert data is not None
        assert output is not None
        _select(model, select, data, output, known or [], history, seed, overwrite, json_output, options, rows)
        return
    assert history is not None

    from rewardlab.monitoring.advice import next_steps
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
        last = _last_of(stored, opened) if prometheus is not None else []
    place = f"{stored.model}, " + ("not stored" if stored.number is None else f"snapshot {stored.number} of {history}")
    for finding in stored.findings:
        if finding.state in ("alarm", "warning"):
            typer.echo(f"{finding.state}: {place}: {finding.message}", err=True)
    steps = next_steps(stored)
    for step in steps:
        typer.echo(f"next: {step}", err=True)
    if json_output:
        warnings = [finding.message for finding in stored.findings if finding.state == "warning"]
        summary = {**stored.to_dict(), "history": str(history), "warnings": warnings, "next": steps}
        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from rewardlab.monitoring.table import render_snapshot

        Console().print(render_snapshot(stored))
    if prometheus is not None:
        _write_prometheus(prometheus, stored, last)
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


def _require_together(mode: str, given: Sequence[str], history: Path | None) -> None:
    """Refuse options that only other modes make something of, and ask for those that this one needs.

    Args:
        mode: What is looked at.
        given: Names of the options of :data:`_GOES_WITH` that the command line has.
        history: Its value.

    Raises:
        ConfigError: Naming the option.
    """
    for name in given:
        if mode not in _GOES_WITH[name]:
            allowed = " or ".join(f"--{one}" for one in _GOES_WITH[name])
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} means nothing to --{mode}: it goes with {allowed}", hint="leave it out")
    if mode == "select":
        for name in ("data", "output"):
            if name not in given:
                raise ConfigError(f"--select needs --{name}", hint="--select K --data POOL --output OUT")
    elif history is None:
        raise ConfigError(
            f"--{mode} needs --history", hint="name a file, such as rm.history; it is made the first time"
        )


def _require_there(files: Sequence[str], model: str, against: str | None) -> None:
    """Refuse files and models that are missing, before what takes seconds to load is loaded.

    Raises:
        DataError: A file is missing.
        CheckpointError: A model is.
    """
    from rewardlab.data.reading import is_hub_id
    from rewardlab.scoring.names import require_models

    for file in files:
        if not is_hub_id(file) and not Path(file).exists():
            raise DataError(f"{file}: no such file or folder", hint="check the path")
    for one in (model, against):
        if one is not None:
            require_models(one)


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


def _last_of(stored: Snapshot, history: History) -> list[Snapshot]:
    """The model's snapshots, with one that is left to grow: it was a look too."""
    unstored = [stored] if stored.number is None else []
    return [one for one in (*history.snapshots(pairs=False), *unstored) if one.model == stored.model]


def _write_prometheus(path: Path, stored: Snapshot, snapshots: Sequence[Snapshot]) -> None:
    """The last snapshots of each kind; where it fails the error says that the snapshot itself is stored."""
    from rewardlab.monitoring.prometheus_file import write_textfile

    try:
        write_textfile(path, snapshots)
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
    from rewardlab.monitoring.candidates import REASONS
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
            **_seen(opened),
            seed=seed,
            progress=True,
        )
        selection.write(output, overwrite=overwrite)
        if opened is not None:
            opened.add_asked(selection.keys)
    found = selection.to_dict()
    if json_output:
        told = {**found, "output": str(output), "history": None if history is None else str(history)}
        typer.echo(json.dumps(told, indent=2, allow_nan=False))
        return
    few = "" if found["num_selected"] == wanted else f" (of the {wanted:,} wanted; there are no more)"
    typer.echo(f"{found['num_selected']:,} comparisons to label{few}: {output}")
    for reason, number in found["left_out"].items():
        if number:
            typer.echo(f"  left out {number:,}: {REASONS[reason]}")
    for measure, reason in found["missing"].items():
        typer.echo(f"  without {measure}: {reason}")


def _seen(history: History | None) -> dict[str, set[str]]:
    """What a history says need not, or must not, be labelled."""
    if history is None:
        return {}
    return {
        "canary": history.labelled_keys("canary") | history.labelled_prompts("canary"),
        "labelled": history.labelled_keys("fresh", "baseline"),
        "asked": history.asked(),
    }
