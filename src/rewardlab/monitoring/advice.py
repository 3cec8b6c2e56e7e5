"""What to do about an alarm: one table for the command, the trends page and the documentation. It knows no figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rewardlab.monitoring.snapshots import Kind, Snapshot


@dataclass(frozen=True, slots=True)
class Advice:
    """What follows from an alarm.

    Attributes:
        look_at: Where to look first.
        then: What to do once it is known to be no mistake.
    """

    look_at: str
    then: str

    def __str__(self) -> str:
        """Both, as one line."""
        return f"look at {self.look_at}; then {self.then}"


_TRAFFIC = "whether the traffic was changed on purpose"
_LABEL = "label some of it: `--select` chooses, and only `--fresh` says whether the model is wrong"

ADVICE: Mapping[tuple[Kind, str], Advice] = {
    ("canary", "canary"): Advice(
        "what changed in the stack (the settings that it names) and `rewardlab verify DIR`",
        "go back to what scored before, or calibrate and begin a new history with what scores now",
    ),
    ("canary", "accuracy"): Advice(
        "where the new version is worse: `rewardlab report OLD DIR --data FILE`",
        "keep the old version, or decide with more rows: `rewardlab compare OLD DIR --data FILE`",
    ),
    ("canary", "ece"): Advice(
        "the calibration error of both versions, each at its own temperature",
        "`rewardlab calibrate DIR --data FILE` on rows that are not in the canary, or keep the old version",
    ),
    ("fresh", "accuracy"): Advice(
        "the worst subset, and what the policy learned since then",
        "`rewardlab monitor DIR --select K` among its newest completions, label them, `rewardlab train --refresh DIR`, "
        "and `rewardlab compare` before the new model is used",
    ),
    ("fresh", "ece"): Advice(
        "stated confidence against accuracy in the message",
        "`rewardlab calibrate DIR --data FILE` on fresh rows (the order of scores does not change), and then "
        "`rewardlab monitor DIR --baseline FILE`",
    ),
    ("fresh", "gap"): Advice(
        "the best-scored completions of the last window, read by people",
        "slow or stop the policy (KL, early stopping), or use the ensemble as reward",
    ),
    ("live", "scores"): Advice(_TRAFFIC, _LABEL),
    ("live", "tokens"): Advice(_TRAFFIC, _LABEL),
    ("live", "disagreement"): Advice(f"{_TRAFFIC}, and what the members disagree on", _LABEL),
    ("live", "model"): Advice("which folder the server serves", "reload it, or name that folder"),
}
"""By kind of snapshot and watch; a watch that raises no alarm has none."""


def next_steps(snapshot: Snapshot) -> list[str]:
    """What to do about a snapshot's alarms, one line for each watch that raises one."""
    advised = [ADVICE.get((snapshot.kind, alarm.watch)) for alarm in snapshot.alarms]
    return list(dict.fromkeys(str(advice) for advice in advised if advice is not None))
