"""`rewardlab serve`: what its options become, what it says, and what it refuses before a model is loaded."""

from __future__ import annotations

import http.client
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from rewardlab.cli.serve import serve
from rewardlab.errors import CheckpointError, ConfigError, MissingDependencyError
from rewardlab.serving.items import ModelInfo
from rewardlab.serving.settings import ServerSettings

MODEL = ModelInfo(
    "rm", "runs/rm", "abc123", None, "sequence", "Tiny", 128, "bfloat16", "cuda:0", "tree", 512
)  # fmt: skip

PROGRAM = "import sys, typer; from rewardlab.cli.serve import serve; app = typer.Typer(); app.command()(serve); app()"


def command() -> Any:
    app = typer.Typer()
    app.command()(serve)
    return get_command(app)


@dataclass
class Started:
    """What a server would have been started with."""

    settings: ServerSettings | None = None
    spec: Any = None


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """No server is started; it is remembered with what, and said to be ready."""
    import rewardlab.serving.batching
    import rewardlab.serving.server

    found = Started()

    def backend(spec: Any, settings: ServerSettings, metrics: object) -> object:
        found.spec = spec
        return object()

    def run_server(app: object, backend: object, settings: ServerSettings, *, on_ready: Any) -> None:
        found.settings = settings
        on_ready("http://127.0.0.1:8000", MODEL)

    monkeypatch.delenv("REWARDLAB_API_KEY", raising=False)
    monkeypatch.setattr(rewardlab.serving.batching, "BatchingBackend", backend)
    monkeypatch.setattr(rewardlab.serving.server, "run_server", run_server)
    monkeypatch.setattr(rewardlab.serving.server, "configure_logging", lambda level: None)
    return found


def run(*arguments: str) -> None:
    assert command()(args=list(arguments), standalone_mode=False) is None


def test_by_default_it_is_what_the_settings_say(started: Started) -> None:
    run("runs/rm")
    assert started.settings == ServerSettings()
    assert (started.spec.path, started.spec.name) == ("runs/rm", "rm")
    given = {name: value for name, value in started.spec.options.items() if value is not None}
    assert given == {"engine": "auto", "trust_remote_code": False, "verify": True}


def test_every_option_arrives(started: Started) -> None:
    run(
        *("runs/rm", "--host", "0.0.0.0", "--port", "0", "--api-key", "k", "--name", "judge", "--dtype", "bfloat16"),
        *("--batch-tokens", "512", "--scale", "z", "--max-wait-ms", "1.5", "--deadline", "9", "--queue", "7"),
        *("--max-items", "6", "--max-chars", "5", "--max-body-mb", "0.5", "--drain", "4", "--stall", "3"),
    )
    assert started.settings == ServerSettings(
        host="0.0.0.0",
        port=0,
        api_key="k",
        scale="z",
        max_wait_ms=1.5,
        deadline_s=9.0,
        queue_items=7,
        max_items=6,
        max_chars=5,
        max_body_bytes=2**19,
        drain_s=4.0,
        stall_s=3.0,
    )
    assert started.spec.name == "judge"
    assert (started.spec.options["dtype"], started.spec.options["tokens_per_batch"]) == ("bfloat16", 512)
    assert started.spec.options["scale"] is None, "raw scores travel; the server scales them"


def test_it_cannot_be_told_to_trust_a_model() -> None:
    assert {"trust_remote_code", "no_verify"} & inspect.signature(serve).parameters.keys() == set()


def test_by_default_the_models_short_name_is_what_answers_carry(started: Started) -> None:
    run("runs/dpo:models/sft")
    assert started.spec.name == "dpo"


def test_the_help_says_shapes_and_no_more() -> None:
    """The numbers are those servers' only where both use the model's chat template: vLLM does not on /score."""
    text = " ".join(inspect.cleandoc(serve.__doc__ or "").split())
    assert "answer in those servers' shapes" in text
    assert "the numbers that those servers give" not in text


