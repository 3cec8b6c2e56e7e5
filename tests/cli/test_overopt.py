"""The command around the over-optimisation study: options, what is printed where, and what is written."""

from __future__ import annotations

import json

import pytest
import typer
from tests.studies.test_overopt_result import write_seeds
from typer.testing import CliRunner

from rewardlab.cli.main import app
from rewardlab.cli.overopt import overopt
from rewardlab.studies import overopt as study
from rewardlab.studies.overopt_result import OveroptResult


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the command with a study that gives prepared figures at once."""
    calls = []

    def run_overopt(output, **options):
        options["report"]("a stage [of] work")
        calls.append(options)
        return OveroptResult.load(write_seeds(tmp_path, 2))

    monkeypatch.setattr(study, "run_overopt", run_overopt)
    alone = typer.Typer()
    alone.command()(overopt)

    def run(*arguments):
        done = CliRunner().invoke(alone, ["--output", str(tmp_path), *arguments], catch_exceptions=False)
        return done, calls[-1] if calls else None

    return run


def test_the_headline_goes_to_stdout_and_talk_to_stderr(run, tmp_path):
    done, options = run()
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith("Best-of-n: stop at about KL 1.0 nats")
    assert "a stage [of] work" in done.stderr
    assert "overopt.html" in done.stderr
    assert (tmp_path / "overopt.html").is_file()
    assert (list(options["seeds"]), options["workers"], options["gold"]) == ([0], 1, None)
    assert options["size"] == study.OveroptSize()


def test_options_reach_the_study(run):
    _, options = run(
        "--seeds",
        "2",
        "--first-seed",
        "3",
        "--workers",
        "2",
        "--gold",
        "rm",
        "--label-noise",
        "0",
        "--quick",
        "--no-grpo",
    )
    assert (list(options["seeds"]), options["workers"], options["gold"]) == ([3, 4], 2, "rm")
    assert (options["size"].label_noise, options["size"].grpo.steps) == (0, 0)
    assert options["size"].pool == study.OveroptSize.quick().pool


def test_help_says_what_to_install():
    """Brackets are rich's mark-up where they are not escaped."""
    assert '"rewardlab[rl]"' in " ".join(CliRunner().invoke(app, ["overopt", "--help"]).stdout.split())


def test_json_is_one_object_on_stdout(run):
    done, _ = run("--json")
    assert json.loads(done.stdout)["seeds"] == [0, 1]
