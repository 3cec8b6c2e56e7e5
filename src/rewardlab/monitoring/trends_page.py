"""The page of ``rewardlab report --history``: how things stand, each version, and the trends.

This file words the verdict and what to do about each alarm, and hands everything to ``trends.html.jinja``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rewardlab import __version__
from rewardlab.evaluation.report.blocks import Headline, cut, in_rows
from rewardlab.evaluation.report.rendering import render
from rewardlab.monitoring.advice import ADVICE
from rewardlab.monitoring.snapshots import Kind
from rewardlab.monitoring.trends import (
    MOST_VERSIONS,
    SCHEDULED,
    Episode,
    Trends,
    Version,
    duration_words,
    place,
    seconds_of,
    time_words,
)
from rewardlab.monitoring.trends_charts import TREND_STYLE
from rewardlab.monitoring.trends_sections import canary_section, fresh_section, live_section
from rewardlab.monitoring.trends_tables import findings_section, looks_section, subset_section


@dataclass(frozen=True, slots=True)
class Standing:
    """An alarm or a warning that is in force, as the page shows it."""

    title: str
    version: str
    since: str
    why: str
    what_to_do: str


@dataclass(frozen=True, slots=True)
class Card:
    """A version, as the page shows it."""

    name: str
    fingerprint: str
    state: str
    rows: tuple[tuple[str, str], ...]


def render_trends(trends: Trends) -> str:
    """The page, as HTML.

    Args:
        trends: Of :func:`~rewardlab.monitoring.trends.gather_trends`.
    """
    return render(
        __package__,
        "trends.html.jinja",
        title=trends.name,
        trend_style=TREND_STYLE,
        verdict=headline(trends),
        source=_source(trends),
        silences=trends.silences(),
        alarms=[_standing(trends, episode) for episode in trends.in_force("alarm")],
        warnings=[_standing(trends, episode) for episode in trends.in_force("warning")],
        cards=[_card(trends, version) for version in trends.versions[::-1][:MOST_VERSIONS]],
        older=max(len(trends.versions) - MOST_VERSIONS, 0),
        sections=[
            fresh_section(trends),
            subset_section(trends),
            canary_section(trends),
            live_section(trends),
            findings_section(trends),
            looks_section(trends),
        ],
        in_rows=in_rows,
        version=__version__,
    )


def headline(trends: Trends) -> Headline:
    """How things stand: alarms that are in force, silence, or quiet, and since when.

    Args:
        trends: What is known.
    """
    alarms, warnings, silences = trends.in_force("alarm"), trends.in_force("warning"), trends.silences()
    looked = f"last look {time_words(max(look.at for look in trends.snapshots))} UTC"
    if alarms:
        figure = f"{len(alarms)} alarm{'s' if len(alarms) > 1 else ''}"
        first = min(alarms, key=lambda episode: episode.since)
        names = ", ".join(dict.fromkeys(f"{one.kind} {one.finding.watch}" for one in alarms))
        verdict = f"In force: {names}. The first since {_day(first.since)}. Why, and what to do, is told below."
        return Headline(figure, f"in force; {looked}", verdict, "bad")
    if silences:
        verdict = f"Nothing says how things are now. {'; '.join(silences)}"
        return Headline("Silent", f"no alarm was in force when it was last looked at; {looked}", verdict, "bad")
    ended = [episode for episode in trends.episodes if episode.finding.state == "alarm"]
    since = (
        f"no alarm since {_day(max(ended, key=lambda one: place(one.last)).last.at)}"
        if ended
        else f"no alarm in {len(trends.snapshots):,} look{'s' if len(trends.snapshots) > 1 else ''} since "
        f"{_day(trends.snapshots[0].at)}"
    )
    untested = _untested(trends)
    told = f"{len(warnings)} warning{'s are' if len(warnings) > 1 else ' is'} worth a look. " if warnings else ""
    if untested:
        return Headline("Quiet", f"{since}; {looked}", f"{told}{untested}")
    return Headline("Quiet", f"{since}; {looked}", told or "Nothing is to be done.", "" if warnings else "good")


def _untested(trends: Trends) -> str:
    """Why quiet does not yet mean that the newest version is right; empty where it does."""
    fresh = trends.of("fresh")
    if not fresh:
        return "No fresh window was ever looked at, and only these say whether the model is still right."
    if trends.is_replaced(fresh[-1].fingerprint):
        return "The newest version has no fresh window yet, and only these say whether it is right."
    states = {finding.watch: finding.state for finding in fresh[-1].findings}
    if states.get("accuracy") == "learning":
        return "Fresh windows are still being learned from: there is nothing yet to hold them against."
    return ""


def _source(trends: Trends) -> str:
    counts = {kind: len(trends.of(kind)) for kind in (*SCHEDULED, "baseline", "reference")}
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    return f"{len(trends.snapshots):,} look{'s' if len(trends.snapshots) > 1 else ''}: {told}"


def _standing(trends: Trends, episode: Episode) -> Standing:
    age = duration_words(trends.now.timestamp() - seconds_of(episode.since))
    looks = "one look" if episode.count == 1 else f"{episode.count:,} looks"
    return Standing(
        f"{episode.kind}: {episode.finding.watch}",
        trends.version(episode.fingerprint).label,
        f"since {time_words(episode.since)} UTC ({age}), found at {looks}, last {time_words(episode.last.at)}",
        cut(episode.finding.message, 900, 200),
        _what_to_do(episode.kind, episode.finding.watch),
    )


def _what_to_do(kind: Kind, watch: str) -> str:
    advice = str(ADVICE.get((kind, watch), ""))
    return advice and f"{advice[0].upper()}{advice[1:]}."


def _card(trends: Trends, version: Version) -> Card:
    contracts = [contract[:8] for contract in version.contracts]
    state = "replaced" if trends.is_replaced(version.fingerprint) else "newest"
    if state == "newest" and version is not trends.versions[-1]:
        state = "in use"
    accuracy = [look for look in trends.of("fresh") if look.fingerprint == version.fingerprint]
    last = f"{100 * accuracy[-1].metrics['accuracy']['value']:.1f} %" if accuracy else "no window"
    return Card(
        version.name,
        version.fingerprint[:16],
        state,
        (
            ("first seen", time_words(version.first.at)),
            ("last look", time_words(version.last.at)),
            ("looks", ", ".join(f"{count:,} {kind}" for kind, count in version.looks.items())),
            ("contract", ", ".join(contracts[-3:]) or "none"),
            ("fresh accuracy", last),
        ),
    )


def _day(at: str) -> str:
    """In words, and not to be broken into two lines."""
    moment = datetime.fromisoformat(at)
    return f"{moment.day}\u00a0{moment:%b}\u00a0{moment:%Y}"
