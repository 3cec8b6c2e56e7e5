"""One of several heads on a trunk -> a checkpoint of its own, plain, with a contract that knows where it came from."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewardlab.data.template import SealedTemplate
from rewardlab.errors import ConfigError, ContractError
from rewardlab.files import replace_safely
from rewardlab.modeling.checkpoint import Provenance, save_reward_model, write_contract
from rewardlab.modeling.contract import Contract, load_contract
from rewardlab.modeling.ensemble_heads import load_heads, require_heads_hold, use_heads
from rewardlab.modeling.loading import load_reward_model
from rewardlab.modeling.verification import float32_tolerance


@dataclass(frozen=True, slots=True)
class ExportedHead:
    """What was exported, and the proof.

    Attributes:
        path: The new checkpoint.
        source: The checkpoint with several heads.
        head: Which of them, counted from 0.
        num_heads: How many there are.
        num_probes: How many conversations the new checkpoint scores as that head did.
        max_difference: Largest absolute difference of a score.
        tolerance: Largest difference allowed.
    """

    path: str
    source: str
    head: int
    num_heads: int
    num_probes: int
    max_difference: float
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """As ``rewardlab import --head --json`` prints it."""
        return asdict(self)


def export_head(folder: str | Path, head: int, output: str | Path, *, device: str | None = None) -> ExportedHead:
    """Save one head of a checkpoint that has several as a reward model of its own.

    Its reference statistics, its temperature and its held-out metrics are the head's own.

    Args:
        folder: A local folder or a hub id.
        head: Which head, counted from 0.
        output: Where the checkpoint goes; must not exist, or be empty.
        device: Where to score; by default the first CUDA device, else the CPU.

    Returns:
        What was exported, with the proof.

    Raises:
        ConfigError: There are no heads, or not that one; the output folder is in use.
        CheckpointError: The checkpoint cannot be loaded, or its heads cannot.
        ContractError: The heads, or what was saved, do not give the promised scores; nothing is left behind.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} exists and is not an empty folder", hint="name a new folder with --output")
    loaded = load_reward_model(folder, device=device, dtype="float32")
    contract, heads = loaded.contract, load_heads(loaded.folder, loaded.contract)
    if heads is None or contract is None:
        raise ConfigError(
            f"{folder} has no heads besides its own",
            hint="leave out --head; heads come of training with ensemble_heads",
        )
    if not 0 <= head < len(heads):
        raise ConfigError(f"there is no head {head}: {folder} has {len(heads)}", hint=f"0 to {len(heads) - 1}")
    require_heads_hold(loaded, heads)
    use_heads(loaded.model, heads.only(head))
    record = contract.heads[head]
    training = {**contract.training, "exported_from": loaded.fingerprint, "head": head, "of_heads": len(heads)}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-exporting-") as scratch:
        made = Path(scratch) / output.name
        save_reward_model(
            made,
            loaded.model,
            loaded.tokenizer,
            _template_of(contract),
            max_length=contract.max_length,
            provenance=Provenance(
                contract.objective,
                data=contract.data,
                training=training,
                held_out_metrics=record.held_out_metrics,
                lineage=contract.lineage,
            ),
            reference=record.reference,
            read_out=contract.head,
        )
        saved = load_contract(made)
        assert saved is not None
        found = [probe.score for probe in saved.probes]
        largest = max(abs(score - before) for score, before in zip(found, record.probe_scores, strict=True))
        allowed = float32_tolerance(record.probe_scores)
        if not largest <= allowed:
            raise ContractError(
                f"what was saved does not give the scores of head {head}: they differ by {largest:.3g} (allowed "
                f"{allowed:.3g})",
                hint="the head is not exported; please report this",
            )
        write_contract(made, dataclasses.replace(saved, temperature=record.temperature, calibration=record.calibration))
        replace_safely(made, output)
    return ExportedHead(str(output), str(folder), head, len(heads), len(found), largest, allowed)


def _template_of(contract: Contract) -> SealedTemplate:
    return SealedTemplate(
        contract.template_origin, contract.begin_token, contract.end_token, tuple(contract.template_changes)
    )
