"""Saving a reward model: a plain transformers folder, its contract, and the proof that the two agree.

The order is what makes the proof worth something: probes are scored by the model in memory, the folder is written, and
a fresh load of that folder must give those scores in every way :mod:`rewardlab.modeling.verification` knows. A head
lost by an adapter, a template not saved, a padding id that moved: each shows here, before anyone is told that training
succeeded.

All of that is done in a folder inside; what has proved itself is then moved out, the contract last. So a folder with a
contract in it is whole, whatever killed the process that wrote it.
"""

from __future__ import annotations

import dataclasses
import filecmp
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardlab.calibration.fitting import Calibration
from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.calibration.scale import pooler_settings
from rewardlab.data.encoding import Encoder
from rewardlab.data.template import SealedTemplate, template_hash
from rewardlab.errors import ContractError
from rewardlab.files import replace_safely, sync, sync_tree, write_safely
from rewardlab.modeling.contract import FILE_NAME, Contract, HeadRecord, Probe, load_contract
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.ensemble_heads import Heads, head_scores, use_heads
from rewardlab.modeling.head import is_decoder
from rewardlab.modeling.loading import quiet_transformers
from rewardlab.modeling.model_card import write_model_card
from rewardlab.modeling.verification import (
    Verification,
    float32_tolerance,
    make_probes,
    measure_lower_precision_tolerances,
    verify_checkpoint,
)
from rewardlab.types import ReadOut

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRUNCATION = (
    "the system turn stays; oldest whole turns go first, then the oldest tokens of the last prompt turn; "
    "never the completion"
)
POOLER_FILE_NAME = "vllm_pooler.json"
"""vLLM's pooler settings that give the calibrated score: ``vllm serve DIR --pooler-config "$(cat ...)"``."""

