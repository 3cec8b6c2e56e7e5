"""From a trained model to a checkpoint that has proved itself: merge, score the reference set, save, load, verify."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rewardlab.calibration.fitting import Calibration, calibrate_scores
from rewardlab.calibration.reference import statistics_of
from rewardlab.data.encoding import EncodedGroup
from rewardlab.data.fingerprints import CompletionSketch, groups_fingerprint
from rewardlab.errors import CheckpointError, DataError
from rewardlab.metrics.known import Evaluation, evaluate_known
from rewardlab.metrics.ratings import rated_by
from rewardlab.modeling.aggregation import group_outputs, mean_of_heads, score_of, scores_by_head, step_scores_of
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.engine import Engine, head_outputs
from rewardlab.modeling.ensemble_heads import Heads, use_heads
from rewardlab.modeling.preparing import inner_model, merged
from rewardlab.modeling.ranks import Ranks
from rewardlab.modeling.verification import Verification
from rewardlab.training.batches import sequences_of
from rewardlab.training.head_records import head_records
from rewardlab.training.held_out import write_held_out
from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rewardlab.training.trainer import RewardTrainer

logger = logging.getLogger(__name__)

_REFERENCE_GROUPS = 1000  # how many training groups give the first reference where there is no held-out set
_ROOM_TO_SCORE = 3.25  # of a model's size: itself, two copies while it is verified, and what a forward needs
_MERGED_GROUPS = 8  # how many groups are scored before and after adapters are merged


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A checkpoint and what is known of it.

    Attributes:
        folder: The checkpoint.
        verification: The checks it passed after being loaded again.
        held_out: Metrics on the held-out groups, with intervals; None where there were none.
        held_out_groups: The groups these are of: those that could be encoded.
        calibration: The temperature fitted on them, with log loss and calibration error before and after; None where
            there are none, or they do not determine one.
    """

    folder: Path
    verification: Verification
    held_out: Evaluation | None
    held_out_groups: list[PromptGroup]
    calibration: Calibration | None = None


def gather_trained(trainer: RewardTrainer) -> bool:
    """Put the trained model together in the first process, and part the processes; call it on every one.

    From here on the first is alone: what it does needs no other, however long it takes.

    Args:
        trainer: The trainer, after ``train()``. In the first process its model is whole afterwards.

    Returns:
        Whether this is the first process, which saves; the others have nothing left to do.
    """
    ranks = Ranks.of_this_run()
    if ranks.count == 1 and not trainer.sharding.keeps_weights_apart:
        return True
    whole = trainer.sharding.whole_model(cast(nn.Module, trainer.model))
    if trainer.sharding.keeps_weights_apart:
        trainer.sharding.let_go(trainer)
        if whole is not None:
            trainer.model = trainer.model_wrapped = _placed(whole, trainer.args.device)
    if ranks.count > 1:
        dist.barrier()
        dist.destroy_process_group()
    return ranks.index == 0


def _placed(model: nn.Module, device: torch.device) -> nn.Module:
    """A model on the device of the run where it fits there whole, else where it is: in the CPU's memory."""
    if device.type != "cuda":
        return model
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    free, _ = torch.cuda.mem_get_info(device)
    if free < size * _ROOM_TO_SCORE:
        logger.warning("the whole model (%.1f GB) does not fit the GPU: it is scored on the CPU", size / 1e9)
        return model
    return model.to(device)


