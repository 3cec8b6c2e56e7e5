"""What is known of a model: its contract, its training, and its scores on labelled groups, stored or fresh.

This file knows folders and scorers; what is made of the numbers is the sections'. A model is only loaded where
something has to be scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

from rewardlab.calibration.scale import ScoreScale
from rewardlab.documents import RESTORE, read_json
from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.evaluation.evaluator import Evaluator
from rewardlab.evaluation.provenance import temperature_was_fitted_on, warnings_of
from rewardlab.evaluation.readable import readable
from rewardlab.evaluation.scorers import scores_and_steps
from rewardlab.metrics.known import Evaluation
from rewardlab.modeling.contract import Contract, load_contract
from rewardlab.types import PromptGroup, ReadOut

if TYPE_CHECKING:
    from rewardlab.scoring.scorer import Scorer

MOST_BIAS_GROUPS = 100
"""Groups that the bias probes alter: each is scored some twenty times."""

NO_SCORES = "No scores of single completions are stored beside this model: give labelled rows with --data FILE."


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """Labelled groups and one model's raw scores of them.

    Attributes:
        groups: The groups.
        scores: Per group, one score per completion.
        step_scores: Per group and completion, one P(correct) per step; None where the model scores none.
        source: Where the groups are from, in words.
        held_out: Whether they are the training run's own held-out groups, rather than data given with ``--data``.
    """

    groups: Sequence[PromptGroup]
    scores: Sequence[Sequence[float]]
    step_scores: Sequence[Sequence[Sequence[float]]] | None
    source: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that a report of one model is made of; what is missing is None or empty.

    Attributes:
        name: What the model is called: its folder or hub id.
        contract: Its contract; None for models of others.
        metrics: Its metrics, as ``rewardlab evaluate --json`` prints them.
        scored: The groups and scores that the metrics are of.
        evaluation: The metrics with each pair's own numbers.
        log_history: What the trainer logged.
        run: ``training/run.json``.
        ledgers: What became of rows: which rows -> the ledger's record.
        quarantined: Quarantine file -> number of rows in it.
        bias: The bias probes, as ``rewardlab evaluate --bias --json`` prints them; None where they were not run.
        bias_absent: Why they were not.
        versions: Versions of the libraries that made the report.
        warnings: What to know before believing any figure, one sentence each, without a full stop.
        temperature_in_sample: Whether the contract's temperature was fitted on these very rows.
    """

    name: str
    contract: Contract | None
    metrics: Mapping[str, Any]
    scored: ScoredSet | None = None
    evaluation: Evaluation | None = None
    log_history: Sequence[Mapping[str, float]] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    ledgers: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    bias: Mapping[str, Any] | None = None
    bias_absent: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    temperature_in_sample: bool = False


class Subject:
    """One model that is reported on; it is loaded when something asks for its scorer.

    Args:
        model: Folder or hub id, or ``POLICY:REFERENCE``.
        options: Of :func:`~rewardlab.scoring.opening.open_scorer`.
    """

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        self.name = model
        self.options = dict(options)
        self.folder = Path(model) if Path(model).is_dir() else None

    @cached_property
    def scorer(self) -> Scorer:
        """The model, loaded and checked."""
        from rewardlab.scoring.opening import open_scorer

        return open_scorer(self.name, **self.options)

    @cached_property
    def contract(self) -> Contract | None:
        """Its contract."""
        return load_contract(self.folder) if self.folder else self.scorer.contract

    @cached_property
    def held_out(self) -> ScoredSet | None:
        """The held-out groups of its training run with their scores, where the run left them."""
        from rewardlab.training.held_out import read_held_out

        found = read_held_out(self.folder) if self.folder else None
        if not found or not found[0]:
            return None
        return ScoredSet(*found, source="the held-out rows of its training run", held_out=True)

    def score(self, groups: Sequence[PromptGroup], source: str, *, held_out: bool = False) -> ScoredSet:
        """Fresh scores of groups that can be scored."""
        return ScoredSet(groups, *scores_and_steps(self.scorer, groups, progress=True), source, held_out)

    def evaluate(self, scored: ScoredSet) -> Evaluation:
        """The metrics of scores that are already there."""
        return Evaluator(_Known(scored, self.contract)).evaluate_all(scored.groups)


