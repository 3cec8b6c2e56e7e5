"""A reward model gets its scale: a temperature fitted on held-out rows, and how its scores spread over a reference set.

The order is: refuse rows that the model was trained on, score, fit, compare with the version before, write. What is
fitted is :mod:`rewardlab.calibration`'s; this file knows a scorer, its contract and groups. A checkpoint with several
heads gets the scale of the mean, which is its own, and that of each head, from the same pass over the trunk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewardlab.calibration.fitting import Calibration, calibrate_scores
from rewardlab.calibration.reference import ReferenceStatistics, statistics_of
from rewardlab.calibration.shift import ReferenceShift, reference_shift
from rewardlab.errors import ConfigError, DataError
from rewardlab.evaluation.provenance import trained_on
from rewardlab.evaluation.readable import Readable, readable
from rewardlab.evaluation.scorers import require_raw
from rewardlab.modeling.aggregation import mean_of_heads, scores_by_head
from rewardlab.modeling.ensemble_heads import Heads, load_heads, use_heads
from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from torch import Tensor

    from rewardlab.modeling.contract import Contract, HeadRecord
    from rewardlab.scoring.scorer import Scorer

Scores = list[list[float]]

MAX_TRAINED_ON = 0.05
"""Largest share of rows that may have been trained on, left out and counted; more, and the file is the wrong one."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibrating a model gave.

    Attributes:
        calibration: The temperature and what it does to log loss and calibration error.
        reference: The model's scores on the reference set.
        shift: How these differ from the former version's; None where there is no former version.
        contract: The model's contract with all of this, for :func:`~rewardlab.modeling.checkpoint.write_contract`.
        warnings: What to know before trusting it.
        trained_on: Rows left out of the fit because the model was trained on them.
        left_out: Rows left out because the model cannot read them.
        heads: Of a checkpoint with several heads the temperature of each, as ``calibration``, which is then the mean's;
            None where the rows determine none for that head. Their reference statistics are in ``contract.heads``.
    """

    calibration: Calibration
    reference: ReferenceStatistics
    shift: ReferenceShift | None
    contract: Contract
    warnings: tuple[str, ...]
    trained_on: int
    left_out: int
    heads: tuple[Calibration | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What ``rewardlab calibrate --json`` prints."""
        return {
            **self.calibration.to_dict(),
            "reference": dataclasses.asdict(self.reference),
            "shift": self.shift.to_dict() if self.shift else None,
            "heads": [
                {
                    "temperature": found.to_dict()["temperature"] if found else None,
                    "reference": dataclasses.asdict(record.reference) if record.reference else None,
                }
                for found, record in zip(self.heads, self.contract.heads, strict=True)
            ],
            "trained_on": self.trained_on,
            "left_out": self.left_out,
            "warnings": list(self.warnings),
        }


def unseen(
    scorer: Scorer, groups: Sequence[PromptGroup], *, force: bool = False
) -> tuple[list[PromptGroup], list[str]]:
    """The groups that a model was not trained on, as far as its contract can tell.

    Args:
        scorer: The model.
        groups: Groups to fit on.
        force: Keep all of them.

    Returns:
        These groups, and what to know about the others.

    Raises:
        DataError: So many were trained on that this is no held-out set.
    """
    contract = _require_contract(scorer)
    seen = trained_on(contract, groups)
    if seen is None:
        return list(groups), ["the contract does not say which rows were trained on: use rows that the model never saw"]
    told = seen.told()
    if not seen.recognised:
        return list(groups), [told] if told else []
    if force:
        return list(groups), [f"{told}; fitted on them all the same, so the temperature is too low"]
    share = max(seen.share or 0.0, len(seen.recognised) / len(groups))
    if seen.whole_set or share > MAX_TRAINED_ON:
        raise DataError(
            f"{told}; on them the model is surer than it will ever be again",
            hint="give held-out rows (`rewardlab train --eval-fraction`), or --force",
        )
    left = set(seen.recognised)
    rest = "; rows that the sample cannot tell are still among the others" if seen.sampled else ""
    return [g for i, g in enumerate(groups) if i not in left], [f"{told}; left out{rest}"]