def save_trained(
    trainer: RewardTrainer,
    folder: str | Path,
    *,
    training: Mapping[str, Any] | None = None,
    files: Sequence[Mapping[str, str]] = (),
    lineage: Sequence[Mapping[str, Any]] = (),
    report: Callable[[str], None] = logger.info,
) -> SavedModel:
    """Save what a trainer has trained, as one plain checkpoint with its contract; adapters are merged.

    The reference statistics and held-out metrics are those of the plain merged model in float32, whatever the training
    ran in.

    Args:
        trainer: The trainer, after ``train()``. Its model is merged and not to be trained further.
        folder: Where to.
        training: What else the contract should record of the run.
        files: The data files: ``{"role", "file", "sha256"}`` each.
        lineage: The models that this one is to replace, as the contract has them.
        report: Called with one line for each stage.

    Raises:
        ContractError: The saved checkpoint does not give the scores the model gave.
        CheckpointError: Merging the adapters changed the scores.
    """
    arguments, train, held = trainer.args, trainer.train_data, trainer.eval_data
    model = _merged_unchanged(trainer)
    examples = held.examples if held else train.examples[:_REFERENCE_GROUPS]
    report(f"scoring {len(examples)} {'held-out' if held else 'training'} groups")
    layout = trainer.layout.layout if trainer.layout else "padded"
    engine, read_out = Engine(model, layout, arguments.tokens_per_batch), arguments.read_out
    source, steps, records = "held-out" if held else "training", None, []
    heads = Heads.of(model) if arguments.ensemble_heads > 1 else None
    held_out_groups = [example.group for example in examples] if held else []
    rated = rated_by(held_out_groups, arguments.attribute_weights)
    outputs = group_outputs(engine, examples)
    if heads is None:
        scores = [[score_of(of_one, read_out) for of_one in of_group] for of_group in outputs]
        steps = step_scores_of(outputs, read_out) if read_out.kind == "step" else None
    else:
        scores = mean_of_heads(outputs)
        records = head_records(
            examples,
            scores_by_head(outputs),
            source=source,
            fit=_fitted if held else None,
            measure=partial(evaluate_known, rated) if held else None,
            report=report,
        )
        use_heads(model, heads.mean)
    held_out = evaluate_known(rated, scores, steps, aggregation=read_out.aggregation) if held else None
    calibration = _fitted(held_out_groups, scores, report) if held else None
    report("saving, loading again and verifying")
    verification = save_reward_model(
        Path(folder),
        model,
        trainer.encoder.tokenizer,
        trainer.template,
        max_length=arguments.max_length,
        provenance=Provenance(
            objective=trainer.objective_record(),
            data={
                "train": {**_fingerprinted(train.groups), "sketch": CompletionSketch.of(train.groups).to_dict()},
                "held_out": _fingerprinted(held_out_groups) if held else None,
                "files": [dict(file) for file in files],
            },
            training={
                **(training or {}),
                **({"ensemble_heads": arguments.ensemble_heads} if heads is not None else {}),
                "seed": arguments.seed,
                "epochs": arguments.num_train_epochs,
                "learning_rate": arguments.learning_rate,
                "groups_per_step": groups_per_step(trainer),
                "precision": "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32",
                "steps": trainer.state.global_step,
            },
            held_out_metrics=held_out.to_dict() if held_out else {},
            lineage=lineage,
        ),
        reference=statistics_of([example.group for example in examples], scores, source),
        read_out=read_out,
        calibration=calibration,
        heads=heads,
        head_records=records,
    )
    if held:
        write_held_out(Path(folder), held_out_groups, scores, steps)
    return SavedModel(Path(folder), verification, held_out, held_out_groups, calibration)


def _fitted(
    groups: Sequence[PromptGroup], scores: Sequence[Sequence[float]], report: Callable[[str], None]
) -> Calibration | None:
    """The temperature of the held-out preferences or outcomes, where they determine one."""
    try:
        calibration = calibrate_scores(groups, scores)
    except DataError as error:
        report(f"no temperature: {error.message}")
        return None
    except ModuleNotFoundError as error:  # a trained model is worth saving without it
        report(f"no temperature: {error.name} is not installed; `rewardlab calibrate` fits one where it is")
        return None
    for warning in calibration.warnings:
        report(f"temperature: {warning}")
    return calibration


def groups_per_step(trainer: RewardTrainer) -> int:
    """Groups in one optimiser step, over all micro-batches and ranks."""
    arguments = trainer.args
    return arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size


def _fingerprinted(groups: Sequence[PromptGroup]) -> dict[str, Any]:
    return {"num_groups": len(groups), "sha256": groups_fingerprint(groups)}


def _merged_unchanged(trainer: RewardTrainer) -> PreTrainedModel:
    """Merge the adapters, and check that the scores stay: a lost head or adapter shows here."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    examples = trainer.train_data.examples[:_MERGED_GROUPS]
    quantized = bool(getattr(inner_model(model), "is_quantized", False))
    before = _outputs(inner_model(model), examples)
    plain = merged(model)
    difference = float((_outputs(plain, examples) - before).abs().max())
    if difference > 1e-3 * max(1.0, float(before.abs().max())):
        what = f"merging the adapters moved a score by {difference:.3g}"
        if not quantized:
            raise CheckpointError(what, hint="the training checkpoints are intact; please report this")
        logger.warning("%s: trained in 4 bits, merged in more; the contract holds the new scores", what)
    return plain


def _outputs(model: PreTrainedModel, examples: Sequence[EncodedGroup]) -> Tensor:
    """All numbers that the head gives for some groups."""
    engine = Engine(model)
    return engine.rows(*sequences_of(examples), None, head_outputs)
