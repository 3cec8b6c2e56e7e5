"""The trainer against TRL 1.16, and its laws: accumulation is exact, evaluation is exact, collapse is told."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from rewardlab.errors import ConfigError, DataError
from rewardlab.modeling.engine import score_sequences
from rewardlab.modeling.head import Float32Head
from rewardlab.modeling.preparing import LoraOptions, prepare_for_training
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import GroupCollator
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import Pair, PromptGroup


def make_trainer(
    base: Path, folder: Path, groups: list[PromptGroup], evaluation: Any = None, **options: Any
) -> RewardTrainer:
    prepared = prepare_for_training(base, seed=0)
    defaults: dict[str, Any] = {
        "max_length": 128,
        "learning_rate": 1e-3,
        "disable_tqdm": True,
        "save_strategy": "no",
        "seed": 0,
        "use_cpu": True,
        "lr_scheduler_type": "constant",
    }
    arguments = RewardArguments(output_dir=str(folder), **{**defaults, **options})
    return RewardTrainer(prepared.model, arguments, groups, evaluation, processing_class=prepared.tokenizer)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL 1.16 uses names that transformers 5.23 has renamed
@pytest.mark.parametrize("coefficient", [0.0, 0.01])
@pytest.mark.parametrize("margins", [False, True])
def test_loss_equals_trl(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], coefficient: float, margins: bool
) -> None:
    """Same model, ids, margins and centering through TRL 1.16's own RewardTrainer.compute_loss."""
    from trl import RewardConfig
    from trl import RewardTrainer as TrlTrainer

    groups = [
        PromptGroup(g.prompt, g.completions, [Pair(margin=0.25 * i if margins else None)])
        for i, g in enumerate(pairs[:6])
    ]
    ours = make_trainer(base_model, tmp_path, groups, center_rewards_coefficient=coefficient)
    columns: dict[str, list[Any]] = {
        "chosen_ids": [list(e.sequences[0]) for e in ours.train_data.examples],
        "rejected_ids": [list(e.sequences[1]) for e in ours.train_data.examples],
    }
    if margins:
        columns["margin"] = [g.pairs[0].margin for g in groups]
    config = RewardConfig(
        output_dir=str(tmp_path / "trl"),
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        center_rewards_coefficient=coefficient or None,
        report_to="none",
        dataloader_pin_memory=False,
    )
    theirs = TrlTrainer(
        ours.model, args=config, train_dataset=Dataset.from_dict(columns), processing_class=ours.processing_class
    )
    ours.model.train()
    batch = theirs.data_collator([dict(row) for row in theirs.train_dataset])
    expected = theirs.compute_loss(ours.model, dict(batch))
    loss = ours.compute_loss(ours.model, ours.data_collator(ours.train_data.examples))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss.item() > 0.1


