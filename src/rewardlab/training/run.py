"""One whole training run: base model and groups in, a verified checkpoint out.

The order of the steps is the product's promise: prepare (template, padding, seeded head), train, score the held-out set
with the plain merged model in float32, save with the contract, load again from disk and score the probes. Only then is
the run said to have succeeded.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import set_seed

from rewardlab.data.fingerprints import groups_fingerprint
from rewardlab.data.ledger import Ledger
from rewardlab.data.loading import MAX_BAD_FRACTION
from rewardlab.data.merging import count_merged
from rewardlab.documents import read_json_object
from rewardlab.errors import CheckpointError, ConfigError, DataError, RewardLabError, StoppedError
from rewardlab.files import write_safely
from rewardlab.modeling.head import is_decoder
from rewardlab.modeling.loading import fingerprint_of, position_limit, quiet_transformers
from rewardlab.modeling.preparing import LoraOptions, Mode, PreparedModel, inner_model, prepare_for_training
from rewardlab.modeling.ranks import Ranks
from rewardlab.training.arguments import RewardArguments, read_out_of, require_objective
from rewardlab.training.batches import EncodedDataset
from rewardlab.training.checkpoints import FoundCheckpoint, last_whole_checkpoint
from rewardlab.training.finishing import SavedModel, gather_trained, groups_per_step
from rewardlab.training.objective_parameters import learned_values
from rewardlab.training.presets import PRESETS, Preset
from rewardlab.training.processes import connect
from rewardlab.training.saving import saved_by
from rewardlab.training.stopping import StopWhenAsked
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import PromptGroup

logger = logging.getLogger(__name__)

TRAINING_FOLDER = "training"
MANIFEST = "run.json"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        saved: The checkpoint, the checks it passed after being loaded again, and its held-out metrics.
        log_history: What the trainer logged, step by step.
        mode: Which preset it ran under.
        seconds: Wall-clock seconds of the training itself.
        train_data: The training groups as ids, and what was dropped or quarantined.
    """

    saved: SavedModel
    log_history: list[dict[str, float]]
    mode: str
    seconds: float
    train_data: EncodedDataset


