"""``rewardlab overopt``: how far a reward model can be optimised against before the truth falls.

This file knows options and what is told; what is done is :mod:`rewardlab.studies.overopt`'s.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rewardlab.cli.options import JsonOutput


def overopt(
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where everything goes; seeds whose figures are there are not run again."),
    ] = Path("overopt"),
    seeds: Annotated[int, typer.Option(min=1, help="How many, from --first-seed on: each is an experiment.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    gold: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A reward model as the gold, in place of the world's truth.")
    ] = None,
    label_noise: Annotated[
        float | None,
        typer.Option(min=0, max=0.5, help="Share of the proxies' labels that are flipped, 0.25 by default."),
    ] = None,
    grpo: Annotated[bool, typer.Option(help="Optimise by GRPO too, which needs TRL.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Seeds at the same time, one thread each.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="See what is made in a minute or two; proves nothing.")
    ] = False,
    as_json: JsonOutput = False,
) -> None:
    r"""Measure over-optimisation: gold and proxy reward against KL, for best-of-N and for GRPO.

    Small proxies are trained on pairs of a policy's samples that a gold reward labelled, and optimised against, alone
    and as ensembles. Leaves a page with the figures in DIR/overopt.html and says at which KL gold peaks. Nothing is
    downloaded. One seed takes about a quarter of an hour on one idle core. GRPO needs TRL: pip install
    "rewardlab\[rl]".

    [dim]Examples:[/dim]

        rewardlab overopt --quick

        rewardlab overopt --seeds 3 --workers 2 --output overopt
    """
    from rich.console import Console

    talk = Console(stderr=True, highlight=False)
    talk.print("loading torch and transformers")

    from rewardlab.studies.overopt import OveroptSize, run_overopt
    from rewardlab.studies.overopt_page import write_pages

    size = OveroptSize.quick() if quick else OveroptSize()
    if label_noise is not None:
        size = replace(size, label_noise=label_noise)
    if not grpo:
        size = replace(size, grpo=replace(size.grpo, steps=0))
    result = run_overopt(
        output,
        seeds=range(first_seed, first_seed + seeds),
        size=size,
        gold=gold,
        workers=workers,
        report=lambda line: talk.print(line, markup=False, soft_wrap=True),
    )
    page = write_pages(result, output)
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        for sentence in result.headline:
            typer.echo(sentence)
    talk.print(f"page: {page}", markup=False, soft_wrap=True)
