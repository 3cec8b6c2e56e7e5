"""The options that several commands share, worded once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Model: TypeAlias = Annotated[str, typer.Argument(metavar="DIR", help="The reward model: a folder or a hub id.")]
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
CheckContract: TypeAlias = Annotated[
    bool,
    typer.Option("--verify/--no-verify", help="Score the contract's probes first, and refuse a model that fails."),
]
