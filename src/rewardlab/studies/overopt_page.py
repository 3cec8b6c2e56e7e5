"""An over-optimisation study's result as one self-contained HTML page and as SVG files.

This file chooses what is shown and words it; :mod:`rewardlab.studies.overopt_figures` draws,
``overopt.html.jinja`` lays out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from markupsafe import Markup

from rewardlab.evaluation.page_numbers import decimal, percent
from rewardlab.evaluation.report.rendering import render
from rewardlab.files import write_safely
from rewardlab.studies.overopt_curves import Curve
from rewardlab.studies.overopt_figures import FIGURE_STYLE, Series, as_file, lines
from rewardlab.studies.overopt_proxies import ProxySize
from rewardlab.studies.overopt_result import OPTIMISERS, SINGLE, OveroptResult

Style = Literal["a", "b", "c", "d"]
STYLES: tuple[Style, ...] = ("a", "b", "c", "d")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the page.

    Attributes:
        name: Of its file, without the suffix.
        heading: Above it.
        svg: The drawing.
        caption: How to read it.
    """

    name: str
    heading: str
    svg: Markup
    caption: str


def write_pages(result: OveroptResult, folder: Path) -> Path:
    """Write ``overopt.html``, ``overopt.json``, ``table.md`` and each figure as an SVG file.

    Args:
        result: What was found.
        folder: Where to, an existing folder.

    Returns:
        The page.
    """
    page = folder / "overopt.html"
    write_safely(page, render_page(result))
    write_safely(folder / "overopt.json", json.dumps(result.to_dict(), indent=1) + "\n")
    write_safely(folder / "table.md", result.markdown())
    for figure in figures(result):
        write_safely(folder / f"{figure.name}.svg", as_file(figure.svg))
    return page


def render_page(result: OveroptResult) -> str:
    """The page as HTML."""
    several = len(result.seeds) > 1
    return render(
        __package__,
        "overopt.html.jinja",
        result=result,
        headline=result.headline,
        figure_style=Markup(FIGURE_STYLE),
        gold_words="the demo world's true utility"
        if result.settings["gold"] == "true utility"
        else f"the reward model {result.settings['gold']}",
        band_words="the range of the seeds" if several else "95 % intervals over prompts",
        figures=figures(result),
        rows=result.rows(),
        equal_kl_rows=result.equal_kl_rows() if result.above_single else [],
        budget=None if result.budget is None else decimal(result.budget, 1),
        facts=_facts(result),
        percent=percent,
    )


def figures(result: OveroptResult) -> list[Figure]:
    """Every figure that the curves allow."""
    first = next(iter(result.curves)).proxy
    found = []
    for optimiser, words in OPTIMISERS.items():
        alone, title = result.alone(optimiser), words[0].upper() + words[1:]
        if alone is None:
            continue
        found.append(
            Figure(
                f"{optimiser}-gold-and-proxy",
                f"{title}: what the proxy says, and what is true",
                _drawn(
                    f"Gold and proxy reward under {words}",
                    f"The proxy ends at {decimal(alone.proxy[-1].value, 2)}, "
                    f"gold at {decimal(alone.end_gold.value, 2)} after a peak of {decimal(alone.peak.gold, 2)} "
                    f"at KL {decimal(alone.peak.kl, 1)}.",
                    [_series("gold", "a", alone, peak=True), _series("proxy", "b", alone, of="proxy")],
                ),
                f"One proxy, {_size_words(first)}. The dot is where gold peaks.",
            )
        )
        ensembles = {
            made.combined: curve
            for made, curve in result.curves.items()
            if (made.optimiser, made.proxy) == (optimiser, first)
        }
        if len(ensembles) > 1:
            found.append(
                _compared(
                    f"{optimiser}-ensembles",
                    f"{title}: one proxy against ensembles",
                    f"Gold reward under {words}, by how {result.settings['members']} proxies are combined",
                    ensembles,
                    f"Gold alone. Every proxy and member: {_size_words(first)}.",
                )
            )
    singles = {m.proxy: c for m, c in result.curves.items() if m.optimiser == "best_of_n" and m.combined == SINGLE}
    for name, heading, key, label in (
        ("data-sizes", "More data", lambda p: p.shape == first.shape, lambda p: f"{p.num_pairs:,} pairs"),
        ("model-sizes", "Larger proxies", lambda p: p.num_pairs == first.num_pairs, lambda p: p.shape),
    ):
        chosen = _labelled(singles, key, label)
        if len(chosen) > 1:
            fixed = f"Decoders of {first.shape}" if name == "data-sizes" else f"{first.num_pairs:,} pairs"
            found.append(
                _compared(
                    f"best_of_n-{name}",
                    f"{heading}: gold under best-of-n",
                    f"Gold reward under best-of-n, {heading.lower()}",
                    chosen,
                    f"{fixed}; one proxy each.",
                )
            )
    return found


