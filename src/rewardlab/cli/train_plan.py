"""``rewardlab train --plan``: what a run needs of each device, host and disk, as a table or as JSON.

This file knows a recipe's keys and how the plan is laid out; what is computed is
:mod:`rewardlab.training.memory_plan`'s.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from rewardlab.training.memory_plan import MemoryPlan

_GB = 1e9


def print_plan(recipe: Any, *, processes: int, memory: str | None, trust_remote_code: bool, as_json: bool) -> None:
    """Print the plan of a recipe; nothing is loaded, read or written.

    Args:
        recipe: A :data:`rewardlab.training.recipe.TrainRecipe`; its data and output are not looked at.
        processes: Devices, one process each, on one host.
        memory: Of one device, such as ``80GB``.
        trust_remote_code: Run the model repository's own Python code.
        as_json: One JSON object instead of tables.

    Raises:
        CheckpointError: The model has no config, or one that cannot be planned.
        ConfigError: An option that cannot be.
    """
    from rich.console import Console

    from rewardlab.training.arguments import read_out_of
    from rewardlab.training.memory_plan import FULL_BUDGET, as_record, parse_bytes, plan_memory
    from rewardlab.training.presets import PRESETS
    from rewardlab.training.recipe import overrides_of

    given = overrides_of(recipe)
    room = None if memory is None else parse_bytes(memory)
    longest = int(given.get("max_length", PRESETS[recipe.mode].max_length))
    tokens = int(given.get("tokens_per_batch") or FULL_BUDGET)
    checkpointing = bool(given.get("gradient_checkpointing", False))
    plan = plan_memory(
        recipe.model,
        processes=processes,
        mode=recipe.mode,
        lora=recipe.lora if recipe.mode == "lora" else None,
        dtype=recipe.dtype,
        read_out=read_out_of(given),
        ensemble_heads=int(given.get("ensemble_heads", 1)),
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        record = as_record(plan, tokens=tokens, checkpointing=checkpointing, memory=room, longest=longest)
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console(highlight=False)
    size = plan.size
    console.print(f"{plan.model}: {size.parameters:,} parameters, {size.trained:,} trained ({plan.mode}), {plan.dtype}")
    console.print(_parts(plan, tokens, checkpointing))
    if room is not None:
        console.print(_budgets(plan, room, tokens))
    for line in _told(plan, room, longest, tokens):
        console.print(line)


def _parts(plan: MemoryPlan, tokens: int, checkpointing: bool) -> Table:
    """Part by part, a column for each launcher."""
    from rich.text import Text

    from rewardlab.evaluation.table import metric_table

    columns = ["alone" if plan.processes == 1 else name for name in plan.devices]
    table = metric_table(f"GB per device, {plan.processes} of them", "", *columns)
    devices = list(plan.devices.values())
    for name in devices[0].parts:
        row = [device.parts[name] for device in devices]
        if any(row):
            table.add_row(Text(name), *map(_gigabytes, row))
    table.add_row(
        Text(f"activations of {tokens:,} tokens{', checkpointed' if checkpointing else ''}"),
        *(_gigabytes(device.activations(tokens, checkpointing=checkpointing)) for device in devices),
    )
    if checkpointing and any(device.saved_by_checkpointing for device in devices):
        table.add_row(Text("saved by checkpointing"), *(_gigabytes(-d.saved_by_checkpointing) for d in devices))
    table.add_section()
    totals = (_gigabytes(device.total(tokens, checkpointing=checkpointing)) for device in devices)
    table.add_row(Text("together", style="bold"), *(Text(total, style="bold") for total in totals))
    table.add_section()
    table.add_row(Text("disk, a resumable checkpoint"), *(_gigabytes(plan.checkpoint_bytes[n]) for n in plan.devices))
    return table


def _budgets(plan: MemoryPlan, memory: int, tokens: int) -> Table:
    """The largest token budget that fits."""
    from rich.text import Text

    from rewardlab.evaluation.table import metric_table

    columns = ["alone" if plan.processes == 1 else name for name in plan.devices]
    table = metric_table(f"largest tokens_per_batch in {memory / _GB:g} GB", "gradient checkpointing", *columns)
    for checkpointing in (False, True):
        found = [device.largest_budget(memory, checkpointing=checkpointing) for device in plan.devices.values()]
        shown = [
            Text("any")
            if budget is None
            else Text(f"{budget:,}", style="" if budget >= tokens else "yellow")
            if budget
            else Text("does not fit", style="red")
            for budget in found
        ]
        table.add_row("with" if checkpointing else "without", *shown)
    return table


def _told(plan: MemoryPlan, memory: int | None, longest: int, tokens: int) -> list[str]:
    """What the tables leave to be said."""
    lines = [
        f"CPU memory of the host: {plan.host_bytes / _GB:,.0f} GB (every process loads the whole model; the first one "
        f"holds it twice when it verifies it). Trained model on disk: {plan.model_bytes / _GB:,.0f} GB."
    ]
    if memory is not None:
        found = plan.recommended(memory, longest=longest, tokens=tokens)
        if found is None:
            lines.append(
                f"a sequence of {longest:,} tokens fits nowhere: take more --processes, --lora, a shorter max_length "
                "or devices with more memory"
            )
        else:
            name = f"--launcher {found.launcher} --processes {plan.processes}" if plan.processes > 1 else "one process"
            extra = " --set gradient_checkpointing=true" if found.checkpointing else ""
            budget = min(found.tokens, max(tokens, longest))
            lines.append(f"recommended: {name}{extra} --set tokens_per_batch={budget}")
    lines.append("computed from the config, not measured on a GPU: docs/memory.md says how, and how far it can be off")
    return lines


def _gigabytes(size: int) -> str:
    return "" if abs(size) < 5e5 else f"{size / _GB:,.1f}" if abs(size) >= 5e7 else f"{size / _GB:.3f}"
