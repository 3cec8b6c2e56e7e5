"""The sections of the trends page that are drawn over time: fresh windows, canary, live distributions.

This file chooses what is shown and words it; :mod:`rewardlab.monitoring.trends_charts` draws. A section without data
says what would give it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rewardlab.evaluation.charts import Row, dot_rows
from rewardlab.evaluation.drawing import number_text
from rewardlab.evaluation.page_numbers import UNKNOWN, bounds, decimal, percent
from rewardlab.evaluation.report.blocks import Figure, Note, Section, Table
from rewardlab.metrics.histograms import Histogram
from rewardlab.metrics.reliability import Z_95
from rewardlab.monitoring.snapshots import Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.monitoring.trends import MOST_VERSIONS, Trends, finding_of, label_of, place, seconds_of, time_words
from rewardlab.monitoring.trends_charts import Look, Span, over_time

_FRESH: tuple[tuple[str, str, str, bool], ...] = (
    ("accuracy", "Accuracy", "accuracy", True),
    ("ece", "Calibration error", "calibration error", False),
    ("gap", "Gap to the ensemble", "mean gap (standard deviations)", False),
    ("log_loss", "Log loss", "log loss (nats)", False),
)
_LIVE = (("scores", "Scores", "score"), ("tokens", "Lengths", "tokens"), ("disagreement", "Disagreement", "std"))


def fresh_section(trends: Trends) -> Section:
    """Each figure of the fresh windows beside the evidence that it has changed."""
    looks = trends.of("fresh")
    lead = (
        "Labelled comparisons of what the policy writes now: the measure that matters. Bands are 95 % intervals of "
        "each window alone; whether there is a change is decided by the evidence of all windows together, which is an "
        "alarm at its limit and may be looked at daily."
    )
    section = Section("fresh", "Fresh windows", lead)
    if not looks:
        section.blocks.append(_absent("fresh window", "rewardlab monitor DIR --fresh FILE --history DB"))
        return section
    if len({look.fingerprint for look in looks}) > 1:
        section.blocks.append(Note("The windows of each version are tested apart; an upright line is a new version."))
    for name, heading, y_name, share in _FRESH:
        of_figure = [(look, record) for look in looks if (record := _interval(look, name)) is not None]
        if of_figure:
            section.blocks.append(_figure(trends, name, heading, y_name, share, of_figure))
        if (evidence := _evidence(trends, looks, name, heading)) is not None:
            section.blocks.append(evidence)
    if all(look.metrics.get("gap") is None for look in looks):
        section.blocks.insert(0, Note("No window has a gap: --against A,B,C holds the scores against an ensemble's."))
    return section


def _figure(
    trends: Trends, name: str, heading: str, y_name: str, share: bool, of_figure: Sequence[tuple[Snapshot, Any]]
) -> Figure:
    looks = [_look(look, record["value"], record["low"], record["high"], watch=name) for look, record in of_figure]
    spans = _baselines(trends, name)
    form: Callable[[float | None], str] = percent if share else decimal
    last = of_figure[-1]
    told = f"Last window ({last[0].at[:10]}): {form(last[1]['value'])}, {bounds(last[1], form)}."
    chart = over_time(
        f"{heading} of fresh windows",
        f"{len(looks):,} windows. {told}",
        looks,
        y_name=y_name,
        percent=share,
        spans=spans,
        versions=_marks(trends),
    )
    return Figure(heading, chart, told, a="window", guide="baseline" if spans else "")


def _evidence(trends: Trends, looks: Sequence[Snapshot], name: str, heading: str) -> Figure | None:
    """The evidence after each window, as it was found then."""
    found = [
        (look, finding)
        for look in looks
        if (finding := finding_of(look, name)) is not None and finding.value is not None and finding.limit is not None
    ]
    if not found:
        return None
    limits = [finding.limit or 0.0 for _, finding in found]
    edges = [index for index in range(len(limits)) if index == 0 or limits[index] != limits[index - 1]]
    times = [seconds_of(look.at) for look, _ in found]
    spans = []
    for start, end in zip(edges, [*edges[1:], len(limits) - 1], strict=True):
        spans.append(Span(limits[start], times[start], times[end]))
    last = found[-1][1]
    told = (
        f"{last.value:.1f} after the last window (natural log); at {last.limit:.1f} it is an alarm. An alarm stays one."
    )
    chart = over_time(
        f"Evidence of a change: {heading}",
        told,
        [_look(look, finding.value or 0.0, watch=name) for look, finding in found],
        y_name="log evidence",
        spans=spans,
        versions=_marks(trends),
    )
    return Figure(f"{heading}: evidence of a change", chart, told, a="log evidence", guide="limit")


def canary_section(trends: Trends) -> Section:
    """Whether the stack has scored as before, and how the versions compare."""
    looks = trends.of("canary")
    lead = "The same labelled comparisons every time. One version must give the same scores; versions are compared."
    section = Section("canary", "Canary", lead)
    if not looks:
        section.blocks.append(_absent("canary", "rewardlab monitor DIR --canary FILE --history DB"))
        return section
    repeats = [
        (look, one) for look in looks if (one := finding_of(look, "canary")) is not None and one.limit is not None
    ]
    if repeats and all(one.value == 0 for _, one in repeats):
        section.blocks.append(
            Note(f"Each of {len(repeats):,} later looks gave every score that its version first had, bit for bit.")
        )
    elif repeats:
        limit = repeats[-1][1].limit or 0.0
        times = [seconds_of(look.at) for look, _ in repeats]
        told = f"Largest at the last look: {repeats[-1][1].value:.3g}; allowed: {limit:.3g}."
        chart = over_time(
            "Largest difference of a canary score",
            told,
            [_look(look, one.value or 0.0, watch="canary") for look, one in repeats],
            y_name="largest difference of a score",
            spans=[Span(limit, times[0], times[-1])],
            versions=_marks(trends),
        )
        section.blocks.append(Figure("Same version, same scores?", chart, told, a="look", guide="allowed"))
    else:
        section.blocks.append(
            Note("No version's canary was looked at twice yet, so nothing says if the stack is stable.")
        )
    firsts = list({look.fingerprint: look for look in reversed(looks)}.values())[::-1]
    shown = [look for look in firsts if _interval(look, "accuracy") is not None][-MOST_VERSIONS:]
    rows = [
        Row(label_of(look)[:40], record["value"], record["low"], record["high"])
        for look in shown
        if (record := _interval(look, "accuracy")) is not None
    ]
    if rows:
        told = "; ".join(f"{row.name} {percent(row.value)}" for row in rows)
        caption = "Each version's first look, with its 95 % interval. The paired tests see smaller differences."
        section.blocks.append(Figure("Accuracy by version", dot_rows("Accuracy by version", told, rows), caption))
    compared = [look for look in firsts[1:] if finding_of(look, "ece") is not None]
    if compared:
        table_rows = [
            [label_of(look), time_words(look.at), *(_words(look, watch) for watch in ("accuracy", "ece", "log_loss"))]
            for look in reversed(compared)
        ]
        columns = ("new version", "first look", "accuracy", "calibration", "log loss")
        section.blocks.append(Table("Each new version against the last", columns, table_rows, "lrwww", wide=True))
    return section


def live_section(trends: Trends) -> Section:
    """How far a server's distributions have moved, and where they lie."""
    looks = trends.of("live")
    lead = (
        "What a server has scored, without labels: that something moved, never whether the model is right. A move "
        "counts where it is also more than chance."
    )
    section = Section("live", "Live distributions", lead)
    if not looks:
        section.blocks.append(_absent("reading of a server", "rewardlab monitor DIR --live URL --history DB"))
        return section
    for name, heading, unit in _LIVE:
        counted = [look for look in looks if look.metrics.get(name, {}).get("num")]
        compared = [look for look in counted if look.metrics[name].get("psi") is not None]
        if compared:
            section.blocks.append(_divergence(trends, name, heading, compared))
        if counted:
            section.blocks.append(_spread(trends, name, heading, unit, counted))
    return section


