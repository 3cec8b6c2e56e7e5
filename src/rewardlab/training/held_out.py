"""The held-out groups of a run and their scores, kept in ``training/`` so that a report needs no data file.

These are the user's own texts. Nothing else of a checkpoint holds any, and ``training/`` is not needed to use it: leave
the folder out when a checkpoint is shared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rewardlab.data.records import group_of, record_of
from rewardlab.documents import parse_json, require_regular
from rewardlab.errors import DataError
from rewardlab.files import written_safely
from rewardlab.types import PromptGroup

FILE_NAME = "held_out.jsonl"

Scores = list[list[float]]
StepScores = list[list[list[float]]]


def write_held_out(
    folder: Path,
    groups: Sequence[PromptGroup],
    scores: Sequence[Sequence[float]],
    step_scores: Sequence[Sequence[Sequence[float]]] | None,
) -> None:
    """Write ``training/held_out.jsonl`` of a checkpoint: a line for each group, with its scores."""
    path = folder / "training" / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_safely(path) as beside, beside.open("w", encoding="ascii") as file:
        for index, (group, of_group) in enumerate(zip(groups, scores, strict=True)):
            steps = {} if step_scores is None else {"step_scores": [list(of_one) for of_one in step_scores[index]]}
            file.write(json.dumps({"group": record_of(group), "scores": list(of_group), **steps}) + "\n")


def read_held_out(folder: Path) -> tuple[list[PromptGroup], Scores, StepScores | None] | None:
    """The held-out groups of the run that made a checkpoint, their scores, and step scores where the model has them.

    Returns:
        None where the run had no held-out groups, or what it left is not there.

    Raises:
        DataError: The file is damaged. Names the line.
    """
    path = folder / "training" / FILE_NAME
    if not path.exists():
        return None
    groups: list[PromptGroup] = []
    scores: Scores = []
    steps: StepScores = []
    hint = "delete the file: it is only read by `rewardlab report`, which can be given data instead"
    require_regular(path, DataError, hint=hint)
    with path.open(encoding="ascii", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            try:
                record = parse_json(line, strict=True, lone_surrogates=True)
                groups.append(group_of(record["group"]))
                scores.append([float(score) for score in record["scores"]])
                if "step_scores" in record:
                    steps.append(record["step_scores"])
            except (DataError, KeyError, TypeError, ValueError) as error:
                reason = error.message if isinstance(error, DataError) else str(error)
                raise DataError(f"{path}:{number}: not a scored group: {reason}", hint=hint) from error
    return groups, scores, steps or None
