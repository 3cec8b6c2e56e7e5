"""``rewardlab import``: another framework's reward model, or one head of several, becomes a checkpoint of its own."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rewardlab.cli.options import Device


def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The other framework's folder or hub id.")],
    output: Annotated[str, typer.Option(metavar="DIR", help="Where the reward model goes: a new or empty folder.")],
    base: Annotated[
        str | None, typer.Option(metavar="M", help="Base model of an adapter; by default the one it names.")
    ] = None,
    head: Annotated[
        int | None, typer.Option(help="Of a model trained with several heads: save this one alone (from 0).")
    ] = None,
    device: Device = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a reward model of LLaMA-Factory, OpenRLHF, PEFT or TRL into ours, with its scores proven equal.

    What is written is a plain transformers folder with a contract. Conversations and drawn token sequences are scored
    by the other framework's own rule and by the new folder; unless every score is equal (float32, 1e-5), the command
    fails and leaves nothing behind. Pickled weights are refused.

    With --head, SOURCE is a model of rewardlab that was trained with --ensemble-heads: one of its heads becomes a model
    of its own, with its own scale.

    [dim]Examples:[/dim]

        rewardlab import others/llama-factory-rm --output my-rm

        rewardlab import others/lora-adapter --base Qwen/Qwen3-0.6B --output my-rm --json

        rewardlab import my-rm-with-heads --head 2 --output head-2
    """
    from rich.console import Console

    if head is not None:
        _export(source, output, head, base, device, json_output)
        return

    from rewardlab.modeling.importing import import_reward_model

    result = import_reward_model(source, output, base=base, device=device)
    if json_output:
        typer.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
        return
    typer.echo(
        f"{result.path}: imported from {result.framework}; {result.num_conversations} conversations and "
        f"{result.num_sequences} id sequences score the same (largest difference {result.max_difference:.1e}, "
        f"allowed {result.tolerance:.1e})"
    )
    talk = Console(stderr=True, highlight=False, markup=False)
    for change in result.changes:
        talk.print(f"changed: {change}")
    for note in result.notes:
        talk.print(f"note: {note}")


def _export(source: str, output: str, head: int, base: str | None, device: str | None, json_output: bool) -> None:
    from rewardlab.errors import ConfigError
    from rewardlab.modeling.head_export import export_head

    if base is not None:
        raise ConfigError("--base is for adapters of others; --head takes a model of rewardlab", hint="leave one out")
    result = export_head(source, head, output, device=device)
    if json_output:
        typer.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
        return
    typer.echo(
        f"{result.path}: head {result.head} of {result.num_heads} of {result.source}; "
        f"{result.num_probes} conversations score as they did (largest difference {result.max_difference:.1e}, allowed "
        f"{result.tolerance:.1e})"
    )