def train_reward_model(
    *,
    model: str | Path,
    train_groups: Sequence[PromptGroup],
    output_dir: str | Path,
    eval_groups: Sequence[PromptGroup] | None = None,
    mode: Mode = "full",
    lora: LoraOptions | None = None,
    dtype: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    trust_remote_code: bool = False,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    ledger: Ledger | None = None,
    eval_ledger: Ledger | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    lineage: Sequence[Mapping[str, Any]] = (),
    report: Callable[[str], None] = logger.info,
) -> TrainingResult:
    """Train, save, load again and verify.

    Args:
        model: Local folder or hub id of the base model, or of a reward model to train further.
        train_groups: Groups to train on.
        output_dir: Where the checkpoint goes; logs and resumable checkpoints go to ``training/`` inside it.
        eval_groups: Held-out groups; they also give the first reference statistics.
        mode: Which parameters are trained.
        lora: Adapter options for mode ``"lora"``.
        dtype: What the forward computes in: ``"float32"``, ``"bfloat16"`` (autocast; weights stay float32) or
            ``"auto"``: bfloat16 where this machine is faster at it.
        overrides: Fields of :class:`RewardArguments` that differ from the mode's preset.
        resume: Go on from the newest checkpoint in ``training/`` that is whole.
        trust_remote_code: Run the model repository's own Python code.
        max_bad_fraction: Largest share of groups that may be impossible to encode before the run stops.
        ledger: Where dropped, quarantined and truncated training rows are counted.
        eval_ledger: The same for held-out rows; the same ledger where both came from one reading.
        sources: The files the groups came from: ``{"role", "file", "sha256"}`` each, for the contract; ``training/``,
            which is the user's own, keeps what else they say (``path``, ``split``, ``format``) for a refresh.
        lineage: The models that this one is to replace, as the contract has them.
        report: Called with one line for each stage.

    Returns:
        The checkpoint, its verification and its held-out metrics.

    Raises:
        ConfigError: An option cannot be used, or ``output_dir`` already holds something else.
        CheckpointError: The base model cannot be used, or the result does not verify.
        DataError: No usable group.
        StoppedError: SIGTERM or Ctrl-C came while it trained; the step was finished, and its checkpoint saved.
    """
    output_dir = Path(output_dir)
    require_free(output_dir, resume=resume)
    overrides = dict(overrides or {})
    if mode not in get_args(Mode):
        raise ConfigError(f"unknown mode {mode!r}", hint=f"one of {', '.join(get_args(Mode))}")
    unknown = sorted(set(overrides) - {field.name for field in dataclasses.fields(RewardArguments)})
    if unknown:
        raise ConfigError(f"RewardArguments has no field {unknown[0]!r}", hint="see rewardlab.RewardArguments")
    require_objective(overrides)
    seed = int(overrides.get("seed", 42))
    connected = connect(
        use_cpu=bool(overrides.get("use_cpu")),
        seconds=int(overrides.get("ddp_timeout", RewardArguments.ddp_timeout)),
    )
    set_seed(seed)  # before the head is drawn
    prepared = prepare_for_training(
        model,
        seed=seed,
        mode=mode,
        lora=lora,
        disable_dropout=bool(overrides.get("disable_dropout", True)),
        trust_remote_code=trust_remote_code,
        read_out=read_out_of(overrides),
        ensemble_heads=int(overrides.get("ensemble_heads", 1)),
    )
    preset_name = mode if mode != "full" or is_decoder(inner_model(prepared.model)) else "encoder"
    for change in prepared.template.changes:
        report(f"chat template: {change}")
    arguments = _arguments(
        output_dir, prepared, PRESETS[preset_name], dtype, _under(connected, overrides), train_groups, eval_groups
    )
    ranks = Ranks.of_this_run()
    if ranks.index > 0:
        report = _say_nothing  # the first process says it
    trainer = RewardTrainer(
        prepared.model,
        arguments,
        train_groups,
        eval_groups or None,
        processing_class=prepared.tokenizer,
        template=prepared.template,
    )
    report(
        f"{arguments.objective}, mode {preset_name}: learning rate {arguments.learning_rate:g}, "
        f"{groups_per_step(trainer)} groups a step, at most {arguments.max_length} tokens, "
        f"{'bfloat16' if arguments.bf16 else 'float32'}"
    )
    data = trainer.train_data
    _account(
        data,
        ledger,
        output_dir / TRAINING_FOLDER / "quarantine.jsonl",
        num_groups=len(train_groups),
        max_bad_fraction=max_bad_fraction,
        writes=ranks.index == 0,
    )
    if trainer.eval_data:
        _account(
            trainer.eval_data,
            eval_ledger,
            output_dir / TRAINING_FOLDER / "quarantine-eval.jsonl",
            num_groups=len(eval_groups or ()),
            max_bad_fraction=max_bad_fraction,
            writes=ranks.index == 0,
        )
    report(
        f"{len(data.groups):,} rows to train on ({len(data.dropped):,} more dropped, {len(data.quarantined):,} more "
        f"quarantined while they were encoded, {data.num_truncated:,} truncated)"
        + (f", {len(data.dropped_pairs)} without such of their pairs as are identical" if data.dropped_pairs else "")
        + (f", in {len(data.examples)} groups" if len(data.examples) < len(data.groups) else "")
        + (f", {len(trainer.eval_data.examples)} of {len(eval_groups or ())} held out" if trainer.eval_data else "")
        + (f"; left out: {data.told()}" if data.told() else "")
    )
    manifest: dict[str, Any] = {
        "base_model": str(model),
        "mode": preset_name,
        "objective": trainer.objective_record(),
        "seed": seed,
        "learning_rate": arguments.learning_rate,
        "groups_per_step": groups_per_step(trainer),
        "max_length": arguments.max_length,
        "max_group_size": arguments.max_group_size,
        **({} if arguments.read_out.kind == "sequence" else {"head": dataclasses.asdict(arguments.read_out)}),
        **({} if arguments.ensemble_heads == 1 else {"ensemble_heads": arguments.ensemble_heads}),
        "train_sha256": groups_fingerprint(data.groups),
    }
    checkpoint = _as_the_first_decides(
        ranks,
        lambda: _start_or_resume(
            output_dir / TRAINING_FOLDER,
            manifest,
            beside={
                **_base_record(model),
                **({"lora": dataclasses.asdict(lora or LoraOptions())} if mode == "lora" else {}),
            }
            | {"sources": [dict(source) for source in sources]},
            resume=resume,
            arguments=arguments,
            engine=saved_by(trainer.accelerator),
            report=report,
        ),
    )
    stop = StopWhenAsked()
    trainer.add_callback(stop)
    start = time.perf_counter()
    with quiet_transformers(), stop:  # its bars would cut into ours
        trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    if stop.stopped_at is not None:
        raise StoppedError(
            f"stopped after step {stop.stopped_at} of {trainer.state.max_steps}, as asked; all of it is saved",
            hint="repeat the command with --resume to go on",
        )
    if not gather_trained(trainer):
        raise SystemExit(0)  # one process saves; the others have nothing left to do

    for name, value in learned_values(trainer.objective).items():
        report(f"learned beside the model: {name} = {value:.4g}")
    saved = trainer.save_reward_model(
        output_dir,
        training={"base_model": str(model), "mode": preset_name},
        files=[{name: source[name] for name in ("role", "file", "sha256")} for source in sources],
        lineage=lineage,
        report=report,
    )
    history = [dict(entry) for entry in trainer.state.log_history]
    folder = output_dir / TRAINING_FOLDER
    write_safely(folder / "log_history.json", json.dumps(history, indent=1) + "\n")
    if ledger is not None:
        write_safely(folder / "ledger.json", json.dumps(ledger.to_dict(), indent=1) + "\n")
    write_safely(folder / "arguments.json", arguments.to_json_string() + "\n")
    return TrainingResult(saved, history, preset_name, seconds, data)