def gradient_of_first_step(
    base: Path, folder: Path, groups: list[PromptGroup], **options: Any
) -> dict[str, torch.Tensor]:
    """Gradient of the first optimiser step, as accumulated by the whole training loop."""
    gradients: dict[str, torch.Tensor] = {}

    class Catch(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if not gradients:
                gradients.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    trainer = make_trainer(base, folder, groups, max_grad_norm=1e9, max_steps=1, **options)
    trainer.add_callback(Catch())
    trainer.train()
    return gradients


def test_accumulation_with_uneven_micro_batches_is_exact(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """7 weighted groups in micro-batches of 3, 3, 1, one of them holding three pairs, against one batch of 7.

    A mean of means would give the last group's pair three times the weight of the others.
    """
    groups = [PromptGroup(g.prompt, g.completions, [Pair(weight=1 + i / 2)]) for i, g in enumerate(pairs[:6])]
    groups.append(PromptGroup(pairs[6].prompt, (*pairs[6].completions, "the"), [Pair(0, 1), Pair(0, 2), Pair(1, 2)]))
    one = gradient_of_first_step(base_model, tmp_path, groups, per_device_train_batch_size=7)
    many = gradient_of_first_step(
        base_model, tmp_path, groups, per_device_train_batch_size=3, gradient_accumulation_steps=3
    )
    assert one.keys() == many.keys()
    for name, gradient in one.items():
        assert torch.linalg.norm(many[name] - gradient) <= 1e-5 * torch.linalg.norm(gradient) + 1e-8, name


def test_training_learns_and_logs_trl_names(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    trainer = make_trainer(
        base_model, tmp_path, pairs[:32], pairs[32:], eval_strategy="epoch", num_train_epochs=3, logging_steps=2
    )
    before = trainer.evaluate()
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    names = {"loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens"}
    assert all(names <= entry.keys() for entry in logs)
    tokens = [entry["num_tokens"] for entry in logs]
    assert tokens == sorted(tokens)
    assert tokens[-1] == 3 * sum(sum(e.lengths) for e in trainer.train_data.examples)
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] - 0.05
    assert after["eval_accuracy"] > 0.9


def test_logged_metrics_are_over_all_pairs_since_the_last_log(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    """With learning rate 0 the model stands still, so the log must equal the metrics of all 7 pairs at once."""
    trainer = make_trainer(
        base_model, tmp_path, pairs[:7], learning_rate=0.0, per_device_train_batch_size=3, logging_steps=3
    )
    trainer.train()
    entry = next(e for e in trainer.state.log_history if "loss" in e)
    examples = trainer.train_data.examples
    scores = np.array([score_sequences(trainer.model, e.sequences) for e in examples])
    assert entry["accuracy"] == pytest.approx((scores[:, 0] > scores[:, 1]).mean())
    assert entry["margin"] == pytest.approx((scores[:, 0] - scores[:, 1]).mean(), abs=1e-5)
    assert entry["min_reward"] == pytest.approx(scores.min(), abs=1e-5)
    assert entry["max_reward"] == pytest.approx(scores.max(), abs=1e-5)
    assert entry["mean_reward"] == pytest.approx(scores.mean(), abs=1e-5)


def test_evaluation_is_exact_over_the_whole_set(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    """11 groups in batches of 4: an average of batch means would differ from the loss over all pairs."""
    held_out = [
        PromptGroup(g.prompt, g.completions, [Pair(margin=0.1 * i, weight=1.0 + i)]) for i, g in enumerate(pairs[:11])
    ]
    trainer = make_trainer(base_model, tmp_path, pairs[:4], held_out, tokens_per_batch=100)
    metrics = trainer.evaluate()
    scores = np.array([score_sequences(trainer.model, e.sequences) for e in trainer.eval_data.examples])
    chosen, rejected = scores.T
    weight = 1.0 + np.arange(11)
    losses = np.log1p(np.exp(-(chosen - rejected - 0.1 * np.arange(11)))) + 0.01 * (chosen + rejected) ** 2
    assert metrics["eval_loss"] == pytest.approx((weight * losses).sum() / weight.sum(), abs=1e-6)
    assert metrics["eval_accuracy"] == pytest.approx((chosen > rejected).mean())


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    options = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    whole = make_trainer(base_model, tmp_path / "whole", pairs[:24], **options)
    whole.train()
    resumed = make_trainer(base_model, tmp_path / "resumed", pairs[:24], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert resumed.state.num_input_tokens_seen == whole.state.num_input_tokens_seen


def test_collapse_is_told_before_training(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(base_model, tmp_path, pairs[:4], max_steps=1)
    with torch.no_grad():
        trainer.model.score.weight.zero_()
    trainer.train()
    assert "before training: the scores of 8 completions hardly differ" in caplog.text
    assert "padding id is the EOS id" in caplog.text


def test_more_than_one_epoch_is_warned_about(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(base_model, tmp_path, pairs[:4])
    assert "overfit" not in caplog.text
    make_trainer(base_model, tmp_path, pairs[:4], num_train_epochs=2)
    assert "2 epochs: reward models overfit" in caplog.text


def test_no_usable_group_is_an_error(base_model: Path, tmp_path: Path) -> None:
    groups = [PromptGroup("Hi", ["a", "word " * 200], [Pair()])]
    with pytest.raises(DataError, match="no training group is left: 0 dropped, 1 quarantined"):
        make_trainer(base_model, tmp_path, groups)


def test_a_model_that_pads_with_its_eos_is_refused(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    """As TRL would train it: the score of every sequence would be read one token before its end."""
    model = AutoModelForSequenceClassification.from_pretrained(base_model, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    arguments = RewardArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ConfigError, match="pad_token_id is 2"):
        RewardTrainer(model, arguments, pairs[:4], processing_class=tokenizer)
    model.config.pad_token_id = 0  # transformers would set it to the tokenizer's when training starts
    with pytest.raises(ConfigError, match="pad_token_id is 0 and the tokenizer's 2"):
        RewardTrainer(model, arguments, pairs[:4], processing_class=tokenizer)


def test_any_model_gets_a_float32_head_and_no_dropout(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup]
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base_model, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    tokenizer.pad_token = "<pad>"
    model.config.pad_token_id = tokenizer.pad_token_id
    arguments = RewardArguments(output_dir=str(tmp_path), use_cpu=True, max_length=64)
    trainer = RewardTrainer(model, arguments, pairs[:4], processing_class=tokenizer)
    assert isinstance(trainer.model.score, Float32Head)
    batch = trainer.data_collator(trainer.train_data.examples)
    trainer.model.train()
    assert len({trainer.compute_loss(trainer.model, batch).item() for _ in range(3)}) == 1  # attention_dropout was 0.1


def test_max_length_beyond_the_positions_is_refused(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    with pytest.raises(ConfigError, match="max_length 9999 is beyond the model's 512 positions"):
        make_trainer(base_model, tmp_path, pairs[:4], max_length=9999)


# -- the engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["tree", "packed", "padded"])
@pytest.mark.parametrize("budget", [20, 60, 4096])
def test_gradient_does_not_depend_on_engine_or_budget(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], engine: str, budget: int
) -> None:
    """Groups of 1 to 9 pairs over 2 to 9 completions; at 20 tokens most groups need several forwards, so two passes.

    The oracle is one padded forward over everything.
    """
    groups = list(pairs[:4])
    for i, k in enumerate((4, 9)):
        completions = [f"{pairs[i].completions[j % 2]} {'x ' * j}" for j in range(k)]
        groups.append(PromptGroup(f"question {i}", completions, [Pair(0, j, weight=j) for j in range(1, k)]))
    options: dict[str, Any] = {"per_device_train_batch_size": len(groups)}
    expected = gradient_of_first_step(base_model, tmp_path, groups, engine="padded", tokens_per_batch=10**6, **options)
    found = gradient_of_first_step(
        base_model, tmp_path, groups, engine=engine, tokens_per_batch=budget, max_group_size=1, **options
    )
    assert found.keys() == expected.keys()
    difference = sum(torch.sum((found[n] - g) ** 2) for n, g in expected.items()) ** 0.5
    assert difference <= 1e-5 * sum(torch.sum(g**2) for g in expected.values()) ** 0.5


def test_two_passes_drop_the_same_adapters_twice(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    """With adapter dropout, the second pass must see the scores of the first: else its gradient is of another loss."""
    prepared = prepare_for_training(base_model, seed=0, mode="lora", lora=LoraOptions(dropout=0.5))
    with torch.no_grad():
        for name, parameter in prepared.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    arguments = RewardArguments(
        output_dir=str(tmp_path), max_length=128, use_cpu=True, tokens_per_batch=12, save_strategy="no"
    )
    trainer = RewardTrainer(prepared.model, arguments, pairs[:1], processing_class=prepared.tokenizer)
    seen: list[list[float]] = []
    run = trainer._run

    def remember(model: Any, forward: Any) -> torch.Tensor:
        scores = run(model, forward)
        seen.append(scores.tolist())
        return scores

    trainer._run = remember  # type: ignore[method-assign]
    engine = trainer._engine_of_run()
    assert engine.layout == "packed"  # in a tree the completions would share the prefix's mask
    (part,) = GroupCollator(engine.planner, trainer.supervision)(trainer.train_data.examples)["parts"]
    assert len(part.forwards) == 2
    trainer.create_optimizer()
    trainer.training_step(trainer.model, {"parts": [part], "num_tokens": 1})
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL 1.16 uses names that transformers 5.23 has renamed
def test_an_epoch_ends_where_trl_ends(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    """A whole epoch of AdamW steps: the engine's weights against those of TRL 1.16 (padded, float32), step by step.

    The distance is relative to the way TRL's weights went.
    """
    from trl import RewardConfig
    from trl import RewardTrainer as TrlTrainer

    shared: dict[str, Any] = {
        "learning_rate": 1e-4,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "lr_scheduler_type": "linear",
        "seed": 3,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": False,
        "max_length": 128,
        "dataloader_pin_memory": False,
    }
    ours = make_trainer(base_model, tmp_path, pairs, center_rewards_coefficient=0.0, max_group_size=1, **shared)
    start = {n: p.detach().clone() for n, p in ours.model.named_parameters()}
    columns = {
        "chosen_ids": [list(e.sequences[0]) for e in ours.train_data.examples],
        "rejected_ids": [list(e.sequences[1]) for e in ours.train_data.examples],
    }
    theirs_model = copy.deepcopy(ours.model)
    theirs = TrlTrainer(
        theirs_model,
        args=RewardConfig(output_dir=str(tmp_path / "trl"), gradient_checkpointing=False, **shared),
        train_dataset=Dataset.from_dict(columns),
        processing_class=ours.processing_class,
    )
    theirs.train()
    ours.train()
    assert str(ours.layout).startswith("layout tree")
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (ours, theirs)]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    end = {n: p.detach() for n, p in theirs_model.named_parameters()}
    apart = sum(float(torch.sum((p.detach() - end[n]) ** 2)) for n, p in ours.model.named_parameters())
    way = sum(float(torch.sum((end[n] - start[n]) ** 2)) for n in start)
    assert (apart / way) ** 0.5 < 1e-4


def test_rows_of_one_prompt_are_one_group(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], caplog: pytest.LogCaptureFixture
) -> None:
    """Three rows of one prompt over three completions: one tree of three, and bradley_terry says what is better."""
    texts = ("a good answer", "a bad answer", "no answer")
    rows = [PromptGroup("why?", [texts[i], texts[j]], [Pair()]) for i, j in ((0, 1), (0, 2), (1, 2))]
    trainer = make_trainer(base_model, tmp_path, [*rows, *pairs[:2]])
    assert [len(e.sequences) for e in trainer.train_data.examples] == [3, 2, 2]
    with caplog.at_level("INFO"):
        trainer.train()
    assert "--objective grouped_pairs counts each prompt once" in caplog.text
    assert "tokens to compute" in caplog.text
    apart = make_trainer(base_model, tmp_path, [*rows, *pairs[:2]], max_group_size=1)
    assert [len(e.sequences) for e in apart.train_data.examples] == [2] * 5


def test_bfloat16_runs_in_the_engine(base_model: Path, tmp_path: Path, pairs: list[PromptGroup]) -> None:
    """Under autocast query and key norms give float32 beside bfloat16 values; gradients stay near float32's."""
    exact = gradient_of_first_step(base_model, tmp_path, pairs[:8])
    rounded = gradient_of_first_step(base_model, tmp_path, pairs[:8], bf16=True)
    difference = sum(torch.sum((rounded[n] - g) ** 2) for n, g in exact.items()) ** 0.5
    assert 1e-5 < difference / sum(torch.sum(g**2) for g in exact.values()) ** 0.5 < 0.05


def test_a_run_that_falls_back_says_why(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], caplog: pytest.LogCaptureFixture
) -> None:
    prepared = prepare_for_training(base_model, seed=0)
    prepared.model.config.alibi = True  # which this model would not look at
    arguments = RewardArguments(output_dir=str(tmp_path), max_length=128, use_cpu=True, save_strategy="no", max_steps=1)
    trainer = RewardTrainer(prepared.model, arguments, pairs[:8], processing_class=prepared.tokenizer)
    trainer.train()
    assert str(trainer.layout).startswith("layout padded")
    assert "not tree: its attention adds a bias by distance (ALiBi)" in caplog.text
