"""The tables of the trends page: subsets before and now, every alarm and warning, every look.

This file chooses what is shown and words it; it draws little and tests nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rewardlab.evaluation.charts import Row, dot_rows, evenly
from rewardlab.evaluation.drawing import number_text
from rewardlab.evaluation.page_numbers import decimal, percent, points
from rewardlab.evaluation.report.blocks import Figure, Note, Section, Table, cut
from rewardlab.metrics.reliability import Z_95, wilson
from rewardlab.monitoring.live import WATCHES
from rewardlab.monitoring.snapshots import Snapshot
from rewardlab.monitoring.trends import Episode, Trends, label_of, place, time_words

MOST_QUIET_LOOKS = 250
"""Looks without an alarm in the table of all looks; those with one are all in it."""

MOST_SUBSETS = 30
"""Subsets that are shown: those with the most comparisons."""

_MOST_DRAWN = 12
_LATEST = 5  # fresh windows that are pooled, for a subset's share of one is small


def subset_section(trends: Trends) -> Section:
    """Which subsets the newest version's latest windows are better or worse on than before."""
    lead = (
        "Accuracy of the latest fresh windows of the newest version, less what it was. Intervals are 95 %, "
        "comparisons taken as independent; of many subsets, some are off zero by chance."
    )
    section = Section("subsets", "Subsets", lead)
    windows = [look for look in trends.of("fresh") if look.metrics.get("subsets")]
    windows = [look for look in windows if look.fingerprint == windows[-1].fingerprint]
    baselines = [look for look in trends.of("baseline") if windows and look.fingerprint == windows[-1].fingerprint]
    if baselines:
        before, latest = baselines[-1:], windows[-_LATEST:]
        what = f"the baseline of {baselines[-1].at[:10]}"
    else:
        many = min(_LATEST, len(windows) // 2)
        before, latest = windows[:many], windows[len(windows) - many :]
        what = f"the first {many} windows" if many > 1 else "the first window"
    then, now = _pooled(before), _pooled(latest)
    names = [name for name in now if name in then]
    if not names:
        section.blocks.append(Note("There are no two windows, or baseline and window, with a subset that both have."))
        return section
    names = sorted(names, key=lambda name: -now[name][1])[:MOST_SUBSETS]
    differences = {name: share_difference(*then[name], *now[name]) for name in names}
    if len(names) <= _MOST_DRAWN:
        rows = [Row(name[:40], *_in_points(differences[name])) for name in names]
        chart = dot_rows(
            "Difference of accuracy by subset", _told(differences), rows, low=0, high=0, shares=False, guide=0
        )
        caption = f"Percentage points; left of zero it has become worse. The last {len(latest)} windows against {what}."
        section.blocks.append(Figure("Latest minus before", chart, caption))
    table_rows = [
        [
            name,
            f"{percent(then[name][0] / then[name][1])} of {then[name][1]:,}",
            f"{percent(now[name][0] / now[name][1])} of {now[name][1]:,}",
            f"{points(differences[name][0])} ({points(differences[name][1])} to {points(differences[name][2])})",
        ]
        for name in names
    ]
    columns = ("subset", "before", "latest", "difference, points")
    section.blocks.append(Table(f"Latest {len(latest)} against {what}", columns, table_rows, "lrrr", wide=True))
    return section


def share_difference(k1: int, n1: int, k2: int, n2: int) -> tuple[float, float, float]:
    """The second share less the first, with its 95 % interval.

    Args:
        k1: Right of the first.
        n1: Of so many.
        k2: Right of the second.
        n2: Of so many.

    References:
        Newcombe 1998 (Statistics in Medicine 17:873), method 10.
    """
    (p1, p2) = (k1 / n1, k2 / n2)
    (low1, high1), (low2, high2) = wilson(p1, n1, Z_95), wilson(p2, n2, Z_95)
    difference = p2 - p1
    return difference, difference - math.hypot(p2 - low2, high1 - p1), difference + math.hypot(high2 - p2, p1 - low1)


def findings_section(trends: Trends) -> Section:
    """Every alarm and warning, newest first."""
    lead = "Newest first. What look after look found without a break is one row, with its last words."
    section = Section("findings", "Alarms and warnings", lead)
    if not trends.episodes:
        section.blocks.append(Note(f"None in {len(trends.snapshots):,} looks."))
        return section
    rows = [
        [
            time_words(one.last.at),
            one.finding.state,
            f"{one.kind}: {one.finding.watch}",
            f"{trends.version(one.fingerprint).label}",
            _standing(trends, one),
            one.since[:10],
            f"{one.count:,}",
            cut(one.finding.message, 500, 100),
        ]
        for one in sorted(trends.episodes, key=lambda one: -place(one.last))
    ]
    columns = ("last found", "state", "watch", "version", "now", "since", "looks", "why")
    section.blocks.append(Table("Found", columns, rows, "lllwlrrw", wide=True))
    return section


def looks_section(trends: Trends) -> Section:
    """Every look, newest first."""
    quiet = [look for look in trends.snapshots if not look.alarms]
    shown = {place(look) for look in evenly(quiet, MOST_QUIET_LOOKS)} | {place(x) for x in trends.snapshots if x.alarms}
    section = Section("looks", "Looks", f"{len(trends.snapshots):,} are in the history; newest first.")
    if len(shown) < len(trends.snapshots):
        left_out = len(trends.snapshots) - len(shown)
        section.blocks.append(Note(f"{left_out:,} looks without an alarm are left out here, at even distances."))
    rows = [
        [f"{look.number}", time_words(look.at), look.kind, label_of(look), look_figures(look), _states(look)]
        for look in reversed(trends.snapshots)
        if place(look) in shown
    ]
    columns = ("look", "time", "kind", "version", "figures", "found")
    section.blocks.append(Table("All looks", columns, rows, "lllwww", wide=True))
    return section


def look_figures(look: Snapshot) -> str:
    """The figures of one look, in one line."""
    metrics = look.metrics
    if "accuracy" in metrics:
        parts = [
            f"{metrics['num_pairs']:,} comparisons",
            f"accuracy {percent(metrics['accuracy']['value'])}",
            f"log loss {decimal(metrics['log_loss']['value'])}",
            f"calibration error {decimal(metrics['ece']['value'])}",
        ]
        gap = metrics.get("gap")
        return ", ".join([*parts, *([f"gap {decimal(gap['mean'], 2)}"] if gap else [])])
    scores = metrics.get("scores", {})
    parts = [f"{scores['num']:,} scores"] if scores.get("num") else []
    if scores.get("mean") is not None:
        parts.append(f"mean {number_text(scores['mean'])}")
    return ", ".join(
        parts + [f"PSI of {name} {metrics[name]['psi']:.3f}" for name in WATCHES if _has_psi(metrics, name)]
    )


def _has_psi(metrics: Mapping[str, Any], name: str) -> bool:
    return metrics.get(name, {}).get("psi") is not None


def _standing(trends: Trends, episode: Episode) -> str:
    if episode.ended:
        return "ended"
    return "in force" if trends.holds(episode) else "replaced"


def _states(look: Snapshot) -> str:
    by_state = {
        state: list(dict.fromkeys(one.watch for one in look.findings if one.state == state))
        for state in ("alarm", "warning", "learning")
    }
    return "; ".join(f"{state}: {', '.join(watches)}" for state, watches in by_state.items() if watches) or "ok"


def _pooled(looks: Sequence[Snapshot]) -> dict[str, tuple[int, int]]:
    """Right and all comparisons by subset."""
    found: dict[str, tuple[int, int]] = {}
    for look in looks:
        for name, of_one in look.metrics["subsets"].items():
            right, all_ = found.get(name, (0, 0))
            found[name] = (right + round(of_one["accuracy"] * of_one["num_pairs"]), all_ + of_one["num_pairs"])
    return found


def _told(differences: dict[str, tuple[float, float, float]]) -> str:
    return "; ".join(f"{name} {points(value)} points" for name, (value, _, _) in differences.items())


def _in_points(interval: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = interval
    return 100 * value, 100 * low, 100 * high
