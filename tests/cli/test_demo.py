"""The command around the demo: what it prints where, and that a failed verification is a failure."""

from __future__ import annotations

import dataclasses

import pytest
from tests.studies.test_result import make_result

from rewardlab.cli.main import main
from rewardlab.modeling.verification import Check, Verification
from rewardlab.studies import demo as demo_module


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with a demo that gives a prepared result at once; gives status, stdout and stderr."""

    def run(*arguments, result=None):
        calls = []
        output = tmp_path / "out"

        def run_demo(output, *, seed, report):
            calls.append((output, seed))
            report("a stage [of] work")
            return result or make_result([(1, 0), (1, 0), (0, 1), (1, 0)], folder=str(output))

        monkeypatch.setattr(demo_module, "run_demo", run_demo)
        status = main(["demo", "--output", str(output), *arguments])
        printed = capsys.readouterr()
        assert calls[0][0] == output
        return status, printed.out, printed.err, calls[0][1]

    return run


def test_results_go_to_stdout_and_talk_to_stderr(run, tmp_path):
    status, out, err, seed = run("--seed", "3")
    assert (status, seed) == (0, 3)
    flat = "".join(out.split())
    for wanted in ("75.0%", "90.0%", "62.5%", str(tmp_path / "out" / "demo.html")):
        assert wanted in flat
    assert "a stage [of] work" in err
    assert "stage" not in out
    assert f"rewardlab verify {tmp_path / 'out' / 'model'}" in err


def test_a_model_that_does_not_verify_fails(run):
    broken = Verification(
        "m", True, 8, (Check("alone", 1e-7, 1e-5, True), Check("padded on the left", 0.3, 1e-5, False))
    )
    result = dataclasses.replace(make_result([(1, 0)] * 4), verification=broken)
    status, out, err, _ = run(result=result)
    assert status == 1
    assert "1 of 2 checks held" in out
    assert "error:" in err
    assert "padded on the left" in err


def test_a_negative_seed_is_bad_usage(capsys):
    assert main(["demo", "--seed", "-1"]) == 2
    assert "--seed" in capsys.readouterr().err