def _divergence(trends: Trends, name: str, heading: str, looks: Sequence[Snapshot]) -> Figure:
    start, end = seconds_of(looks[0].at), seconds_of(looks[-1].at)
    finding = finding_of(looks[-1], name)
    alarm = finding.limit if finding is not None and finding.limit is not None else Thresholds().psi_alarm
    last = looks[-1].metrics[name]
    told = f"Last: PSI {last['psi']:.3f}, KS {last['ks']:.3f}, Jensen-Shannon {last['js']:.3f}."
    chart = over_time(
        f"{heading}: population stability index",
        told,
        [_look(look, look.metrics[name]["psi"], watch=name) for look in looks],
        y_name="PSI against the reference",
        spans=[Span(Thresholds().psi_warning, start, end, "warning (default)"), Span(alarm, start, end, "alarm")],
        versions=_marks(trends),
    )
    return Figure(f"{heading}: how far from the reference", chart, told, a="window", guide="thresholds")


def _spread(trends: Trends, name: str, heading: str, unit: str, looks: Sequence[Snapshot]) -> Figure:
    drawn = []
    for look in looks:
        window = Histogram.from_dict(look.metrics[name]["window"])
        low, high = histogram_quantile(window, 0.05), histogram_quantile(window, 0.95)
        drawn.append(_look(look, window.mean or 0.0, low, high, watch=name))
    ends = {look.fingerprint: seconds_of(look.at) for look in looks}
    spans = [
        Span(of_one["mean"], max(seconds_of(look.at), seconds_of(looks[0].at)), ends[look.fingerprint])
        for look in {one.fingerprint: one for one in trends.of("reference")}.values()
        if look.fingerprint in ends and (of_one := look.metrics.get(name, {})).get("mean") is not None
    ]
    told = f"Last window: mean {number_text(drawn[-1].value)} of {looks[-1].metrics[name]['num']:,}."
    chart = over_time(
        f"{heading} of live windows", told, drawn, y_name=f"mean ({unit})", spans=spans, versions=_marks(trends)
    )
    return Figure(
        heading, chart, f"{told} Band: 5\u00a0% to 95\u00a0%.", a="mean", guide="reference's mean" if spans else ""
    )


