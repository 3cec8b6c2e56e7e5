"""What a contract says of each of several heads: its scale on the held-out groups, and its own temperature."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from rewardlab.calibration.fitting import Calibration
from rewardlab.calibration.reference import statistics_of
from rewardlab.data.encoding import EncodedGroup
from rewardlab.modeling.contract import HeadRecord
from rewardlab.types import PromptGroup

Scores = list[list[float]]
Fit = Callable[[Sequence[PromptGroup], Scores, Callable[[str], None]], Calibration | None]


def scores_by_head(scores: Tensor, examples: Sequence[EncodedGroup]) -> list[Scores]:
    """Of each head the scores by group and completion, from a table of all.

    Args:
        scores: Shape (completions, heads).
        examples: The groups, whose completions these are in order.
    """
    sizes = [len(example.sequences) for example in examples]
    return [[group.tolist() for group in column.split(sizes)] for column in scores.T]


def head_records(
    examples: Sequence[EncodedGroup],
    scores: Sequence[Scores],
    *,
    source: str,
    fit: Fit | None,
    report: Callable[[str], None],
) -> list[HeadRecord]:
    """What is known of each head before the checkpoint is saved; its probes are scored then.

    Args:
        examples: The reference set.
        scores: Of each head its scores of it, by group and completion.
        source: What the reference set is, ``"held-out"`` or ``"training"``.
        fit: Fits a temperature on groups and scores; None where there are no rows that the model was not trained on.
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
            )
        )
    return records


def _of_head(report: Callable[[str], None], number: int) -> Callable[[str], None]:
    return lambda line: report(f"head {number}: {line}")
