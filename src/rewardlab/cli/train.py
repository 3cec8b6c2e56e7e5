"""``rewardlab train``: labelled completions in, a verified reward model out.

This file knows options and where output goes; what is done is :mod:`rewardlab.training.run`'s.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from rewardlab.cli.options import Launcher, Processes, TrustRemoteCode
from rewardlab.launching import is_first, launch


def train(
    model: Annotated[str | None, typer.Option(metavar="M", help="Base model: a folder or a hub id.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Labelled rows: pairs, rankings, ... Can be given several times."),
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="DIR", help="Where the reward model goes.")] = None,
    eval_data: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Held-out rows. Can be given several times.")
    ] = None,
    eval_fraction: Annotated[
        float | None, typer.Option(help="Without --eval-data: share of the data to hold out, by prompt.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="A recipe; options and --set override it.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the recipe.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What is learned: bradley_terry (default), grouped_pairs, davidson (ties), scaled_bradley_terry, "
            "plackett_luce (rankings), regression (ratings), outcome, or process (steps)."
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, tree (each prompt computed once), packed (no padding) or padded.")
    ] = None,
    ensemble_heads: Annotated[
        int | None,
        typer.Option(help="Train so many heads on the one trunk, each on its own bootstrap; scored with --ensemble."),
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank adapters and the head (needs peft).")] = False,
    head_only: Annotated[bool, typer.Option("--head-only", help="Train the head alone.")] = False,
    dtype: Annotated[str | None, typer.Option(help="auto (bfloat16 where it is faster), float32 or bfloat16.")] = None,
    format: Annotated[str | None, typer.Option(help="What the rows are; detected by default.")] = None,
    split: Annotated[str | None, typer.Option(help="The training split, of a hub id or a saved dataset.")] = None,
    eval_split: Annotated[str | None, typer.Option(help="The held-out split, likewise.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop if any row is bad.")] = False,
    refresh: Annotated[
        str | None,
        typer.Option(
            metavar="OLD",
            help="Retrain this model, from its base and with its settings, on its rows and those of --data.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Do not train on rows with a prompt of this file, such as a canary."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --output.")] = False,
    launcher: Launcher = None,
    processes: Processes = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the memory that the run needs under each launcher; train nothing.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="With --plan: of one device, e.g. 80GB; what fits in it is told."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Train a reward model on what is known of completions, load it again, and prove its scores.

    One epoch with the preset of its mode (docs/presets.md). Bad rows are set aside in DIR/training/quarantine.jsonl;
    the run says so and stops when more than max_bad_fraction (5 %) are bad. With --refresh the model, its settings, its
    rows and its held-out rows are those of OLD, and what is given beside overrides them (docs/refresh.md).

    [dim]Examples:[/dim]

        rewardlab train --model Qwen/Qwen3-0.6B --data pairs.jsonl --eval-data held_out.jsonl --output my-rm

        rewardlab train --model my-encoder --data pairs.jsonl --eval-fraction 0.1 --output my-rm --set
        learning_rate=3e-5

        rewardlab train --config recipe.yaml --lora --set lora.rank=32 --set report_to=tensorboard

        rewardlab train --config recipe.yaml --resume

        rewardlab train --model Qwen/Qwen3-0.6B --data ranked.jsonl --objective plackett_luce --output my-rm

        rewardlab train --model Qwen/Qwen3-0.6B --data pairs.jsonl --ensemble-heads 5 --output my-rm

        rewardlab train --model Qwen/Qwen3-8B --data pairs.jsonl --output my-rm --launcher zero3

        rewardlab train --refresh my-rm --data labelled.jsonl --exclude canary.jsonl --output my-rm-2

        rewardlab train --model Qwen/Qwen3-8B --lora --plan --processes 8 --memory 80GB
    """
    from rich.console import Console

    from rewardlab.config import build
    from rewardlab.data.ledger import Ledger
    from rewardlab.data.loading import Reading
    from rewardlab.data.splits import split_by_prompt
    from rewardlab.errors import ConfigError
    from rewardlab.evaluation.table import render_all
    from rewardlab.training.kept_out import shared_prompts, without_prompts, write_kept_out
    from rewardlab.training.reading import read_rows, unlabelled_told
    from rewardlab.training.recipe import TrainRecipe, overrides_of
    from rewardlab.training.refresh import inheritance_told, read_old_run
    from rewardlab.training.refresh_rows import EXCLUDED, as_sources, refresh_rows
    from rewardlab.training.run import TRAINING_FOLDER, require_free, train_reward_model

    if lora and head_only:
        raise ConfigError("--lora and --head-only exclude each other", hint="choose one")
    if refresh and config:
        raise ConfigError(
            "--refresh and --config exclude each other: a refresh has the settings of the model that it replaces",
            hint="leave out --config; options and --set override single settings",
        )
    old = read_old_run(refresh) if refresh else None
    recipe: Any = build(
        TrainRecipe,
        recipe=config,
        overrides=[*(old.overrides(old.base_model(model)) if old else ()), *(set_ or ())],
        explicit={
            "model": None if old else model,
            "data": data or ([""] if plan else None),  # a plan looks at neither
            "output": output or ("" if plan else None),
            "eval_data": eval_data,
            "eval_fraction": eval_fraction,
            "objective": objective,
            "engine": engine,
            "ensemble_heads": ensemble_heads,
            "mode": "lora" if lora else "head_only" if head_only else None,
            "dtype": dtype,
            "format": format,
            "split": split,
            "eval_split": eval_split,
        },
    )
    if plan:
        from rewardlab.cli.train_plan import print_plan

        print_plan(
            recipe,
            processes=1 if processes is None else processes,
            memory=memory,
            trust_remote_code=trust_remote_code,
            as_json=json_output,
        )
        return
    if memory is not None:
        raise ConfigError("--memory without --plan", hint="add --plan, or leave out --memory")
    folder = Path(recipe.output)
    require_free(folder, resume=resume)
    if (status := launch(launcher, processes)) is not None:
        raise typer.Exit(status)
    if not is_first():  # what there is to say, the first process says
        logging.disable(logging.WARNING)
    talk = Console(stderr=True, highlight=False, quiet=not is_first())

    if old:
        talk.print("\n".join(inheritance_told(old, recipe)))

    unlabelled: list[str] = []

    def read(files: list[str], which: str | None, format: str, quarantine: str) -> Reading:
        reading = read_rows(
            files,
            split=which,
            format=format,
            quarantine=folder / TRAINING_FOLDER / quarantine,
            max_bad_fraction=0.0 if strict else recipe.max_bad_fraction,
            strict=strict,
            report=talk.print,
        )
        unlabelled.extend(filter(None, [unlabelled_told(reading)]))
        return reading

    given, eval_groups, sources = None, [], as_sources("held-out", recipe.eval_data, recipe.eval_split, recipe.format)
    if recipe.eval_data:
        given = read(recipe.eval_data, recipe.eval_split, recipe.format, "quarantine-eval.jsonl")
        eval_groups = given.groups
    if old:
        rows = refresh_rows(
            old,
            recipe.data,
            read,
            split=recipe.split,
            format=recipe.format,
            held_out=given.groups if given else None,
            eval_fraction=recipe.eval_fraction,
            exclude=exclude or (),
        )
        talk.print("\n".join(rows.told))
        train_groups, eval_groups, ledger = rows.train, rows.held_out, rows.ledger
        eval_ledger = given.ledger if given else Ledger(read=len(eval_groups), used=len(eval_groups))
        sources += [*rows.sources, *write_kept_out(folder, rows.kept_out)]
    else:
        reading = read(recipe.data, recipe.split, recipe.format, "quarantine.jsonl")
        train_groups, ledger = reading.groups, reading.ledger
        eval_ledger = given.ledger if given else ledger
        sources = [*as_sources("train", recipe.data, recipe.split, recipe.format), *sources]
        if exclude:
            not_trained_on = read(exclude, None, "auto", "quarantine-excluded.jsonl").groups
            kept = without_prompts(train_groups, not_trained_on)
            train_groups = kept.groups
            talk.print("\n".join(kept.account(ledger, EXCLUDED, "") or ["no row left out for --exclude"]))
            sources += as_sources("excluded", exclude, None, "auto")
        if given:
            if shared := shared_prompts(train_groups, eval_groups):
                talk.print(f"warning: {shared:,} prompts are in both the training and the held-out data")
        elif recipe.eval_fraction:
            train_groups, eval_groups = split_by_prompt(train_groups, recipe.eval_fraction, seed=0)
    result = train_reward_model(
        model=recipe.model,
        train_groups=train_groups,
        eval_groups=eval_groups,
        output_dir=folder,
        mode=recipe.mode,
        lora=recipe.lora,
        dtype=recipe.dtype,
        overrides=overrides_of(recipe),
        resume=resume,
        trust_remote_code=trust_remote_code,
        max_bad_fraction=0.0 if strict else recipe.max_bad_fraction,
        ledger=ledger,
        eval_ledger=eval_ledger,
        sources=sources,
        lineage=old.lineage() if old else (),
        report=talk.print,
    )
    for line in unlabelled:
        talk.print(line)
    if json_output:
        summary = {
            "output": str(folder),
            "mode": result.mode,
            "seconds": result.seconds,
            **ledger.to_dict(),
            "held_out": result.saved.held_out.to_dict() if result.saved.held_out else None,
            "verification": result.saved.verification.to_dict(),
        }
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False))
        return
    if result.saved.held_out:
        Console().print(render_all(result.saved.held_out))
    checked = result.saved.verification
    talk.print(
        f"trained in {result.seconds:.0f} s, saved to {folder}, loaded again: {len(checked.checks)} checks held on "
        f"{checked.num_probes} probes"
    )
    several = overrides_of(recipe).get("ensemble_heads", 1) > 1
    heads = " (--ensemble min for the worst of the heads)" if several else ""
    if old:
        talk.print(f"next: rewardlab compare {refresh} {folder} --data FILE says whether it may take its place")
        return
    talk.print(
        f"next: rewardlab evaluate {folder} --data FILE, rewardlab score {folder} --data FILE --output OUT{heads}"
    )
