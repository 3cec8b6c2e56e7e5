"""A run resumed from any checkpoint ends with the same bits; one that cannot be saved leaves those before it whole."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.damaging import require_each_byte_counts
from transformers import TrainerCallback

from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.preparing import LoraOptions, prepare_for_training
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.checkpoints import MANIFEST, SAVING, SavedRun, checkpoints_in, damage_of, last_whole_checkpoint
from rewardlab.training.run import train_reward_model
from rewardlab.training.saving import is_of_the_disk
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import PromptGroup

# Ten micro-batches an epoch in steps of three: four steps, the last of one micro-batch. Two epochs.
OPTIONS: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 3,
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
    "max_length": 128,
    "max_group_size": 1,
    "logging_steps": 1,
    "save_steps": 1,
    "save_total_limit": None,
    "disable_tqdm": True,
    "report_to": "none",
    "use_cpu": True,
}
EPOCH, LAST = 4, 8
VARIANTS: dict[str, dict[str, Any]] = {
    "davidson": {"objective": "davidson", "disable_dropout": False},
    "lora": {"mode": "lora", "disable_dropout": False},
    "head_only": {"mode": "head_only"},
    "heads": {"ensemble_heads": 3},
}

pytestmark = pytest.mark.filterwarnings("ignore:.*epochs:UserWarning")


def trainer_of(base: Path, folder: Path, pairs: list[PromptGroup], **options: Any) -> RewardTrainer:
    mode = options.pop("mode", "full")
    held_out = options.pop("eval_groups", None)
    arguments = RewardArguments(str(folder), **{**OPTIONS, **options})
    torch.manual_seed(7)  # what is drawn before training must not matter
    prepared = prepare_for_training(
        base,
        seed=0,
        mode=mode,
        lora=LoraOptions(rank=4, dropout=0.2) if mode == "lora" else None,
        disable_dropout=arguments.disable_dropout,
        read_out=arguments.read_out,
        ensemble_heads=arguments.ensemble_heads,
    )
    return RewardTrainer(
        prepared.model,
        arguments,
        pairs[:20],
        held_out,
        processing_class=prepared.tokenizer,
        template=prepared.template,
    )


def learned(trainer: RewardTrainer) -> dict[str, torch.Tensor]:
    """All that training changes: the model's weights, the objective's, and the optimiser's moments."""
    found = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
    found |= {f"objective.{name}": value.clone() for name, value in trainer.objective.state_dict().items()}
    for number, state in trainer.optimizer.state_dict()["state"].items():
        found |= {f"{number}.{name}": torch.as_tensor(value).clone() for name, value in state.items()}
    return found


def losses(trainer: RewardTrainer) -> list[tuple[int, float]]:
    return [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def require_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.slow] if name != "davidson" else []) for name in VARIANTS]
)
def test_resumed_from_any_step_a_run_ends_with_the_same_bits(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], variant: str
) -> None:
    whole = trainer_of(base_model, tmp_path, pairs, **VARIANTS[variant])
    whole.train()
    assert whole.state.global_step == LAST
    assert [step for step, _ in losses(whole)] == list(range(1, LAST + 1))
    if variant == "davidson":
        assert len(list(whole.objective.parameters())) == 1
    for step in (1, EPOCH, EPOCH + 2, LAST):
        resumed = trainer_of(base_model, tmp_path / "resumed", pairs, **VARIANTS[variant])
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        require_same(learned(resumed), learned(whole))
        assert losses(resumed) == losses(whole)


