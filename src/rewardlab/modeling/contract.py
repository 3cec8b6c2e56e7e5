"""The score contract: ``reward_contract.json``, which says how text becomes a score and carries the proof.

The file lies beside the weights. What it states is read by people and by tools; its probes, a handful of conversations
with their ids and scores, are what :mod:`rewardlab.modeling.verification` scores again. This file knows the record and
its JSON; it never touches a model.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from rewardlab.calibration.comparison import Unit
from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.calibration.scale import ScoreScale
from rewardlab.config import from_record
from rewardlab.documents import read_json
from rewardlab.errors import ContractError
from rewardlab.files import write_safely
from rewardlab.types import ReadOut

FILE_NAME = "reward_contract.json"
VERSION = 1
MOST_ANCESTORS = 50
"""Ancestors that a contract names: a refresh a week for a year. What is older is in theirs."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One conversation whose score is known.

    Attributes:
        messages: The conversation, prompt turns then the answer.
        num_prompt_messages: How many of the messages are the prompt.
        input_ids: Its ids, so that a changed tokenizer or template is told apart from changed weights.
        score: Its score when the model was saved, in the contract's dtype.
        step_scores: For process models, the P(correct) of each of its steps.
    """

    messages: list[dict[str, Any]]
    num_prompt_messages: int
    input_ids: list[int]
    score: float
    step_scores: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what is no conversation, or has no ids."""
        for message in self.messages:
            if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
                raise ValueError("a probe's messages must have role and content as text")
        if not 0 <= self.num_prompt_messages < len(self.messages):
            raise ValueError(
                f"a probe of {len(self.messages)} messages cannot have {self.num_prompt_messages} of the prompt"
            )
        if not self.input_ids or min(self.input_ids) < 0:
            raise ValueError("a probe must have ids, none below 0")


@dataclass(frozen=True, slots=True)
class HeadRecord:
    """What is known of one of several heads on one trunk (:mod:`rewardlab.modeling.ensemble_heads`).

    Attributes:
        reference: Statistics of its scores on the checkpoint's reference set; None where nothing was scored.
        temperature: Its own fitted temperature, None where none was.
        calibration: How that was fitted, as :attr:`Contract.calibration`.
        probe_scores: Its scores of the contract's probes, in their order.
        tolerances: dtype -> largest allowed absolute difference from them.
        held_out_metrics: As :attr:`Contract.held_out_metrics`, of this head's own scores.
    """

    reference: ReferenceStatistics | None
    temperature: float | None
    calibration: dict[str, Any]
    probe_scores: list[float]
    tolerances: dict[str, float] = field(default_factory=dict)
    held_out_metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> ScoreScale:
        """What turns this head's raw scores into any scale."""
        return ScoreScale(self.reference, self.temperature, self.calibration.get("unit", "pair"))

    def tolerance(self, dtype: str) -> float:
        """As :meth:`Contract.tolerance`."""
        return _tolerance(self.tolerances, dtype)


