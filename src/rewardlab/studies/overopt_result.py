"""What an over-optimisation study found: the curves of all seeds put together, where to stop, and the table.

This file reads the seeds' JSON records; it trains and draws nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rewardlab.evaluation.page_numbers import UNKNOWN, bounds, decimal, signed
from rewardlab.metrics.bootstrap import Interval
from rewardlab.studies.overopt_curves import Curve, SeedCurve, gold_at, over_seeds, t_interval
from rewardlab.studies.overopt_proxies import ProxySize

Optimiser = Literal["best_of_n", "grpo"]

SINGLE = "single"
"""One proxy alone, where ensembles have the name of how they are combined."""

OPTIMISERS: dict[Optimiser, str] = {"best_of_n": "best-of-n", "grpo": "GRPO"}
"""In words."""


EQUAL_KLS = (0.5, 1.0, 2.0, 3.0, 5.0)
"""Nats at which ensembles are compared with one proxy: after equal steps of GRPO they are not at an equal KL."""


@dataclass(frozen=True, slots=True)
class Made:
    """How a curve was made.

    Attributes:
        optimiser: What optimised.
        proxy: Size of the proxies and of their data.
        combined: How several became one; :data:`SINGLE` is one alone.
    """

    optimiser: Optimiser
    proxy: ProxySize
    combined: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"optimiser": self.optimiser, "proxy_size": asdict(self.proxy), "combined": self.combined}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Made:
        """The same back from JSON."""
        return cls(record["optimiser"], ProxySize(**record["proxy_size"]), record["combined"])

    @property
    def name(self) -> str:
        """In words."""
        return f"{OPTIMISERS[self.optimiser]}, {self.proxy.shape} on {self.proxy.num_pairs:,} pairs, {self.combined}"


@dataclass(frozen=True, slots=True)
class OveroptResult:
    """The figures of all seeds.

    Attributes:
        seeds: Which.
        settings: Of every seed, as its record has them.
        curves: By how they were made, in the order in which they were.
        differences: By ensemble: its gold at the last point less the single proxy's, and the same of the drop, over the
            seeds, as ``(end, drop)``.
        above_single: By ensemble: at each of :data:`EQUAL_KLS`, its gold less the single proxy's over the seeds; None
            where a seed did not get so far.
        policies: Of each seed, the policy's figures.
        proxies: Of each seed, the proxies' correlation with the gold within prompts.
        seconds: What each seed took.
    """

    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    curves: Mapping[Made, Curve]
    differences: Mapping[Made, tuple[Interval, Interval]]
    above_single: Mapping[Made, tuple[Interval | None, ...]]
    policies: tuple[Mapping[str, float], ...]
    proxies: tuple[Sequence[Mapping[str, Any]], ...]
    seconds: tuple[int, ...]

    @classmethod
    def load(cls, files: Sequence[Path]) -> OveroptResult:
        """Put the seeds' records together.

        Args:
            files: One per seed, all made with the same settings.
        """
        records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        of_seeds: dict[Made, list[SeedCurve]] = {}
        for record in records:
            for one in record["curves"]:
                of_seeds.setdefault(Made.from_dict(one), []).append(SeedCurve.from_dict(one))
        curves = {
            made: over_seeds(found, "best_of_n" if made.optimiser == "best_of_n" else "rl")
            for made, found in of_seeds.items()
        }
        differences, above_single = {}, {}
        for made, found in of_seeds.items():
            if made.combined != SINGLE:
                alone = of_seeds[Made(made.optimiser, made.proxy, SINGLE)]
                both = list(zip(found, alone, strict=True))
                ends = [own.gold[-1].value - other.gold[-1].value for own, other in both]
                differences[made] = (t_interval(ends), t_interval([own.drop - other.drop for own, other in both]))
                above_single[made] = tuple(_above(both, kl) for kl in EQUAL_KLS)
        return cls(
            seeds=tuple(record["seed"] for record in records),
            settings=records[0]["settings"],
            curves=curves,
            differences=differences,
            above_single=above_single,
            policies=tuple(record["policy"] for record in records),
            proxies=tuple(record["proxies"] for record in records),
            seconds=tuple(record["seconds"] for record in records),
        )

    def alone(self, optimiser: Optimiser) -> Curve | None:
        """The curve of the first proxy alone; None where there was no such run."""
        return self.curves.get(Made(optimiser, next(iter(self.curves)).proxy, SINGLE))

    @property
    def headline(self) -> tuple[str, ...]:
        """One sentence for each optimiser: where the gold of the first proxy, alone, peaks, and what follows."""
        found = ((words, self.alone(optimiser)) for optimiser, words in OPTIMISERS.items())
        return tuple(f"{words[0].upper()}{words[1:]}: {_advice(curve)}" for words, curve in found if curve is not None)

    @property
    def budget(self) -> float | None:
        """KL in nats at which gold peaks in reinforcement learning; None where it does not peak within what was run."""
        curve = self.alone("grpo")
        return curve.peak.kl if curve is not None and 0 < curve.peak.index < len(curve.kl) - 1 else None

    def to_dict(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "headline": list(self.headline),
            "seeds": list(self.seeds),
            "settings": dict(self.settings),
            "curves": [
                {
                    **made.to_dict(),
                    **curve.to_dict(),
                    "end_against_single": _record(self.differences.get(made), 0),
                    "drop_against_single": _record(self.differences.get(made), 1),
                    "above_single_at_kl": {
                        f"{kl:g}": None if found is None else found.to_dict()
                        for kl, found in zip(EQUAL_KLS, self.above_single.get(made, ()), strict=False)
                    },
                }
                for made, curve in self.curves.items()
            ],
            "policies": [dict(policy) for policy in self.policies],
            "proxies": [[dict(one) for one in of_seed] for of_seed in self.proxies],
            "seconds": list(self.seconds),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a heading, and a row for each curve."""
        return [_HEADING, *(_row(made, curve, self.differences.get(made)) for made, curve in self.curves.items())]

    def equal_kl_rows(self) -> list[tuple[str, ...]]:
        """Gold of each ensemble above the single proxy's at equal KL: a heading, and a row for each ensemble."""
        heading = ("optimiser", "combined", *(f"KL {kl:g}" for kl in EQUAL_KLS))
        return [heading] + [
            (
                OPTIMISERS[made.optimiser],
                made.combined,
                *(UNKNOWN if found is None else _with_interval(found) for found in differences),
            )
            for made, differences in self.above_single.items()
        ]

    def markdown(self) -> str:
        """The headline and the tables, as Markdown."""
        parts = ["\n".join(f"- {sentence}" for sentence in self.headline), _as_markdown(self.rows())]
        if self.above_single:
            parts += ["Gold above the single proxy's, at equal KL (nats):", _as_markdown(self.equal_kl_rows())]
        return "\n\n".join(parts) + "\n"


