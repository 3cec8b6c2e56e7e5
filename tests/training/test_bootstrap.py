"""Several heads in one run: what each learns from, and that the run is a run like any other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, TrainerCallback

from rewardlab.errors import ConfigError
from rewardlab.modeling.contract import load_contract
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.ensemble_heads import Heads, head_scores, load_heads, use_heads
from rewardlab.modeling.loading import load_reward_model
from rewardlab.modeling.preparing import LoraOptions, prepare_for_training
from rewardlab.objectives.bootstrap_heads import HeadTargets
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import targets_in
from rewardlab.training.bootstrap import ResampledGroup
from rewardlab.training.run import train_reward_model
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import Pair, PromptGroup, Ranking

FAST: dict[str, Any] = {
    "max_length": 64,
    "learning_rate": 1e-3,
    "disable_tqdm": True,
    "save_strategy": "no",
    "seed": 0,
    "use_cpu": True,
    "report_to": "none",
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 4,
}


def groups_for(objective: str, count: int = 8) -> list[PromptGroup]:
    """Prompts with three completions each, and what the objective learns from."""
    groups = []
    for i in range(count):
        given: dict[str, Any] = {"pairs": [Pair(0, 1, strength=1.0, weight=1 + i / 4), Pair(1, 2, strength=2.0)]}
        if objective == "davidson":
            given["pairs"].append(Pair(0, 2, tie=True))
        if objective == "regression":
            given = {"ratings": [i, 1 - i, 0.5]}
        if objective == "plackett_luce":
            given = {"rankings": [Ranking((0, 1, 2), (0, 1, 1 + i % 2))]}
        groups.append(PromptGroup(f"question {i}", (f"good {i}", f"fair {i} " * 3, f"bad {i}"), **given))
    return groups


def trainer_for(base: Path, folder: Path, groups: list[PromptGroup], heads: int = 3, **options: Any) -> RewardTrainer:
    evaluation, mode = options.pop("evaluation", None), options.pop("mode", "full")
    arguments = RewardArguments(str(folder), ensemble_heads=heads, **{**FAST, **options})
    prepared = prepare_for_training(base, seed=0, mode=mode, lora=LoraOptions(rank=2), ensemble_heads=heads)
    return RewardTrainer(prepared.model, arguments, groups, evaluation, processing_class=prepared.tokenizer)


def counts_of(trainer: RewardTrainer) -> torch.Tensor:
    examples = [example for example in trainer.train_data.examples if isinstance(example, ResampledGroup)]
    return torch.cat([example.counts for example in examples])


def all_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rewardlab.training.bootstrap.poisson_counts",
        lambda keys, heads, seed: torch.ones(len(keys), heads, dtype=torch.long),
    )


@pytest.mark.parametrize(
    "objective", ["bradley_terry", "grouped_pairs", "davidson", "scaled_bradley_terry", "plackett_luce", "regression"]
)
def test_equal_heads_that_take_each_unit_once_are_ordinary_training(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    """The step's loss is the mean over the two heads: the loss is that of one, half of its head's gradient each."""
    all_ones(monkeypatch)
    groups = groups_for(objective)
    options = {"objective": objective, "max_steps": 1, "per_device_train_batch_size": 8}
    plain = trainer_for(base_model, tmp_path / "1", groups, heads=1, **options)
    several = trainer_for(base_model, tmp_path / "2", groups, heads=2, **options)
    one = Heads.of(plain.model)
    use_heads(several.model, Heads(one.weight.repeat(2, 1)))
    losses = []
    for trainer in (plain, several):
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
        batch = next(iter(trainer.get_train_dataloader()))
        losses.append(trainer.training_step(trainer.model, batch, trainer._get_num_items_in_batch([batch], "cpu")))
    torch.testing.assert_close(losses[1], losses[0])
    theirs = dict(plain.model.named_parameters())
    for name, parameter in several.model.named_parameters():
        if name.startswith("score"):
            expected = theirs[name].grad.repeat(2, 1) / 2
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)
        elif theirs[name].grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"tokens_per_batch": 40}, {"per_device_train_batch_size": 2}])
def test_loss_and_gradient_do_not_depend_on_how_a_step_is_divided(
    base_model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Forwards over the token budget in two passes, and micro-batches, against one batch."""
    found = []
    for name, given in (("whole", {}), ("divided", options)):
        sizes = {"per_device_train_batch_size": 8, **given}
        trainer = trainer_for(base_model, tmp_path / name, groups_for("davidson"), objective="davidson", **sizes)
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
        trainer.data_collator.planner = trainer._engine_of_run().planner
        batches = list(trainer.get_train_dataloader())
        units = trainer._get_num_items_in_batch(batches, torch.device("cpu"))
        in_two_passes = any(len(part.forwards) > 1 for batch in batches for part in batch["parts"])
        assert in_two_passes == ("tokens_per_batch" in given)
        loss = sum(trainer.training_step(trainer.model, batch, units) for batch in batches)
        gradients = [p.grad for p in (*trainer.model.parameters(), trainer.objective.log_nu) if p.grad is not None]
        found.append((loss, torch.cat([gradient.flatten() for gradient in gradients])))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)