def _labelled(
    curves: dict[ProxySize, Curve], key: Callable[[ProxySize], bool], label: Callable[[ProxySize], str]
) -> dict[str, Curve]:
    chosen = sorted((proxy for proxy in curves if key(proxy)), key=lambda p: (p.num_pairs, p.hidden_size))
    return {label(proxy): curves[proxy] for proxy in chosen}


def _compared(name: str, heading: str, title: str, curves: dict[str, Curve], caption: str) -> Figure:
    """Gold of several curves in one figure; four fit."""
    shown = list(curves.items())[: len(STYLES)]
    said = "; ".join(f"{label} peaks at KL {decimal(curve.peak.kl, 1)}" for label, curve in shown)
    series = [_series(label, style, curve, peak=True) for (label, curve), style in zip(shown, STYLES, strict=False)]
    return Figure(name, heading, _drawn(title, said, series), f"{caption} Dots are the peaks.")


def _series(
    label: str, style: Style, curve: Curve, *, of: Literal["gold", "proxy"] = "gold", peak: bool = False
) -> Series:
    """One reward over the root of KL."""
    values = curve.gold if of == "gold" else curve.proxy
    points = [(math.sqrt(kl), value.value) for kl, value in zip(curve.kl, values, strict=True)]
    ranges = curve.gold_range if of == "gold" else curve.proxy_range
    return Series(label, style, points, ranges, dashed=of == "proxy", peak=peak)


def _drawn(title: str, description: str, series: Sequence[Series]) -> Markup:
    return lines(title, description, series, x_name="root of KL (KL in nats)", y_name="reward above the policy's")


def _size_words(proxy: ProxySize) -> str:
    layers = "layer" if proxy.num_layers == 1 else "layers"
    return f"{proxy.num_layers} {layers} of width {proxy.hidden_size}, {proxy.num_pairs:,} pairs"


def _facts(result: OveroptResult) -> list[tuple[str, str]]:
    """What was run, and what the policy and the proxies are like."""
    settings = result.settings

    def mean(name: str) -> float:
        return float(np.mean([policy[name] for policy in result.policies]))

    facts = [
        ("held-out prompts", f"{settings['num_prompts']:,}"),
        ("samples of each", f"{settings['pool']:,}, {mean('distinct_in_pool'):,.0f} of them different"),
        ("gold, standard deviation among a prompt's samples", decimal(mean("gold_std_within_prompts"), 2)),
        ("gold of the best sample, above the policy's mean", decimal(mean("best_of_pool"), 2)),
        ("GRPO steps", f"{settings['grpo']['steps']:,}, without a KL penalty"),
        ("minutes for each seed", ", ".join(f"{seconds / 60:.0f}" for seconds in result.seconds)),
    ]
    for position, one in enumerate(result.proxies[0]):
        correlation, of_the_mean = (
            float(np.mean([of_seed[position][name] for of_seed in result.proxies]))
            for name in ("correlation", "of_the_mean")
        )
        name = f"correlation with gold among a prompt's samples: {_size_words(ProxySize(**one['proxy_size']))}"
        is_ensemble = position == 0 and settings["members"] > 1
        ensemble = f"; mean of the ensemble {decimal(of_the_mean, 2)}" if is_ensemble else ""
        facts.append((name, decimal(correlation, 2) + ensemble))
    return facts