@dataclass(frozen=True, slots=True)
class Contract:
    """How text becomes a score with this model.

    Attributes:
        architecture: transformers class of the checkpoint.
        objective: Objective name and its parameters.
        read_out: Where the score is read, in words a reader of transformers' source recognises.
        template_sha256: Hash of the chat template's text.
        template_origin: ``"tokenizer"`` or ``"plain"``.
        template_changes: What sealing changed in the tokenizer's own template.
        begin_token: Token every sequence starts with, or None.
        end_token: Token every sequence ends with, where decoders read the score; empty where a template of others ends
            with no token in particular.
        pad_token_id: Padding id; never the id of the end token.
        max_length: Longest sequence, in tokens.
        truncation: The truncation policy.
        dtype: dtype of the stored scores.
        tolerances: dtype -> largest allowed absolute difference of a probe's score from the stored one.
        reference: Score statistics on the reference set, None where nothing was scored.
        temperature: Fitted temperature of the preference probability, None until one is fitted.
        calibration: How the temperature was fitted, as ``rewardlab calibrate --json`` tells it: its interval, the data,
            and log loss and calibration error before and after; empty where none was fitted.
        held_out_metrics: Held-out metrics with intervals, as ``rewardlab evaluate --json`` names them.
        data: Fingerprints of the training and held-out data.
        training: How it was trained: mode, base model, seed, epochs, learning rate.
        versions: Library versions.
        probes: The proof.
        head: What the head gives numbers for, and how they become one score.
        heads: Of a checkpoint that was trained with several heads, whose mean its head is: each of them. Else empty.
        heads_sha256: SHA-256 of the file that holds them.
        lineage: The models that this one was retrained to replace (``rewardlab train --refresh``), newest first, at
            most :data:`MOST_ANCESTORS`: each ``{"name", "fingerprint", "contract_sha256", "versions", "data",
            "held_out_accuracy"}``. Empty of a model that replaces none.
        version: Version of this record.
    """

    architecture: str
    objective: dict[str, Any]
    read_out: str
    template_sha256: str
    template_origin: str
    template_changes: list[str]
    begin_token: str | None
    end_token: str
    pad_token_id: int
    max_length: int
    truncation: str
    dtype: str
    tolerances: dict[str, float]
    reference: ReferenceStatistics | None
    temperature: float | None
    held_out_metrics: dict[str, Any]
    data: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    probes: list[Probe] = field(default_factory=list)
    head: ReadOut = field(default_factory=ReadOut)
    calibration: dict[str, Any] = field(default_factory=dict)
    heads: list[HeadRecord] = field(default_factory=list)
    heads_sha256: str = ""
    lineage: list[dict[str, Any]] = field(default_factory=list)
    version: int = VERSION

    def __post_init__(self) -> None:
        """Refuse what no model can be loaded with, and no score be scaled with."""
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {self.max_length}")
        for temperature in (self.temperature, *(head.temperature for head in self.heads)):
            if temperature is not None and temperature <= 0:
                raise ValueError(f"temperature must be above 0, got {temperature}")
        for calibration in (self.calibration, *(head.calibration for head in self.heads)):
            if calibration.get("unit", "pair") not in get_args(Unit):
                raise ValueError(f"calibration.unit must be one of {get_args(Unit)}, got {calibration['unit']!r}")

    def temperature_of(self, unit: Unit) -> float | None:
        """The fitted temperature where it was fitted on this: preferences (``"pair"``) or outcomes (``"completion"``).

        A temperature says nothing of what it was not fitted on.
        """
        return self.temperature if self.scale.unit == unit else None

    @property
    def scale(self) -> ScoreScale:
        """What turns this model's raw scores into any scale."""
        return ScoreScale(self.reference, self.temperature, self.calibration.get("unit", "pair"))

    def tolerance(self, dtype: str) -> float:
        """Largest allowed difference of a probe's score when the model computes in ``dtype``.

        Raises:
            ContractError: No tolerance was measured for that dtype.
        """
        return _tolerance(self.tolerances, dtype)

    def save(self, folder: Path) -> Path:
        """Write the contract beside the weights, at once; returns its path."""
        path = folder / FILE_NAME
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        write_safely(path, text + "\n")
        return path


def load_contract(folder: str | Path) -> Contract | None:
    """The folder's contract, or None where there is none.

    Raises:
        ContractError: The file is there and is not a contract this version understands.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    record = read_json(path, ContractError, strict=True)
    if not isinstance(record, dict) or record.get("version") != VERSION:
        came = repr(record.get("version")) if isinstance(record, dict) else f"a {type(record).__name__}"
        raise ContractError(
            f"{path}: expected a contract of version {VERSION}, got {came[:60]}",
            hint="use the rewardlab version that wrote the checkpoint",
        )
    try:
        return from_record(Contract, record)  # what older contracts do not know has its default
    except ValueError as error:
        raise ContractError(
            f"{path}: not a whole contract: {error}",
            hint="restore the file from a copy; contracts are not edited by hand",
        ) from error


def _tolerance(tolerances: dict[str, float], dtype: str) -> float:
    if dtype not in tolerances:
        raise ContractError(
            f"the contract states no tolerance for dtype {dtype}, only for {sorted(tolerances)}",
            hint="load the model in one of these dtypes, or skip the check with verify=False (--no-verify)",
        )
    return tolerances[dtype]
