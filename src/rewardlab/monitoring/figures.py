"""A scorer and labelled comparisons -> the snapshot that the history keeps: figures, and each comparison's scores.

Every comparison counts once: doubles and comparisons that contradict each other are refused, for they would pass for
evidence. This file scores; it reads no file, opens no model, and makes nothing of the figures.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from rewardlab.data.fingerprints import groups_fingerprint
from rewardlab.errors import DataError
from rewardlab.evaluation.readable import readable
from rewardlab.evaluation.scorers import is_ensemble, pair_temperature, require_raw
from rewardlab.metrics.inputs import as_judged
from rewardlab.metrics.pairs import EvaluationResult, evaluate_scores, require_pairs, subsets_of
from rewardlab.metrics.probability import expected_calibration_error, log_loss
from rewardlab.metrics.probability_columns import WORDS
from rewardlab.modeling.contract import FILE_NAME
from rewardlab.modeling.loading import fingerprint_of
from rewardlab.monitoring.gap import gap_figures
from rewardlab.monitoring.keys import pair_key, prompt_digest, unlabelled_key
from rewardlab.monitoring.snapshots import PairScore, Snapshot
from rewardlab.scoring.combining_scores import disagreement
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Levels of the quantiles in a snapshot."""

_READING = ("read_out", "head", "template_sha256", "begin_token", "end_token", "max_length", "truncation")
"""What a contract says of how text is read; the rest of it is about what scores mean."""

_LIBRARIES = ("rewardlab", "torch", "transformers", "tokenizers")

ENVIRONMENT = frozenset({"machine", "cpu_capability", "threads", "cuda", "python", *_LIBRARIES})
"""The settings that a run finds; the others it was asked for."""

Labelled: TypeAlias = Literal["baseline", "canary", "fresh"]
"""The kinds of snapshot that are of labelled comparisons."""

_Scaled: TypeAlias = tuple[Sequence[Sequence[float]], str]  # per group and completion, and on which scale


def snapshot_of(
    kind: Labelled,
    scorer: Scorer,
    groups: Sequence[PromptGroup],
    *,
    data: Sequence[str],
    against: Scorer | None = None,
    model: str | None = None,
    left_out: int = 0,
    progress: bool = False,
    now: datetime | None = None,
) -> Snapshot:
    """Score labelled comparisons and draw the figures.

    Args:
        kind: What they are. Of fresh ones, rows that the model cannot read are left out and counted; of the others
            every row must be readable.
        scorer: Gives raw scores; of an ensemble the disagreement is kept too.
        groups: The comparisons. Pairs judged equally good are scored and counted (``tied_labels``) and in no figure.
        data: Names of the files.
        against: What the scorer's scores are held against, as z-scores, for the gap.
        model: What the model is called; by default its folder.
        left_out: Rows that could not be read before this.
        progress: Show progress bars on stderr.
        now: Time of the snapshot; by default the present.

    Returns:
        The snapshot, without findings and number. Log loss, Brier score and calibration errors are at ``temperature``:
        the contract's for preferences, else 1.

    Raises:
        ConfigError: The scorer gives other than raw scores.
        DataError: No comparisons, doubles, contradictions, rows that the model cannot read, or a score that is not
            finite.
    """
    require_raw(scorer, "the monitor is of")
    require_pairs(groups)
    _require_single(groups)
    found = readable(scorer.encoder, groups)
    if found.left_out and kind != "fresh":
        error = found.left_out[0][1]
        raise DataError(
            f"{len(found.left_out):,} of {len(groups):,} {kind} rows cannot be scored; the first: {error.message}",
            hint=error.hint,
        )
    groups = found.groups
    scores, disagreements, scaled = _scored(scorer, groups, progress)
    result = evaluate_scores(groups, scores, temperature=pair_temperature(scorer))
    metrics = {
        **_headline(result),
        "tied_labels": result.tied_labels,
        "tied": sorted(
            unlabelled_key(group, pair.chosen, pair.rejected)
            for group in groups
            for pair in map(as_judged, group.pairs)
            if pair.tie
        ),
        "left_out": left_out + len(found.left_out),
        "truncated": found.truncated,
        "scores": _distribution([score for of_group in scores for score in of_group]),
        "disagreement": None,
        "gap": None,
        "subsets": _subsets(result, scores),
        "weights": weights_of(scorer),
        "has_lineage": bool(getattr(scorer.contract, "lineage", None)),
    }
    if disagreements is not None:
        metrics["disagreement"] = _distribution([value for of_group in disagreements for value in of_group])
    gaps = None
    if against is not None:
        theirs, reference = _scored(against, groups, progress)[2], scorer.reference_scale.reference
        gaps = [(np.asarray(a) - np.asarray(b)).tolist() for a, b in zip(scaled[0], theirs[0], strict=True)]
        metrics["gap"] = {
            **gap_figures(gaps, [_cluster(group) for group in groups]),
            "scales": [scaled[1], theirs[1]],
            "reference": None if reference is None else [reference.mean, reference.std],
            "against": against.fingerprint,
        }
    return Snapshot(
        kind=kind,
        at=utc_time(now),
        model=model or Path(scorer.loaded.folder).name,
        fingerprint=scorer.fingerprint,
        contract_sha256=contract_sha256(scorer),
        data=tuple(data),
        data_sha256=groups_fingerprint(groups),
        settings=settings_of(scorer),
        metrics=metrics,
        pairs=_pair_scores(groups, result, gaps),
    )


def utc_time(now: datetime | None = None) -> str:
    """A moment, by default the present, as snapshots state it: ``"2026-11-21T09:30:00Z"``."""
    moment = (datetime.now(UTC) if now is None else now.astimezone(UTC)).replace(microsecond=0, tzinfo=None)
    return f"{moment.isoformat()}Z"


