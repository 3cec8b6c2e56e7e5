"""A calibration as a person reads it on a terminal: 80 columns are enough. It computes nothing."""

from __future__ import annotations

from rich.console import Group, RenderableType

from rewardlab.evaluation.calibrating import Calibrated
from rewardlab.evaluation.table import area, decimal, metric_table
from rewardlab.metrics.probability_columns import WORDS

_LEVELS = {"5 %": "0.05", "median": "0.5", "95 %": "0.95"}


def render_calibrated(result: Calibrated) -> RenderableType:
    """The temperature and what it does, the reference scale, and its shift where there is one.

    Args:
        result: Of :func:`~rewardlab.evaluation.calibrating.calibrate_model`.

    Returns:
        Something ``rich.console.Console.print`` can print.
    """
    found, fitted, of = result.calibration, result.calibration.temperature, result.reference
    title = f"temperature {fitted.value:.4g}"
    if fitted.low is not None:
        title += f", 95 % interval {fitted.low:.4g} to {'no bound' if fitted.high is None else f'{fitted.high:.4g}'}"
    unit = f"{found.num_pairs:,} {found.unit}s of {found.num_prompts:,} prompts"
    table = metric_table(title, unit, "as it is (T = 1)", "with T")
    for name, words in WORDS.items():
        table.add_row(words, decimal(found.before[name]), decimal(found.after[name]))
    levels = {name: area(of.quantiles[level]) for name, level in _LEVELS.items() if level in of.quantiles}
    spread = metric_table(f"reference set: {of.source}", "completions", "mean", "std", *levels)
    spread.add_row(f"{of.num_scores:,}", area(of.mean), area(of.std), *levels.values())
    return Group(table, spread, *([result.shift.told()] if result.shift else []), *_of_heads(result))


def _of_heads(result: Calibrated) -> list[str]:
    """One line on several heads; nothing of a plain model."""
    if not result.heads:
        return []
    values = sorted(found.temperature.value for found in result.heads if found)
    told = f"temperatures {values[0]:.4g} to {values[-1]:.4g}" if values else "no temperature"
    without = result.heads.count(None)
    some = f", {without} without one" if values and without else ""
    return [f"the above is of the heads' mean; of its {len(result.heads)} heads each: {told}{some}"]
