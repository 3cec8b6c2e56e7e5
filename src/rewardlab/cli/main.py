"""The command ``rewardlab``: its commands, and how every outcome is told.

Data goes to stdout, talk to stderr. Exit status: 0 the work is done; 1 the work failed (``error:`` and ``hint:`` on
stderr, or a traceback, which is a bug of ours); 2 the command was used wrongly; 130 interrupted; 143 training was asked
to stop (SIGTERM, Ctrl-C), and has finished and saved its step.

This file knows the names of the commands and the exceptions; it does not know what a command does. It imports neither
torch nor transformers, and no command file does before its command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from rewardlab import __version__
from rewardlab.cli import data
from rewardlab.cli.benchmark import benchmark
from rewardlab.cli.best_of_n import best_of_n
from rewardlab.cli.calibrate import calibrate
from rewardlab.cli.compare import compare
from rewardlab.cli.demo import demo
from rewardlab.cli.evaluate import evaluate
from rewardlab.cli.import_ import import_
from rewardlab.cli.judge import judge
from rewardlab.cli.machine_faults import explained, open_standard_streams, silence, unread
from rewardlab.cli.monitor import monitor
from rewardlab.cli.overopt import overopt
from rewardlab.cli.report import report
from rewardlab.cli.score import score
from rewardlab.cli.serve import serve
from rewardlab.cli.train import train
from rewardlab.cli.verify import verify
from rewardlab.errors import ConfigError, RewardLabError, StoppedError
from rewardlab.launching import is_first

STOPPED = 143
"""The exit status of a training that was asked to stop and has saved its step: 128 + SIGTERM, as schedulers expect."""

_EPILOG = "Run a command with [bold]--help[/bold] for its options and examples."

app = typer.Typer(
    name="rewardlab",
    rich_markup_mode="rich",
    add_completion=False,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel="Start here")(demo)
app.add_typer(data.app, name="data", rich_help_panel="Make a reward model")
app.command(rich_help_panel="Make a reward model")(train)
app.command("import", rich_help_panel="Make a reward model")(import_)
app.command(rich_help_panel="Trust it")(verify)
app.command(rich_help_panel="Trust it")(evaluate)
app.command(rich_help_panel="Trust it")(calibrate)
app.command(rich_help_panel="Trust it")(benchmark)
app.command(rich_help_panel="Trust it")(report)
app.command(rich_help_panel="Use it")(score)
app.command("best-of-n", rich_help_panel="Use it")(best_of_n)
app.command(rich_help_panel="Use it")(serve)
app.command(rich_help_panel="Use it")(overopt)
app.command(rich_help_panel="Keep it true")(monitor)
app.command(rich_help_panel="Keep it true")(compare)
app.command(rich_help_panel="Keep it true")(judge)


def _paragraphs(docstring: str) -> str:
    """The docstring with each paragraph on one line, for the terminal to wrap; indented examples stay as they are."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else part.replace("\n", " ") for part in paragraphs)


for _command in [*app.registered_commands, *data.app.registered_commands]:
    assert _command.callback is not None
    _command.help = _paragraphs(_command.callback.__doc__ or "")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rewardlab {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Reward models for RLHF: train, verify, evaluate and score, with one score everywhere.

    [dim]See it work, without any download:[/dim]

        rewardlab demo

    [dim]On your own preference pairs (prompt, chosen, rejected):[/dim]

        rewardlab data check pairs.jsonl
        rewardlab train --model Qwen/Qwen3-0.6B --data pairs.jsonl --output my-rm
        rewardlab verify my-rm
        rewardlab evaluate my-rm --data held_out.jsonl
        rewardlab calibrate my-rm --data held_out.jsonl
        rewardlab score my-rm --data completions.jsonl --output scores.jsonl
        rewardlab serve my-rm
        rewardlab monitor my-rm --fresh this_week.jsonl --history rm.history
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: The arguments after the program's name; those of the process by default.

    Returns:
        0, 1, 2, 130 or 143, as the module says. An exception that nobody expected is not caught, unless it is the
        machine's: a disk that is full, a folder that is read-only, no memory (:mod:`rewardlab.cli.machine_faults`).
    """
    open_standard_streams()
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its talk of every retry; what fails is told as an error
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
    try:
        status = get_command(app)(args=argv, prog_name="rewardlab", standalone_mode=False)
        sys.stdout.flush()
    except StoppedError as stop:
        if is_first():  # of several processes, which all stop
            _tell(stop.message, stop.hint, word="stopped")
        return STOPPED
    except RewardLabError as error:
        _tell(error.message, error.hint)
        return 2 if isinstance(error, ConfigError) else 1
    except typer.TyperException as error:  # bad usage, or a file option that cannot be opened
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "rewardlab"
        _tell(error.format_message(), f"see `{command} --help`")
        return error.exit_code
    except KeyboardInterrupt:
        status = 130
    except typer.Abort as error:
        if isinstance(error.__context__, EOFError):  # typer takes every one for Ctrl-D, whosever it is
            raise error.__context__ from None
        status = 130
    except (Exception, SystemExit) as error:
        return _status_of_fault(error)
    if status == 130:  # typer turns Ctrl-C inside a command into this status
        _tell("interrupted")
    return status if isinstance(status, int) else 0


def _status_of_fault(error: BaseException) -> int:
    """Tell what the machine did to a command, and give its status; what is a bug of ours is raised again."""
    if unread(error):
        return 1
    # typer makes a SystemExit of every broken pipe, whosever it is.
    cause = error.__context__ if isinstance(error, SystemExit) else error
    told = explained(cause) if cause else None
    if told is None:
        raise error
    _tell(*told)
    return 1


def _tell(message: str, hint: str = "", *, word: str = "error") -> None:
    """Print an error, then its hint, to stderr; the two words in colour where stderr is a terminal."""
    try:
        typer.secho(f"{word}: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(message, err=True)
        if hint:
            typer.secho("hint: ", fg="cyan", bold=True, nl=False, err=True)
            typer.echo(hint, err=True)
    except OSError:  # nobody reads it any more, or its disk is full too: the status says enough
        silence(2)
