"""The last snapshots of a model as a file that Prometheus' node exporter reads (its textfile collector).

One file holds one model: of each kind of snapshot the last, so that a canary and a fresh window may write to the same
file. It is replaced as a whole, for the exporter may read at any moment. This file knows snapshots and the text format.

References:
    https://prometheus.io/docs/instrumenting/exposition_formats/ and the node exporter's textfile collector, which reads
    ``*.prom`` and wants no timestamps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rewardlab.errors import DataError
from rewardlab.files import written_safely
from rewardlab.monitoring.snapshots import Snapshot

_PREFIX = "rewardlab_monitor_"

_FIGURES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "accuracy": (("accuracy", "value"), "Share of comparisons whose chosen completion scores higher."),
    "log_loss": (("log_loss", "value"), "Mean log loss at the fitted temperature, nats."),
    "brier": (("brier", "value"), "Mean Brier score at the fitted temperature."),
    "ece": (("ece", "value"), "Expected calibration error at the fitted temperature."),
    "margin": (("margin", "value"), "Mean of chosen minus rejected score."),
    "pairs": (("num_pairs",), "Comparisons in the snapshot."),
    "score_mean": (("scores", "mean"), "Mean raw score."),
    "score_std": (("scores", "std"), "Standard deviation of the raw scores."),
    "disagreement_mean": (("disagreement", "mean"), "Mean disagreement of an ensemble's members."),
    "gap_mean": (("gap", "mean"), "Mean gap between the model and what it is held against."),
}


def write_textfile(path: str | Path, snapshots: Sequence[Snapshot]) -> None:
    """Write the last snapshot of each kind as gauges.

    Args:
        path: The file; the exporter reads those named ``*.prom``. Its folder must exist.
        snapshots: Of one model, oldest first.

    Raises:
        DataError: It cannot be written; the one before is left as it was.
    """
    target = Path(path)
    try:
        with written_safely(target) as beside:
            beside.write_text(textfile(snapshots), encoding="utf-8")
            beside.chmod(0o644)  # the exporter runs as another user
    except OSError as error:
        raise DataError(
            f"{target}: the Prometheus file cannot be written: {error.strerror}",
            hint="check that its folder exists and can be written to",
        ) from error


def textfile(snapshots: Sequence[Snapshot]) -> str:
    """The file's text.

    Args:
        snapshots: As :func:`write_textfile`.
    """
    last = list({snapshot.kind: snapshot for snapshot in snapshots}.values())
    lines: list[str] = []

    def gauge(name: str, told: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> None:
        if samples:
            lines.extend([f"# HELP {_PREFIX}{name} {told}", f"# TYPE {_PREFIX}{name} gauge"])
            lines.extend(f"{_PREFIX}{name}{_labels(labels)} {_number(value)}" for labels, value in samples)

    for name, (keys, told) in _FIGURES.items():
        found = [(_of(one), value) for one in last if (value := _figure(one.metrics, keys)) is not None]
        gauge(name, told, found)
    for state in ("alarm", "warning"):
        watches = [
            ({**_of(one), "watch": watch}, float(any(f.state == state for f in one.findings if f.watch == watch)))
            for one in last
            for watch in dict.fromkeys(finding.watch for finding in one.findings)
        ]
        gauge(state, f"1 where the watch's last finding is this ({state}), else 0.", watches)
    for what in ("value", "limit"):
        of_findings = [
            ({**_of(one), "watch": finding.watch}, float(number))
            for one in last
            for finding in {finding.watch: finding for finding in one.findings}.values()
            if (number := getattr(finding, what)) is not None
        ]
        gauge(f"finding_{what}", f"The {what} by which the watch decides, where it has one.", of_findings)
    gauge("snapshot", "Number of the snapshot in the history.", [(_of(one), float(one.number or 0)) for one in last])
    gauge(
        "last_run_timestamp_seconds",
        "When the snapshot was taken, Unix time.",
        [(_of(one), _time(one)) for one in last],
    )
    return "\n".join(lines) + "\n"


def _of(snapshot: Snapshot) -> dict[str, str]:
    return {"model": snapshot.model, "kind": snapshot.kind}


def _figure(metrics: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    """What lies at the keys, or None where this kind of snapshot has no such figure."""
    value: Any = metrics
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else "NaN"


def _time(snapshot: Snapshot) -> float:
    return datetime.fromisoformat(snapshot.at).timestamp()
