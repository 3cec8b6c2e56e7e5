"""The held-out figures of a model card: tables in Markdown, and the few that the hub's metadata names.

This file knows what the metrics of a contract are called (``rewardlab evaluate --json``) and how a reader is told them;
it computes nothing. Subsets are left out: their names are the data's own text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rewardlab.metrics.probability_columns import WORDS
from rewardlab.modeling.contract import Contract

_COUNTED = {
    "": ("Preferences", "num_pairs", "pairs"),
    "rankings": ("Rankings", "num_rankings", "rankings"),
    "ratings": ("Ratings", "num_completions", "completions"),
    "outcomes": ("Outcomes", "num_completions", "completions"),
    "solutions": ("Solutions", "num_completions", "solutions"),
    "steps": ("Steps", "num_steps", "steps"),
}
"""Part of the held-out metrics -> its heading, and what was counted; ``""`` is the top, the preferences."""

_OF_OUTCOMES = {
    "auc": "AUC (0.5 is chance)",
    "longer_auc": "baseline: AUC of length",
    "accuracy": "accuracy (score > 0 is correct)",
    "majority": "baseline: always the commoner label",
    "log_loss": f"{WORDS['log_loss']}, nats",
    "brier": WORDS["brier"],
    "best_of.accuracy": "best-of-K accuracy",
    "best_of.random": "baseline: any of the K",
    "best_of.longest": "baseline: the longest",
}
_SHOWN: dict[str, dict[str, str]] = {
    "": {
        "accuracy": "pairwise accuracy (a tie is not a win)",
        "longer_wins": "baseline: always the longer",
        "shorter_wins": "baseline: always the shorter",
        "length_controlled.matched_accuracy": "accuracy, lengths alike",
        "length_controlled.balanced_accuracy": "accuracy, lengths balanced (0.5 is length alone)",
        "log_loss": f"{WORDS['log_loss']}, nats (0.6931 is a coin flip)",
        "brier": f"{WORDS['brier']} (0.25 is a coin flip)",
        "ece": WORDS["ece"],
        "margin": "mean margin, raw score",
    },
    "rankings": {
        "kendall_tau": "Kendall's tau-b, mean",
        "longer_kendall_tau": "baseline: tau-b of length",
        "spearman": "Spearman correlation, mean",
        "top1": "best-ranked is top-scored",
        "random_top1": "baseline: at random",
        "longest_top1": "baseline: the longest",
    },
    "ratings": {
        "pearson": "Pearson correlation",
        "spearman": "Spearman correlation",
        "within_prompt": "correlation within prompts",
        "longer_within_prompt": "baseline: of length, within prompts",
        "regret": "regret of choosing the top-scored, in rating units",
        "random_regret": "baseline: choosing at random",
    },
    "outcomes": _OF_OUTCOMES,
    "solutions": _OF_OUTCOMES,
    "steps": {
        "macro_f1": "macro F1",
        "majority_macro_f1": "baseline: always the commoner class",
        "f1_incorrect": "F1 of the errors",
        "auc": "AUC (0.5 is chance)",
        "first_error.f1": "F1 of the first error (ProcessBench)",
        "first_error.guess_f1": "baseline: the best guess",
    },
}
"""Part -> dotted key of a metric -> what the card calls it."""

_HEADLINES = {
    "": ("accuracy", "log_loss"),
    "rankings": ("kendall_tau",),
    "ratings": ("within_prompt",),
    "outcomes": ("auc",),
    "solutions": ("auc",),
    "steps": ("macro_f1", "first_error.f1"),
}
"""Part -> the metrics that stand in the hub's metadata."""


def headlines(contract: Contract) -> list[tuple[str, str, float]]:
    """The metrics that one would ask for first: name, what it is called, value."""
    return [
        (key.rpartition(".")[2], f"{_COUNTED[part][0]}: {_SHOWN[part][key]}", interval["value"])
        for part, metrics in _parts(contract)
        for key in _HEADLINES[part]
        if isinstance(interval := _at(metrics, key), Mapping)
    ]