def calibrate_model(
    scorer: Scorer,
    groups: Sequence[PromptGroup],
    *,
    reference: Sequence[PromptGroup] | None = None,
    reference_name: str = "reference",
    previous: Scorer | None = None,
    force: bool = False,
    progress: bool = False,
) -> Calibrated:
    """Fit a temperature and take the reference statistics, of several heads also each one's; nothing is written.

    Args:
        scorer: The model; its scale must be raw.
        groups: Held-out groups with preferences, outcomes or judged steps.
        reference: The reference set. By default the contract keeps the statistics it has; where it has none, or no
            quantiles, the groups themselves are the reference set.
        reference_name: What the contract calls the reference set.
        previous: The version before. Where its statistics are of another set, it scores this reference set.
        force: Fit on groups that the model was trained on, too.
        progress: Whether progress bars are shown.

    Raises:
        CheckpointError: The file of the heads is missing or not the contract's.
        ConfigError: The model has no contract, or its scores are not raw.
        DataError: The groups were trained on, or do not determine a temperature.
    """
    contract = _require_contract(scorer)
    new, warnings = unseen(scorer, groups, force=force)
    sorted_out = readable(scorer.encoder, new)
    fitted = sorted_out.groups
    if sorted_out.left_out:
        warnings.append(f"{_left_out(sorted_out)}, left out of the fit")
    scores = _scores(scorer, fitted, progress)
    calibration = calibrate_scores(fitted, scores[0])
    former = contract.reference
    if reference is not None:
        sorted_out = readable(scorer.encoder, reference)
        if sorted_out.left_out:
            warnings.append(f"{_left_out(sorted_out)}, left out of the reference set")
        reference = sorted_out.groups
        of_reference = _scores(scorer, reference, progress)
        spreads = [statistics_of(reference, own, reference_name) for own in of_reference]
    else:
        stored = [former, *(record.reference for record in contract.heads)]
        spreads = [
            kept if kept is not None and kept.quantiles else statistics_of(fitted, own, "calibration")
            for kept, own in zip(stored, scores, strict=True)
        ]
    statistics = spreads[0]
    shift = None
    if previous is not None:
        before = previous.contract.reference if previous.contract else None
        if before is None or before.sha256 is None or before.sha256 != statistics.sha256:
            if reference is None:
                raise ConfigError(
                    "the version before has statistics of another set than this model's",
                    hint="give the set that both are to be compared on: --reference FILE",
                )
            before = statistics_of(reference, previous.score_groups(reference, progress=progress), reference_name)
        shift = reference_shift(before, statistics)
    elif former is not None and former is not statistics and former.sha256 == statistics.sha256:
        shift = reference_shift(former, statistics)
    counts = {"trained_on": len(groups) - len(new), "left_out": len(new) - len(fitted)}
    warnings += calibration.warnings
    heads = _calibrated_heads(fitted, scores[1:], warnings)
    of_fit = {**counts, "forced": force}
    changed = dataclasses.replace(
        contract,
        reference=statistics,
        temperature=calibration.temperature.value,
        calibration={**calibration.to_dict(), **of_fit},
        heads=[
            _rescaled(record, spread, found, of_fit)
            for record, spread, found in zip(contract.heads, spreads[1:], heads, strict=True)
        ],
    )
    return Calibrated(calibration, statistics, shift, changed, tuple(warnings), **counts, heads=tuple(heads))


def _scores(scorer: Scorer, groups: Sequence[PromptGroup], progress: bool) -> list[Scores]:
    """The model's scores by group and completion; then, where it is the mean of several heads, those of each head."""
    heads = load_heads(scorer.loaded.folder, scorer.contract)
    if heads is None:
        return [scorer.score_groups(groups, progress=progress)]
    # The trunk has given its mean head's scores of the probes, and the file is the one saved with it, by its hash.
    own = Heads.of(scorer.loaded.model)
    use_heads(scorer.loaded.model, heads)
    try:
        outputs = _outputs(scorer, groups, progress)
    finally:
        use_heads(scorer.loaded.model, own)
    return [mean_of_heads(outputs), *scores_by_head(outputs)]


def _outputs(scorer: Scorer, groups: Sequence[PromptGroup], progress: bool) -> list[list[Tensor]]:
    from rich.console import Console
    from rich.progress import Progress

    encoded = []
    for item in scorer.encoder.encode_many(groups):
        if isinstance(item, DataError):
            raise item
        encoded.append(item)
    talk = Console(stderr=True)
    with Progress(console=talk, transient=True, disable=not (progress and talk.is_terminal)) as bar:
        task = bar.add_task("scoring", total=sum(len(item.sequences) for item in encoded))
        return scorer.outputs(encoded, lambda count: bar.advance(task, count))


def _calibrated_heads(
    groups: Sequence[PromptGroup], scores: Sequence[Scores], warnings: list[str]
) -> list[Calibration | None]:
    """Each head's temperature; what the mean's fit has not warned of already is added to the warnings."""
    heads: list[Calibration | None] = []
    for number, own in enumerate(scores):
        try:
            found = calibrate_scores(groups, own)
        except DataError as error:
            warnings.append(f"head {number} has no temperature any more: {error.message}")
            heads.append(None)
            continue
        warnings += [f"head {number}: {warning}" for warning in found.warnings if warning not in warnings]
        heads.append(found)
    return heads


def _rescaled(
    record: HeadRecord, reference: ReferenceStatistics, found: Calibration | None, of_fit: Mapping[str, Any]
) -> HeadRecord:
    return dataclasses.replace(
        record,
        reference=reference,
        temperature=found.temperature.value if found else None,
        calibration={**found.to_dict(), **of_fit} if found else {},
    )


def _left_out(sorted_out: Readable) -> str:
    first = sorted_out.left_out[0][1].message
    return f"{len(sorted_out.left_out):,} rows cannot be read by the model (the first: {first})"


def _require_contract(scorer: Scorer) -> Contract:
    if scorer.contract is None:
        raise ConfigError(
            f"{scorer.loaded.folder} has no contract that could hold a temperature",
            hint="`rewardlab import` makes a checkpoint with a contract of it",
        )
    if scorer.read_out != scorer.loaded.read_out:
        raise ConfigError(
            f"scores aggregated by {scorer.read_out.aggregation} are not the model's own "
            f"({scorer.loaded.read_out.aggregation}), whose scale the contract holds",
            hint="leave the aggregation out",
        )
    require_raw(scorer, "a temperature is fitted on")
    return scorer.contract