def test_the_key_comes_from_the_environment_and_is_never_printed(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REWARDLAB_API_KEY", "s3cret")
    run("runs/rm", "--host", "0.0.0.0")
    assert started.settings is not None
    assert started.settings.api_key == "s3cret"
    out, err = capsys.readouterr()
    assert out == ""
    assert "s3cret" not in err
    assert "warning" not in err
    assert "Bearer $REWARDLAB_API_KEY" in err


def test_an_open_server_is_warned_about(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    run("runs/rm", "--host", "0.0.0.0")
    assert "warning: anyone who can reach '0.0.0.0' can use this server" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_a_server_for_its_own_machine_is_not_warned_about(
    started: Started, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    run("runs/rm", "--host", host)
    assert "warning" not in capsys.readouterr().err


def test_a_folder_without_a_model_is_told_before_anything_is_loaded(started: Started, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        run(str(tmp_path))
    assert started.settings is None


def test_of_an_ensemble_it_says_what_its_scores_are_made_of(
    started: Started, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = replace(MODEL, members=("a", "b"), how="min", members_scale="calibrated")
    monkeypatch.setattr(sys.modules[__name__], "MODEL", ensemble)
    run("a,b", "--ensemble", "min")
    err = capsys.readouterr().err
    assert "tree layout, ensemble of 2 (min, of calibrated scores)\n" in err
    assert "scale raw" not in err


def test_a_reader_that_has_gone_does_not_end_it() -> None:
    """`rewardlab serve ... 2>&1 | head -1`: what it says is lost, and its status is still 0."""
    code = "from tests.cli.test_serve import run_without_server; run_without_server()"
    reader, writer = os.pipe()
    os.close(reader)
    status = subprocess.run([sys.executable, "-c", code], stderr=writer, timeout=60).returncode
    os.close(writer)
    assert status == 0
    closed = subprocess.run(["/bin/sh", "-c", f"exec {sys.executable} -c '{code}' <&- >&- 2>&-"], timeout=60)
    assert closed.returncode == 0


def run_without_server() -> None:
    """The command up to its server, which is ready at once; for processes of tests."""
    import rewardlab.serving.server

    def run_server(app: object, backend: object, settings: ServerSettings, *, on_ready: Any) -> None:
        on_ready("http://127.0.0.1:8000", MODEL)
        logging.getLogger("rewardlab.serving").info("a line")
        for number in range(3):
            os.fstat(number)

    rewardlab.serving.server.run_server = run_server  # type: ignore[assignment]
    run("runs/rm")


def test_when_ready_it_says_where_what_and_how(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    run("runs/rm")
    err = capsys.readouterr().err
    for words in (
        "ready: http://127.0.0.1:8000\n",
        "http://127.0.0.1:8000/docs",
        "rm, fingerprint abc123",
        "sequence, bfloat16 on cuda:0, tree layout, scale raw",
        "none is asked for",
        "curl http://127.0.0.1:8000/v1/rewards -H 'Content-Type: application/json' -d '{",
    ):
        assert words in err
    assert "warning" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/rm", "--scale", "percent"], "there is no scale 'percent'"),
        (["a,b", "--scale", "z"], "an ensemble has no scale 'z'"),
        (["runs/rm", "--ensemble", "min", "--scale", "z"], "an ensemble has no scale 'z'"),
        (["runs/rm", "--log-level", "loud"], "there is no log level 'loud'"),
        (["runs/rm", "--log-level", "debug"], "there is no log level 'debug'"),
        (["runs/rm", "--max-body-mb", "inf"], "--max-body-mb must be a number, got inf"),
        (["runs/rm", "--drain", "inf"], "drain_s must be a number above 0, got inf"),
        (["runs/rm", "--max-wait-ms", "inf"], "max_wait_ms must be a number, 0 or more, got inf"),
        (["runs/rm", "--queue", "4"], "queue_items is 4, less than max_items, 1024"),
        (["runs/rm", "--api-key", "schlüssel"], "printable ASCII"),
        (["a,b", "--ensemble", "weighted", "--ensemble-weights", "x"], "expected numbers"),
        (["a,,b"], "a member has no name"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_loaded(started: Started, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*arguments)
    assert started.settings is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rewardlab.serving.app", None)
    with pytest.raises(MissingDependencyError) as error:
        run("runs/rm")
    assert error.value.hint == 'pip install "rewardlab[serve]"'


@pytest.mark.slow
def test_a_real_model_is_served_from_the_command_line(reward_model: Path) -> None:
    """The whole way: the folder, the worker, a request, the same number as the scorer's, and an orderly end."""
    from rewardlab.scoring.scorer import Scorer

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(reward_model), "--port", "0", "--device", "cpu"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        ready = next(line for line in process.stderr if line.startswith("ready: "))
        connection = http.client.HTTPConnection(ready.split("//")[1].strip(), timeout=30)
        body = json.dumps({"prompt": "Write about wind.", "completions": ["the wind", "short"]})
        connection.request("POST", "/v1/rewards", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert response.status == 200
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=30)[1]
        assert process.returncode == 0
        assert "Traceback" not in rest
        assert " POST /v1/rewards 200 " in rest
    finally:
        process.kill()
        process.communicate()
    expected = Scorer.from_pretrained(reward_model, device="cpu").score(
        ["Write about wind."] * 2, ["the wind", "short"]
    )
    assert [result["raw"] for result in answer["results"]] == pytest.approx(expected, abs=1e-5)