def metrics_section(contract: Contract) -> str:
    """The tables of everything that was measured, as Markdown."""
    blocks = []
    bootstrap = contract.held_out_metrics.get("bootstrap") or {}
    for part, metrics in _parts(contract):
        heading, counted, what = _COUNTED[part]
        rows = [
            f"| {label} | {_number(found)} | {bounds_text(found)} |"
            for key, label in _SHOWN[part].items()
            if (found := _at(metrics, key)) is not None
        ]
        blocks += [
            f"**{heading}**: {metrics[counted]:,} {what}, {metrics.get('num_prompts', 0):,} prompts.",
            "\n".join(["| | value | interval |", "|---|---|---|", *rows]),
        ]
        if metrics.get("above_length_baselines") is False:
            blocks.append("Not shown to be above what length alone gives: the interval reaches down to it.")
    if not blocks:
        return "None were measured when the model was saved."
    confidence = f"{100 * bootstrap['confidence']:g} % " if "confidence" in bootstrap else ""
    return "\n\n".join([*blocks, f"{confidence}intervals are bootstrapped by prompt.".capitalize()])


def heads_table(contract: Contract) -> Iterator[str]:
    """The scale of each of several heads, as Markdown; nothing where there is one."""
    if not contract.heads:
        return
    rows = ["| head | mean | standard deviation | T |", "|---|---|---|---|"]
    for number, record in enumerate(contract.heads):
        known = record.reference
        mean, std = (f"{known.mean:.4f}", f"{known.std:.4f}") if known else ("-", "-")
        rows.append(
            f"| {number} | {mean} | {std} | {'-' if record.temperature is None else f'{record.temperature:.4g}'} |"
        )
    yield "Each head on the same reference set, and its own temperature:"
    yield "\n".join(rows)


def _parts(contract: Contract) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The parts of the held-out metrics that were measured."""
    for part, (_, counted, _) in _COUNTED.items():
        metrics = contract.held_out_metrics.get(part) if part else contract.held_out_metrics
        if metrics and counted in metrics:
            yield part, metrics


def _at(metrics: Mapping[str, Any], key: str) -> Any:
    """What a dotted key names; None where a part of it is missing or None."""
    value: Any = metrics
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _number(found: Any) -> str:
    return f"{found['value'] if isinstance(found, Mapping) else found:.4f}"


def bounds_text(found: Any) -> str:
    """An interval as ``{"value", "low", "high"}``, in words; a dash where there is none."""
    if not isinstance(found, Mapping) or found.get("low") is None:
        return "-"
    high = found.get("high")
    return f"{found['low']:.4f} to {'no upper bound' if high is None else f'{high:.4f}'}"


def lineage_section(contract: Contract) -> list[str]:
    """The models that this one was retrained to replace, newest first, with heading; nothing where there are none."""
    if not contract.lineage:
        return []
    rows = ["| fingerprint | trained on | held-out accuracy | rewardlab |", "|---|---|---|---|"]
    for ancestor in contract.lineage:
        train = (ancestor.get("data") or {}).get("train") or {}
        count = f"{train['num_groups']:,} rows" if "num_groups" in train else "unknown"
        accuracy = ancestor.get("held_out_accuracy") or {}
        value = "unknown"
        if "value" in accuracy:
            value = f"{accuracy['value']:.4f}"
            value += f" ({bounds_text(accuracy)})" if accuracy.get("low") is not None else ""
        version = (ancestor.get("versions") or {}).get("rewardlab", "unknown")
        rows.append(f"| `{str(ancestor.get('fingerprint'))[:16]}` | {count} | {value} | {version} |")
    told = (
        "Retrained from the base model to replace the first of these, which replaced the next. Accuracies of different "
        "held-out rows do not compare; `rewardlab compare OLD NEW --data FILE` does."
    )
    return ["## Lineage", told, "\n".join(rows)]