_HEADING = (
    "optimiser",
    "proxy",
    "pairs",
    "combined",
    "KL at the peak (seeds)",
    "gold at the peak",
    "KL at the end",
    "gold at the end",
    "drop [95 %]",
    "end against single [95 %]",
    "proxy at the end",
    "fitted alpha, beta",
    "fitted peak KL",
)


def _above(both: Sequence[tuple[SeedCurve, SeedCurve]], kl: float) -> Interval | None:
    """Gold of the first above the second's at a KL, over the seeds; None where one of them did not get so far."""
    golds = [(gold_at(own, kl), gold_at(other, kl)) for own, other in both]
    differences = [own - other for own, other in golds if own is not None and other is not None]
    return t_interval(differences) if len(differences) == len(both) else None


def _as_markdown(rows: Sequence[Sequence[str]]) -> str:
    heading, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([heading, f"|{'--|' * len(rows[0])}", *others])


def _advice(curve: Curve) -> str:
    """Where to stop, or that nothing was seen that says so."""
    last = curve.kl[-1]
    if curve.peak.index == len(curve.kl) - 1:
        return f"gold still rises at the end (KL {last:.1f} nats); no budget can be read from this"
    if curve.peak.index == 0:
        return "gold never rises above the policy's: do not optimise against this proxy"
    lowest, highest = min(curve.peak_kls), max(curve.peak_kls)
    seeds = f" (seeds: {lowest:.1f} to {highest:.1f})" if len(curve.peak_kls) > 1 else ""
    sure = "" if curve.falls else "; the fall after it is within what chance explains"
    return (
        f"stop at about KL {curve.peak.kl:.1f} nats{seeds}; gold is {signed(curve.peak.gold)} there and "
        f"{signed(curve.end_gold.value)} at {last:.1f} nats{sure}"
    )


def _row(made: Made, curve: Curve, difference: tuple[Interval, Interval] | None) -> tuple[str, ...]:
    fit = curve.fit
    kls = sorted(curve.peak_kls)
    seeds = f" ({kls[0]:.1f} to {kls[-1]:.1f})" if len(kls) > 1 else ""
    return (
        OPTIMISERS[made.optimiser],
        made.proxy.shape,
        f"{made.proxy.num_pairs:,}",
        made.combined,
        f"{curve.peak.kl:.1f}{seeds}",
        signed(curve.peak.gold),
        f"{curve.kl[-1]:.1f}",
        _with_interval(curve.end_gold),
        _with_interval(curve.drop),
        UNKNOWN if difference is None else _with_interval(difference[0]),
        signed(curve.proxy[-1].value),
        UNKNOWN if fit is None else f"{decimal(fit.alpha, 2)}, {decimal(fit.beta, 2)}",
        UNKNOWN if fit is None or fit.peak_kl is None else _kl_text(fit.peak_kl, curve.kl[-1]),
    )


def _kl_text(kl: float, measured: float) -> str:
    """A fitted peak; beyond what was measured it is not a finding."""
    return f"{kl:.1f}" if kl <= measured else f"> {measured:.1f}"


def _with_interval(found: Interval) -> str:
    text = signed(found.value)
    return text if found.low is None else f"{text} [{bounds(found.to_dict(), signed)}]"


def _record(difference: tuple[Interval, Interval] | None, which: int) -> dict[str, float | None] | None:
    return None if difference is None else difference[which].to_dict()
