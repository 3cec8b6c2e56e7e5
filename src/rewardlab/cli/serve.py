"""``rewardlab serve``: a reward model over HTTP.

This file knows options and what is told when the server is ready; the work is :mod:`rewardlab.serving`'s.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from rewardlab.cli.options import (
    Aggregate,
    BatchTokens,
    Beta,
    Device,
    Dtype,
    EngineName,
    Ensemble,
    EnsembleK,
    EnsembleScale,
    EnsembleWeights,
    LengthNormalised,
    MaxLength,
    NeutralIsCorrect,
    Scored,
    scorer_options,
)
from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.scoring.names import members_of, require_models, short_name
from rewardlab.types import Scale

if TYPE_CHECKING:
    from rewardlab.serving.items import ModelInfo
    from rewardlab.serving.settings import ServerSettings

_LEVELS = ("info", "warning", "error")


def serve(
    model: Scored,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen on; by default this machine alone can reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="REWARDLAB_API_KEY",
            help="Ask for this key on every route but /health. Better set in the environment: a command line can be "
            "read by every user of the machine (ps).",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What answers call the model; by default its folder's name.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    engine: EngineName = "auto",
    batch_tokens: BatchTokens = None,
    max_length: MaxLength = None,
    aggregation: Aggregate = None,
    neutral_is_correct: NeutralIsCorrect = False,
    scale: Annotated[
        str,
        typer.Option(
            help="What the dialects' numbers are given in: raw, centered, z, percentile or calibrated; /v1/rewards "
            "gives every one that the model has."
        ),
    ] = "raw",
    beta: Beta = None,
    length_normalised: LengthNormalised = False,
    ensemble: Ensemble = None,
    ensemble_k: EnsembleK = None,
    ensemble_weights: EnsembleWeights = None,
    ensemble_scale: EnsembleScale = None,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", help="How long the first item of a batch waits for others.")
    ] = 10.0,
    deadline: Annotated[
        float, typer.Option(min=0.001, metavar="S", help="How long a request may take before it is answered 503.")
    ] = 60.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Most items that wait, at least --max-items; beyond it 503 at once.")
    ] = 4096,
    max_items: Annotated[int, typer.Option(min=1, help="Most items in one request.")] = 1024,
    max_chars: Annotated[int, typer.Option(min=1, help="Most characters in one item.")] = 131_072,
    max_body_mb: Annotated[float, typer.Option(min=0.001, metavar="MB", help="Largest body, in MiB.")] = 8.0,
    drain: Annotated[
        float, typer.Option(min=0.001, metavar="S", help="How long accepted requests may take after SIGTERM.")
    ] = 30.0,
    stall: Annotated[
        float,
        typer.Option(min=0.001, metavar="S", help="A worker that is silent for so long in its work is started again."),
    ] = 60.0,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="info (a line per request), warning or error.")
    ] = "info",
) -> None:
    """Serve a reward model over HTTP, to the clients that RL frameworks and rerankers have already.

    vLLM's, SGLang's, OpenRLHF's, slime's, LLaMA-Factory's and TEI's routes answer in those servers' shapes;
    [bold]/v1/rewards[/bold] and [bold]/v1/compare[/bold] say more. A page to try the model is at [bold]/[/bold], the
    routes are at [bold]/docs[/bold]. Requests of all clients are scored together, each shared prompt once.

    The model runs in a process of its own, which is started again when it dies. It is verified when it is loaded,
    and code that comes with a model is never run. SIGTERM ends the server when what it has accepted is finished;
    SIGHUP loads the folder again, if that holds a model whose contract verifies.

    Anyone who can reach a server without a key can use it; on other addresses than this machine's give it one.

    [dim]Examples:[/dim]

        rewardlab serve runs/rm

        rewardlab serve runs/rm --dtype bfloat16 --port 9000 --scale calibrated

        REWARDLAB_API_KEY=... rewardlab serve runs/rm --host 0.0.0.0

        rewardlab serve runs/rm-1,runs/rm-2,runs/rm-3 --ensemble min
    """
    if scale not in get_args(Scale):
        raise ConfigError(f"there is no scale {scale!r}", hint=f"the scales are {', '.join(get_args(Scale))}")
    # The server would say so too, but only when the models are loaded.
    if scale != "raw" and (ensemble is not None or members_of(model) is not None):
        raise ConfigError(
            f"an ensemble has no scale {scale!r}", hint="its score has no reference set; leave --scale out"
        )
    if log_level not in _LEVELS:
        raise ConfigError(f"there is no log level {log_level!r}", hint=f"the levels are {', '.join(_LEVELS)}")
    if not math.isfinite(max_body_mb):
        raise ConfigError(f"--max-body-mb must be a number, got {max_body_mb}")
    try:
        from rewardlab.serving.app import create_app
        from rewardlab.serving.batching import BatchingBackend
        from rewardlab.serving.messages import WorkerSpec
        from rewardlab.serving.metrics import Metrics
        from rewardlab.serving.server import configure_logging, run_server
        from rewardlab.serving.settings import ServerSettings, is_loopback
        from rewardlab.serving.standard_streams import open_standard_streams, unread_is_no_fault
    except ImportError as error:
        raise MissingDependencyError(
            f"the server needs packages that cannot be imported: {error}", hint='pip install "rewardlab[serve]"'
        ) from error

    settings = ServerSettings(
        host=host,
        port=port,
        api_key=api_key,
        scale=scale,  # type: ignore[arg-type]  # one of them, as checked above
        max_wait_ms=max_wait_ms,
        deadline_s=deadline,
        queue_items=queue,
        max_items=max_items,
        max_chars=max_chars,
        max_body_bytes=int(max_body_mb * 2**20),
        drain_s=drain,
        stall_s=stall,
    )
    options = scorer_options(
        device=device,
        dtype=dtype,
        max_length=max_length,
        batch_tokens=batch_tokens,
        engine=engine,
        aggregation=aggregation,
        neutral_is_correct=neutral_is_correct,
        beta=beta,
        length_normalised=length_normalised,
        ensemble=ensemble,
        ensemble_k=ensemble_k,
        ensemble_weights=ensemble_weights,
        ensemble_scale=ensemble_scale,
    )
    require_models(model)
    open_standard_streams()

    def tell(lines: str, color: str | None = None) -> None:
        with unread_is_no_fault():
            typer.secho(lines, fg=color, err=True)

    if not is_loopback(host) and api_key is None:
        tell(
            f"warning: anyone who can reach {host!r} can use this server, for it asks for no key\n"
            "hint: set REWARDLAB_API_KEY, or leave --host out",
            "yellow",
        )
    configure_logging(log_level)
    tell(f"loading {model}")
    metrics = Metrics()
    backend = BatchingBackend(WorkerSpec(model, options, name or short_name(model)), settings, metrics)
    app = create_app(backend, settings, metrics)
    run_server(app, backend, settings, on_ready=lambda url, loaded: tell(_ready_block(url, loaded, settings), "green"))


def _ready_block(url: str, model: ModelInfo, settings: ServerSettings) -> str:
    """What one needs to know of a server that is ready, and a command to try."""
    body = '{"prompt": "What is 2+2?", "completions": ["4", "5"]}'
    key = ' -H "Authorization: Bearer $REWARDLAB_API_KEY"' if settings.api_key is not None else ""
    guarded = "needed on every route but /health" if settings.api_key is not None else "none is asked for"
    scale = f"scale {settings.scale}"
    if model.members:  # whose raw score is not the members', but what was made of them
        scale = f"ensemble of {len(model.members)} ({model.how}, of {model.members_scale} scores)"
    kind = f"{model.kind}, {model.dtype} on {model.device}, {model.layout} layout, {scale}"
    return "\n".join(
        (
            f"ready: {url}",
            f"  page   {url}/, routes {url}/docs",
            f"  model  {model.name}, fingerprint {model.fingerprint[:16]}",
            f"  scores {kind}",
            f"  key    {guarded}",
            f"  try    curl {url}/v1/rewards -H 'Content-Type: application/json'{key} -d '{body}'",
        )
    )