@dataclass(frozen=True, slots=True)
class _Known:
    """A scorer that has scored already, so that stored and fresh scores are evaluated alike."""

    scored: ScoredSet
    contract: Contract | None

    @property
    def read_out(self) -> ReadOut | None:
        return self.contract.head if self.contract else None

    @property
    def reference_scale(self) -> ScoreScale | None:
        return self.contract.scale if self.contract else None

    @property
    def has_steps(self) -> bool:
        return self.scored.step_scores is not None

    def score_groups(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> Sequence[Sequence[float]]:
        return self.scored.scores

    def score_groups_steps(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[Sequence[Sequence[float]], Sequence[Sequence[Sequence[float]]]]:
        return self.scored.scores, self.scored.step_scores or ()


def gather_report(
    model: str, *, data: Sequence[str] = (), bias: bool = True, options: Mapping[str, Any] | None = None
) -> ReportData:
    """All that is known of one model.

    Args:
        model: Folder or hub id, or ``POLICY:REFERENCE``.
        data: Files of labelled rows to score; by default the stored held-out scores are taken.
        bias: Whether to run the bias probes, which load the model.
        options: Of :func:`~rewardlab.scoring.opening.open_scorer`.

    Raises:
        ConfigError: There is nothing to report on.
        DataError: The data cannot be read, or says nothing to compare scores with.
        CheckpointError: The model cannot be loaded.
    """
    subject = Subject(model, options or {})
    ledgers = {}
    if data:
        from rewardlab.data.loading import read_groups

        reading = read_groups(data)
        found = readable(subject.scorer.encoder, reading.groups)
        found.account(reading.ledger)
        ledgers["rows of --data"] = reading.ledger.to_dict()
        scored: ScoredSet | None = subject.score(found.groups, ", ".join(Path(file).name for file in data))
    else:
        scored = subject.held_out
    contract = subject.contract
    evaluation = subject.evaluate(scored) if scored else None
    if evaluation is None and contract is None:
        raise ConfigError(
            f"{model}: neither a contract nor held-out scores are in it, so there is nothing to report",
            hint="give labelled rows with --data FILE",
        )
    probes, absent = _bias(subject, scored) if bias else (None, "Not measured (--no-bias).")
    return ReportData(
        name=model,
        contract=contract,
        metrics=evaluation.to_dict() if evaluation else contract.held_out_metrics if contract else {},
        scored=scored,
        evaluation=evaluation,
        bias=probes,
        bias_absent=absent,
        versions=_versions(contract),
        **told_of(contract, scored),
        **_of_training(subject.folder, ledgers),
    )


def told_of(contract: Contract | None, scored: ScoredSet | None) -> dict[str, Any]:
    """What the contract knows of the rows, for :class:`ReportData`: the warnings, and whether T was fitted on them."""
    if contract is None:
        return {}
    if scored is None:  # the contract's own figures: the training run fits T on the rows that it measures on
        return {"temperature_in_sample": contract.temperature is not None}
    if contract.calibration and "data" not in contract.calibration and scored.held_out:
        # Contracts used to leave it unsaid where the training run fitted T: on its held-out rows.
        contract = replace(contract, calibration={**contract.calibration, "data": contract.data.get("held_out")})
    return {
        "warnings": tuple(warnings_of(contract, scored.groups)),
        "temperature_in_sample": temperature_was_fitted_on(contract, scored.groups),
    }


def _bias(subject: Subject, scored: ScoredSet | None) -> tuple[Mapping[str, Any] | None, str]:
    if scored is None:
        return None, NO_SCORES
    from rewardlab.evaluation.bias import measure_bias

    try:
        found = measure_bias(subject.scorer, scored.groups, most=MOST_BIAS_GROUPS, progress=True)
    except RewardLabError as error:
        if not scored.held_out:
            raise
        # A report of stored numbers is still worth having when the model cannot be loaded here.
        return None, f"The probes could not be run: {error.message}"
    return found.to_dict(), ""


def _of_training(folder: Path | None, ledgers: dict[str, Any]) -> dict[str, Any]:
    """What the training run left beside the checkpoint."""
    if folder is None or not (folder / "training").is_dir():
        return {"ledgers": ledgers}
    training = folder / "training"
    ledger = _json(training / "ledger.json", dict)
    if ledger:
        ledgers = {"rows of the training run": ledger, **ledgers}
    quarantined = {}
    for path in sorted(training.glob("quarantine*.jsonl")):
        with path.open("rb") as file:
            quarantined[path.name] = sum(1 for line in file if line.strip())
    return {
        "log_history": _json(training / "log_history.json", list),
        "run": _json(training / "run.json", dict),
        "ledgers": ledgers,
        "quarantined": quarantined,
    }


def _json(path: Path, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """A file of the training run; empty where there is none."""
    if not path.exists():
        return kind()
    hint = f"{RESTORE}, or move it elsewhere: the report is then made without it"
    value = read_json(path, DataError, hint=hint)
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected a JSON {kind.__name__}, got a {type(value).__name__}", hint=hint)
    return value


def _versions(contract: Contract | None) -> dict[str, str]:
    """Of the libraries that the contract names, as they are installed here."""
    names = [n for n in (contract.versions if contract else ()) if n != "python"] or [
        "rewardlab",
        "torch",
        "transformers",
    ]
    found = {"python": python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def contract_record(contract: Contract) -> dict[str, Any]:
    """The contract as a record, without what the page shows elsewhere or would be pages long."""
    record = asdict(contract)
    del record["probes"]
    record["held_out_metrics"] = {
        name: one["value"]
        for name, one in contract.held_out_metrics.items()
        if isinstance(one, dict) and "value" in one
    }
    shown = ("before", "after", "comparison", "warnings")
    record["calibration"] = {name: one for name, one in contract.calibration.items() if name not in shown}
    for part in ("train", "held_out"):  # sketches of the data, for machines
        if isinstance(record["data"].get(part), dict):
            record["data"][part].pop("sketch", None)
    if record["reference"]:
        quantiles = record["reference"]["quantiles"]
        record["reference"]["quantiles"] = {
            level: quantiles[level] for level in ("0.05", "0.25", "0.5", "0.75", "0.95") if level in quantiles
        }
    return record
