"""The options that several commands share, worded once."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from rewardlab.errors import ConfigError
from rewardlab.scoring.names import members_of


def one_model(path: str) -> str:
    """The path, where it names one model.

    Raises:
        ConfigError: It names several, as ``score``, ``evaluate`` and ``benchmark`` take them.
    """
    if members_of(path) is not None:
        raise ConfigError(
            f"{path}: this command takes one model", hint="give it each in turn: an ensemble has no contract of its own"
        )
    return path


Model: TypeAlias = Annotated[
    str, typer.Argument(metavar="DIR", help="The reward model: a folder or a hub id.", callback=one_model)
]
Scored: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="DIR",
        help="The reward model, a folder or a hub id; A,B,C for an ensemble of several; POLICY:REFERENCE for DPO's "
        "implicit reward.",
    ),
]
JsonOutput: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout instead of tables.")
]
RowFormat: TypeAlias = Annotated[str, typer.Option("--format", help="What the rows are; auto: told by their columns.")]
Split: TypeAlias = Annotated[str | None, typer.Option(help="The split, of a hub id or a saved dataset.")]
MaxBadFraction: TypeAlias = Annotated[
    float,
    typer.Option("--max-bad-fraction", min=0, max=1, help="Stop if a larger share of the rows cannot be read."),
]
BatchTokens: TypeAlias = Annotated[
    int | None,
    typer.Option("--batch-tokens", min=1, help="Most tokens in one forward; by default what suits the device."),
]
MaxLength: TypeAlias = Annotated[
    int | None,
    typer.Option("--max-length", min=1, help="Longest sequence in tokens; by default the model's own."),
]
Aggregate: TypeAlias = Annotated[
    str | None,
    typer.Option("--aggregation", help="Outcome and process models: mean, min, product or last; by default their own."),
]
NeutralIsCorrect: TypeAlias = Annotated[
    bool,
    typer.Option("--neutral-is-correct", help="Process models of 3 classes: a step's score is 1 - P(incorrect)."),
]
ScaleName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--scale", help="What scores are given in: raw, centered, z, percentile or calibrated; see docs/calibration.md"
    ),
]
Beta: TypeAlias = Annotated[float | None, typer.Option(help="Implicit reward: DPO's beta, 0.1 by default.")]
LengthNormalised: TypeAlias = Annotated[
    bool, typer.Option("--length-normalised", help="Implicit reward: divide by the number of completion tokens.")
]
Ensemble: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ensemble",
        metavar="HOW",
        help="How the scores of A,B,C, or of the heads of one model, become one: mean (default of A,B,C), min, median, "
        "mean-std or weighted; see docs/ensembles.md",
    ),
]
EnsembleK: TypeAlias = Annotated[
    float | None,
    typer.Option("--ensemble-k", metavar="K", help="mean-std: how many standard deviations to subtract, 1 by default."),
]
EnsembleWeights: TypeAlias = Annotated[
    str | None,
    typer.Option("--ensemble-weights", metavar="W,W,...", help="weighted: one weight per member, such as 2,1,1."),
]
EnsembleScale: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ensemble-scale",
        metavar="SCALE",
        help="What the members' scores are put on first: auto (default), calibrated, z, centered or raw.",
    ),
]
Device: TypeAlias = Annotated[
    str | None, typer.Option(help="Where to score, e.g. cpu or cuda:0; by default a GPU if any.")
]
Dtype: TypeAlias = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16; by default the checkpoint's.")
]
EngineName: TypeAlias = Annotated[
    str,
    typer.Option("--engine", help="auto, tree (each shared prompt computed once), packed (no padding) or padded."),
]
TrustRemoteCode: TypeAlias = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
]
NoVerify: TypeAlias = Annotated[
    bool,
    typer.Option("--no-verify", help="Do not score the contract's probes first, by which a broken model is refused."),
]


Launcher: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Run in several processes: ddp, fsdp2, zero2 or zero3; see docs/distributed.md"),
]
Processes: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="With --launcher: how many; by default one for each GPU."),
]


def scorer_options(
    *,
    device: str | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    batch_tokens: int | None = None,
    engine: str = "auto",
    trust_remote_code: bool = False,
    no_verify: bool = False,
    aggregation: str | None = None,
    neutral_is_correct: bool = False,
    scale: str = "raw",
    beta: float | None = None,
    length_normalised: bool = False,
    ensemble: str | None = None,
    ensemble_k: float | None = None,
    ensemble_weights: str | None = None,
    ensemble_scale: str | None = None,
) -> dict[str, Any]:
    """A command's options as :func:`~rewardlab.scoring.opening.open_scorer` takes them; what was not given is None.

    Raises:
        ConfigError: The weights are no numbers with commas between.
    """
    return {
        "device": device,
        "dtype": dtype,
        "max_length": max_length,
        "tokens_per_batch": batch_tokens,
        "engine": engine,
        "trust_remote_code": trust_remote_code,
        "verify": not no_verify,
        "aggregation": aggregation,
        "neutral_is_correct": neutral_is_correct or None,
        "scale": None if scale == "raw" else scale,
        "beta": beta,
        "length_normalised": length_normalised or None,
        "ensemble": ensemble,
        "k": ensemble_k,
        "weights": _numbers(ensemble_weights),
        "on": ensemble_scale,
    }


def _numbers(text: str | None) -> list[float] | None:
    """Numbers with commas between."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--ensemble-weights {text!r}: expected numbers with commas between", hint="for example 2,1,1"
        ) from None