def require_free(output_dir: Path, *, resume: bool) -> None:
    """Refuse to write into a folder that holds something else, or a run that is not to be resumed.

    Raises:
        ConfigError: It does.
    """
    if not output_dir.exists():
        return
    if resume:
        folder = output_dir / TRAINING_FOLDER
        # A run that was killed while it read its rows has left what it set aside, and nothing to resume.
        strange = any(path.name != TRAINING_FOLDER for path in output_dir.iterdir())
        if not (folder / MANIFEST).exists() and (strange or any(folder.glob("checkpoint-*"))):
            raise ConfigError(f"{output_dir} holds no run that could be resumed", hint="leave out --resume")
        return
    others = not output_dir.is_dir() or [p for p in output_dir.iterdir() if p.name != TRAINING_FOLDER]
    if others or any((output_dir / TRAINING_FOLDER).glob("checkpoint-*")):
        raise ConfigError(
            f"{output_dir} is not an empty folder",
            hint="name another --output, or pass --resume to go on with the run in it",
        )


def bfloat16_is_faster() -> bool:
    """Whether this machine multiplies matrices faster in bfloat16 than in float32.

    CUDA devices say so themselves. CPUs are measured, since most accept bfloat16 and are several times slower at it.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(384, 384, dtype=dtype)
        matrix @ matrix  # the first call builds kernels
        rounds = []
        for _ in range(3):
            start = time.perf_counter()
            matrix @ matrix
            rounds.append(time.perf_counter() - start)
        times[dtype] = min(rounds)
    return times[torch.bfloat16] * 1.5 < times[torch.float32]


def _arguments(
    output_dir: Path,
    prepared: PreparedModel,
    preset: Preset,
    dtype: str,
    overrides: dict[str, Any],
    train_groups: Sequence[PromptGroup],
    eval_groups: Sequence[PromptGroup] | None,
) -> RewardArguments:
    """The preset of the mode, with what the user has said on top."""
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"unknown training dtype {dtype!r}", hint="one of auto, float32, bfloat16")
    limit = position_limit(inner_model(prepared.model).config, prepared.tokenizer)
    # A preset's step is counted in rows. Where the rows of a prompt are merged, as many fewer groups hold them.
    max_group_size = int(overrides.get("max_group_size", RewardArguments.max_group_size))
    groups = count_merged(train_groups, max_group_size)
    values: dict[str, Any] = {
        "learning_rate": preset.learning_rate,
        "warmup_steps": preset.warmup,
        "max_length": min(preset.max_length, limit or preset.max_length),
        # One micro-batch per step: the token budget splits it into forwards of the right size.
        "per_device_train_batch_size": max(1, round(preset.batch_size * groups / max(1, len(train_groups)))),
        "bf16": dtype == "bfloat16" or (dtype == "auto" and bfloat16_is_faster()),
        "eval_strategy": "steps" if eval_groups else "no",
        **overrides,
        "output_dir": str(output_dir / TRAINING_FOLDER),
    }
    return RewardArguments(**values)


def _under(connected: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the user has said, under what the processes of the run must be told."""
    own = overrides.get("accelerator_config")
    if connected and isinstance(own, dict):
        return {**overrides, "accelerator_config": {**own, **connected["accelerator_config"]}}
    return {**connected, **overrides}


