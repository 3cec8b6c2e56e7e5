"""What a contract says of each of several heads: its scale on the held-out groups, its temperature, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rewardlab.calibration.fitting import Calibration
from rewardlab.calibration.reference import statistics_of
from rewardlab.data.encoding import EncodedGroup
from rewardlab.metrics.known import Evaluation
from rewardlab.modeling.contract import HeadRecord
from rewardlab.types import PromptGroup

Scores = list[list[float]]
Measure = Callable[[Scores], Evaluation]
Fit = Callable[[Sequence[PromptGroup], Scores, Callable[[str], None]], Calibration | None]


def head_records(
    examples: Sequence[EncodedGroup],
    scores: Sequence[Scores],
    *,
    source: str,
    fit: Fit | None,
    measure: Measure | None,
    report: Callable[[str], None],
) -> list[HeadRecord]:
    """What is known of each head before the checkpoint is saved; its probes are scored then.

    Args:
        examples: The reference set.
        scores: Of each head its scores of it, by group and completion.
        source: What the reference set is, ``"held-out"`` or ``"training"``.
        fit: Fits a temperature on groups and scores; None where there are no rows that the model was not trained on.
        measure: Gives the metrics of scores of these rows; None likewise.
        report: Called with one line for each thing worth knowing.
    """
    groups = [example.group for example in examples]
    records = []
    for number, own in enumerate(scores):
        fitted = fit(groups, own, _of_head(report, number)) if fit else None
        records.append(
            HeadRecord(
                reference=statistics_of(groups, own, source),
                temperature=fitted.temperature.value if fitted else None,
                calibration=fitted.to_dict() if fitted else {},
                probe_scores=[],
                held_out_metrics=measure(own).to_dict() if measure else {},
            )
        )
    return records


def _of_head(report: Callable[[str], None], number: int) -> Callable[[str], None]:
    return lambda line: report(f"head {number}: {line}")