def test_counts_are_of_the_pair_not_of_its_surroundings(base_model: Path, tmp_path: Path) -> None:
    """Other orders, other merging and more heads leave a pair its counts; another seed and a second copy do not."""
    groups = [PromptGroup(f"question {i // 2}", (f"good {i}", f"bad {i}"), [Pair()]) for i in range(40)]

    def counts(groups: list[PromptGroup], heads: int = 3, **options: Any) -> dict[Any, list[int]]:
        trainer = trainer_for(base_model, tmp_path / "run", groups, heads, **options)
        keys = [
            (example.sequences[pair.chosen], example.sequences[pair.rejected])
            for example in trainer.train_data.examples
            for pair in example.group.pairs
        ]
        return dict(zip(keys, counts_of(trainer).tolist(), strict=True))

    found = counts(groups)
    assert counts(groups[::-1]) == found
    assert counts(groups, max_group_size=1) == found
    assert {key: row[:3] for key, row in counts(groups, heads=5).items()} == found
    assert counts(groups, seed=1) != found
    twice = trainer_for(base_model, tmp_path / "run", [g for g in groups for _ in range(2)], max_group_size=1)
    first, second = counts_of(twice)[::2], counts_of(twice)[1::2]
    assert first.tolist() == list(found.values())
    assert not torch.equal(first, second)


def test_under_grouped_pairs_a_prompt_s_pairs_come_and_go_together(base_model: Path, tmp_path: Path) -> None:
    trainer = trainer_for(base_model, tmp_path, groups_for("grouped_pairs", 30), objective="grouped_pairs")
    rows = [example.counts for example in trainer.train_data.examples if isinstance(example, ResampledGroup)]
    assert all(len(counts) == 2 and torch.equal(counts[0], counts[1]) for counts in rows)
    assert len({tuple(counts[0].tolist()) for counts in rows}) > 5
    batch = next(iter(trainer.get_train_dataloader()))
    total = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    drawn = [targets for targets in targets_in(batch) if isinstance(targets, HeadTargets)]
    expected = sum(len(torch.unique(of_head.group)) for targets in drawn for of_head in targets.of_heads)
    assert float(total) == expected > 0


@pytest.mark.parametrize("objective", ["outcome", "process"])
def test_what_has_no_score_of_a_whole_answer_has_no_heads(tmp_path: Path, objective: str) -> None:
    with pytest.raises(ConfigError, match="has no heads that score a whole answer"):
        RewardArguments(str(tmp_path), objective=objective, ensemble_heads=3)


@pytest.mark.parametrize("heads", [0, -1, 2.5, True])
def test_a_number_of_heads_that_is_none(tmp_path: Path, heads: Any) -> None:
    with pytest.raises(ConfigError, match="ensemble_heads is"):
        RewardArguments(str(tmp_path), ensemble_heads=heads)


def train(base: Path, folder: Path, **options: Any) -> Any:
    groups = groups_for("bradley_terry", 14)
    mode = options.pop("mode", "full")
    overrides = {**FAST, "ensemble_heads": 3, "max_steps": 3, "eval_steps": 2, **options}
    return train_reward_model(
        model=base,
        train_groups=groups[:8],
        eval_groups=groups[8:],
        output_dir=folder,
        mode=mode,
        lora=LoraOptions(rank=2),
        dtype="float32",
        overrides=overrides,
    )


