"""How `rewardlab` ends: statuses, what goes to which stream, and that its help is there for every command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer
from typer.main import get_command

from rewardlab import __version__
from rewardlab.cli.main import app, main
from rewardlab.errors import CheckpointError, ConfigError, DataError

COMMANDS = [
    "demo", "data", "train", "import", "verify", "evaluate", "calibrate", "benchmark", "report", "score",
    "best-of-n", "overopt", "serve", "monitor", "compare", "judge",
]  # fmt: skip


@pytest.fixture
def probe():
    """A function that makes `rewardlab probe` do what a test wants; the command is gone after the test."""
    before = len(app.registered_commands)

    def register(action):
        @app.command("probe")
        def command(number: int = 1) -> None:
            action()

    yield register
    del app.registered_commands[before:]


def raising(error: BaseException):
    def action():
        raise error

    return action


def test_help_names_every_command_and_goes_to_stdout(capsys):
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert [name for name in COMMANDS if name not in out] == []
    assert err == ""


def test_without_arguments_the_help_is_shown(capsys):
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert "Usage" in bare
    assert "evaluate" in bare


def test_the_commands_are_these():
    assert sorted(get_command(app).commands) == sorted(COMMANDS)


@pytest.mark.parametrize("words", [[name] for name in COMMANDS if name != "data"] + [["data", "check"]], ids=" ".join)
def test_every_command_explains_itself_with_an_example(capsys, words):
    assert main([*words, "--help"]) == 0
    line = f"     rewardlab {' '.join(words)} "
    assert line in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rewardlab {__version__}\n"


def test_a_failure_is_told_as_error_then_hint_with_status_1(capsys, probe):
    probe(raising(DataError("pairs.jsonl:17: no column 'chosen'", hint="name it with --chosen")))
    assert main(["probe"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: pairs.jsonl:17: no column 'chosen'\nhint: name it with --chosen\n"


def test_a_failure_without_hint_has_no_hint_line(capsys, probe):
    probe(raising(CheckpointError("no head")))
    assert main(["probe"]) == 1
    assert capsys.readouterr().err == "error: no head\n"


def test_markup_in_a_message_is_printed_as_it_is(capsys, probe):
    probe(raising(DataError("x.jsonl:1: expected [red] or [a, b]")))
    main(["probe"])
    assert "expected [red] or [a, b]" in capsys.readouterr().err


def test_a_bad_configuration_has_status_2(capsys, probe):
    probe(raising(ConfigError("seed must be an integer", hint="write 1")))
    assert main(["probe"]) == 2
    assert capsys.readouterr().err == "error: seed must be an integer\nhint: write 1\n"


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?", "rewardlab"),
        (["probe", "--nmber", "1"], "No such option: --nmber", "rewardlab probe"),
        (["probe", "--number", "x"], "Invalid value for '--number'", "rewardlab probe"),
        (["evaluate", "my-rm"], "Missing option '--data'", "rewardlab evaluate"),
        (["verify"], "Missing argument 'DIR'", "rewardlab verify"),
    ],
)
def test_bad_usage_looks_the_same_and_has_status_2(capsys, probe, arguments, message, command):
    probe(lambda: None)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith(f"error: {message}")
    assert hint == f"hint: see `{command} --help`"


def test_a_command_may_end_with_its_own_status(capsys, probe):
    probe(raising(typer.Exit(1)))
    assert main(["probe"]) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("given", "used"), [(None, "error"), ("info", "info")])
def test_the_hub_client_is_quiet_unless_asked(probe, monkeypatch, given, used):
    """Its warnings are of single tries; what fails in the end is told as an error."""
    if given is None:
        monkeypatch.delenv("HF_HUB_VERBOSITY", raising=False)
    else:
        monkeypatch.setenv("HF_HUB_VERBOSITY", given)
    seen = []
    probe(lambda: seen.append(os.environ["HF_HUB_VERBOSITY"]))
    main(["probe"])
    assert seen == [used]


def test_work_done_is_status_0(probe):
    probe(lambda: None)
    assert main(["probe"]) == 0


def test_interrupting_has_status_130(capsys, probe):
    probe(raising(KeyboardInterrupt()))
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_bug_keeps_its_traceback(probe):
    probe(raising(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        main(["probe"])


def test_a_reader_that_leaves_is_not_an_error_to_print():
    """`rewardlab --help | true`: the pipe is closed before anything is written, and nothing reaches stderr."""
    code = "import sys; sys.stdin.read(); from rewardlab.cli.main import main; sys.exit(main(['--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        process.stdin.close()  # only now does the process go on and write
        assert process.stderr.read() == ""
    assert process.returncode == 1