def histogram_quantile(histogram: Histogram, level: float) -> float | None:
    """A quantile as the counts have it, straight lines inside a bin; None where it lies beyond the edges.

    Args:
        histogram: At least one value.
        level: In (0, 1).
    """
    wanted, below = level * histogram.num, 0
    for index, count in enumerate(histogram.counts):
        if count and below + count >= wanted:
            if index in (0, len(histogram.edges)):
                return None
            low, high = histogram.edges[index - 1 : index + 1]
            return low + (high - low) * (wanted - below) / count
        below += count
    return None


def _absent(what: str, command: str) -> Note:
    return Note(f"There is no {what} in this history; `{command}` makes one.")


def _interval(look: Snapshot, name: str) -> Any:
    """A figure with its interval; of the gap from its standard error."""
    record = look.metrics.get(name)
    if record is None or name != "gap":
        return record
    error = record["se"]
    low, high = (None, None) if error is None else (record["mean"] - Z_95 * error, record["mean"] + Z_95 * error)
    return {"value": record["mean"], "low": low, "high": high}


def _baselines(trends: Trends, name: str) -> list[Span]:
    """Each baseline's figure, from the first window of its time to the last."""
    spans = []
    for version in trends.versions:
        own = [look for look in trends.snapshots if look.fingerprint == version.fingerprint]
        current: Snapshot | None = None
        windows: dict[int, list[float]] = {}
        by_number: dict[int, Snapshot] = {}
        for look in own:
            if look.kind == "baseline":
                current = look
            elif look.kind == "fresh" and current is not None:
                windows.setdefault(place(current), []).append(seconds_of(look.at))
                by_number[place(current)] = current
        for number, times in windows.items():
            if (record := _interval(by_number[number], name)) is not None:
                spans.append(Span(record["value"], min(times), max(times)))
    return spans


def _look(look: Snapshot, value: float, low: float | None = None, high: float | None = None, *, watch: str) -> Look:
    finding = finding_of(look, watch)
    return Look(seconds_of(look.at), look.fingerprint, value, low, high, "ok" if finding is None else finding.state)


def _marks(trends: Trends) -> list[tuple[float, str]]:
    """When each version after the first was first seen."""
    return [(seconds_of(version.first.at), version.fingerprint[:8]) for version in trends.versions[1:]]


def _words(look: Snapshot, watch: str) -> str:
    finding = finding_of(look, watch)
    return UNKNOWN if finding is None else f"{finding.state}: {finding.message}"