def _base_record(model: str | Path) -> dict[str, str]:
    """Where the base model is and how it is told from others; of a hub id its name says both."""
    folder = Path(model)
    return {"base_path": str(folder.resolve()), "base_fingerprint": fingerprint_of(folder)} if folder.is_dir() else {}


def _start_or_resume(
    folder: Path,
    manifest: dict[str, Any],
    *,
    beside: Mapping[str, Any],
    resume: bool,
    arguments: RewardArguments,
    engine: str,
    report: Callable[[str], None],
) -> str | None:
    """Note what is trained on what, or check that the run to resume is this one; returns its newest whole checkpoint.

    What stands beside the manifest may change between the two, such as where files are.
    """
    path = folder / MANIFEST
    if not resume or not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_safely(path, json.dumps({**manifest, **beside}, indent=1) + "\n")
        return None
    before = read_json_object(
        path,
        CheckpointError,
        hint="it says what the run to resume is: restore it from a backup, or start again, without --resume, with "
        "another --output",
    )
    differences = [
        f"{key} was {before.get(key)!r}, is now {value!r}"
        for key, value in manifest.items()
        if before.get(key) != value
    ]
    if differences:
        raise ConfigError(
            f"the run in {folder.parent} is another one: {'; '.join(differences)}",
            hint="repeat the command that started it, with --resume, or name another --output",
        )
    found = last_whole_checkpoint(folder, report)
    if found is None:
        report("nothing to resume: starting from the beginning")
        return None
    _require_resumable(found, arguments, engine, report)
    report(f"resuming from {found.folder.name}")
    return str(found.folder)


def _require_resumable(
    found: FoundCheckpoint, arguments: RewardArguments, engine: str, report: Callable[[str], None]
) -> None:
    """Refuse a checkpoint that these processes cannot go on from."""
    if not (found.folder / "scheduler.pt").exists() and engine == "whole":
        raise CheckpointError(
            f"{found.folder} holds a model and no optimiser: it cannot be gone on from",
            hint="checkpoints of save_only_model are no resumable ones; leave it out, and start again",
        )
    if found.run is None:
        return
    then, now = found.run.world_size, arguments.world_size
    told = f"{found.folder.name} was saved by {then} process{'es' * (then > 1)} ({found.run.engine})"
    if found.run.engine != engine or (engine != "whole" and then != now):
        raise ConfigError(
            f"{told}, and this run has {now} ({engine}): the shards do not fit",
            hint="resume with the launcher and the number of processes that it was started with",
        )
    if then != now:
        report(f"{told}, and this run has {now}: as many groups a step in the same order; dropout is drawn anew")


def _as_the_first_decides(ranks: Ranks, decide: Callable[[], str | None]) -> str | None:
    """What the first process decides, in all of them; or what it raises, in all of them."""
    found: tuple[str | None, Exception | None] = (None, None)
    if ranks.index == 0:
        try:
            found = (decide(), None)
        except (RewardLabError, OSError) as error:
            found = (None, error)
    decided, raised = ranks.gather(found)[0]
    if raised is not None:
        raise raised
    return decided


def _say_nothing(line: str) -> None:
    """What processes that are not the first do with a line to tell."""


def _account(
    data: EncodedDataset,
    ledger: Ledger | None,
    quarantine: Path,
    *,
    num_groups: int,
    max_bad_fraction: float,
    writes: bool,
) -> None:
    """Say what encoding left out, in the ledger and, where this process writes, in a file; stop if it is too much."""
    if ledger is not None:
        for _, reason in data.dropped:
            ledger.drop(reason, was_used=True)
        for _, reason in data.quarantined:
            ledger.quarantine(reason, was_used=True)
        ledger.truncated += data.num_truncated
    if not data.quarantined:
        return
    if writes:
        _quarantine(data, quarantine)
    if len(data.quarantined) > max_bad_fraction * num_groups:
        raise DataError(
            f"{len(data.quarantined)} of {num_groups} rows cannot be used, at most {max_bad_fraction:.0%} may be; "
            f"the first: {data.quarantined[0][1]}",
            hint=f"{quarantine} has them all; repair them, raise max_length where they are too long, or allow more "
            "(max_bad_fraction)",
        )


def _quarantine(data: EncodedDataset, path: Path) -> None:
    """Add the rows that could not be encoded to those that could not be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="ascii") as file:
        for group, reason in data.quarantined:
            name, _, line = (group.source or "").rpartition(":")
            record = {"file": name or None, "line": int(line) if line else None, "id": group.id, "reason": reason}
            file.write(json.dumps(record) + "\n")
