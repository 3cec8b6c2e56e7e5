"""What the commands that score whole files share: opening the scorer, and the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from rewardlab.scoring.scorer import Scorer


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