_SAVING = ".saving-model"
_LIBRARIES = ("rewardlab", "torch", "transformers", "tokenizers", "safetensors", "accelerate")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the contract records of how the model came to be; every value is plain JSON.

    Attributes:
        objective: Objective name and parameters.
        data: Fingerprints and sizes of the training and held-out data.
        training: Mode, base model, seed, epochs, learning rate.
        held_out_metrics: Metrics with intervals.
        lineage: The models that it was retrained to replace, newest first, as :attr:`Contract.lineage
            <rewardlab.modeling.contract.Contract.lineage>` has them.
    """

    objective: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    held_out_metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Sequence[Mapping[str, Any]] = ()


def save_reward_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: SealedTemplate,
    *,
    max_length: int,
    provenance: Provenance,
    reference: ReferenceStatistics | None = None,
    read_out: ReadOut | None = None,
    calibration: Calibration | None = None,
    heads: Heads | None = None,
    head_records: Sequence[HeadRecord] = (),
) -> Verification:
    """Write the checkpoint and its contract, load it again, and check that it gives the scores the model gave.

    Args:
        folder: Where to; created if need be.
        model: The trained model, adapters merged, in float32.
        tokenizer: Its tokenizer, template sealed.
        template: What sealing found.
        max_length: Longest sequence, in tokens.
        provenance: How the model came to be.
        reference: Statistics of its scores on the reference set.
        read_out: Where its head is read; by default once, at the end.
        calibration: Its fitted temperature.
        heads: The heads whose mean the model's head is, where there are several.
        head_records: Of each what is known; its scores of the probes are added here.

    Returns:
        The checks, all of which held.

    Raises:
        ContractError: The saved checkpoint does not give the scores the model gave in memory; it is not kept.
        OSError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / _SAVING
    shutil.rmtree(made, ignore_errors=True)  # what a kill has left
    try:
        made.mkdir()
        verification = _save_and_verify(
            made,
            model,
            tokenizer,
            template,
            max_length=max_length,
            provenance=provenance,
            reference=reference,
            read_out=read_out or ReadOut(),
            calibration=calibration,
            heads=heads,
            head_records=head_records,
        )
        _move_out(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    contract = load_contract(folder)
    assert contract is not None
    write_model_card(folder, contract)
    return verification


def _save_and_verify(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: SealedTemplate,
    *,
    max_length: int,
    provenance: Provenance,
    reference: ReferenceStatistics | None,
    read_out: ReadOut,
    calibration: Calibration | None,
    heads: Heads | None,
    head_records: Sequence[HeadRecord],
) -> Verification:
    """The same, into a folder that nobody knows yet."""
    model.eval()
    probes = make_probes(model, Encoder(tokenizer, max_length, read_out))
    records = _with_probes(head_records, _scores_of_heads(model, heads, probes)) if heads is not None else []
    contract = Contract(
        architecture=type(model).__name__,
        objective=dict(provenance.objective),
        read_out=_in_words(read_out, is_decoder(model)),
        template_sha256=template_hash(tokenizer),
        template_origin=template.origin,
        template_changes=list(template.changes),
        begin_token=template.begin_token,
        end_token=template.end_token,
        pad_token_id=model.config.get_text_config().pad_token_id,
        max_length=max_length,
        truncation=TRUNCATION,
        dtype="float32",
        tolerances={"float32": float32_tolerance([probe.score for probe in probes])},
        reference=reference,
        temperature=calibration.temperature.value if calibration else None,
        held_out_metrics=dict(provenance.held_out_metrics),
        data=dict(provenance.data),
        training=dict(provenance.training),
        versions={"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        probes=probes,
        head=read_out,
        calibration=calibration.to_dict() if calibration else {},
        heads=records,
        heads_sha256=heads.save(folder) if heads is not None else "",
        lineage=[dict(ancestor) for ancestor in provenance.lineage],
    )
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    contract.save(folder)
    verification = verify_checkpoint(folder, device=str(model.device), dtype="float32")
    if not verification.ok:
        failed = [check for check in verification.checks if not check.ok]
        shown = "; ".join(f"{c.name}: {c.max_difference:.3g} (allowed {c.tolerance:.3g})" for c in failed)
        raise ContractError(
            f"{folder.parent}: the saved checkpoint does not give the scores the trained model gave: {shown}",
            hint="it is not kept; training checkpoints, where there are any, are intact",
        )
    lower, *of_heads = measure_lower_precision_tolerances(folder, contract, device=model.device)
    tolerances = {**contract.tolerances, "bfloat16": lower, "float16": lower}
    records = [
        dataclasses.replace(record, tolerances={**record.tolerances, "bfloat16": own, "float16": own})
        for record, own in zip(contract.heads, of_heads, strict=True)
    ]
    contract = dataclasses.replace(contract, tolerances=tolerances, heads=records)
    contract.save(folder)
    _write_pooler_settings(folder, contract)
    return verification


def _move_out(made: Path, folder: Path) -> None:
    """Put a new checkpoint's files in the places of an old one's, and the contract last.

    Where any file changes, the folder has no contract until all are there. A run whose finishing is only repeated makes
    the same files again: then the old contract is true of them until the new one replaces it.
    """
    sync_tree(made)
    names = [path.relative_to(made) for path in sorted(made.rglob("*")) if path.is_file()]
    new = [name for name in names if name != Path(FILE_NAME) and not _same(made / name, folder / name)]
    # Of a model that was written in another number of files.
    left_over = [old for old in folder.glob("model*.safetensors*") if old.relative_to(folder) not in names]
    if new or left_over:
        (folder / FILE_NAME).unlink(missing_ok=True)
        sync(folder)
    for old in left_over:
        old.unlink()
    for name in (*new, Path(FILE_NAME)):
        (folder / name).parent.mkdir(exist_ok=True)
        replace_safely(made / name, folder / name)


def _same(made: Path, old: Path) -> bool:
    return old.is_file() and filecmp.cmp(made, old, shallow=False)


def _scores_of_heads(model: PreTrainedModel, heads: Heads, probes: Sequence[Probe]) -> list[list[float]]:
    """Of each head its scores of the probes; the model keeps the head it has."""
    own = Heads.of(model)
    use_heads(model, heads)
    try:
        return head_scores(Engine(model), [probe.input_ids for probe in probes]).T.tolist()
    finally:
        use_heads(model, own)


def _with_probes(records: Sequence[HeadRecord], scores: Sequence[list[float]]) -> list[HeadRecord]:
    allowed = float32_tolerance([score for own in scores for score in own])  # one for all: their mean is compared, too
    return [
        dataclasses.replace(record, probe_scores=own, tolerances={"float32": allowed})
        for record, own in zip(records, scores, strict=True)
    ]


def write_contract(folder: Path, contract: Contract) -> None:
    """Write a contract and what is derived of it: the model card, and vLLM's settings where there is a score to set.

    Each is replaced at once, so that a kill in between leaves the old one or the new one.
    """
    contract.save(folder)
    _write_pooler_settings(folder, contract)
    write_model_card(folder, contract)


def _write_pooler_settings(folder: Path, contract: Contract) -> None:
    if contract.head.kind == "sequence" and contract.reference is not None and contract.temperature is not None:
        settings = json.dumps(pooler_settings(contract.reference, contract.temperature), indent=1)
        write_safely(folder / POOLER_FILE_NAME, settings + "\n")


def _in_words(read_out: ReadOut, decoder: bool) -> str:
    """Where the head is read, for a reader of the contract."""
    if read_out.kind == "sequence":
        return "last token that is not padding" if decoder else "pooled by the architecture"
    where = "each completion token" if read_out.kind == "token" else f"each {read_out.separator} of the completion"
    return f"{where}; the score is the logit of the {read_out.aggregation} of P(correct)"
