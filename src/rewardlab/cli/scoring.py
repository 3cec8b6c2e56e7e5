"""What the commands that score whole files share: opening the scorer, several processes, and the progress bar."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import typer

from rewardlab.errors import ConfigError
from rewardlab.launching import is_first, is_started, launch

if TYPE_CHECKING:
    from rich.console import Console

    from rewardlab.modeling.ranks import Ranks
    from rewardlab.scoring.scorer import Scorer


def on_processes(command: Callable[..., None], *, not_with: str = "") -> Callable[..., None]:
    """A command whose scoring several processes share: ``--launcher`` starts them, or another launcher has.

    The first does all that the command does; the others lend it their models (:mod:`rewardlab.modeling.lending`).

    Args:
        command: With the options ``launcher`` and ``processes``, which it need not look at; it opens its scorers by
            :func:`~rewardlab.scoring.opening.open_scorer`.
        not_with: An option with which the command scores nothing; it refuses ``launcher`` and ``processes``.
    """

    @wraps(command)
    def shared(*arguments: Any, launcher: str | None = None, processes: int | None = None, **options: Any) -> None:
        if options.get(not_with) is not None and (launcher, processes) != (None, None):
            raise ConfigError(f"--{not_with} scores nothing that processes could share", hint="leave out --launcher")
        status = launch(launcher, processes)
        if status is not None:
            raise typer.Exit(status)
        given = {"launcher": launcher, "processes": processes, **options}
        if not is_started():
            command(*arguments, **given)
            return
        if launcher not in (None, "ddp") and is_first():
            typer.echo(f"note: {launcher} divides a model in training; to score, each process holds it whole", err=True)

        from rewardlab.modeling.lending import borrowing, processes_of_this_run

        ranks = processes_of_this_run()
        if ranks.index:
            _lend(ranks)
            return
        with borrowing(ranks):
            command(*arguments, **given)

    return shared


def _lend(ranks: Ranks) -> None:
    """Compute what the first process sends; what there is to say, it says."""
    from rewardlab.modeling.engine import Engine
    from rewardlab.modeling.lending import lend
    from rewardlab.scoring.opening import models_of, open_scorer

    logging.disable(logging.ERROR)
    lend(ranks, lambda request: models_of(open_scorer(**request)), Engine)


def opened_scorer(model: str, options: Mapping[str, Any]) -> tuple[Scorer, dict[str, Any]]:
    """The scorer that a name means; of an ensemble says on stderr which members it has.

    Args:
        model: As :func:`~rewardlab.scoring.opening.open_scorer` has it.
        options: Of :func:`~rewardlab.cli.options.scorer_options`.

    Returns:
        The scorer, and what ``--json`` says of it beside the results: ``{"scale"}``, of an ensemble ``{"ensemble"}``.
    """
    from rewardlab.evaluation.ensembles_table import ensemble_sentence
    from rewardlab.evaluation.scorers import is_ensemble
    from rewardlab.scoring.opening import open_scorer

    scorer = open_scorer(model, **options)
    told: dict[str, Any] = {"scale": scorer.scale}
    if is_ensemble(scorer):
        told["ensemble"] = scorer.to_dict()
        typer.echo(f"scoring with {ensemble_sentence(told['ensemble'])}", err=True)
    return scorer, told


def scale_told(told: Mapping[str, Any]) -> str:
    """``", scale z"`` for the line that sums up; nothing of an ensemble, whose members' scale was said before.

    Args:
        told: Of :func:`opened_scorer`.
    """
    return "" if "ensemble" in told else f", scale {told['scale']}"


@contextmanager
def scoring_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; its rate and remaining time count this run's work, not what an interrupted one had done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("completions, {task.fields[rate]:,.0f}/s")
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("scoring", total=None, rate=0.0, start=False, visible=False)

        def update(done: int, total: int) -> None:
            (state,) = progress.tasks
            if not state.started:
                progress.update(task, completed=done, total=total, visible=True)
                progress.start_task(task)
            else:
                progress.update(task, completed=done, rate=state.speed or 0.0)

        yield update
