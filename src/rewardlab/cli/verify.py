"""``rewardlab verify``: does a checkpoint give the scores its contract promises?"""

from __future__ import annotations

import json

import typer

from rewardlab.cli.options import Device, Dtype, JsonOutput, Model, TrustRemoteCode


def verify(
    model: Model,
    json_output: JsonOutput = False,
    device: Device = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Score a checkpoint's probes in every way it will be asked, and compare with the stored scores.

    Alone, padded on either side, in other batch sizes and orders, and through plain transformers; of a model with
    several heads each of them, too. A checkpoint without a contract is compared with transformers' own forward. Exit
    status 1 if a check fails.

    [dim]Examples:[/dim]

        rewardlab verify my-rm

        rewardlab verify my-rm --dtype bfloat16 --json
    """
    from rich.console import Console
    from rich.table import Table

    from rewardlab.errors import ContractError
    from rewardlab.modeling.verification import verify_checkpoint

    result = verify_checkpoint(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    if json_output:
        typer.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
    else:
        against = "their stored scores" if result.has_contract else "transformers' own forward (there is no contract)"
        table = Table(title=f"{result.num_probes} probes against {against}", title_justify="left")
        table.add_column("check")
        table.add_column("largest difference", justify="right")
        table.add_column("allowed", justify="right")
        table.add_column("")
        for check in result.checks:
            verdict = "[green]ok[/green]" if check.ok else "[bold red]FAILED[/bold red]"
            table.add_row(check.name, f"{check.max_difference:.1e}", f"{check.tolerance:.1e}", verdict)
        Console().print(table)
        for note in result.notes:
            Console(stderr=True, highlight=False).print(f"note: {note}")
    if not result.ok:
        failed = [check.name for check in result.checks if not check.ok]
        raise ContractError(
            f"{model}: {len(failed)} of {len(result.checks)} checks failed: {', '.join(failed)}",
            hint="the checkpoint, its tokenizer or the libraries have changed since saving; do not use its scores",
        )