def weights_of(scorer: Scorer) -> str:
    """Equal for a model and the same one calibrated again, whose scores are the same; else as the fingerprint."""
    if getattr(scorer.loaded, "fingerprint", None) != scorer.fingerprint:  # an ensemble, a policy and its reference
        return scorer.fingerprint
    folder, contract = Path(scorer.loaded.folder), scorer.contract
    read = None if contract is None else {name: getattr(contract, name) for name in _READING}
    told = json.dumps([fingerprint_of(folder, contract=False), read], default=dataclasses.asdict)
    return hashlib.sha256(told.encode()).hexdigest()


def contract_sha256(scorer: Scorer) -> str | None:
    """SHA-256 of the contract file; of an ensemble of those of its members; None where there is none."""
    files = [Path(loaded.folder) / FILE_NAME for loaded in scorer.checkpoints if loaded.contract is not None]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    if len(hashes) < 2:
        return hashes[0] if hashes else None
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def settings_of(scorer: Scorer) -> dict[str, Any]:
    """What else than the checkpoint decides the scores: the scorer's settings, the machine and the libraries."""
    import torch

    device = scorer.loaded.model.device
    on_gpu = device.type == "cuda"
    return {
        **scorer.settings,
        "machine": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **({"cuda": torch.version.cuda} if on_gpu else {}),
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def _require_single(groups: Sequence[PromptGroup]) -> None:
    """Refuse a comparison that comes twice, or with both sides preferred."""
    seen: dict[str, tuple[str | None, str]] = {}
    doubles: list[str] = []
    contradictions: list[str] = []
    for group in groups:
        for pair in map(as_judged, group.pairs):
            label = None if pair.tie else pair_key(group, pair)
            key = unlabelled_key(group, pair.chosen, pair.rejected)
            if key in seen:
                first, place = seen[key]
                (doubles if first == label else contradictions).append(f"{group.name}, after {place}")
            seen.setdefault(key, (label, group.name))
    for found, what, hint in (
        (contradictions, "contradict an earlier one", "decide each comparison once, by majority"),
        (doubles, "come twice", "keep one of each: a double would count as more evidence than there is"),
    ):
        if found:
            raise DataError(f"{len(found):,} comparisons {what}; the first: {found[0]}", hint=hint)


def _scored(
    scorer: Scorer, groups: Sequence[PromptGroup], progress: bool
) -> tuple[Sequence[Sequence[float]], list[list[float]] | None, _Scaled]:
    """Scores; of an ensemble the disagreements; and what the gap is of: z-scores, or an ensemble's mean member."""
    if is_ensemble(scorer):
        scores, members = scorer.score_groups_members(groups, progress=progress)
        apart = [disagreement(of_group).tolist() for of_group in members]
        means = [np.mean(of_group, axis=-1).tolist() for of_group in members]
        return scores, apart, (means, scorer.to_dict()["on"])
    single: Sequence[Sequence[float]] = scorer.score_groups(groups, progress=progress)
    reference = scorer.reference_scale.reference
    if reference is None or not reference.std > 0:
        return single, None, (single, "raw")
    return single, None, ([scorer.reference_scale.transform(of_group, "z") for of_group in single], "z")


def _headline(result: EvaluationResult) -> dict[str, Any]:
    """The figures with intervals, at the contract's temperature where it has one for preferences."""
    at = result.calibrated or {name: getattr(result, name) for name in WORDS}
    return {
        "num_pairs": result.num_pairs,
        "num_prompts": result.num_prompts,
        "accuracy": result.accuracy.to_dict(),
        **{name: at[name].to_dict() for name in WORDS},
        "margin": result.margin.to_dict(),
        "temperature": result.temperature or 1.0,
    }


def _distribution(values: Sequence[float]) -> dict[str, Any]:
    array = np.asarray(values, dtype=np.float64)
    quantiles = {f"{level:g}": float(value) for level, value in zip(LEVELS, np.quantile(array, LEVELS), strict=True)}
    return {"num": len(array), "mean": float(array.mean()), "std": float(array.std()), "quantiles": quantiles}


def _subsets(result: EvaluationResult, scores: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    """Plain figures by subset; their mean score is of all completions of their groups."""
    temperature = result.temperature or 1.0
    found = {}
    for name, places in subsets_of(result.pairs).items():
        members = [result.pairs[place] for place in places]
        margins = [pair.margin for pair in members]
        of_subset = [scores[index] for index in dict.fromkeys(pair.group for pair in members)]
        found[name] = {
            "num_pairs": len(members),
            "accuracy": float(np.mean([margin > 0 for margin in margins])),
            "log_loss": log_loss(margins, temperature),
            "ece": expected_calibration_error(margins, temperature),
            "mean_score": float(np.mean([score for of_group in of_subset for score in of_group])),
        }
    return found


def _pair_scores(
    groups: Sequence[PromptGroup], result: EvaluationResult, gaps: Sequence[Sequence[float]] | None
) -> tuple[PairScore, ...]:
    return tuple(
        PairScore(
            pair_key(groups[pair.group], pair.pair),
            _cluster(groups[pair.group]),
            pair.chosen_score,
            pair.rejected_score,
            pair.subset,
            None if gaps is None else (gaps[pair.group][pair.pair.chosen] + gaps[pair.group][pair.pair.rejected]) / 2,
        )
        for pair in result.pairs
    )


def _cluster(group: PromptGroup) -> str:
    """Which groups are resampled together: those of one prompt; one without a prompt is alone."""
    if group.prompt:
        return prompt_digest(group)
    first = group.pairs[0]
    return unlabelled_key(group, first.chosen, first.rejected)
