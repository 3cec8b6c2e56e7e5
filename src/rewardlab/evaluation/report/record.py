"""The sections of a report on where a model comes from: training curves, data, contract, environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rewardlab.evaluation import charts
from rewardlab.evaluation.drawing import Point
from rewardlab.evaluation.page_numbers import UNKNOWN
from rewardlab.evaluation.report.blocks import Block, Figure, Note, Section, Table, flat, plain
from rewardlab.evaluation.report.gathering import ReportData, contract_record

MOST_STEPS = 600
"""Points of one training curve; of longer runs as many are drawn."""

_CURVES = (
    ("loss", "Loss", "loss", False, "What the training minimises, with all its penalties."),
    ("accuracy", "Accuracy", "accuracy", True, "Of the pairs since the last log, and of all held-out pairs."),
    (
        "margin",
        "Margin",
        "mean margin",
        False,
        "Chosen minus rejected score. It grows with confidence, right or wrong.",
    ),
    ("learning_rate", "Learning rate", "learning rate", False, "As scheduled."),
    ("mean_reward", "Mean score", "mean score", False, "Where zero lies; training fixes only differences."),
    ("grad_norm", "Gradient norm", "norm", False, "Before clipping; spikes are steps to look at."),
)


def training_section(data: ReportData) -> Section:
    """What the trainer logged."""
    lead = "What the trainer logged, step by step."
    blocks: list[Block] = []
    for key, heading, y_name, percent, caption in _CURVES:
        training, held_out = _series(data, key), _series(data, f"eval_{key}")
        if not training and not held_out:
            continue
        ends = [f"{name} ends at {s[-1][1]:.4g}" for name, s in (("training", training), ("held-out", held_out)) if s]
        chart = charts.curves(
            f"{heading} while training",
            "; ".join(ends),
            training=training,
            held_out=held_out,
            guide=math.log(2) if key == "loss" and _is_pairwise(data) else 0.5 if key == "accuracy" else None,
            guide_name="coin flip",
            y_name=y_name,
            percent=percent,
        )
        blocks.append(
            Figure(heading, chart, caption, a="training" if training else "", b="held out" if held_out else "")
        )
    if not blocks:
        blocks.append(
            Note("No training/log_history.json: models trained by rewardlab train have one beside their weights.")
        )
    return Section("training", "Training", lead, blocks)


def _is_pairwise(data: ReportData) -> bool:
    """Whether log 2 is the loss of a coin flip."""
    return data.contract is not None and data.contract.objective.get("name") == "bradley_terry"


def _series(data: ReportData, key: str) -> list[Point]:
    found = [
        (float(entry["step"]), float(entry[key]))
        for entry in data.log_history
        if isinstance(entry.get(key), int | float) and isinstance(entry.get("step"), int | float)
    ]
    return charts.evenly(found, MOST_STEPS)


def data_section(data: ReportData) -> Section:
    """What became of every row."""
    lead = "What became of every row: read = used + quarantined + dropped. Nothing is left out silently."
    blocks = ledger_tables(data.ledgers)
    if not blocks:
        blocks.append(Note("No ledger: rewardlab train writes training/ledger.json, and --data FILE is counted here."))
    if data.quarantined:
        files = [(name, plain(count)) for name, count in data.quarantined.items()]
        blocks.append(Table("Quarantined rows, kept in training/", ("file", "rows"), files, "lr"))
    if data.contract and data.contract.data:
        record = contract_record(data.contract)["data"]
        blocks.append(Table("Fingerprints in the contract", ("", ""), flat(record), "lw", wide=True))
    return Section("data", "Data", lead, blocks)


def ledger_tables(ledgers: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[Block]:
    """How many rows were read, used and set aside, and why; nothing where none were counted."""
    names = ("read", "used", "quarantined", "dropped", "truncated")
    rows = [(what, *(plain(ledger["rows"].get(name, 0)) for name in names)) for what, ledger in ledgers.items()]
    reasons = [
        (reason, what, plain(count)) for what, ledger in ledgers.items() for reason, count in ledger["reasons"].items()
    ]
    tables: list[Block] = []
    if rows:
        tables.append(Table("Ledger", ("rows", *names), rows, "lrrrrr", wide=True))
    if reasons:
        tables.append(Table("Why rows were set aside", ("reason", "of", "rows"), reasons, "wlr", wide=True))
    return tables


def contract_section(data: ReportData) -> Section:
    """All of the contract."""
    lead = "How text becomes a score with this model, as reward_contract.json says it; rewardlab verify DIR proves it."
    if data.contract is None:
        hint = "No contract: models of others get one with rewardlab import MODEL."
        return Section("contract", "Contract", lead, [Note(hint)])
    record = contract_record(data.contract)
    record = {name: value for name, value in record.items() if name not in ("data", "versions")}
    blocks: list[Block] = [Table("Fields", ("field", "value"), flat(record), "lw", wide=True)]
    probes = [
        (
            plain(" ".join(str(m.get("content") or "") for m in probe.messages)[:160]),
            plain(len(probe.input_ids)),
            plain(probe.score),
        )
        for probe in data.contract.probes
    ]
    if probes:
        blocks.append(
            Table("Contract's probes, by first words", ("conversation", "tokens", "score"), probes, "wrr", wide=True)
        )
    return Section("contract", "Contract", lead, blocks)


def environment_section(data: ReportData) -> Section:
    """Versions then and now, and the run."""
    lead = "What the model was made with, and what made this page."
    then = data.contract.versions if data.contract else {}
    names: Sequence[str] = list(dict.fromkeys([*then, *data.versions]))
    rows = [(name, then.get(name, UNKNOWN), data.versions.get(name, UNKNOWN)) for name in names]
    blocks: list[Block] = [Table("Versions", ("", "of the model", "of this page"), rows, "lrr")]
    if data.run:  # but for places on the machine that trained: a page is passed on
        run = {name: value for name, value in data.run.items() if name not in ("sources", "base_path")}
        blocks.append(Table("The run (training/run.json)", ("", ""), flat(run), "lw"))
    else:
        blocks.append(Note("No training/run.json: the checkpoint was not trained here."))
    return Section("environment", "Environment", lead, blocks)