def tiny_encoder(tokenizer_of: Path, folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("base", "mode"), [("decoder", "full"), ("decoder", "lora"), ("encoder", "head_only")])
def test_a_run_is_saved_loaded_again_and_verified(base_model: Path, tmp_path: Path, base: str, mode: str) -> None:
    if base == "encoder":  # its head has a bias
        base_model = tiny_encoder(base_model, tmp_path / "base")
    result = train(base_model, tmp_path / "rm", mode=mode)
    checks = {check.name: check for check in result.saved.verification.checks}
    assert checks["ensemble heads"].ok
    assert checks["through plain transformers"].ok
    assert any("eval_loss" in entry and math.isfinite(entry["eval_accuracy"]) for entry in result.log_history)
    contract = load_contract(tmp_path / "rm")
    assert contract is not None
    assert contract.objective["name"] == "bradley_terry"
    assert contract.training["ensemble_heads"] == 3

    loaded = load_reward_model(tmp_path / "rm")
    heads = load_heads(tmp_path / "rm")
    assert heads is not None
    assert (len(heads), loaded.model.config.num_labels) == (3, 1)
    assert (heads.bias is not None) == (base == "encoder")
    sequences = [list(probe.input_ids) for probe in contract.probes]
    plain = head_scores(Engine(loaded.model), sequences)
    use_heads(loaded.model, heads)
    each = head_scores(Engine(loaded.model), sequences)
    torch.testing.assert_close(each.mean(dim=1, keepdim=True), plain, rtol=0, atol=1e-5)
    stored = torch.tensor([record.probe_scores for record in contract.heads]).T
    torch.testing.assert_close(each, stored, rtol=0, atol=1e-5)
    assert float(each.std(dim=1).min()) > 1e-3, "the heads are not alike"
    means = [record.reference.mean for record in contract.heads if record.reference]
    assert contract.reference is not None
    assert sum(means) / 3 == pytest.approx(contract.reference.mean, abs=1e-6)
    for record in contract.heads:
        assert record.temperature is None or record.calibration["num_pairs"] == 12
        assert record.held_out_metrics.keys() == contract.held_out_metrics.keys()
    losses = [record.held_out_metrics["log_loss"]["value"] for record in contract.heads]
    assert sum(losses) / 3 > contract.held_out_metrics["log_loss"]["value"], "the loss is convex: the mean's is less"


def test_a_killed_run_goes_on_to_the_same_heads(base_model: Path, tmp_path: Path) -> None:
    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    whole = trainer_for(base_model, tmp_path / "whole", groups_for("davidson"), objective="davidson", **options)
    whole.train()
    killed = trainer_for(base_model, tmp_path / "killed", groups_for("davidson"), objective="davidson", **options)
    killed.add_callback(Kill())
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = trainer_for(base_model, tmp_path / "killed", groups_for("davidson"), objective="davidson", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / "checkpoint-2"))
    assert torch.equal(Heads.of(resumed.model).weight, Heads.of(whole.model).weight)
    assert torch.equal(resumed.objective.log_nu, whole.objective.log_nu)
    assert float(whole.objective.log_nu.detach()) != 0


def test_heads_can_be_trained_further(base_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From as many heads they go on; from a plain model, or another number, they start anew; one head is the mean."""
    train(base_model, tmp_path / "rm")
    before = load_heads(tmp_path / "rm")
    assert before is not None

    def start(heads: int) -> Heads:
        return Heads.of(prepare_for_training(tmp_path / "rm", seed=5, ensemble_heads=heads).model)

    assert torch.equal(start(3).weight, before.weight)
    assert torch.equal(start(1).weight, before.mean.weight)
    fresh = Heads.of(prepare_for_training(base_model, seed=5, ensemble_heads=2).model)
    caplog.clear()
    assert torch.equal(start(2).weight, fresh.weight)
    assert "sequence with 3 outputs, which does not fit: it starts anew" in caplog.text