def test_a_complete_run_that_is_resumed_takes_no_step_more(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """The loop of transformers takes one where the run ended in the middle of an epoch."""
    options = {"max_steps": EPOCH - 1, "lr_scheduler_type": "constant"}
    whole = trainer_of(base_model, tmp_path, pairs, **options)
    whole.train()
    resumed = trainer_of(base_model, tmp_path, pairs, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{EPOCH - 1}"))
    assert resumed.state.global_step == EPOCH - 1
    require_same(learned(resumed), learned(whole))


def test_a_checkpoint_logs_first_what_is_not_logged_yet(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """So that there is no part of a mean to be kept; both runs log the same."""
    options = {"logging_steps": 3, "save_steps": 5}
    whole = trainer_of(base_model, tmp_path, pairs, **options)
    whole.train()
    assert [step for step, _ in losses(whole)] == [3, 5, 6, 8]
    resumed = trainer_of(base_model, tmp_path, pairs, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    timed = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
    histories = [
        [entry for entry in trainer.state.log_history if not timed & entry.keys()] for trainer in (whole, resumed)
    ]
    assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def trained(base_model: Path, pairs: list[PromptGroup], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``training/`` of a run with two checkpoints and every kind of file."""
    folder = tmp_path_factory.mktemp("trained") / "training"
    trainer_of(base_model, folder, pairs, objective="davidson", max_steps=2).train()
    return folder


def test_what_a_checkpoint_holds_and_what_its_manifest_says(trained: Path) -> None:
    assert [path.name for path in trained.iterdir() if path.name.startswith(".")] == []
    found = last_whole_checkpoint(trained, pytest.fail)
    assert found is not None
    assert found.run is not None
    assert (found.run.step, found.run.world_size, found.run.engine) == (2, 1, "whole")
    assert found.run.versions["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__
    names = {path.name for path in found.folder.iterdir()}
    assert names >= {MANIFEST, "model.safetensors", "objective.safetensors", "optimizer.pt", "rng_state.pth"}
    content = json.loads((found.folder / MANIFEST).read_text())["content"]
    assert content["files"].keys() == names - {MANIFEST}


def test_one_byte_flipped_or_cut_in_each_file_of_a_real_checkpoint(trained: Path, tmp_path: Path) -> None:
    names = require_each_byte_counts(trained / "checkpoint-2")
    assert set(names) >= {MANIFEST, "model.safetensors", "objective.safetensors", "optimizer.pt", "rng_state.pth"}
    for name in names:
        shutil.copytree(trained, tmp_path / name)
        content = (tmp_path / name / "checkpoint-2" / name).read_bytes()
        (tmp_path / name / "checkpoint-2" / name).write_bytes(content[:-1])
        told: list[str] = []
        found = last_whole_checkpoint(tmp_path / name, told.append)
        assert found is not None
        assert found.folder.name == "checkpoint-1", name
        assert name in told[0], name


class LimitFiles(TrainerCallback):
    """From a step on no file may be longer, as on a full disk."""

    def __init__(self, step: int, limit: int) -> None:
        self._step, self._limit = step, limit

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit, resource.RLIM_INFINITY))


@contextmanager
def limits_restored() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writer", ["safetensors", "torch"])
def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], writer: str
) -> None:
    """Weights are written by safetensors, then moments, twice as large, by torch: each words its error its own way."""
    whole = trainer_of(base_model, tmp_path / "whole", pairs, max_steps=3)
    whole.train()
    size = (tmp_path / "whole" / "checkpoint-1" / "model.safetensors").stat().st_size
    trainer = trainer_of(base_model, tmp_path / "full", pairs, max_steps=3)
    trainer.add_callback(LimitFiles(2, size // 2 if writer == "safetensors" else size + 4096))
    with (
        limits_restored(),
        pytest.raises(CheckpointError, match=r"the checkpoint of step 2 cannot be saved in") as error,
    ):
        trainer.train()
    assert "--resume; checkpoint-1 stands" in error.value.hint
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["checkpoint-1"]
    assert damage_of(tmp_path / "full" / "checkpoint-1") is None
    resumed = trainer_of(base_model, tmp_path / "full", pairs, max_steps=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "full" / "checkpoint-1"))
    require_same(learned(resumed), learned(whole))


def test_which_exceptions_are_the_disk_s() -> None:
    assert is_of_the_disk(OSError(28, "No space left on device"))
    assert is_of_the_disk(Exception("No space left on device (os error 28)"))
    assert not is_of_the_disk(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_the_best_checkpoint_is_named_where_it_lies_and_stays(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    trainer = trainer_of(
        base_model,
        tmp_path,
        pairs,
        eval_groups=pairs[20:26],
        eval_strategy="steps",
        eval_steps=1,
        save_total_limit=2,
        max_steps=5,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # it falls: the first step stays the best
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-5", "checkpoint-1"]
    state = json.loads((tmp_path / "checkpoint-5" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-1")
    assert all(damage_of(path) is None for path in checkpoints_in(tmp_path))


def run(base: Path, folder: Path, pairs: list[PromptGroup], said: list[str], *, resume: bool = False) -> None:
    options = {"per_device_train_batch_size": 4, "max_steps": 3, "save_steps": 1, "max_length": 128, "use_cpu": True}
    train_reward_model(
        model=base,
        train_groups=pairs[:16],
        output_dir=folder,
        dtype="float32",
        overrides={**options, "disable_tqdm": True, "learning_rate": 1e-3},
        resume=resume,
        report=said.append,
    )


def test_a_run_passes_over_what_is_damaged_and_refuses_to_start_silently_from_the_beginning(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    folder, said = tmp_path / "rm", list[str]()
    run(base_model, folder, pairs, said)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "training" / SAVING / "checkpoint-9").mkdir(parents=True)  # what a kill has left
    optimiser = folder / "training" / "checkpoint-3" / "optimizer.pt"
    optimiser.write_bytes(optimiser.read_bytes()[:-1])
    said.clear()
    run(base_model, folder, pairs, said, resume=True)
    assert any("warning: checkpoint-3 is damaged and is passed over: optimizer.pt has" in line for line in said)
    assert "resuming from checkpoint-2" in said
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not (folder / "training" / SAVING).exists()

    for path in checkpoints_in(folder / "training"):
        (path / "trainer_state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no checkpoint that is whole"):
        run(base_model, folder, pairs, said, resume=True)
    assert (folder / "model.safetensors").read_bytes() == weights  # the earlier result stands

    (folder / "training" / "run.json").write_text('{"base_model": ')
    with pytest.raises(CheckpointError, match=r"run\.json: not readable as JSON"):
        run(base_model, folder, pairs, said, resume=True)


def test_shards_of_other_processes_are_refused_and_whole_models_are_not(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rewardlab.training import run as module
    from rewardlab.training.checkpoints import write_manifest

    folder, said = tmp_path / "rm", list[str]()
    run(base_model, folder, pairs, said)
    checkpoint = folder / "training" / "checkpoint-3"
    write_manifest(checkpoint, SavedRun(3, 2, "ZeRO-3"))
    with pytest.raises(ConfigError, match=r"checkpoint-3 was saved by 2 processes \(ZeRO-3\), and this run has 1"):
        run(base_model, folder, pairs, said, resume=True)
    write_manifest(checkpoint, SavedRun(3, 2, "whole"))
    run(base_model, folder, pairs, said, resume=True)
    assert any("was saved by 2 processes (whole), and this run has 1: as many groups" in line for line in said)
    assert module.MANIFEST == "run.json"
